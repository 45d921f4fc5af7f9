#!/usr/bin/env python3
"""The programs on one device, `DEVICE` (cuda:0 unless set), from nano to full size: what a bundle
shows where nothing else can run. `smoke.py WORD ...` runs the tests whose names hold a word.

Frames are equal from run to run and whichever stage is killed, and nothing is left."""

import glob
import math
import os
import random
import re
import signal
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import harness  # noqa: E402
from harness import (NANO, TINY, Skip, check, check_result, hashes, run, start, status,  # noqa: E402
                     wait_for)

DEVICE = os.environ.get("DEVICE", "cuda:0")
FULL = os.path.join(harness.ROOT, "configs", "longlive-h100.ini")
PLACES = [w for s in ("text", "dit", "vae") for w in ("--set", "place.%s=%s" % (s, DEVICE))]
SECONDS_MAX = 900


def frames(n_blocks):
    return 12 * n_blocks - 3


def say(*what):
    print(" ", *what, flush=True)


class Up:
    """`longlived up` on the device; says how long it took."""

    def __init__(self, tmp, conf, *more):
        self.tmp, self.run_dir = tmp, os.path.join(tmp, "run")
        self.args = ["up", "-c", conf, "--run", self.run_dir, "--keep-run"] + PLACES + list(more)

    def __enter__(self):
        began = time.monotonic()
        check_result(run(self.args, timeout=SECONDS_MAX), 0)
        say("up in %.2f s" % (time.monotonic() - began))
        return self

    def __exit__(self, *exc):
        if exc[0] is None:
            s = status(self.run_dir)
            say("edge %s, %d of %d latents from it" % (s["edge"], s["counters"]["latents_from_edge"],
                                                       s["counters"]["latents_decoded"]))
            for m in s["memory"]:
                say(" ".join("%s %s" % (k.replace("_bytes", ""), v if k == "device" else "%.2f" %
                                        (v / 2**30)) for k, v in m.items()), "GiB")
            for p in s["processes"]:
                say("%-8s %s, %d restarts, %.1f ms a unit" % (p["name"], p["state"], p["restarts"],
                                                              p.get("unit_ms_mean", 0)))
        r = run(["down", "--run", self.run_dir], timeout=120)
        if exc[0] is None:
            check_result(r, 0)
            return
        for log in sorted(glob.glob(self.run_dir + "/log/*.log")):
            with open(log) as f:
                say("%s:\n    %s" % (os.path.basename(log), "    ".join(f.readlines()[-6:])))

    def begin(self, name, n_blocks):
        self.sums = os.path.join(self.tmp, name + ".sha256")
        self.movie = os.path.join(self.tmp, name + ".y4m")
        return start(["generate", "--run", self.run_dir, "--quiet", "--hashes", self.sums, "-o",
                      self.movie, "--prompt", "a red ball", "--blocks", str(n_blocks)])

    def end(self, job, n_blocks):
        try:
            code = job.wait(SECONDS_MAX)
        finally:
            job.kill()
        check(code == 0, "the job ended with", code, job.stderr.read())
        got = hashes(self.sums)
        check(len(got) == frames(n_blocks), len(got), "frames")
        check(len(set(got)) > len(got) // 2, "only", len(set(got)), "different frames")
        return got

    def video(self, name, n_blocks):
        began = time.monotonic()
        got = self.end(self.begin(name, n_blocks), n_blocks)
        seconds = time.monotonic() - began
        say("%s: %d frames in %.2f s, %.1f a second" % (name, len(got), seconds,
                                                        len(got) / seconds))
        return got

    def process(self, stage):
        return next(p for p in status(self.run_dir)["processes"] if p["name"] == stage)

    def is_back(self, stage, pid):
        """Its successor serves; what it maps is there."""
        p = self.process(stage)
        return p["state"] == "up" and p["pid"] != pid and p["phase"] != "opening"


def same(want, got, what):
    check(got == want, what, "other frames, from",
          next((i for i, (a, b) in enumerate(zip(want, got)) if a != b), len(got)))


def twice(tmp, conf, n_blocks, *more):
    with Up(tmp, conf, *more) as p:
        want = p.video("first", n_blocks)
        same(want, p.video("second", n_blocks), "another run:")


def nearest_rank(values, percent):
    return sorted(values)[max(math.ceil(len(values) * percent / 100), 1) - 1]


def say_starts(run_dir):
    """Where the time of every later start of a stage went, as its log says: medians, ms."""
    for log in sorted(glob.glob(run_dir + "/log/*.log")):
        with open(log) as f:
            starts = re.findall(r" ev=ready incarnation=\d+((?: \w+_ms=[\d.]+)+)", f.read())[1:]
        pieces = {}
        for key, ms in re.findall(r" (\w+)_ms=([\d.]+)", "".join(starts)):
            pieces.setdefault(key, []).append(float(ms))
        if starts:
            say("%s, %d starts, ms: %s" % (os.path.basename(log), len(starts), " ".join(
                "%s %.1f" % (key, nearest_rank(v, 50)) for key, v in pieces.items())))
        check("took" in pieces or not starts, log, "says nothing of its starts")


def kills(tmp, conf, n_blocks, n_kills, *more):
    """Stages by turns, each at a random moment of a job of its own."""
    rng, slowest = random.Random(1), 0.0
    with Up(tmp, conf, *more) as p:
        began = time.monotonic()
        want = p.video("calm", n_blocks)
        seconds = time.monotonic() - began
        for i in range(n_kills):
            stage = ("dit", "vae", "dit", "vae", "text", "gateway")[i % 6]
            pid = p.process(stage)["pid"]
            job = p.begin("killed", n_blocks)
            after = rng.uniform(0.1, 0.8) * seconds
            time.sleep(after)
            check(pid > 0 and job.poll() is None, "the job ended before the kill after %.2f s" % after)
            os.kill(pid, signal.SIGKILL)
            died = time.monotonic()
            wait_for(stage + " again", 120, lambda: p.is_back(stage, pid))
            back = time.monotonic() - died
            slowest = max(slowest, back)
            same(want, p.end(job, n_blocks), "%s killed after %.2f s:" % (stage, after))
            say("%s killed after %.2f s: back in %.2f s, the same frames" % (stage, after, back))
        say("%d kills, slowest return %.2f s" % (n_kills, slowest))
        say_starts(p.run_dir)


def many_kills(tmp, conf, n_blocks, seconds_max, *more):
    """In one long job, one kill after the other, as soon as the last one's victim is back."""
    rng, back = random.Random(5), {}
    with Up(tmp, conf, "--set", "supervisor.deaths=1000", *more) as p:
        want = p.video("calm", n_blocks)
        job = p.begin("killed", n_blocks)
        end = time.monotonic() + seconds_max
        while job.poll() is None and time.monotonic() < end:
            time.sleep(rng.uniform(0.05, 0.6))
            stage = rng.choice(("dit", "dit", "vae", "vae", "text", "gateway"))
            was = p.process(stage)
            if was["state"] != "up" or job.poll() is not None:
                continue
            os.kill(was["pid"], signal.SIGKILL)
            died = time.monotonic()
            wait_for(stage + " again", 120, lambda: p.is_back(stage, was["pid"]))
            back.setdefault(stage + " in " + was["phase"], []).append(time.monotonic() - died)
        same(want, p.end(job, n_blocks), "killed:")
        for name, took in sorted(back.items()):
            say("%-18s %3d kills, back in s: P50 %.2f, P99 %.2f" %
                (name, len(took), nearest_rank(took, 50), nearest_rank(took, 99)))
        say_starts(p.run_dir)
        say("%d kills, the same %d frames" % (sum(map(len, back.values())), len(want)))


def file_has(path, n_bytes):
    return os.path.exists(path) and os.path.getsize(path) >= n_bytes


def switches(tmp, conf, n_switches, *more):
    """Live: from `prompt` to the first frame of it in the file, at whatever moment it comes."""
    run_dir, movie = os.path.join(tmp, "run"), os.path.join(tmp, "live.y4m")
    began = time.monotonic()
    live = start(["serve", "-c", conf, "--run", run_dir, "-o", movie, "--prompt", "a red ball",
                  "--quiet", "--set", "run.fps=60", "--set", "run.ahead_ms=0"] + PLACES +
                 list(more), stdin=subprocess.PIPE)
    try:
        wait_for("a header", SECONDS_MAX, lambda: file_has(movie, 100))
        with open(movie, "rb") as f:
            header = f.readline()
        width, height = (int(w[1:]) for w in header.decode().split()[1:3])
        n_bytes = len(b"FRAME\n") + width * height * 3 // 2
        wait_for("a frame", 120, lambda: file_has(movie, len(header) + n_bytes))
        say("from exec to the first frame %.2f s" % (time.monotonic() - began))
        took = []
        for i in range(n_switches):
            time.sleep(1.5 + 0.037 * i)
            asked = time.monotonic()
            r = run(["prompt", "--run", run_dir, "prompt %d" % (i % 3)])
            check_result(r, 0)
            frame = int(r.stdout.split("frame")[1].split()[0])
            wait_for("frame %d" % frame, 60,
                     lambda: file_has(movie, len(header) + (frame + 1) * n_bytes))
            took.append(time.monotonic() - asked)
        took.sort()
        say("%d switches: first new frame after %.2f to %.2f s, median %.2f" %
            (n_switches, took[0], took[-1], took[n_switches // 2]))
        live.send_signal(signal.SIGINT)
        check(live.wait(60) == 0, "serve ended with", live.returncode)
    finally:
        live.kill()


def psnr_db(a, b):
    with open(a, "rb") as f, open(b, "rb") as g:
        x, y = f.read(), g.read()
    check(len(x) == len(y), "files of", len(x), "and", len(y), "bytes")
    squares = sum((p - q) ** 2 for p, q in zip(x, y))
    return 10 * math.log10(255 ** 2 * len(x) / squares) if squares else math.inf


def test_doctor(tmp):
    r = run(["doctor", "-c", TINY] + PLACES, timeout=120)
    say(r.stdout.replace("\n", "\n  "))
    check(r.returncode == 0, r.stderr)


def test_nano(tmp):
    twice(tmp, NANO, 20)


def test_tiny(tmp):
    twice(tmp, TINY, 12)


def test_tiny_fp32(tmp):
    """In fp32 the device's video is the CPU's but for its last bits: 60 dB."""
    movies = []
    for name, places in (("cpu", []), ("device", PLACES)):
        movies.append(os.path.join(tmp, name + ".y4m"))
        check_result(run(["generate", "-c", TINY, "--run", os.path.join(tmp, "run"), "--quiet",
                          "--set", "model.precision=fp32", "--set", "model.parity=clean",
                          "--prompt", "a red ball", "--blocks", "9", "-o", movies[-1]] + places,
                         timeout=SECONDS_MAX), 0)
    db = psnr_db(*movies)
    say("%.1f dB between %s and the CPU" % (db, DEVICE))
    check(db >= 60, "too far apart")


def test_nano_kills(tmp):
    kills(tmp, NANO, 60, 12)


def test_tiny_kills(tmp):
    kills(tmp, TINY, 30, 12)


def only_gpu():
    if DEVICE == "cpu":
        raise Skip("full size needs a GPU")


def test_full(tmp):
    only_gpu()
    twice(tmp, FULL, 5)


def test_full_kills(tmp):
    only_gpu()
    kills(tmp, FULL, 8, 6)


def test_full_speed(tmp):
    only_gpu()
    with Up(tmp, FULL) as p:
        p.video("long", 120)


def test_nano_switches(tmp):
    switches(tmp, NANO, 3)


def test_full_switches(tmp):
    only_gpu()
    switches(tmp, FULL, 10)


def test_nano_many_kills(tmp):
    many_kills(tmp, NANO, 300, 20)


def test_full_many_kills(tmp):
    only_gpu()
    many_kills(tmp, FULL, 80, 120)


TESTS = [test_doctor, test_nano, test_nano_kills, test_nano_switches, test_nano_many_kills, test_tiny,
         test_tiny_fp32, test_tiny_kills, test_full, test_full_kills, test_full_speed,
         test_full_switches, test_full_many_kills]

if __name__ == "__main__":
    os.chdir(harness.ROOT)
    words = sys.argv[1:]
    sys.exit(harness.main([t for t in TESTS
                           if not words or any(t.__name__ == "test_" + w for w in words)]))
