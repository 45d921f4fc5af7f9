#!/usr/bin/env python3
"""figures.py FILE.json ...: of results of `longlived bench`, the figures to be reported, a line each"""
import json
import os
import sys

WANTED = {"ss_mean", "ss_p50", "ss_p99", "ss_max", "ps_mean", "px_fps", "fps", "components",
          "hand_off_ms", "peak_memory_gb", "px_fps_without_text", "px_fps_without_text_and_vae",
          "block_ms", "first_frame_ms", "presentation_ms", "completion_ms", "jitter_ms",
          "late_frames", "ready_ms", "shown_ms", "switch_ms", "switch_parts_ms", "call_ms",
          "px_frame_ms"}
STATISTICS = ("n", "mean", "p50", "p95", "p99", "max")


def short(value):
    if isinstance(value, dict):
        keys = [k for k in STATISTICS if k in value] or \
            [k for k in value if not isinstance(value[k], list)]
        return "{" + ", ".join("%s %s" % (k, short(value[k])) for k in keys) + "}"
    return "%.4g" % value if isinstance(value, float) else str(value)


def walk(value, path):
    for key, v in value.items():
        if key in WANTED:
            print("%s.%s %s" % (path, key, short(v)))
        elif isinstance(v, dict):
            walk(v, path + "." + key)


for name in sys.argv[1:]:
    if os.path.exists(name):
        with open(name) as f:
            walk(json.load(f)["runs"][-1], os.path.basename(name)[:-len(".json")])
    else:
        print("%s: no results" % name)
