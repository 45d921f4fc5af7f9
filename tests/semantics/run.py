#!/usr/bin/python3
"""Runs the semantic tests: `run.py` those of the measuring itself, `run.py NAME ...` single ones;
`run.py demo` holds what configs/demo.ini paints against its thresholds."""

import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, "..", "demo_model"), os.path.join(HERE, "..", "e2e")]

import harness  # noqa: E402
import test_demo  # noqa: E402
import test_features  # noqa: E402
import test_measure  # noqa: E402

if __name__ == "__main__":
    os.chdir(harness.ROOT)
    own = test_features.TESTS + test_measure.TESTS
    words = sys.argv[1:]
    sys.exit(harness.main(harness.named(own + test_demo.TESTS, words) if words else own))
