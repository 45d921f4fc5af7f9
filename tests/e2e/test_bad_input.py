"""Bad input: the documented status and line, nothing left, nothing hung."""

import os
import re
import shutil
import subprocess
import time

from harness import LONGLIVED, NANO, Pipeline, Serve, check, check_result, leftovers, run


def write(tmp, name, data):
    path = os.path.join(tmp, name)
    with open(path, "wb") as f:
        f.write(data if isinstance(data, bytes) else data.encode())
    return path


def expect(args, status, pattern):
    """Within seconds, one clear line, no trace."""
    began = time.monotonic()
    r = run(args, timeout=30)
    check_result(r, status, pattern)
    check(time.monotonic() - began < 10, "took %.1f s" % (time.monotonic() - began))
    procs, dirs = leftovers()
    check(not procs and not dirs, "left:", procs, dirs, "by", args)


def with_ini(tmp, text):
    return ["generate", "-c", write(tmp, "bad.ini", text), "--prompt", "x", "-o",
            os.path.join(tmp, "v.y4m")]


def test_command_line(tmp):
    r = run([])
    check_result(r, 2, "usage")
    expect(["fly"], 2, "fly")
    expect(["trace", "-o", "-"], 2, "OUT.json")
    for command in (["help", "config"], ["inspect", "configs/demo/vae.safetensors"],
                    ["inspect", "--json", "configs/demo/vae.safetensors"]):
        with open("/dev/full", "w") as full:
            r = subprocess.run([LONGLIVED] + command, stdout=full, stderr=subprocess.PIPE,
                               text=True, timeout=30)
        check(r.returncode == 73 and r.stderr == "longlived: cannot write standard output: "
              "No space left on device\n", command, r.returncode, r.stderr)
    expect(["up", "--fast"], 2, "--fast")
    expect(["generate", "-c", NANO, "-o", os.path.join(tmp, "v.y4m")], 2, "--prompt|--script")
    expect(["generate", "-c", NANO, "--prompt", "x", "-o", os.path.join(tmp, "v.avi")], 2, "avi")
    expect(["generate", "-c", NANO, "--prompt", "x", "--blocks", "0", "-o",
            os.path.join(tmp, "v.y4m")], 2, "blocks")
    for command in ("up", "down", "status", "restart", "generate", "serve", "prompt", "doctor"):
        r = run([command, "--help"])
        check(r.returncode == 0 and command in r.stdout and not r.stderr, command, "--help")
    check(run(["help", "config"]).returncode == 0, "help config")


def test_config(tmp):
    expect(with_ini(tmp, "[dit]\nwindw = 12\n"), 78, r"bad\.ini:2: .*dit\.windw.*dit\.window")
    expect(with_ini(tmp, "[dit]\nwindow = many\n"), 78, r"bad\.ini:2: .*dit\.window")
    expect(with_ini(tmp, "[dit]\nwindow = 9999\n"), 78, r"dit\.window = 9999.*from \d+ to \d+")
    expect(["generate", "-c", NANO, "--prompt", "x", "--seconds", "1", "-o",
            os.path.join(tmp, "v.y4m"), "--set", "run.preset=ultra"], 78,
           "model.precision = fp8: not built, only auto and fp32 are")
    expect(with_ini(tmp, "[ditt]\nwindow = 12\n"), 78, "ditt")
    expect(with_ini(tmp, "[run]\nahead_ms = 60000\n"), 78, "ahead_ms")
    expect(["generate", "-c", os.path.join(tmp, "none.ini"), "--prompt", "x", "-o",
            os.path.join(tmp, "v.y4m")], 66, "none.ini")
    expect(["generate", "-c", NANO, "--set", "dit.sinks=3", "--prompt", "x", "-o",
            os.path.join(tmp, "v.y4m")], 78, r"--set.*dit\.sinks.*dit\.sink")
    expect(["generate", "-c", NANO, "--set", "run.switch_frame_indices=9,x", "--prompt", "x", "-o",
            os.path.join(tmp, "v.y4m")], 78, "run.switch_frame_indices = 9,x.*integers")
    expect(["generate", "-c", NANO, "--set", "place.dit=cuda:0", "--prompt", "x", "-o",
            os.path.join(tmp, "v.y4m")], 69, "cuda:0")


def test_prompts(tmp):
    out = ["-o", os.path.join(tmp, "v.y4m")]
    expect(["generate", "-c", NANO, "--prompt", ""] + out, 65, "empty")
    expect(["generate", "-c", NANO, "--prompt", " \t "] + out, 65, "empty")
    expect(["generate", "-c", NANO, "--prompt", "x" * 16385] + out, 65, "16384|16 KiB")
    bad = write(tmp, "bad.txt", b"fine\n\xff\xfe\n")
    expect(["generate", "-c", NANO, "--script", bad] + out, 65, r"bad\.txt:2: .*UTF-8")
    r = run(["generate", "-c", NANO, "--prompt", "w" * 300, "--blocks", "1"] + out)
    check_result(r, 0)
    cut = "longlived: a prompt has 301 tokens, 16 are used"
    check(r.stderr.splitlines().count(cut) == 1, "one warning for a cut prompt:", r.stderr)
    check("tokens" not in r.stderr.replace(cut, ""), r.stderr)


def test_cut_prompt_is_told_to_the_asker(tmp):
    """By a job given to a running pipeline, by a client's prompt; known or not; not if it fits."""
    said = "longlived: %s prompt has 301 tokens, 16 are used\n"
    with Pipeline(tmp) as p:
        for i in range(2):
            r = run(["generate", "--run", p.run_dir, "--blocks", "1", "--prompt", "w" * 300, "-o",
                     os.path.join(tmp, "v.y4m")], timeout=60)
            check_result(r, 0)
            check(r.stderr.count(said % "a") == 1, "run", i, ":", r.stderr)
    with Serve(tmp, "--prompt", "a") as s:
        for i in range(2):
            r = run(["prompt", "--run", s.run_dir, "w" * 300], timeout=60)
            check_result(r, 0)
            check(r.stderr == said % "the", "prompt", i, ":", r.stderr)
        check(run(["prompt", "--run", s.run_dir, "w" * 15], timeout=60).stderr == "", "it fits")
        check(s.finish() == 0, s.err())
        check("tokens" not in s.err(), "told to the asker, not here:", s.err())


def test_scripts(tmp):
    def case(text, pattern, status=65):
        path = write(tmp, "s.jsonl", text)
        expect(["generate", "-c", NANO, "--script", path, "--blocks", "5", "-o",
                os.path.join(tmp, "v.y4m")], status, pattern)

    case('{"prompts": ["a"]}\n{"prompts": [}\n', r"s\.jsonl:2: ")
    case('{"prompts": ["a", "b"], "switch": [3, 6]}\n', r"s\.jsonl:1: ")
    case('{"prompts": ["a", "b", "c"], "switch": [6, 3]}\n', r"s\.jsonl:1: ")
    case('{"prompts": []}\n', r"s\.jsonl:1: ")
    case('{"prompts": ["a", ""], "switch": [3]}\n', r"s\.jsonl:1: ")
    case('{"prompt": ["a"]}\n', r"s\.jsonl:1: .*prompts")
    case('{"prompts": ["a", "b"], "switch": [999]}\n', r"999")
    case("", "s.jsonl")
    expect(["generate", "-c", NANO, "--script", os.path.join(tmp, "none.jsonl"), "-o",
            os.path.join(tmp, "v.y4m")], 66, "none.jsonl")


def test_outputs(tmp):
    for out in ("/proc/v.y4m", os.path.join(tmp, "no", "v.y4m"), "/proc/v.mp4"):
        expect(["generate", "-c", NANO, "--prompt", "x", "-o", out], 73, os.path.basename(out))
    expect(["generate", "-c", NANO, "--prompt", "x", "--hashes", "/proc/h", "-o",
            os.path.join(tmp, "v.y4m")], 73, "/proc/h")
    same = os.path.join(tmp, "v.y4m")
    for names, why in ((["--hashes", same, "-o", same], "both video and hashes"),
                       (["--latents", same, "-o", same], "both video and latents"),
                       (["--latents", same, "--hashes", same], "both hashes and latents"),
                       (["--noise", same, "--latents", same], "both latents and noise"),
                       (["--embeds", same, "--hashes", same], "both hashes and embeddings")):
        more = [] if "-o" in names else ["-o", os.path.join(tmp, "w.y4m")]
        expect(["generate", "-c", NANO, "--prompt", "x"] + names + more, 2, why)
    check(os.listdir(tmp) == [], "a refused command leaves", os.listdir(tmp))
    # Writable when asked, full when used: the job fails in words, what is there plays.
    os.symlink("/dev/full", os.path.join(tmp, "full.y4m"))
    expect(["generate", "-c", NANO, "--prompt", "x", "--blocks", "3", "--quiet", "-o",
            os.path.join(tmp, "full.y4m")], 73, "full.y4m")


def test_mp4_without_its_plugin(tmp):
    """A machine without libav: MP4 is refused in one line naming the packages; the rest works."""
    programs = os.path.join(tmp, "bin")
    shutil.copytree(os.path.dirname(LONGLIVED), programs)

    def there(*args):
        return subprocess.run([os.path.join(programs, "longlived")] + list(args), timeout=60,
                              capture_output=True, text=True, stdin=subprocess.DEVNULL)

    for command in ("generate", "serve"):
        r = there(command, "-c", NANO, "--prompt", "x", "-o", os.path.join(tmp, "v.mp4"))
        check_result(r, 69, "libavcodec-dev libavformat-dev libavutil-dev")
        check(len(r.stderr.splitlines()) == 1, r.stderr)
    r = there("generate", "-c", NANO, "--prompt", "x", "--blocks", "1", "-o",
              os.path.join(tmp, "v.y4m"))
    check_result(r, 0)
    check(not os.path.exists(os.path.join(tmp, "v.mp4")), "a file was made")
    r = there("doctor", "-c", NANO)
    check(r.returncode == 0 and "note mp4" in r.stdout and "libavcodec-dev" in r.stdout, r.stdout)


def test_doctor(tmp):
    r = run(["doctor", "-c", NANO, "--run", os.path.join(tmp, "run")])
    check_result(r, 0)
    for what in ("programs", "/dev/shm", "run directory", "cpu", "device", "mp4", "ffmpeg"):
        check(re.search("^(ok|note) +" + what, r.stdout, re.M), what, "in", r.stdout)
    check(os.listdir(tmp) == [], "doctor leaves", os.listdir(tmp))
    r = run(["doctor", "-c", NANO, "--set", "place.dit=cuda:7", "--run", os.path.join(tmp, "run")])
    check_result(r, 69, "doctor")
    check(re.search("^BAD +device +.*cuda:7", r.stdout, re.M), r.stdout)
    # Regions that nothing here has room for, in a place that is there, and in one that is not yet.
    large = [w for key in ("text.dim=16384", "text.ffn_dim=65536", "text.layers=128")
             for w in ("--set", key)]
    for run_dir, place in ((["--run", os.path.join(tmp, "run")], tmp), ([], "/dev/shm[^ :]*")):
        r = run(["doctor", "-c", NANO] + run_dir)
        check(re.search(r"^ok +memory +cpu: .* are free in %s$" % place, r.stdout, re.M), r.stdout)
        r = run(["doctor", "-c", NANO] + run_dir + large)
        check_result(r, 69, "doctor")
        check(re.search(r"^BAD +memory +cpu: regions need \d{4}\.\d\d GiB .* are free in %s: " % place,
                        r.stdout, re.M), r.stdout)


def test_nobody_there(tmp):
    run_dir = os.path.join(tmp, "none")
    for command in (["down"], ["status"], ["prompt", "x"], ["restart", "dit"]):
        expect(command + ["--run", run_dir], 69, ".")
    expect(["prompt", "", "--run", run_dir], 65, "empty")


def test_tokenizer(tmp):
    golden = os.path.join(os.path.dirname(__file__), "..", "golden", "tokenizer", "plain")
    args = ["generate", "-c", NANO, "--prompt", "x", "-o", os.path.join(tmp, "v.y4m"), "--set"]
    with open(os.path.join(golden, "spiece.model"), "rb") as f:
        model = f.read()
    for name, data in (("empty", b""), ("junk", b"\xff" * 3000), ("torn", model[:-1000])):
        expect(args + ["text.tokenizer=" + write(tmp, name, data)], 65, name)
    expect(args + ["text.tokenizer=" + os.path.join(tmp, "none")], 66, "none")
    expect(args + ["text.tokenizer=" + tmp], 66, "spiece.model")
    expect(args + ["text.tokenizer=" + golden], 78, r"text\.vocab = 128")
    os.mkdir(os.path.join(tmp, "t"))
    write(tmp, "t/spiece.model", model)
    write(tmp, "t/tokenizer.json", "{")
    expect(args + ["text.tokenizer=" + os.path.join(tmp, "t")], 65, r"tokenizer\.json:1")


def test_run_directory(tmp):
    """A directory that is not ours is not touched."""
    other = os.path.join(tmp, "precious")
    os.mkdir(other)
    write(tmp, "precious/file", "keep me")
    expect(["generate", "-c", NANO, "--run", other, "--prompt", "x", "-o",
            os.path.join(tmp, "v.y4m")], 78, "precious")
    check(os.listdir(other) == ["file"], "a foreign directory was changed")


def test_programs_alone(tmp):
    """A stage run by hand says what it misses."""
    for stage in ("keeper", "text", "dit", "vae", "gateway", "ctl"):
        r = subprocess.run([LONGLIVED + "-" + stage], capture_output=True, text=True, timeout=20)
        check(r.returncode == 2 and r.stderr.strip(), stage, r.returncode, r.stderr)


TESTS = [test_command_line, test_config, test_prompts,
         test_cut_prompt_is_told_to_the_asker, test_scripts, test_outputs, test_mp4_without_its_plugin, test_doctor,
         test_nobody_there, test_tokenizer, test_run_directory, test_programs_alone]
