"""What the end-to-end tests share: running the programs, reading hashes, judging what is left."""

import contextlib
import json
import os
import re
import select
import signal
import subprocess
import sys
import tempfile
import time

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", ".."))
BIN = os.path.realpath(
    os.path.join(ROOT, "build", "san-bin" if os.environ.get("SAN") == "1" else "bin"))
FAKE_BIN = BIN[:-len("bin")] + "fake-bin"
LONGLIVED = os.path.join(BIN, "longlived")
NANO = os.path.join(ROOT, "configs", "nano.ini")
DEMO = os.path.join(ROOT, "configs", "demo.ini")
TINY = os.path.join(ROOT, "configs", "tiny.ini")
SHM = "/dev/shm/longlived-%d" % os.getuid()


class Skip(Exception):
    """A test that cannot run here; its text says why."""


@contextlib.contextmanager
def fake_gpus(machine):
    """The programs on the fake CUDA runtime; what `machine` may say is in tests/fake_cuda/fake.h."""
    global BIN, LONGLIVED
    bin_dir, was = BIN, os.environ.get("FAKE_CUDA")
    BIN, LONGLIVED = FAKE_BIN, os.path.join(FAKE_BIN, "longlived")
    os.environ["FAKE_CUDA"] = machine
    try:
        yield
    finally:
        BIN, LONGLIVED = bin_dir, os.path.join(bin_dir, "longlived")
        del os.environ["FAKE_CUDA"]
        if was is not None:
            os.environ["FAKE_CUDA"] = was


def run(args, stdin="", timeout=60, cwd=None, text=True):
    """Runs `longlived args`; the result has returncode, stdout, stderr."""
    return subprocess.run(
        [LONGLIVED] + [str(a) for a in args],
        input=stdin if text else None,
        stdin=None if text else subprocess.DEVNULL,
        capture_output=True,
        text=text,
        timeout=timeout,
        cwd=cwd,
    )


def start(args, **kw):
    kw.setdefault("stdin", subprocess.DEVNULL)
    kw.setdefault("stdout", subprocess.PIPE)
    kw.setdefault("stderr", subprocess.PIPE)
    return subprocess.Popen([LONGLIVED] + [str(a) for a in args], **kw)


def check(condition, *why):
    if not condition:
        raise AssertionError(" ".join(str(w) for w in why))


def check_result(r, status, pattern=None):
    """Exit status as documented, at most four lines on stderr, one of them matching."""
    err = r.stderr if isinstance(r.stderr, str) else r.stderr.decode(errors="replace")
    check(r.returncode == status, "exit", r.returncode, "instead of", status, ":", err)
    if status != 0:
        check(len(err.splitlines()) <= 4, "more than four lines:", err)
        check(err.strip(), "no line on stderr")
    if pattern:
        check(re.search(pattern, err), "no line matches", repr(pattern), "in:", err)


def hashes(path):
    with open(path) as f:
        lines = [line.split() for line in f]
    check([int(line[0]) for line in lines] == list(range(len(lines))), "indices of", path)
    return [line[1] for line in lines]


def generate(tmp, name, *args, conf=NANO, out="y4m", timeout=120, status=0):
    """One video; returns the hashes of its frames."""
    sums = os.path.join(tmp, name + ".sha256")
    movie = os.path.join(tmp, name + "." + out)
    r = run(["generate", "-c", conf, "--quiet", "--hashes", sums, "-o", movie] + list(args),
            timeout=timeout)
    check_result(r, status)
    return hashes(sums)


def status(run_dir):
    r = run(["status", "--json", "--run", run_dir], timeout=20)
    check_result(r, 0)
    return json.loads(r.stdout)


def pid_of(run_dir, stage):
    return next(p["pid"] for p in status(run_dir)["processes"] if p["name"] == stage)


def send_signal(pid, sig):
    """os.kill(), but never to our own process group: a stage that is not up has pid 0."""
    check(pid > 0, "no process to send signal", sig)
    os.kill(pid, sig)


def wait_for(what, seconds, probe):
    """Polls until probe() is true; the value is returned."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        value = probe()
        if value:
            return value
        time.sleep(0.02)
    raise AssertionError("not within %g s: %s" % (seconds, what))


def our_processes():
    """Pids of every program of ours that is alive, but this test's own tree of shells."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            exe = os.readlink("/proc/%s/exe" % pid)
            with open("/proc/%s/stat" % pid) as f:
                state = f.read().rsplit(")", 1)[1].split()[0]
        except OSError:
            continue
        if os.path.dirname(exe) in (BIN, FAKE_BIN) and state != "Z":
            found.append(int(pid))
    return found


def leftovers():
    """What a finished run must not leave: processes, run directories."""
    dirs = []
    if os.path.isdir(SHM):
        dirs = os.listdir(SHM)
    return our_processes(), dirs


class Pipeline:
    """`longlived up` in a directory of its own; always taken down."""

    def __init__(self, tmp, *args, conf=NANO):
        self.run_dir = os.path.join(tmp, "run")
        self.args = ["up", "-c", conf, "--run", self.run_dir] + list(args)

    def __enter__(self):
        check_result(run(self.args, timeout=60), 0)
        return self

    def __exit__(self, *exc):
        run(["down", "--run", self.run_dir], timeout=60)

    def generate(self, tmp, name, *args, status=0, out="y4m"):
        sums = os.path.join(tmp, name + ".sha256")
        r = run(["generate", "--run", self.run_dir, "--quiet", "--hashes", sums, "-o",
                 os.path.join(tmp, name + "." + out)] + [str(a) for a in args], timeout=120)
        check_result(r, status)
        return hashes(sums) if status == 0 else None


class Serve:
    """`longlived serve`, with its standard input and output in our hands."""

    def __init__(self, tmp, *args, conf=NANO, out="-"):
        self.run_dir = os.path.join(tmp, "serve")
        self.out = out
        self.stdout = open(os.path.join(tmp, "serve.y4m"), "wb")
        self.stderr = open(os.path.join(tmp, "serve.err"), "w+")
        self.p = start(["serve", "-c", conf, "--run", self.run_dir, "-o", out] + list(args),
                       stdin=subprocess.PIPE, stdout=self.stdout, stderr=self.stderr)

    def __enter__(self):
        try:
            wait_for("a running session", 60, self.is_running)
        except AssertionError:
            self.__exit__()
            raise
        return self

    def is_running(self):
        check(self.p.poll() is None, "serve ended:", self.err())
        r = run(["status", "--json", "--run", self.run_dir], timeout=20)
        if r.returncode != 0:
            return False
        c = json.loads(r.stdout).get("counters", {})
        return c.get("jobs", 0) > c.get("jobs_done", 0) and c.get("sessions", 0) > 0

    def err(self):
        self.stderr.flush()
        with open(self.stderr.name) as f:
            return f.read()

    def prompt(self, text, timeout=60):
        """Returns block, frame of the receipt."""
        r = run(["prompt", "--run", self.run_dir, text], timeout=timeout)
        check_result(r, 0)
        m = re.match(r"block (\d+)\s+latent (\d+)\s+frame (\d+)\s+at ([\d.]+) s", r.stdout)
        check(m, "receipt:", r.stdout)
        block, latent, frame = int(m[1]), int(m[2]), int(m[3])
        check(latent == 3 * block and frame == (0 if block == 0 else 12 * block - 3), r.stdout)
        return block, frame

    def finish(self, sig=signal.SIGINT, timeout=60):
        self.p.send_signal(sig)
        self.p.wait(timeout)
        self.stdout.flush()
        return self.p.returncode

    def __exit__(self, *exc):
        if self.p.poll() is None:
            self.p.kill()
            self.p.wait(30)
        self.p.stdin.close()
        self.stdout.close()
        self.stderr.close()


def y4m_frames(path, width, height):
    """Number of whole frames; the header must be ours."""
    with open(path, "rb") as f:
        head = f.readline()
    check(head.startswith(b"YUV4MPEG2 W%d H%d " % (width, height)), head)
    frame = 6 + width * height * 3 // 2
    rest = os.path.getsize(path) - len(head)
    check(rest % frame == 0, "torn frame at the end of", path)
    return rest // frame


def ffprobe_frames(path):
    r = subprocess.run(
        ["ffprobe", "-v", "error", "-count_frames", "-select_streams", "v:0", "-show_entries",
         "stream=nb_read_frames", "-of", "csv=p=0", path],
        capture_output=True, text=True, timeout=60)
    check(r.returncode == 0 and not r.stderr.strip(), "ffprobe:", r.stderr)
    return int(r.stdout.strip().strip(","))


def check_mp4(path, n_frames, fps):
    """Each frame once, at its time, and a decoder that has nothing to say."""
    r = subprocess.run(
        ["ffprobe", "-v", "error", "-select_streams", "v:0", "-show_entries", "frame=pts_time",
         "-of", "csv=p=0", path], capture_output=True, text=True, timeout=60)
    check(r.returncode == 0 and not r.stderr.strip(), "ffprobe:", r.stderr)
    times = [float(line.split(",")[0]) for line in r.stdout.split()]
    check(len(times) == n_frames, path, "holds", len(times), "frames, not", n_frames)
    for i, t in enumerate(times):
        check(abs(t - i / fps) < 0.5 / fps, path, "frame", i, "at", t)
    r = subprocess.run(["ffmpeg", "-v", "warning", "-i", path, "-f", "null", "-"],
                       stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
    check(r.returncode == 0 and not r.stderr.strip(), "ffmpeg:", r.stderr)


def named(tests, words):
    """Those with one of the words in their name; a word that no name has is an error."""
    for w in words:
        if not any(w in t.__name__ for t in tests):
            sys.exit("no test has %s in its name" % w)
    return [t for t in tests if any(w in t.__name__ for w in words)]


def main(tests):
    """Runs the functions, prints ok / not ok / skip lines; the exit status."""
    failed = 0
    for test in tests:
        name = test.__name__.replace("test_", "", 1)
        began = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="longlived-e2e-") as tmp:
            try:
                test(tmp)
                procs, dirs = leftovers()
                check(not procs, "processes left:", procs)
                check(not dirs, "run directories left in", SHM, ":", dirs)
                print("ok %s (%.1f s)" % (name, time.monotonic() - began), flush=True)
            except Skip as why:
                print("skip %s: %s" % (name, why), flush=True)
            except (AssertionError, subprocess.TimeoutExpired, OSError, ValueError, KeyError) as why:
                print("  %s: %s: %s" % (name, type(why).__name__, why), flush=True)
                print("not ok %s" % name, flush=True)
                failed += 1
            for pid in our_processes():
                os.kill(pid, signal.SIGKILL)
    return 1 if failed else 0
