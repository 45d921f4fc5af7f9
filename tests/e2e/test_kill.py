"""SIGKILL of any stage at any time: the run finishes by itself and no pixel changes."""

import json
import os
import random
import signal
import time

from harness import (LONGLIVED, NANO, Pipeline, check, ffprobe_frames, generate, hashes, start,
                     status, wait_for)

STAGES = ("text", "dit", "vae", "gateway")


def script(tmp):
    path = os.path.join(tmp, "kill.jsonl")
    with open(path, "w") as f:
        f.write(json.dumps({"prompts": ["a", "b", "c", "d"], "switch": [6, 15, 24]}) + "\n")
    return path


def run_with_kills(tmp, name, n_kills, seed, stages=STAGES, out="mp4", more=()):
    """Kills at random times while a job runs; the hashes, and how many kills landed."""
    rng = random.Random(seed)
    args = ["--script", script(tmp), "--blocks", "40"]
    sums, movie = os.path.join(tmp, name + ".sha256"), os.path.join(tmp, name + "." + out)
    with Pipeline(tmp, *more) as p:
        keeper = next(q["pid"] for q in status(p.run_dir)["processes"] if q["name"] == "keeper")
        job = start(["generate", "--run", p.run_dir, "--quiet", "--hashes", sums, "-o", movie] +
                    args)
        landed = 0
        while landed < n_kills and job.poll() is None:
            time.sleep(rng.uniform(0.01, 0.25))
            stage = rng.choice(stages)
            rows = [q for q in status(p.run_dir)["processes"] if q["name"] == stage]
            if rows and rows[0]["pid"] > 0:
                try:
                    os.kill(rows[0]["pid"], signal.SIGKILL)
                    landed += 1
                except ProcessLookupError:
                    pass
        check(job.wait(120) == 0, "the job ended with", job.returncode, job.stderr.read())
        s = status(p.run_dir)
        check(next(q["pid"] for q in s["processes"] if q["name"] == "keeper") == keeper,
              "the keeper was replaced")
        check(s["counters"]["latents_blocks"] == 40, s["counters"])
    return hashes(sums), landed, movie


def test_kills(tmp, n_kills=10, seeds=(1,)):
    want = generate(tmp, "calm", "--script", script(tmp), "--blocks", "40")
    for seed in seeds:
        got, landed, movie = run_with_kills(tmp, "killed%d" % seed, n_kills, seed)
        check(landed >= n_kills // 2, "only", landed, "kills landed: the run was over")
        check(got == want, "seed", seed, "first frame that differs:",
              next((i for i, (a, b) in enumerate(zip(want, got)) if a != b), len(got)))
        check(ffprobe_frames(movie) == len(want), "frames in the file")


def test_many_kills(tmp):
    test_kills(tmp, n_kills=25, seeds=range(2, 10))


def test_restart_command(tmp):
    """restart: a new process, the same bits; the others keep theirs."""
    from harness import run, check_result
    want = generate(tmp, "calm", "--script", script(tmp), "--blocks", "40")
    sums = os.path.join(tmp, "restarted.sha256")
    with Pipeline(tmp) as p:
        job = start(["generate", "--run", p.run_dir, "--quiet", "--hashes", sums, "-o",
                     os.path.join(tmp, "r.y4m"), "--script", script(tmp), "--blocks", "40"])
        wait_for("frames", 20, lambda: status(p.run_dir)["counters"]["frames_committed"] > 0)
        for stage in STAGES[1:]:
            before = {q["name"]: q["pid"] for q in status(p.run_dir)["processes"]}
            check_result(run(["restart", stage, "--kill", "--run", p.run_dir]), 0)
            after = {q["name"]: q["pid"] for q in status(p.run_dir)["processes"]}
            check(after[stage] != before[stage], stage, "was not restarted")
            check(all(after[n] == before[n] for n in before if n != stage), before, after)
        check(job.wait(120) == 0, "the job:", job.stderr.read())
    check(hashes(sums) == want, "another video")


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
FULL = [test_many_kills]
