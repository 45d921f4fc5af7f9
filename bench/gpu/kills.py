#!/usr/bin/env python3
"""kills.py CONF BLOCKS SECONDS: smoke.many_kills with the places of CONF"""
import os
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "../../tests/e2e"))
import smoke  # noqa: E402

smoke.PLACES = []
conf, n_blocks, seconds_max = sys.argv[1:]
with tempfile.TemporaryDirectory(dir="/dev/shm") as tmp:
    smoke.many_kills(tmp, os.path.abspath(conf), int(n_blocks), int(seconds_max))
