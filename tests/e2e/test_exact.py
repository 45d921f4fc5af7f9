"""LongLive's own numbers through processes and files: noise and embeddings in, latents out."""

import array
import json
import math
import os
import random
import signal
import struct
import time

from harness import (NANO, ROOT, TINY, Pipeline, check, check_result, generate, run, send_signal,
                     start, status)

GOLDEN = os.path.join(ROOT, "tests", "golden")
STAGES = ("text", "dit", "vae", "gateway")
CLEAN = ("--set", "model.weights=random:5", "--set", "model.parity=clean")


def header(path):
    with open(path, "rb") as f:
        n = struct.unpack("<Q", f.read(8))[0]
        return json.loads(f.read(n)), 8 + n


def tensor(path, name):
    """Shape and values of an F32 tensor."""
    head, at = header(path)
    first, end = head[name]["data_offsets"]
    check(head[name]["dtype"] == "F32", name, head[name]["dtype"])
    values = array.array("f")
    with open(path, "rb") as f:
        f.seek(at + first)
        values.frombytes(f.read(end - first))
    return head[name]["shape"], values


def distance(got, want):
    return math.sqrt(sum((a - b) ** 2 for a, b in zip(got, want)) / sum(b * b for b in want))


def golden(config):
    return os.path.join(GOLDEN, "roll-%s.safetensors" % config)


def script(tmp, name, switches):
    path = os.path.join(tmp, name + ".jsonl")
    with open(path, "w") as f:
        f.write(json.dumps({"prompts": ["a", "b", "c"][:len(switches) + 1],
                            "switch": switches}) + "\n")
    return path


def roll(tmp, name, switches, *more):
    """A video of nano from the golden noise and embeddings: hashes, and the path of its latents."""
    out = os.path.join(tmp, name + ".safetensors")
    args = ["--script", script(tmp, name, switches), "--noise", golden("nano"), "--embeds",
            golden("nano"), "--latents", out]
    return generate(tmp, name, *CLEAN, *more, *args), out


def check_latents(path, config, name, bound=1e-4):
    shape, got = tensor(path, "out")
    want_shape, want = tensor(golden(config), name)
    check(shape == want_shape, shape, want_shape)
    far = distance(got, want)
    check(far <= bound, name, "is", far, "away")


def test_exact_video(tmp):
    _, latents = roll(tmp, "plain", [])
    check_latents(latents, "nano", "absolute")


def test_exact_switches(tmp):
    for keep, word in (("true", "keep"), ("false", "move")):
        _, latents = roll(tmp, word, [12, 15], "--set", "dit.global_sink=" + keep)
        check_latents(latents, "nano", "absolute.12-15." + word)


def test_exact_relative(tmp):
    _, latents = roll(tmp, "relative", [15, 21], "--set", "dit.rope=relative")
    check_latents(latents, "nano", "relative.15-21.keep")


def test_exact_every_roll(tmp):
    head, _ = header(golden("nano"))
    for name in [n for n in head if n.count(".") == 2]:
        mode, switches, word = name.split(".")
        _, latents = roll(tmp, name, [int(s) for s in switches.split("-")], "--set",
                          "dit.rope=" + mode, "--set",
                          "dit.global_sink=" + ("true" if word == "keep" else "false"))
        check_latents(latents, "nano", name)


def test_exact_own_noise(tmp):
    """In reference parity a session of the same seed draws the golden noise itself."""
    out = os.path.join(tmp, "own.safetensors")
    sets = ["--set", "model.weights=random:5"]
    words = ["--prompt", "a", "--embeds", golden("nano"), "--latents", out]
    own = generate(tmp, "own", *sets, *words, "--seed", "5", "--blocks", "9")
    given = generate(tmp, "given", *sets, *words, "--seed", "6", "--noise", golden("nano"))
    check(own == given, "another video from the same noise")
    check(len(own) == 105, len(own), "frames from nine blocks of noise")


def test_exact_after_kills(tmp):
    """Nothing of the files is lost with a process."""
    want, calm = roll(tmp, "calm", [12, 15])
    rng = random.Random(3)
    out = os.path.join(tmp, "killed.safetensors")
    with Pipeline(tmp, *CLEAN) as p:
        job = start(["generate", "--run", p.run_dir, "--quiet", "--hashes",
                     os.path.join(tmp, "killed.sha256"), "-o", os.path.join(tmp, "killed.y4m"),
                     "--script", script(tmp, "killed", [12, 15]), "--noise", golden("nano"),
                     "--embeds", golden("nano"), "--latents", out])
        landed = 0
        while job.poll() is None:
            rows = [q for q in status(p.run_dir)["processes"] if q["name"] in STAGES]
            row = rng.choice(rows)
            if row["pid"] > 0 and landed < 8:
                send_signal(row["pid"], signal.SIGKILL)
                landed += 1
            time.sleep(rng.uniform(0.01, 0.1))
        check(job.returncode == 0, "the job ended with", job.returncode, job.stderr.read())
    check(landed >= 3, "only", landed, "kills landed")
    with open(os.path.join(tmp, "killed.sha256")) as f:
        check([line.split()[1] for line in f] == want, "another video")
    with open(calm, "rb") as a, open(out, "rb") as b:
        check(a.read() == b.read(), "other latents")


def test_exact_refusals(tmp):
    def refused(status_, pattern, *args, conf=NANO):
        r = run(["generate", "-c", conf, "-o", os.path.join(tmp, "no.y4m"), *args], timeout=30)
        check_result(r, status_, pattern)
        check(not os.path.exists(os.path.join(tmp, "no.y4m")), "a file was made")

    noise = ["--prompt", "a", "--noise", golden("nano")]
    refused(66, "missing.safetensors: No such file", "--prompt", "a", "--noise",
            os.path.join(tmp, "missing.safetensors"))
    refused(65, r"noise of 9 blocks, not 10", *noise, "--blocks", "10")
    refused(65, r"noise is BF16 \[27, 4, 4, 6\], not floats \[", *noise, conf=TINY)
    refused(65, r"eps is BF16 \[9, 3, 3, 4, 4, 6\]", *noise, "--set", "dit.steps=1000,500")
    refused(65, "no tensor prompt_embeds", "--prompt", "a", "--embeds",
            os.path.join(GOLDEN, "dit-nano.safetensors"))
    refused(65, "3 embeddings, not 4", "--embeds", golden("nano"), "--script", script4(tmp))
    refused(73, "cannot write", "--prompt", "a", "--latents", "/nowhere/l.safetensors")
    two = os.path.join(tmp, "two.txt")
    with open(two, "w") as f:
        f.write("a\nb\n")
    refused(2, "for one video", "--script", two, "--noise", golden("nano"))


def script4(tmp):
    path = os.path.join(tmp, "four.jsonl")
    with open(path, "w") as f:
        f.write(json.dumps({"prompts": ["a", "b", "c", "d"], "switch": [3, 6, 9]}) + "\n")
    return path


TESTS = [test_exact_video, test_exact_switches, test_exact_own_noise, test_exact_after_kills,
         test_exact_refusals]
FULL = [test_exact_relative, test_exact_every_roll]
