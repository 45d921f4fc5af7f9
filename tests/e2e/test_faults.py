"""Deaths that are not one clean kill: at a start, at an end, two at once, again and again, hung,
without memory, on a full disk."""

import itertools
import os
import signal
import subprocess
import time

from faults import Faults, Heads, STAGES
from harness import (BIN, NANO, Pipeline, check, check_mp4, check_result, generate, hashes,
                     leftovers, run, send_signal, start, status, wait_for)
from test_matrix import BLOCKS, armed, script

OPENING = ("started", "connected", "leased", "ledger", "named", "bound", "mapped", "opened",
           "ready")


def job_args(tmp, name, out="mp4"):
    return ["--quiet", "--hashes", os.path.join(tmp, name + ".sha256"), "-o",
            os.path.join(tmp, name + "." + out), "--script", script(tmp), "--blocks", BLOCKS]


class Jobs:
    """A pipeline, and jobs in it during which something is done to its processes."""

    def __init__(self, tmp, pipeline):
        self.tmp, self.p = tmp, pipeline
        self.heads = Heads(pipeline.run_dir)
        self.want = pipeline.generate(tmp, "calm", "--script", script(tmp), "--blocks", BLOCKS)

    def during(self, what, act, slow=None):
        """Runs act once a job is at work; the job must end well, with the calm one's frames."""
        wait_for("all up", 30, lambda: all(
            q["state"] == "up" for q in status(self.p.run_dir)["processes"]))
        latents = self.heads.latents_decoded()
        job = start(["generate", "--run", self.p.run_dir] + job_args(self.tmp, "job"))
        wait_for("a latent", 20, lambda: self.heads.latents_decoded() > latents)
        act()
        check(job.wait(60) == 0, what, "the job ended with", job.returncode, job.stderr.read())
        got = hashes(os.path.join(self.tmp, "job.sha256"))
        check(got == self.want, what, "first frame that differs:",
              next((i for i, (a, b) in enumerate(zip(self.want, got)) if a != b), len(got)))

    def pid(self, stage):
        return next(q["pid"] for q in status(self.p.run_dir)["processes"] if q["name"] == stage)

    def kill(self, *stages, sig=signal.SIGKILL):
        pids = {q["name"]: q["pid"] for q in status(self.p.run_dir)["processes"]}
        for stage in stages:
            send_signal(pids[stage], sig)
        return [pids[s] for s in stages]


def kills_during_recovery(tmp, places):
    with Pipeline(tmp, *armed()) as p:
        jobs, faults = Jobs(tmp, p), Faults(p.run_dir)
        for stage, place in places:
            fired = faults.fired()
            faults.arm(stage + "." + place)
            jobs.during("%s killed, its successor at %s:" % (stage, place),
                        lambda: jobs.kill(stage))
            # A job that no longer needs the stage may end first.
            wait_for("a kill at %s.%s" % (stage, place), 20, lambda: faults.fired() == fired + 1)
        print("  %d successors killed while they opened" % len(places), flush=True)


def test_kill_during_recovery(tmp):
    kills_during_recovery(tmp, list(zip(STAGES, ("leased", "mapped", "opened", "bound"))))


def test_kill_during_every_recovery(tmp):
    kills_during_recovery(tmp, list(itertools.product(STAGES, OPENING)))


def test_kill_two_at_once(tmp):
    with Pipeline(tmp, *armed()) as p:
        jobs = Jobs(tmp, p)
        for pair in itertools.combinations(STAGES, 2):
            jobs.during("%s and %s killed:" % pair, lambda: jobs.kill(*pair))
        jobs.during("all stages killed:", lambda: jobs.kill(*STAGES))


def test_keeper_killed(tmp):
    """On the CPU its memory is files, which the next keeper adopts: frames stay equal."""
    with Pipeline(tmp, *armed()) as p:
        jobs = Jobs(tmp, p)
        jobs.during("keeper killed:", lambda: jobs.kill("keeper"))
        # dit first: the keeper's death ends all stages, and might end dit before our signal does.
        jobs.during("dit and keeper killed:", lambda: jobs.kill("dit", "keeper"))
    for place in ("keeper.made", "keeper.recorded"):  # of the ledger
        own_pipeline(tmp, jobs.want, place)


def own_pipeline(tmp, want, place, nth=1):
    """generate with a pipeline of its own, which has one kill at its start or end."""
    r = run(["generate", "-c", NANO, "--set", "fault.point=" + place, "--set",
             "fault.at=%d" % nth] + job_args(tmp, "killed"))
    check(r.returncode == 0, place, nth, "exit", r.returncode, r.stderr)
    got = hashes(os.path.join(tmp, "killed.sha256"))
    check(got == want, place, nth, "first frame that differs:",
          next((i for i, (a, b) in enumerate(zip(want, got)) if a != b), len(got)))
    check(leftovers() == ([], []), place, nth, "left", leftovers())


def test_kill_at_start_and_end(tmp):
    """Places that only a pipeline's start and its end come to: the keeper's, weights, draining."""
    want = generate(tmp, "calm", "--script", script(tmp), "--blocks", str(BLOCKS))
    with Pipeline(tmp, *armed()) as p:
        passed = {k: n for k, n in Faults(p.run_dir).all_passed().items()}
    kills = [(k, i) for k, n in passed.items() for i in sorted({1, (n + 1) // 2, n})
             if k.startswith("keeper.") or ".weights." in k]
    kills += [(s + e, 1) for s in STAGES for e in (".drained", ".closed")]
    for place, nth in kills:
        own_pipeline(tmp, want, place, nth)
    print("  %d kills at starts and ends" % len(kills), flush=True)


def test_crash_at_every_start(tmp):
    for stage, action in zip(STAGES, ("kill", "abort", "kill", "abort")):
        r = run(["generate", "-c", NANO, "--set", "fault.point=%s.leased" % stage, "--set",
                 "fault.repeat=true", "--set", "fault.action=" + action, "--set",
                 "supervisor.deaths=4"] + job_args(tmp, "never"))
        check_result(r, 3, stage)
        check(leftovers() == ([], []), stage, "left", leftovers())
    r = run(["up", "-c", NANO, "--run", os.path.join(tmp, "run"), "--set",
             "fault.point=vae.started", "--set", "fault.repeat=true", "--set",
             "supervisor.deaths=3"])
    check_result(r, 3, "vae")


def test_poison_block(tmp):
    """The same block aborts every incarnation: named, and the file up to it is whole."""
    want = generate(tmp, "calm", "--script", script(tmp), "--blocks", str(BLOCKS))
    for place, nth, named, n_frames in (("dit.block", 5, "dit.*block 4", 45),
                                        ("vae.begin", 14, "vae.*latent 13", 45)):
        r = run(["generate", "-c", NANO, "--set", "fault.point=" + place, "--set",
                 "fault.at=%d" % nth, "--set", "fault.repeat=true", "--set",
                 "fault.action=abort"] + job_args(tmp, "poison"))
        check_result(r, 3, named)
        got = hashes(os.path.join(tmp, "poison.sha256"))
        check(got == want[:n_frames], place, "gave", len(got), "frames")
        check_mp4(os.path.join(tmp, "poison.mp4"), n_frames, 16)


def test_stopped_past_the_deadline(tmp):
    """SIGSTOP: a stage that is stopped too long is replaced, one that comes back in time is not."""
    with Pipeline(tmp, *armed("--set", "supervisor.beat_s_max=3")) as p:
        jobs, faults = Jobs(tmp, p), Faults(p.run_dir)

        def stop_for_a_second():
            pids = jobs.kill("dit", "vae", sig=signal.SIGSTOP)
            time.sleep(1)
            jobs.kill("dit", "vae", sig=signal.SIGCONT)
            check(jobs.kill("dit", "vae", sig=0) == pids, "replaced within the deadline")

        jobs.during("dit and vae stopped for a second:", stop_for_a_second)
        before, fired = jobs.kill("dit", "vae", sig=0), faults.fired()
        faults.arm("dit.layer", 5, action="stop")
        jobs.during("dit stopped inside a pass:", lambda: jobs.kill("vae", sig=signal.SIGSTOP))
        after = jobs.kill("dit", "vae", sig=0)
        check(faults.fired() == fired + 1, "dit was not stopped")
        check(before[0] != after[0] and before[1] != after[1], before, after)


def test_stopped_for_ever(tmp):
    """The others: text while it has nothing to do, the gateway in a job, the keeper, which may be
    silent for six times as long."""
    with Pipeline(tmp, *armed("--set", "supervisor.beat_s_max=2")) as p:
        jobs = Jobs(tmp, p)
        for who in ("text", "gateway", "keeper"):
            pid, = jobs.kill(who, sig=0)
            jobs.during(who + " stopped:", lambda: jobs.kill(who, sig=signal.SIGSTOP))
            wait_for("another " + who, 40, lambda: jobs.pid(who) not in (0, pid))
        jobs.during("after that:", lambda: None)


def test_fence(tmp):
    """A stopped holder keeps its lease: whoever asks for it waits, and the holder goes on."""
    with Pipeline(tmp, *armed()) as p:
        jobs, heads, other = Jobs(tmp, p), Heads(p.run_dir), []

        def fence():
            incarnation = heads.incarnation("dit")
            pid, = jobs.kill("dit", sig=signal.SIGSTOP)
            other.append(subprocess.Popen([os.path.join(BIN, "longlived-dit"), "--run", p.run_dir],
                                          stderr=subprocess.DEVNULL))
            log = os.path.join(p.run_dir, "log", "keeper.log")
            wait_for("a second dit that waits", 10,
                     lambda: "lease_waits name=dit pid=%d" % other[0].pid in open(log).read())
            time.sleep(0.2)
            check(heads.incarnation("dit") == incarnation and heads.pid("dit") == pid,
                  "a stopped process has lost its lease")
            send_signal(pid, signal.SIGCONT)

        try:
            jobs.during("dit stopped while another asks for its lease:", fence)
            check(other[0].poll() is None or other[0].returncode == 100, "the second dit works")
        finally:
            for q in other:
                q.kill()
                q.wait(10)
        jobs.during("dit killed after that:", lambda: jobs.kill("dit"))


def test_no_memory_at_every_place(tmp):
    """An allocation that fails ends the stage with 75; its successor does the unit again."""
    with Pipeline(tmp, *armed()) as p:
        faults = Faults(p.run_dir)
        args = ["--script", script(tmp), "--blocks", BLOCKS]
        want = p.generate(tmp, "calm", *args)
        before = faults.all_passed()
        p.generate(tmp, "calm", *args)
        places = [k for k, n in faults.all_passed().items()
                  if n > before[k] and k.split(".")[0] in ("text", "dit", "vae") and "layer" not in k]
        for place in places:
            fired = faults.fired()
            faults.arm(place, 1, action="nomem")
            check(p.generate(tmp, "nomem", *args) == want, place, "other frames")
            check(faults.fired() == fired + 1 or "skip" in place, place, "was not passed")
            faults.disarm()
        print("  %d places without memory" % len(places), flush=True)


def test_disk_full_at_every_write(tmp):
    """ENOSPC ends the job with 73; what is in the file can be played, and the pipeline stays."""
    places = ("hashed", "encoded", "body", "written")
    with Pipeline(tmp, *armed()) as p:
        jobs, faults = Jobs(tmp, p), Faults(p.run_dir)
        pids = jobs.kill("gateway", "dit", sig=0)
        for place in places:
            faults.arm("gateway." + place, 5, action="enospc")
            r = run(["generate", "--run", p.run_dir] + job_args(tmp, "full"), timeout=60)
            check_result(r, 73)
            check_mp4(os.path.join(tmp, "full.mp4"), 57 if place == "written" else 45, 16)
        faults.disarm()
        jobs.during("after a full disk:", lambda: None)
        check(jobs.kill("gateway", "dit", sig=0) == pids, "a process was replaced")


TESTS = [test_kill_during_recovery, test_keeper_killed, test_crash_at_every_start, test_poison_block, test_fence,
         test_disk_full_at_every_write]
FULL = [test_kill_during_every_recovery, test_kill_two_at_once, test_kill_at_start_and_end,
        test_stopped_past_the_deadline, test_stopped_for_ever, test_no_memory_at_every_place]
