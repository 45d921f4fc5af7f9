"""A live session under deaths, a stalled viewer and a full disk: what its viewer sees of them."""

import os
import signal
import subprocess
import threading
import time

from faults import Faults
from harness import (NANO, TINY, Serve, Skip, check, check_mp4, check_result, ffprobe_frames, hashes,
                     pid_of, run, send_signal, start, status, wait_for)

FPS = 4  # slow, so that half a frame's time is more than a busy machine's hiccup
FRAME = 6 + 48 * 32 * 3 // 2


def counters(run_dir):
    return status(run_dir)["counters"]


def shown(run_dir):
    return counters(run_dir)["frames_committed"]


def is_back(run_dir, stage, pid):
    q = next(q for q in status(run_dir)["processes"] if q["name"] == stage)
    return q["state"] == "up" and q["pid"] != pid


def paced(ahead_ms):
    return ["--prompt", "a", "--set", "run.fps=%d" % FPS, "--set", "run.ahead_ms=%d" % ahead_ms]


class Viewer:
    """Reads y4m from a pipe, noting when each frame came; may stop reading."""

    def __init__(self, pipe):
        self.pipe = pipe
        self.times = []
        self.reads = threading.Event()
        self.reads.set()
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        self.pipe.readline()
        while True:
            self.reads.wait()
            if len(self.pipe.read(FRAME)) < FRAME:
                return
            self.times.append(time.monotonic())

    def n_late(self):
        """Frames that came more than half a frame's time after their turn."""
        t = self.times
        return sum(b - a > 1.5 / FPS for a, b in zip(t, t[1:]))


class Live:
    """serve with a viewer on its standard output."""

    def __init__(self, tmp, *args):
        self.run_dir = os.path.join(tmp, "live")
        self.err = open(os.path.join(tmp, "live.err"), "w+")
        self.p = start(["serve", "-c", NANO, "--run", self.run_dir, "-o", "-"] + list(args),
                       stderr=self.err)
        self.viewer = Viewer(self.p.stdout)

    def __enter__(self):
        try:
            wait_for("some frames", 60, lambda: len(self.viewer.times) > 2 * FPS)
        except AssertionError:
            self.__exit__()
            raise
        return self

    def finish(self):
        self.viewer.reads.set()
        self.p.send_signal(signal.SIGINT)
        check(self.p.wait(60) == 0, "exit", self.p.returncode)
        self.viewer.thread.join(10)

    def __exit__(self, *exc):
        self.viewer.reads.set()
        if self.p.poll() is None:
            self.p.kill()
            self.p.wait(30)
        self.viewer.thread.join(10)
        self.p.stdout.close()
        self.err.close()


def test_a_death_delays_no_frame(tmp):
    """With a lead above the restart time, nobody sees that dit, vae or text was killed."""
    with Live(tmp, *paced(4000)) as s:
        before = counters(s.run_dir)["late_frames"]
        for stage in ("dit", "vae", "text"):
            n = shown(s.run_dir)
            pid = pid_of(s.run_dir, stage)
            send_signal(pid, signal.SIGKILL)
            wait_for("another %s at work" % stage, 5, lambda: is_back(s.run_dir, stage, pid))
            wait_for("the lead to be there again", 20, lambda: shown(s.run_dir) > n + FPS)
        c = counters(s.run_dir)
        check(c["late_frames"] == before, "late frames:", before, c["late_frames"])
        check(s.viewer.n_late() == before, "the viewer saw", s.viewer.n_late(), "late frames")
        s.finish()


def test_late_frames_are_counted(tmp):
    """Without a lead each stall is a late frame: as many as the viewer saw, over any death."""
    with Live(tmp, *paced(0)) as s:
        supervisor = status(s.run_dir)["pid"]
        for stage, sig in (("dit", signal.SIGSTOP), ("vae", signal.SIGSTOP),
                           ("gateway", signal.SIGKILL)):
            n = counters(s.run_dir)["late_frames"]
            pid = pid_of(s.run_dir, stage)
            send_signal(supervisor, signal.SIGSTOP) # it answers a death only later
            send_signal(pid, sig)
            time.sleep(4) # a block that was begun lasts 3 s
            if sig == signal.SIGSTOP:
                send_signal(pid, signal.SIGCONT)
            send_signal(supervisor, signal.SIGCONT)
            wait_for("a late frame after " + stage, 30,
                     lambda: counters(s.run_dir)["late_frames"] > n)
        n = shown(s.run_dir)
        wait_for("frames", 30, lambda: shown(s.run_dir) > n + 2)
        c = counters(s.run_dir)
        seen = s.viewer.n_late()
        check(c["late_frames"] == seen >= 3, "counted", c["late_frames"], "seen", seen)
        check(c["late_ms_max"] > 1000, "late by", c["late_ms_max"], "ms")
        s.finish()


def memory_kb(run_dir):
    total = 0
    for p in status(run_dir)["processes"]:
        with open("/proc/%d/status" % p["pid"]) as f:
            total += next(int(line.split()[1]) for line in f if line.startswith("RssAnon"))
    return total


def test_a_stalled_viewer(tmp):
    """Who does not read stops the DiT within the lead; memory is flat; then it goes on."""
    with Live(tmp, "--prompt", "a", "--set", "run.fps=60", "--set", "run.ahead_ms=400") as s:
        s.viewer.reads.clear()
        blocks = -1

        def is_still():
            nonlocal blocks
            time.sleep(0.5)
            last, blocks = blocks, counters(s.run_dir)["latents_blocks"]
            return blocks == last

        wait_for("the DiT to stop", 20, is_still)
        c, kb = counters(s.run_dir), memory_kb(s.run_dir)
        check(12 * c["latents_blocks"] - c["frames_committed"] <= 60 * 0.4 + 24, "the lead:", c)
        time.sleep(2)
        later = counters(s.run_dir)
        check(later["latents_blocks"] == c["latents_blocks"], "the DiT goes on")
        check(memory_kb(s.run_dir) - kb < 4096, "memory grows:", kb, memory_kb(s.run_dir))
        n = len(s.viewer.times)
        s.viewer.reads.set()
        wait_for("frames again", 20, lambda: len(s.viewer.times) > n + 60)
        check(counters(s.run_dir)["late_frames"] >= 1, "no late frame")
        check(all(p["restarts"] == 0 for p in status(s.run_dir)["processes"]), "a restart")
        s.finish()


def test_a_full_disk(tmp):
    """serve pauses, says so, goes on when there is room; its frames are all there, once."""
    sums, movie = os.path.join(tmp, "full.sha256"), os.path.join(tmp, "full.mp4")
    with Serve(tmp, "--keep-run", "--prompt", "a", "--hashes", sums, "--set", "run.fps=60", "--set",
               "run.ahead_ms=400", "--set", "fault.point=gateway.body", "--set",
               "fault.action=count", out=movie) as s:
        faults = Faults(s.run_dir)
        wait_for("frames", 30, lambda: shown(s.run_dir) > 30)
        faults.arm("gateway.body", 2, "enospc", repeat=True)
        wait_for("a pause", 20, lambda: counters(s.run_dir)["paused"] == 1)
        time.sleep(1)
        c = counters(s.run_dir)
        time.sleep(1.5)
        later = counters(s.run_dir)
        check(later["frames_committed"] == c["frames_committed"], "frames on a full disk")
        check(later["latents_blocks"] == c["latents_blocks"], "the DiT goes on")
        check("No space left" in s.err() and "paused" in s.err(), "no word of it:", s.err())
        send_signal(pid_of(s.run_dir, "gateway"), signal.SIGKILL)
        wait_for("a pause again", 20, lambda: counters(s.run_dir)["paused"] == 1)
        faults.disarm()
        n = shown(s.run_dir)
        wait_for("frames again", 20, lambda: shown(s.run_dir) > n + 60)
        check(counters(s.run_dir)["paused"] == 0, "still paused")
        check(s.finish() == 0, s.err())
    got = hashes(sums)
    check(ffprobe_frames(movie) == len(got) > 90, "frames in the file")
    again = os.path.join(tmp, "again.sha256")
    check_result(run(["replay", s.run_dir, "--quiet", "--hashes", again], timeout=120), 0)
    check(hashes(again) == got, "the replay shows another video")


def test_a_slow_disk(tmp):
    """A second a write: the DiT goes no further ahead, memory is flat, no frame is lost."""
    sums, movie = os.path.join(tmp, "slow.sha256"), os.path.join(tmp, "slow.mp4")
    with Serve(tmp, "--keep-run", "--prompt", "a", "--hashes", sums, "--set", "run.fps=60", "--set",
               "run.ahead_ms=400", "--set", "fault.point=gateway.body", "--set",
               "fault.action=count", out=movie) as s:
        faults = Faults(s.run_dir)
        wait_for("frames", 30, lambda: shown(s.run_dir) > 30)
        faults.arm("gateway.body", 1, "delay", repeat=True, delay_ms=1000)
        n, fired = shown(s.run_dir), faults.fired()
        wait_for("slow writes", 20, lambda: faults.fired() >= fired + 3)
        kb, began = memory_kb(s.run_dir), time.monotonic()
        while time.monotonic() < began + 4:
            c = counters(s.run_dir)
            # The lead, two blocks in hand, and shown frames that wait in the ring to be written.
            check(12 * c["latents_blocks"] - c["frames_committed"] <= 60 * 0.4 + 24 + 56, c)
            time.sleep(0.1)
        check(shown(s.run_dir) - n <= 12 * 11, "not slow:", n, shown(s.run_dir))
        check(memory_kb(s.run_dir) - kb < 4096, "memory grows:", kb, memory_kb(s.run_dir))
        check(all(p["restarts"] == 0 for p in status(s.run_dir)["processes"]), "a restart")
        faults.disarm()
        n = shown(s.run_dir)
        wait_for("frames at their rate", 20, lambda: shown(s.run_dir) > n + 120)
        check(s.finish() == 0, s.err())
    got = hashes(sums)
    check_mp4(movie, len(got), 60)
    again = os.path.join(tmp, "again.sha256")
    check_result(run(["replay", s.run_dir, "--quiet", "--hashes", again], timeout=120), 0)
    check(hashes(again) == got, "the replay shows another video")


def test_a_small_disk(tmp):
    """A real one, of 256 KiB: generate ends with 73, and what is in the file plays."""
    disk = os.path.join(tmp, "disk")
    os.mkdir(disk)
    r = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "none", disk],
                       capture_output=True, text=True)
    if r.returncode != 0:
        raise Skip("no right to mount a tmpfs: " + r.stderr.strip())
    movie = os.path.join(disk, "v.mp4")
    try:
        r = run(["generate", "-c", TINY, "--prompt", "a", "--blocks", "30", "--quiet", "-o", movie],
                timeout=120)
        check_result(r, 73, "v.mp4: No space left")
        n = ffprobe_frames(movie)
        check(9 <= n < 30 * 12 and (n - 9) % 12 == 0, "whole blocks:", n)
    finally:
        subprocess.run(["umount", "-l", disk], check=True)


TESTS = [test_a_death_delays_no_frame, test_a_stalled_viewer, test_a_full_disk]
FULL = [test_late_frames_are_counted, test_a_slow_disk, test_a_small_disk]
