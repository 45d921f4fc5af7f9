"""Any supervisor: each process a program of its own, under supervisord, systemd, or nobody."""

import json
import os
import shutil
import signal
import subprocess

from harness import (BIN, LONGLIVED, NANO, ROOT, Skip, check, check_result, generate, hashes, run,
                     send_signal, start, status, wait_for)

CONF = os.path.join(ROOT, "launch", "longlived-supervisord.conf")
UNITS = os.path.join(ROOT, "launch", "systemd")
BLOCKS = "40"


def script(tmp):
    path = os.path.join(tmp, "supervisors.jsonl")
    with open(path, "w") as f:
        f.write(json.dumps({"prompts": ["a", "b", "c"], "switch": [6, 60]}) + "\n")
    return path


def need(program):
    if not shutil.which(program):
        raise Skip("%s is not installed: sh launch/deps.sh full" % program)


def pids(run_dir):
    return {p["name"]: p["pid"] for p in status(run_dir)["processes"]}


def blocks_made(run_dir):
    return status(run_dir).get("counters", {}).get("latents_blocks", 0)


class Supervisord:
    def __init__(self, tmp):
        self.run_dir = os.path.join(tmp, "run")
        check_result(run(["prepare", "-c", NANO, "--run", self.run_dir]), 0)
        with open(CONF) as f: # the tests may be for the other build
            text = f.read().replace("%(here)s/../build/bin", BIN)
        self.conf = os.path.join(tmp, "supervisord.conf")
        with open(self.conf, "w") as f:
            f.write(text)

    def __enter__(self):
        env = dict(os.environ, LONGLIVED_RUN=self.run_dir)
        self.p = subprocess.Popen(["supervisord", "-n", "-c", self.conf], env=env,
                                  stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                  stderr=subprocess.DEVNULL)
        try:
            wait_for("the gateway", 60, lambda: pids(self.run_dir).get("gateway", 0) > 0)
        except AssertionError:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc):
        self.p.terminate()
        self.p.wait(60)


def test_supervisord(tmp):
    """SIGKILL of dit, vae and gateway under the real supervisord: the same frames."""
    need("supervisord")
    want = generate(tmp, "calm", "--script", script(tmp), "--blocks", BLOCKS)
    sums = os.path.join(tmp, "killed.sha256")
    with Supervisord(tmp) as s:
        check_result(run(["up", "-c", NANO, "--run", s.run_dir]), 100, "another supervisor")
        check_result(run(["prepare", "-c", NANO, "--run", s.run_dir]), 0) # the same: it stays
        job = start(["generate", "--run", s.run_dir, "--quiet", "--hashes", sums, "-o",
                     os.path.join(tmp, "killed.y4m"), "--script", script(tmp), "--blocks", BLOCKS])
        for at, name in ((3, "dit"), (10, "vae"), (17, "gateway"), (24, "dit")):
            wait_for("block %d" % at, 60, lambda: blocks_made(s.run_dir) >= at)
            before = pids(s.run_dir)
            send_signal(before[name], signal.SIGKILL)
            wait_for("another " + name, 30, lambda: pids(s.run_dir)[name] != before[name])
            after = pids(s.run_dir)
            check(all(after[n] == before[n] for n in before if n != name), before, after)
        check(job.wait(120) == 0, "the job:", job.stderr.read())
        check(status(s.run_dir)["counters"]["latents_blocks"] == int(BLOCKS), "passes")
    got = hashes(sums)
    check(got == want, "first frame that differs:",
          next((i for i, (a, b) in enumerate(zip(want, got)) if a != b), len(got)))


def test_systemd_units(tmp):
    """systemd-analyze verify finds nothing, with this build in the place of /opt/longlived."""
    need("systemd-analyze")
    names = sorted(os.listdir(UNITS))
    for name in names:
        with open(os.path.join(UNITS, name)) as f:
            text = f.read().replace("/opt/longlived/build/bin", BIN)
        check("longlived up" not in text, name, "starts a supervisor")
        with open(os.path.join(tmp, name), "w") as f:
            f.write(text)
    units = [n.replace("@.", "@%s." % i) for n in names for i in
             (("text", "dit", "vae") if "@" in n else ("",))]
    r = subprocess.run(["systemd-analyze", "verify", "--man=no", "--recursive-errors=no"] +
                       [os.path.join(tmp, u) for u in units], capture_output=True, text=True,
                       timeout=60, env=dict(os.environ, SYSTEMD_UNIT_PATH=tmp + ":"))
    said = [line for line in r.stderr.splitlines() if "longlived" in line]
    check(r.returncode == 0 and not said, r.returncode, r.stderr)


TESTS = []
FULL = [test_supervisord, test_systemd_units]
