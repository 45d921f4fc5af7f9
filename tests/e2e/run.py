#!/usr/bin/env python3
"""Runs the end-to-end tests: `run.py quick`, `run.py full`, or `run.py NAME ...` for single ones."""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import harness  # noqa: E402
import test_bad_input  # noqa: E402
import test_bench  # noqa: E402
import test_cache  # noqa: E402
import test_compare  # noqa: E402
import test_checkpoint  # noqa: E402
import test_clean  # noqa: E402
import test_cuda  # noqa: E402
import test_exact  # noqa: E402
import test_kill  # noqa: E402
import test_faults  # noqa: E402
import test_live  # noqa: E402
import test_recovery  # noqa: E402
import test_supervisors  # noqa: E402
import test_matrix  # noqa: E402
import test_messages  # noqa: E402
import test_pace  # noqa: E402
import test_preset  # noqa: E402
import test_video  # noqa: E402

MODULES = [test_video, test_bad_input, test_live, test_cache, test_checkpoint, test_exact,
           test_kill, test_matrix, test_clean, test_faults, test_messages, test_cuda, test_recovery,
           test_supervisors, test_pace, test_preset, test_bench,
           test_compare]


def select(words):
    quick = [t for m in MODULES for t in m.TESTS]
    full = quick + [t for m in MODULES for t in getattr(m, "FULL", [])]
    if words in ([], ["quick"]):
        return quick
    if words == ["full"]:
        return full
    return harness.named(full, words)


if __name__ == "__main__":
    os.chdir(harness.ROOT)
    sys.exit(harness.main(select(sys.argv[1:])))
