"""LongLive's own numbers through processes and files: noise and embeddings in, latents out."""

import array
import hashlib
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
CONFIGS = {"nano": NANO, "tiny": TINY}
WHOLE = os.path.join(GOLDEN, "whole")
WHOLE_SIZES = ("text.vocab=568", "text.text_len=24", "vae.base_dim=4")


def header(path):
    with open(path, "rb") as f:
        n = struct.unpack("<Q", f.read(8))[0]
        return json.loads(f.read(n)), 8 + n


def tensor(path, name, dtype="F32"):
    """Shape and values of a tensor of F32 or U8."""
    head, at = header(path)
    first, end = head[name]["data_offsets"]
    check(head[name]["dtype"] == dtype, name, head[name]["dtype"])
    values = array.array({"F32": "f", "U8": "B"}[dtype])
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


def roll(tmp, name, switches, *more, config="nano"):
    """A video from the golden noise and embeddings: hashes, and the path of its latents."""
    out = os.path.join(tmp, name + ".safetensors")
    args = ["--script", script(tmp, name, switches), "--noise", golden(config), "--embeds",
            golden(config), "--latents", out]
    return generate(tmp, name, *CLEAN, *more, *args, conf=CONFIGS[config]), out


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


def test_exact_tiny(tmp):
    _, latents = roll(tmp, "tiny", [], config="tiny")
    check_latents(latents, "tiny", "absolute")


def test_exact_tiny_switches(tmp):
    for keep, word in (("true", "keep"), ("false", "move")):
        _, latents = roll(tmp, word, [12, 15], "--set", "dit.global_sink=" + keep, config="tiny")
        check_latents(latents, "tiny", "absolute.12-15." + word)


def downloads(tmp):
    """The two folders as they are downloaded, at nano's sizes: their settings."""
    files = {"Wan2.1-T2V-1.3B/models_t5_umt5-xxl-enc-bf16.pth": "text.pth",
             "Wan2.1-T2V-1.3B/Wan2.1_VAE.pth": "vae.pth",
             "Wan2.1-T2V-1.3B/google/umt5-xxl": "../tokenizer/bytes",
             "LongLive-1.3B/models/longlive_base.pt": "base.pt",
             "LongLive-1.3B/models/lora.pt": "lora.pt"}
    for name, source in files.items():
        path = os.path.join(tmp, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        os.symlink(os.path.join(WHOLE, source), path)
    sets = ["model.parity=clean", "model.wan=" + os.path.join(tmp, "Wan2.1-T2V-1.3B"),
            "model.longlive=" + os.path.join(tmp, "LongLive-1.3B"), *WHOLE_SIZES]
    return [word for s in sets for word in ("--set", s)]


def yuv_planes(rgb, width, height):
    """What 8-bit BT.601 of studio range would be, not rounded: Y, then U and V of 2 x 2 pixels."""
    red, green, blue = rgb[0::3], rgb[1::3], rgb[2::3]
    luma = [16 + 219 / 255 * (0.299 * r + 0.587 * g + 0.114 * b)
            for r, g, b in zip(red, green, blue)]
    planes = [luma, [], []]
    for y in range(0, height, 2):
        for x in range(0, width, 2):
            at = [y * width + x, y * width + x + 1, (y + 1) * width + x, (y + 1) * width + x + 1]
            r, g, b = (sum(c[i] for i in at) / 4 for c in (red, green, blue))
            gray = 0.299 * r + 0.587 * g + 0.114 * b
            planes[1].append(128 + 224 / 255 * (b - gray) / 1.772)
            planes[2].append(128 + 224 / 255 * (r - gray) / 1.402)
    return planes[0] + planes[1] + planes[2]


def check_frames(path, sums, width, height):
    """The file's frames are those of golden RGB that is at most a unit away in 1 % of its values."""
    shape, rgb = tensor(os.path.join(WHOLE, "video.safetensors"), "rgb", "U8")
    n, size = 3 * width * height, 6 + width * height * 3 // 2
    check(shape == [len(sums), height, width, 3], shape, len(sums))
    with open(path, "rb") as f:
        data = f.read().split(b"\n", 1)[1]
    check(len(data) == size * shape[0], "bytes of y4m:", len(data))
    n_other, worst = 0, 0.0
    for i in range(shape[0]):
        want = rgb[i * n:(i + 1) * n]
        if hashlib.sha256(want.tobytes()).hexdigest() == sums[i]:
            continue
        for a, b in zip(data[i * size + 6:(i + 1) * size], yuv_planes(want, width, height)):
            worst = max(worst, abs(a - b))
            n_other += abs(a - b) > 0.501
    check(worst <= 1.5, "a value is", worst, "away")
    check(n_other <= 0.01 * size * shape[0], n_other, "values differ")


def test_exact_from_downloads(tmp):
    """Words, two downloaded folders and a LoRA of alpha / rank = 1.5: LongLive's latents, frames."""
    out, sets = os.path.join(tmp, "whole.safetensors"), downloads(tmp)
    args = ["--script", os.path.join(WHOLE, "script.jsonl"), "--noise", golden("nano"),
            "--latents", out]
    sums = generate(tmp, "whole", *sets, "--set", "model.lora_alpha=6", *args)
    want = tensor(os.path.join(WHOLE, "video.safetensors"), "latents")
    got = tensor(out, "out")
    far = distance(got[1], want[1])
    check(got[0] == want[0] and far <= 1e-4, "latents are", far, "away")
    check_frames(os.path.join(tmp, "whole.y4m"), sums, 48, 32)
    # The scale matters: without alpha it is 1.
    generate(tmp, "plain", *sets, *args)
    far = distance(tensor(out, "out")[1], want[1])
    check(far > 1e-3, "another scale is only", far, "away")


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
         test_exact_tiny, test_exact_from_downloads, test_exact_refusals]
FULL = [test_exact_relative, test_exact_tiny_switches, test_exact_every_roll]
