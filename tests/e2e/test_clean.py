"""Clean passes on a device of their own (place.clean), beside the next block: the same video, and the
same whichever process dies where. Here both devices are the CPU."""

import json
import os

from harness import DEMO, NANO, check, generate
from test_exact import check_latents, roll
from test_kill import random_kills
from test_matrix import armed, run_matrix

ELSEWHERE = ("--set", "place.clean=cpu")
# dit's places within a clean pass elsewhere and beside it, by name: none is passed in another way.
PLACES = ("dit.layer", "dit.step", "dit.cleaned", "dit.clean.committed", "dit.clean.layer",
          "dit.recache.layer", "dit.recached", "dit.latents", "dit.committed")


def script(tmp):
    path = os.path.join(tmp, "clean.jsonl")
    with open(path, "w") as f:
        f.write(json.dumps({"prompts": ["a", "b", "c"], "switch": [6, 21]}) + "\n")
    return path


def check_same(tmp, conf, *more):
    args = ["--script", script(tmp), "--blocks", "12", *more]
    want = generate(tmp, "here", *args, conf=conf)
    got = generate(tmp, "elsewhere", *args, *ELSEWHERE, conf=conf)
    check(got == want, more, "first frame that differs:",
          next((i for i, (a, b) in enumerate(zip(want, got)) if a != b), len(got)))


def test_clean_same_video(tmp):
    for rope in ("absolute", "relative"):
        for sink in ("true", "false"):
            check_same(tmp, NANO, "--set", "dit.rope=" + rope, "--set", "dit.global_sink=" + sink)
    check_same(tmp, NANO, "--set", "dit.overlap=true")
    check_same(tmp, NANO, "--set", "dit.steps=1000", "--set", "dit.window=6")


def test_clean_exact(tmp):
    """LongLive's own numbers, with switches in a rolled window."""
    for keep, word in (("true", "keep"), ("false", "move")):
        _, latents = roll(tmp, word, [12, 15], *ELSEWHERE, "--set", "dit.global_sink=" + keep)
        check_latents(latents, "nano", "absolute.12-15." + word)
    _, latents = roll(tmp, "relative", [15, 21], *ELSEWHERE, "--set", "dit.rope=relative")
    check_latents(latents, "nano", "relative.15-21.keep")


def options(rope, sink):
    return armed(*ELSEWHERE, "--set", "dit.rope=" + rope, "--set", "dit.global_sink=" + sink)


def test_clean_kill_sample(tmp):
    """At every place where two caches could come apart, in the middle."""
    run_matrix(tmp, "clean elsewhere, sample", ("dit",), options("relative", "true"),
               lambda kills: [(q, n) for i, (q, n) in enumerate(kills) if q in PLACES and i % 3 == 1])


def test_clean_kill_matrix(tmp):
    """All in one configuration, a third in another."""
    for rope, sink, nth in (("relative", "false", 1), ("absolute", "true", 3)):
        run_matrix(tmp, "clean elsewhere, %s, global_sink %s" % (rope, sink), ("dit",),
                   options(rope, sink), lambda kills, nth=nth: kills[::nth])


def test_clean_many_kills(tmp):
    random_kills(tmp, 60, 20, 400, NANO, ELSEWHERE)


def test_clean_of_the_demo(tmp):
    check_same(tmp, DEMO)


TESTS = [test_clean_same_video, test_clean_exact, test_clean_kill_sample]
FULL = [test_clean_kill_matrix, test_clean_many_kills, test_clean_of_the_demo]
