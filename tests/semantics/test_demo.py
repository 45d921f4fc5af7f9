"""configs/demo.ini with its trained weights paints what prompts say that training never saw."""

import os

import measure
from harness import ROOT, check

COLOUR, OTHERS, SWITCHES = 0.95, 0.90, 0.90
CHANCE = {"colour": 1 / 6, "shape": 1 / 4, "size": 1 / 3, "background": 1 / 5, "motion": 1 / 7}
ABOVE_CHANCE = 0.1
COLOUR_DRIFT, RADIUS_DRIFT = 30, 0.15


def test_demo_follows_its_prompts(tmp):
    """Tables and contact sheet stay in build/semantics."""
    result = measure.main(["-c", os.path.join(ROOT, "configs", "demo.ini")])
    right = result["prompts"]["right"]
    check(result["prompts"]["n"] >= 60, "prompts:", result["prompts"]["n"])
    for attribute, chance in CHANCE.items():
        least = {"colour": COLOUR, "background": COLOUR}.get(attribute, OTHERS)
        check(right[attribute] >= least, attribute, "is right in", right[attribute])
        by_chance = result["prompts"]["shuffled"][attribute]
        check(by_chance <= chance + ABOVE_CHANCE, attribute, "in shuffled prompts:", by_chance)
    check(result["switches"]["n"] >= 30, "switches:", result["switches"]["n"])
    check(result["switches"]["new"] >= SWITCHES, "new after", result["switches"]["new"])
    stream = result["stream"]
    check(stream["frames"] >= 2000, "frames:", stream["frames"])
    for part in ("right", "right_in_last_quarter"):
        check(stream[part]["all"] >= OTHERS, part, "in the stream:", stream[part])
    for what, limit in (("background_rgb", COLOUR_DRIFT), ("thing_rgb", COLOUR_DRIFT),
                        ("radius", RADIUS_DRIFT)):
        check(stream["drift"][what] is not None and stream["drift"][what] <= limit,
              "the stream's", what, "drifts by", stream["drift"][what])


TESTS = [test_demo_follows_its_prompts]
