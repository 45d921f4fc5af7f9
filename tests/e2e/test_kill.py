"""SIGKILL of any stage at any time: the run finishes by itself and no pixel changes."""

import collections
import json
import os
import random
import signal
import time

from faults import Heads
from harness import (DEMO, LONGLIVED, NANO, Pipeline, check, check_mp4, generate, hashes, send_signal,
                     start, status, wait_for)

STAGES = ("text", "dit", "vae", "gateway")
WEIGHTS = (1, 3, 2, 1)  # the busy ones more often


def script(tmp):
    path = os.path.join(tmp, "kill.jsonl")
    with open(path, "w") as f:
        f.write(json.dumps({"prompts": ["a", "b", "c", "d"], "switch": [6, 15, 24]}) + "\n")
    return path


def kill_one(heads, run_dir, stage, landed):
    """Stopped first, so that what it was doing is known, then killed."""
    pid = next(q["pid"] for q in status(run_dir)["processes"] if q["name"] == stage)
    if pid <= 0:
        return
    try:
        send_signal(pid, signal.SIGSTOP)
        is_opening = heads.pid(stage) != pid
        phase = "opening" if is_opening else heads.phase(stage)
        send_signal(pid, signal.SIGKILL)
        landed[phase] += 1
    except ProcessLookupError:
        pass


def run_with_kills(tmp, name, n_kills, seed, conf, sets):
    """Kills at random times while a job runs; the hashes, the kills by phase, the file."""
    rng = random.Random(seed)
    args = ["--script", script(tmp), "--blocks", "40"]
    sums, movie = os.path.join(tmp, name + ".sha256"), os.path.join(tmp, name + ".mp4")
    with Pipeline(tmp, *sets, conf=conf) as p:
        keeper = next(q["pid"] for q in status(p.run_dir)["processes"] if q["name"] == "keeper")
        job = start(["generate", "--run", p.run_dir, "--quiet", "--hashes", sums, "-o", movie] +
                    args)
        heads, landed = Heads(p.run_dir), collections.Counter()
        while landed.total() < n_kills and job.poll() is None:
            time.sleep(rng.uniform(0.01, 0.25))
            kill_one(heads, p.run_dir, rng.choices(STAGES, WEIGHTS)[0], landed)
        check(job.wait(120) == 0, "the job ended with", job.returncode, job.stderr.read())
        s = status(p.run_dir)
        check(next(q["pid"] for q in s["processes"] if q["name"] == "keeper") == keeper,
              "the keeper was replaced")
        c = s["counters"]
        check(c["latents_blocks"] == 40, c)
        # A kill between a commit and its count leaves the count behind, never ahead.
        check(c["block_passes"] <= 40 and c["clean_passes"] <= 40 and c["vae_passes"] <= 120, c)
    return hashes(sums), landed, movie


def random_kills(tmp, n_kills, n_per_run, first_seed, conf=NANO, sets=()):
    want = generate(tmp, "calm", "--script", script(tmp), "--blocks", "40", conf=conf)
    total, seed = collections.Counter(), first_seed
    while total.total() < n_kills:
        name = "killed%d" % seed
        got, landed, movie = run_with_kills(tmp, name, min(n_per_run, n_kills - total.total()),
                                            seed, conf, sets)
        check(landed.total() > 0, "no kill landed: the run was over")
        check(got == want, "seed", seed, "first frame that differs:",
              next((i for i, (a, b) in enumerate(zip(want, got)) if a != b), len(got)))
        check_mp4(movie, len(want), 16)
        total += landed
        seed += 1
    print("  %d random kills in %d runs: %s" % (total.total(), seed - first_seed, ", ".join(
        "%s %d" % kv for kv in sorted(total.items()))), flush=True)


def test_kills(tmp):
    random_kills(tmp, 10, 10, 1)


def test_many_kills(tmp):
    random_kills(tmp, 200, 20, 2)


def test_kills_of_the_demo(tmp):
    """With trained weights, which each successor maps as its predecessor did."""
    random_kills(tmp, 20, 20, 3, DEMO)


def test_restart_command(tmp):
    """restart: a new process, the same bits; the others keep theirs. Without --kill the old one
    ends of itself, with its file as whole as after a kill."""
    from harness import run, check_result
    want = generate(tmp, "calm", "--script", script(tmp), "--blocks", "40")
    sums = os.path.join(tmp, "restarted.sha256")
    with Pipeline(tmp) as p:
        job = start(["generate", "--run", p.run_dir, "--quiet", "--hashes", sums, "-o",
                     os.path.join(tmp, "r.mp4"), "--script", script(tmp), "--blocks", "40"])
        wait_for("frames", 20, lambda: status(p.run_dir)["counters"]["frames_committed"] > 0)
        for stage, how in [(s, ["--kill"]) for s in STAGES[1:]] + [(s, []) for s in STAGES]:
            before = {q["name"]: q["pid"] for q in status(p.run_dir)["processes"]}
            check_result(run(["restart", stage, "--run", p.run_dir] + how), 0)
            after = {q["name"]: q["pid"] for q in status(p.run_dir)["processes"]}
            check(after[stage] != before[stage], stage, "was not restarted")
            last = next(q["last_exit"] for q in status(p.run_dir)["processes"] if q["name"] == stage)
            check(last == ("signal 9" if how else "status 0"), stage, "ended with", last)
            check(all(after[n] == before[n] for n in before if n != stage), before, after)
        check(job.wait(120) == 0, "the job:", job.stderr.read())
    check(hashes(sums) == want, "another video")
    check_mp4(os.path.join(tmp, "r.mp4"), len(want), 16)


def test_supervisor_killed(tmp):
    """No orphan, and the next start removes what is left."""
    run_dir = os.path.join(tmp, "run")
    p = start(["up", "--foreground", "-c", NANO, "--run", run_dir])
    wait_for("ready", 30, lambda: os.path.isdir(run_dir) and ready(run_dir))
    p.kill()
    p.wait(10)
    from harness import our_processes
    wait_for("no process left", 2, lambda: not our_processes())
    with Pipeline(tmp) as q:
        check(status(q.run_dir)["counters"]["frames_committed"] == 0, "a fresh ledger")


def ready(run_dir):
    from harness import run
    r = run(["status", "--json", "--run", run_dir], timeout=10)
    if r.returncode != 0:
        return False
    return all(q["state"] == "up" or q["state"] == "ready"
               for q in json.loads(r.stdout)["processes"])


TESTS = [test_kills, test_restart_command, test_supervisor_killed]
FULL = [test_many_kills, test_kills_of_the_demo]
