"""SIGKILL at every named place (common/fault.h), and what a stage does that can only fail there."""

import json
import os

from faults import Faults
from harness import Pipeline, check

BLOCKS = 10
SWITCHES = [6, 21]  # latents: before the window of 12 is full, and after it has rolled


def script(tmp):
    path = os.path.join(tmp, "matrix.jsonl")
    if not os.path.exists(path):
        with open(path, "w") as f:
            f.write(json.dumps({"prompts": ["a", "b", "c"], "switch": SWITCHES}) + "\n")
    return path


def armed(*more):
    """Options of a pipeline whose places are counted, and can be armed later."""
    return ["--set", "fault.point=dit.block", "--set", "fault.action=count"] + list(more)


def test_every_place_is_passed(tmp):
    """A start, a job, an end: a place that none of them comes to would never be tested."""
    with Pipeline(tmp, *armed()) as p:
        faults = Faults(p.run_dir)
        p.generate(tmp, "calm", "--script", script(tmp), "--blocks", BLOCKS, out="mp4")
        check(faults.passed("dit.committed") == BLOCKS, faults.all_passed())
        check(faults.passed("vae.committed") == 3 * BLOCKS, faults.all_passed())
    never = [name for name, n in faults.all_passed().items() if n == 0]
    check(not never, "never passed:", never)


TESTS = [test_every_place_is_passed]
