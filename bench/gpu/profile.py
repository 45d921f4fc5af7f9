#!/usr/bin/env python3
"""profile.py CONF OUT: where the kernels of a DiT pass and of a VAE latent stand, by Nsight Compute.

One layer's kernels, and a latent's convolutions, each run again for every set of counters with the
clocks as they are (which at that pace are higher than in a pass). Of kernels of one name, one grid
and about the same time the mean: microseconds, multiprocessor clock, and in per cent of their peaks
the busiest pipeline (in a product the tensor cores), L2 and DRAM; instructions issued a cycle of
four; what warps wait for most, and its share of their waiting. OUT/profile.STAGE.log has all that was
said."""
import os
import re
import shutil
import statistics
import subprocess
import sys

SECTIONS = ("SpeedOfLight", "ComputeWorkloadAnalysis", "WarpStateStats")
# Of the kernels of those names: how many come before a layer, or a latent, in the midst of the
# bench's runs, and how many to look at. Before the DiT's are a prompt's keys and values, 60 products,
# and 16 passes of at most 393 each: with the 16th the window is full.
STAGES = {"dit": ("nvjet|k_attn|k_gate_add_norm|k_norm_held|k_qkv", 6500, 13),
          "vae": ("k_conv", 80, 40)}
SECONDS_MAX = 90
ALIKE = 1.25  # kernels' times: less apart than that
VALUES = {"us": "Duration", "GHz": "SM Frequency", "pipe %": "Compute (SM) Throughput",
          "L2 %": "L2 Cache Throughput", "DRAM %": "DRAM Throughput",
          "ipc": "Executed Ipc Active"}
HEAD = re.compile(r"^  (\S.*?) (\(\d+, \d+, \d+\)x\(\d+, \d+, \d+\)), Context ")
WAITS = re.compile(r"being\s+stalled\s+(.*?)\.\s.*?represents\s+about\s+([\d.]+)%", re.S)


def profile(conf, out, stage):
    kernels, skip, n = STAGES[stage]
    log = os.path.join(out, "profile.%s.log" % stage)
    command = ["ncu", "--clock-control", "none", "-k", "regex:" + kernels, "-s", str(skip), "-c",
               str(n)] + [w for s in SECTIONS for w in ("--section", s)]
    with open(conf) as given, open(log, "w") as said:
        subprocess.run(command + ["bin/bench-stage", stage, "3"], stdin=given, stdout=said,
                       stderr=subprocess.STDOUT, timeout=SECONDS_MAX)
    with open(log) as f:
        return kernels_of(f.read())


def kernels_of(text):
    """[(name and grid, {heading: value}, what is waited for)] of ncu's details."""
    found, part = [], []
    for line in text.split("\n") + ["  end (0, 0, 0)x(0, 0, 0), Context "]:
        head = HEAD.match(line)
        if not head:
            part.append(line)
            continue
        if found:
            found[-1] += measures("\n".join(part))
        found.append((head.group(1) + " " + head.group(2),))
        part = []
    return found[:-1]


def measures(text):
    values = {}
    for heading, metric in VALUES.items():
        m = re.search(re.escape(metric) + r"\s+\S+\s+([\d.,]+)$", text, re.M)
        values[heading] = float(m.group(1).replace(",", "")) if m else float("nan")
    if re.search(r"Duration\s+ms", text):
        values["us"] *= 1000
    waits = WAITS.search(text)
    return values, ("%s %% %s" % (waits.group(2), " ".join(waits.group(1).split())[:70])
                    if waits else "")


def groups(kernels):
    """[[(name and grid, values, waits), ...], ...] of those that are alike."""
    found = []
    for kernel in kernels:
        for group in found:
            name, values, _ = group[0]
            if name == kernel[0] and 1 / ALIKE < kernel[1]["us"] / values["us"] < ALIKE:
                group.append(kernel)
                break
        else:
            found.append([kernel])
    return found


def table(kernels):
    print(" | ".join(["kernel", "n"] + list(VALUES) + ["waits"]))
    for group in groups(kernels):
        name, _, waits = group[0]
        means = ["%.4g" % statistics.mean(values[h] for _, values, _ in group) for h in VALUES]
        print(" | ".join([name, str(len(group))] + means + [waits]))


def main():
    conf, out = sys.argv[1:]
    if not shutil.which("ncu"):
        print("profile: skipped, there is no ncu")
        return
    for stage in STAGES:
        kernels = profile(conf, out, stage)
        if not kernels:
            sys.exit("profile: ncu showed no kernel of %s: profile.%s.log says why" % (stage, stage))
        print("# %s: %d kernels" % (stage, len(kernels)))
        table(kernels)


if __name__ == "__main__":
    main()
