"""Presets in mid-stream: steps and window change at a block, with a receipt; killed anywhere, the
frames are those of the decision log."""

import contextlib
import json
import os
import re

from faults import Faults
from harness import (NANO, Pipeline, Serve, check, check_result, fake_gpus, generate, hashes, run,
                     start, status, wait_for)
from test_cuda import ONE_GPU
from test_matrix import CONFIGS, armed, options
from test_recovery import kill_keeper, replay

MORE = """
[preset.quick]
dit.steps = 1000,250
dit.window = 12

[preset.wide]
dit.window = 15

[preset.tall]
model.latent_rows = 8
"""
LIVE = ["--keep-run", "--prompt", "a", "--set", "run.fps=60", "--set", "run.ahead_ms=400"]
# Where a change is in flight: in the gateway, while it is decided, recached for, denoised.
PLACES = ("gateway.preset", "gateway.preset.taken", "dit.decide", "dit.embedding", "dit.record",
          "dit.decided", "dit.prompt", "dit.recache", "dit.recache.layer", "dit.recached",
          "dit.noise", "dit.layer", "dit.step", "dit.latent", "dit.latents", "dit.committed",
          "dit.clean", "dit.clean.layer", "dit.cleaned",
          "dit.clean.committed")


def with_presets(tmp):
    """nano, with presets that are not the seed's; the largest window is one of theirs."""
    path = os.path.join(tmp, "presets.ini")
    with open(NANO) as f, open(path, "w") as out:
        out.write(f.read() + MORE)
    return path


def change(run_dir, name):
    """Block and frame of the receipt."""
    r = run(["preset", name, "--run", run_dir])
    check_result(r, 0)
    m = re.match(r"block (\d+)\s+latent (\d+)\s+frame (\d+)\s+at ([\d.]+) s", r.stdout)
    check(m, "receipt:", r.stdout)
    block, latent, frame = int(m[1]), int(m[2]), int(m[3])
    check(latent == 3 * block and frame == 12 * block - 3, r.stdout)
    return block, frame


def frames(run_dir):
    return status(run_dir)["counters"]["frames_committed"]


def go_on(run_dir, n):
    at = frames(run_dir)
    wait_for("%d more frames" % n, 60, lambda: frames(run_dir) >= at + n)


def decided(run_dir):
    """kind of each decision: 0 start, 1 switch, 2 rebuild, 3 steps."""
    with open(os.path.join(run_dir, "log", "dit.log")) as f:
        return [int(k) for k in re.findall(r"ev=decided .*kind=(\d)", f.read())]


def test_preset_in_a_live_session(tmp):
    conf, sums = with_presets(tmp), os.path.join(tmp, "live.sha256")
    with Serve(tmp, *LIVE, "--hashes", sums, conf=conf) as s:
        go_on(s.run_dir, 60)
        receipts = []
        for name in ("turbo", "quick", "wide", "quality"):
            receipts.append(change(s.run_dir, name))
            go_on(s.run_dir, 30)
        check([r[0] for r in receipts] == sorted({r[0] for r in receipts}), receipts)
        for name, line in (("turbp", "unknown preset turbp .known: baseline, .*tall"),
                           ("ultra", "preset ultra: model.precision = fp8: not built"),
                           ("tall", "preset tall: model.latent_rows = 8: 4 here"),
                           ("baseline", "preset baseline: dit.overlap = false: auto here")):
            check_result(run(["preset", name, "--run", s.run_dir]), 78, line)
        check(s.finish() == 0, s.err())
    # The change to turbo and each later one is of the window, but quick's is from 8 to 12, too.
    check(decided(s.run_dir) == [0, 1, 1, 1, 1], decided(s.run_dir))
    live = hashes(sums)
    calm = generate(tmp, "calm", "--prompt", "a", "--blocks", str((len(live) + 3) // 12))
    first = receipts[0][1]
    check(live[:first] == calm[:first], "frames before the receipt's have changed")
    check(live[first] != calm[first], "nothing has changed at the receipt's frame")
    check(replay(tmp, s.run_dir, "again") == live, "the replay shows another video")


def test_preset_of_steps_alone(tmp):
    """No recache: a change to the same steps and window changes no frame."""
    conf, sums = with_presets(tmp), os.path.join(tmp, "live.sha256")
    with Serve(tmp, *LIVE, "--hashes", sums, conf=conf) as s:
        go_on(s.run_dir, 60)
        change(s.run_dir, "balanced")
        go_on(s.run_dir, 30)
        _, frame = change(s.run_dir, "quick")
        go_on(s.run_dir, 30)
        check(s.finish() == 0, s.err())
    check(decided(s.run_dir) == [0, 3, 3], decided(s.run_dir))
    live = hashes(sums)
    calm = generate(tmp, "calm", "--prompt", "a", "--blocks", str((len(live) + 3) // 12))
    check(live[:frame] == calm[:frame] and live[frame] != calm[frame], "at frame", frame)
    check(replay(tmp, s.run_dir, "again") == live, "the replay shows another video")


def test_preset_needs_a_live_session(tmp):
    with Pipeline(tmp) as p:
        check_result(run(["preset", "turbo", "--run", p.run_dir]), 69, "session")
        job = start(["generate", "--run", p.run_dir, "--quiet", "--prompt", "a", "--blocks", "200",
                     "-o", os.path.join(tmp, "v.y4m")])
        wait_for("blocks", 30, lambda: frames(p.run_dir) > 0)
        check_result(run(["preset", "turbo", "--run", p.run_dir]), 69, "script of its own")
        job.terminate()
        job.wait(60)
    check_result(run(["preset"]), 2, "NAME")


def kills_in_flight(tmp, *more):
    """One session, a change and a prompt at each kill; its hashes equal the replay's."""
    conf, sums = with_presets(tmp), os.path.join(tmp, "live.sha256")
    names = ["turbo", "wide", "quick", "quality"]
    with Serve(tmp, *LIVE, "--hashes", sums, *armed(*more), conf=conf) as s:
        faults = Faults(s.run_dir)
        go_on(s.run_dir, 150)
        for i, place in enumerate(PLACES):
            fired = faults.fired()
            faults.arm(place)
            change(s.run_dir, names[i % 4])
            s.prompt("prompt %d" % i)
            wait_for("a kill at " + place, 20, lambda: faults.fired() > fired)
            faults.disarm()
        change(s.run_dir, "turbo")
        kill_keeper(s.run_dir, "kv.0")
        change(s.run_dir, "wide")
        go_on(s.run_dir, 60)
        c = status(s.run_dir)["counters"]
        check(c["block_passes"] == c["latents_blocks"], "a block was committed twice:", c)
        check(s.finish() == 0, s.err())
    check(replay(tmp, s.run_dir, "again") == hashes(sums), "the replay shows another video")


def test_preset_kill_sample(tmp):
    kills_in_flight(tmp, *options("relative", "false"))


def test_preset_kill_matrix(tmp):
    for i, (rope, sink) in enumerate(CONFIGS):
        os.mkdir(os.path.join(tmp, str(i)))
        kills_in_flight(os.path.join(tmp, str(i)), *options(rope, sink))


def test_cuda_preset(tmp):
    """Passes of another window are recorded when it comes: the frames are the CPU's."""
    conf = with_presets(tmp)
    with fake_gpus("gpus=1"):
        sums = os.path.join(tmp, "live.sha256")
        with Serve(tmp, *LIVE, "--hashes", sums, *ONE_GPU, conf=conf) as s:
            for name in ("turbo", "wide", "quick", "quality", "turbo"):
                go_on(s.run_dir, 30)
                change(s.run_dir, name)
            go_on(s.run_dir, 60)
            check(s.finish() == 0, s.err())
    # The same ledger, on the CPU.
    path = os.path.join(s.run_dir, "config.ini")
    with open(path) as f:
        text = f.read()
    with open(path, "w") as f:
        f.write(text.replace("cuda:0", "cpu"))
    check(replay(tmp, s.run_dir, "again") == hashes(sums), "the CPU shows another video")


def spans_of(tmp, run_dir):
    """Begin and end of what dit and vae did, in order."""
    out = os.path.join(tmp, "t.json")
    check_result(run(["trace", "--run", run_dir, "-o", out]), 0)
    with open(out) as f:
        events = json.load(f)["traceEvents"]
    names = {e["pid"]: e["args"]["name"] for e in events if e["ph"] == "M"}
    return [sorted((e["ts"], e["ts"] + e["dur"]) for e in events
                   if e["ph"] == "X" and names[e["pid"]] == stage) for stage in ("dit", "vae")]


def overlaps(a, b):
    return sum(x[0] < y[1] and y[0] < x[1] for x in a for y in b)


def test_baseline(tmp):
    """Without graphs, overlap and reuse of embeddings, one by one and all: the same frames, and what
    is off does not happen."""
    lines = os.path.join(tmp, "s.jsonl")
    with open(lines, "w") as f:
        f.write('{"prompts": ["a", "b", "a", "a"], "switch": [9, 21, 33]}\n')
    args = ["--script", lines, "--blocks", "16"]
    want = generate(tmp, "quality", *args, "--set", "run.preset=quality")
    for machine, more, takes_turns, encodes in (
            (None, ["--set", "dit.overlap=true"], False, 2),
            (None, ["--set", "dit.overlap=false"], True, 2),
            (None, ["--set", "cache.reuse=false"], False, 4),
            (None, ["--set", "run.preset=baseline"], True, 4),
            ("gpus=1 graph=0", ["--set", "gpu.graphs=false"] + ONE_GPU, True, 2),
            ("gpus=1", ["--set", "dit.overlap=true"] + ONE_GPU, False, 2),
            ("gpus=1 graph=0", ["--set", "run.preset=baseline"] + ONE_GPU, True, 4)):
        with fake_gpus(machine) if machine else contextlib.nullcontext():
            with Pipeline(tmp, *more) as p:
                got = p.generate(tmp, "some", *args)
                dit, vae = spans_of(tmp, p.run_dir)
                n_encoded = status(p.run_dir)["counters"]["encoder_runs"]
        check(got == want, more, "another video")
        check(len(vae) == 48, more, len(vae), "latents decoded")
        check((overlaps(dit, vae) == 0) == takes_turns, more, overlaps(dit, vae), "at once")
        check(n_encoded == encodes, more, n_encoded, "prompts encoded")


TESTS = [test_preset_in_a_live_session, test_preset_of_steps_alone,
         test_preset_needs_a_live_session, test_preset_kill_sample, test_cuda_preset, test_baseline]
FULL = [test_preset_kill_matrix]
