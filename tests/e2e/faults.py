"""Arming fault points in a running pipeline: RUN_DIR/faults, as common/fault.h lays it out."""

import mmap
import os
import struct

ACTIONS = ("count", "kill", "stop", "abort", "delay", "enospc", "nomem")
VERSION, NAMES, ARMED, ACTION, AT, REPEAT, DELAY, FIRED = range(8)
NAME_BYTES = 32
PHASES = ("opening", "idle", "encode", "prompt", "recache", "denoise", "clean", "decode", "write")
STAGES = ("text", "dit", "vae", "gateway")
PAGE_BYTES = 4096


class Faults:
    """The page, which stays readable when its file is gone."""

    def __init__(self, run_dir):
        with open(os.path.join(run_dir, "faults"), "r+b") as f:
            self.page = mmap.mmap(f.fileno(), 0)
        n = self.word(NAMES)
        assert self.word(VERSION) == 1, "another version"
        text = [self.page[64 + NAME_BYTES * i:64 + NAME_BYTES * (i + 1)] for i in range(n)]
        self.index = {t.rstrip(b"\0").decode(): i for i, t in enumerate(text) if t[0]}
        self.counts_at = 8 + n * NAME_BYTES // 8

    def word(self, i):
        return struct.unpack_from("<Q", self.page, 8 * i)[0]

    def put(self, i, value):
        struct.pack_into("<Q", self.page, 8 * i, value)

    def passed(self, name):
        return self.word(self.counts_at + self.index[name])

    def all_passed(self):
        return {name: self.passed(name) for name in self.index}

    def fired(self):
        return self.word(FIRED)

    def disarm(self):
        self.put(ARMED, 0)

    def arm(self, name, nth=1, action="kill", repeat=False, delay_ms=0):
        """At the nth passage from now."""
        self.disarm()
        self.put(ACTION, ACTIONS.index(action))
        self.put(AT, self.passed(name) + nth)
        self.put(REPEAT, int(repeat))
        self.put(DELAY, delay_ms)
        self.put(ARMED, self.index[name] + 1)


class Heads:
    """What stages say of themselves in RUN_DIR/ledger: without a process between."""

    def __init__(self, run_dir):
        with open(os.path.join(run_dir, "ledger"), "rb") as f:
            self.page = mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ)

    def word(self, stage, i):
        return struct.unpack_from("<Q", self.page, STAGES.index(stage) * PAGE_BYTES + 8 * i)[0]

    def incarnation(self, stage):
        return self.word(stage, 0)

    def pid(self, stage):
        return self.word(stage, 1)

    def latents_decoded(self):
        return self.word("vae", 11)

    def phase(self, stage):
        return PHASES[self.word(stage, 4)]
