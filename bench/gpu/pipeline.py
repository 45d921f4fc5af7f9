#!/usr/bin/env python3
"""pipeline.py CONF RUN_DIR OUT NAME [N]: a pipeline that is up makes one scripted video twice (and
N blocks, for speed); then one without the edge and the resident text encoder makes it again. Are
frames equal, how much memory is in use, what do its processes say? Hashes, status: OUT/NAME-*"""
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time

CTL = "bin/longlived"
SCRIPT = {"prompts": ["a red ball", "rain at night over a harbour",
                      "a steam train crosses a snowy plain"], "switch": [6, 15]}
N_BLOCKS = 8
LOGS = ("text", "dit", "vae", "gateway", "keeper")
TOLD = ("ev=ready", "ev=edge", "level=warn", "level=error")
conf, run_dir, out, name = sys.argv[1:5]
n_long = int(sys.argv[5]) if len(sys.argv) > 5 else 0
video = run_dir + ".y4m"


def say(what):
    print("%s: %s" % (name, what))


def ctl(command, run, *args):
    """Standard output, seconds."""
    began = time.monotonic()
    r = subprocess.run([CTL, command, "--run", run, *args], capture_output=True, text=True)
    took = time.monotonic() - began
    if r.returncode:
        print("FAILED: longlived %s: exit %d: %s" % (command, r.returncode, r.stderr[-1500:]))
        say_logs(run, "")
        subprocess.run([CTL, "down", "--run", run])
        sys.exit(1)
    return r.stdout, took


def say_logs(run, *words):
    for log in LOGS:
        path = "%s/log/%s.log" % (run, log)
        if os.path.exists(path):
            with open(path) as f:
                for line in [x for x in f if any(w in x for w in words)][-20:]:
                    say(line.rstrip()[:300])


def used_mib():
    if not shutil.which("nvidia-smi"):
        return "no GPU"
    return " ".join(subprocess.run(
        ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader"],
        capture_output=True, text=True).stdout.split())


def scripted(run, part):
    """Hashes of the scripted video's frames, seconds."""
    sums = os.path.join(out, "%s-%s.sha256" % (name, part))
    _, took = ctl("generate", run, "--quiet", "--script", run_dir + ".jsonl", "--blocks",
                  str(N_BLOCKS), "--hashes", sums, "-o", video)
    with open(sums) as f:
        return [line.split()[-1] for line in f], took


def status(run, part):
    s = json.loads(ctl("status", run, "--json")[0])
    with open(os.path.join(out, "%s-%sstatus.json" % (name, part)), "w") as f:
        json.dump(s, f, indent=1)
    return s


def verdict(a, b):
    return "EQUAL" if a == b else "DIFFERENT"


def usual():
    _, took = ctl("up", run_dir, "-c", conf, "--keep-run")
    say("up in %.2f s, GPU memory in use %s" % (took, used_mib()))
    hashes = []
    for i in range(2):
        frames, took = scripted(run_dir, str(i))
        hashes.append(frames)
        say("run %d, %d frames in %.2f s, SHA-256 of hashes %s" % (
            i, len(frames), took, hashlib.sha256("\n".join(frames).encode()).hexdigest()[:16]))
    say("two runs: %s frames" % verdict(*hashes))
    if n_long:
        _, took = ctl("generate", run_dir, "--quiet", "--prompt", "a red ball", "--blocks",
                      str(n_long), "-o", video)
        n = 12 * n_long - 3
        say("%d frames in %.2f s, %.1f a second, request and file included" % (n, took, n / took))
    s = status(run_dir, "")
    say("edge %s, %d of %d latents from it, exact %s" % (
        s["edge"], s["counters"]["latents_from_edge"], s["counters"]["latents_decoded"], s["exact"]))
    for m in s["memory"]:
        say("%s, GiB: %s" % (m["device"], ", ".join(
            "%s %.2f" % (k[:-len("_bytes")], v / 2**30) for k, v in m.items() if k != "device")))
    for p in s["processes"]:
        say("%-8s %.1f ms a unit, %d allocations since ready" % (
            p["name"], p.get("unit_ms_mean", 0), p.get("n_allocs_ready", 0)))
    ctl("down", run_dir)
    time.sleep(0.5)
    say("GPU memory in use after down %s" % used_mib())
    return hashes[0]


def through_host(want):
    run = run_dir + "-host"
    ctl("up", run, "-c", conf, "--keep-run", "--set", "gpu.edge=false",
        "--set", "text.resident=false")
    frames, took = scripted(run, "host")
    time.sleep(0.3)
    s = status(run, "host-")
    say("gpu.edge=false text.resident=false: edge %s, %.2f s, %s frames, %s; in use %s" % (
        s["edge"], took, verdict(frames, want), ", ".join("%s weights %.2f GiB" % (
            m["device"], m["weights_bytes"] / 2**30) for m in s["memory"]), used_mib()))
    ctl("down", run)


with open(run_dir + ".jsonl", "w") as f:
    json.dump(SCRIPT, f)
say("GPU memory in use before %s" % used_mib())
through_host(usual())
say_logs(run_dir, *TOLD)
