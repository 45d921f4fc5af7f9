"""Death of the keeper, lost memory, replay of what was decided."""

import json
import os
import shutil
import signal

from faults import Faults
from harness import (Pipeline, Serve, check, check_result, generate, hashes, pid_of, run,
                     send_signal, start, status, wait_for)

BLOCKS = "40"
COUNTED = ["--set", "fault.point=dit.block", "--set", "fault.action=count"]


def script(tmp):
    """The second prompt is "&amp; b" once clean, and would be "& b" cleaned again."""
    path = os.path.join(tmp, "recovery.jsonl")
    with open(path, "w") as f:
        f.write(json.dumps({"prompts": ["a", "&amp;amp;amp; b", "c"], "switch": [6, 45]}) + "\n")
    return path


def kill_keeper(run_dir, *regions, stages=()):
    """SIGKILL, of stages too; regions are gone when the next keeper looks for them."""
    supervisor, keeper = status(run_dir)["pid"], pid_of(run_dir, "keeper")
    victims = [keeper] + [pid_of(run_dir, s) for s in stages]
    send_signal(supervisor, signal.SIGSTOP)
    try:
        for pid in victims:
            send_signal(pid, signal.SIGKILL)
        for name in regions:
            os.unlink(os.path.join(run_dir, "region." + name))
    finally:
        send_signal(supervisor, signal.SIGCONT)
    wait_for("another keeper", 20, lambda: pid_of(run_dir, "keeper") not in (0, keeper))


def blocks_made(run_dir):
    return status(run_dir)["counters"]["latents_blocks"]


def run_during(tmp, name, at_blocks, act, *more):
    """A job with act() at these blocks; hashes, status, a copy of the run directory."""
    sums, kept = os.path.join(tmp, name + ".sha256"), os.path.join(tmp, name)
    with Pipeline(tmp, *more) as p:
        job = start(["generate", "--run", p.run_dir, "--quiet", "--hashes", sums, "-o",
                     os.path.join(tmp, name + ".y4m"), "--script", script(tmp), "--blocks",
                     BLOCKS])
        for at in at_blocks:
            wait_for("block %d" % at, 60, lambda: blocks_made(p.run_dir) >= at)
            act(p.run_dir)
        check(job.wait(120) == 0, "the job ended with", job.returncode, job.stderr.read())
        s = status(p.run_dir)
        os.mkdir(kept)
        for part in ("config.ini", "ledger"):
            shutil.copy(os.path.join(p.run_dir, part), kept)
    return hashes(sums), s, kept


def run_and_lose(tmp, name, regions, at_blocks):
    return run_during(tmp, name, at_blocks, lambda run_dir: kill_keeper(run_dir, *regions))


def replay(tmp, kept, name):
    sums = os.path.join(tmp, name + ".sha256")
    check_result(run(["replay", kept, "--quiet", "--hashes", sums], timeout=120), 0)
    return hashes(sums)


def test_all_memory_is_found_again(tmp):
    """On the CPU all memory is files: they are found again, and no frame differs."""
    want = generate(tmp, "calm", "--script", script(tmp), "--blocks", BLOCKS)
    got, s, _ = run_and_lose(tmp, "files", [], [3, 18])
    check(got == want, "another video")
    check(s["exact"] and s["counters"]["rebuilds"] == 0, s["counters"])


def test_lost_vae_state(tmp):
    """The VAE's state is made again from the latents that are kept, to the bit."""
    want = generate(tmp, "calm", "--script", script(tmp), "--blocks", BLOCKS)
    got, s, _ = run_and_lose(tmp, "vae", ["vae.0"], [1, 22])
    check(got == want, "first frame that differs:",
          next((i for i, (a, b) in enumerate(zip(want, got)) if a != b), len(got)))
    check(s["exact"] and s["counters"]["latents_decoded_again"] >= 38, s["counters"])


def test_lost_kv_cache(tmp):
    """A lost KV cache: the stream goes on, says that it is another one, and replays to the bit."""
    want = generate(tmp, "calm", "--script", script(tmp), "--blocks", BLOCKS)
    got, s, kept = run_and_lose(tmp, "kv", ["kv.0", "vae.0"], [2, 17])
    check(len(got) == len(want), "as many frames:", len(got), "instead of", len(want))
    check(not s["exact"] and 1 <= s["counters"]["rebuilds"] <= 2, s["counters"])
    check(got != want, "a rebuilt cache cannot be exact")
    check(replay(tmp, kept, "again") == got, "the replay shows another video")


def test_replay_of_a_live_session(tmp):
    """Prompts when they came, kills when they came: the frames are those of the decision log."""
    sums = os.path.join(tmp, "live.sha256")
    with Serve(tmp, "--keep-run", "--prompt", "a", "--hashes", sums, "--set", "run.fps=60",
               "--set", "run.ahead_ms=500") as s:
        for i, stage in enumerate(["dit", "vae", "text", "gateway"]):
            wait_for("frames", 30, lambda: status(s.run_dir)["counters"]["frames_committed"] >
                     60 * (i + 1))
            send_signal(pid_of(s.run_dir, stage), signal.SIGKILL)
            s.prompt("prompt %d" % i)
        kill_keeper(s.run_dir, "kv.0")
        frames = status(s.run_dir)["counters"]["frames_committed"]
        wait_for("more frames", 30, lambda: status(s.run_dir)["counters"]["frames_committed"] >
                 frames + 60)
        check(not status(s.run_dir)["exact"], "exact after the loss of the cache")
        check(s.finish() == 0, s.err())
    live = hashes(sums)
    check(len(live) > 300, "frames:", len(live))
    check(replay(tmp, s.run_dir, "again") == live, "the replay shows another video")
    check(sorted(os.listdir(s.run_dir)) == ["config.ini", "ledger", "log", "longlived.run"],
          os.listdir(s.run_dir))


def test_replay_of_nothing(tmp):
    check_result(run(["replay", tmp, "--hashes", os.path.join(tmp, "h")]), 66, "config.ini")
    check_result(run(["replay", tmp]), 2, "--hashes")


def test_killed_while_rebuilding(tmp):
    """The successor, too, dies before the VAE's state, the KV cache is whole again."""
    want = generate(tmp, "calm", "--script", script(tmp), "--blocks", BLOCKS)
    for stage, place, nth, region in (("vae", "vae.layer", 40, "vae.0"),
                                      ("dit", "dit.recache.layer", 2, "kv.0")):
        def act(run_dir):
            faults = Faults(run_dir)
            fired = faults.fired()
            faults.arm(place, nth)
            kill_keeper(run_dir, region, stages=[stage])
            wait_for("a kill at " + place, 30, lambda: faults.fired() > fired)

        got, s, kept = run_during(tmp, stage, [20], act, *COUNTED)
        c = s["counters"]
        if stage == "vae":
            check(got == want and s["exact"] and c["latents_decoded_again"] > 38, c)
        else:
            check(not s["exact"] and got != want and replay(tmp, kept, "again") == got, c)
            check(c["rebuilds"] == 1, c)


TESTS = [test_all_memory_is_found_again, test_lost_vae_state, test_lost_kv_cache,
         test_replay_of_a_live_session, test_replay_of_nothing]
FULL = [test_killed_while_rebuilding]
