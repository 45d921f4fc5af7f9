"""features.py and y4m.py on frames whose content is known: the true world, spoilt, and others."""

import os

import features
import numpy as np
import truth
import words
import y4m
from features import NONE
from harness import check

EVERY = 4  # of 48 frames
TIMES = np.arange(0, 48, EVERY)
RED_BALL = words.Scene("red", "ball", "medium", "gray", "circle")


def start(rng):
    """Somewhere, or cut by the edges."""
    return rng.uniform(0, words.SIDE, 2) if rng.random() < 0.5 else rng.uniform(-9, 9, 2)


def test_every_scene(tmp):
    """At random phases and places, stretched, tinted, blurred, noisy, with a quarter of the colour:
    each word is right in 99 of 100."""
    rng = np.random.default_rng(1)
    scenes = words.all_scenes()
    wrong = {k: [] for k in words.Scene._fields}
    for scene in scenes:
        frames = truth.paint(scene, TIMES, start(rng), rng.random(),
                             stretch=rng.uniform(0.95, 1.05), tint=rng.uniform(-15, 15, 3))
        clip = features.measure(
            truth.spoil(frames, rng, noise=rng.uniform(0, 12), sigma=rng.uniform(0, 1.5)), EVERY)
        for k, missed in wrong.items():
            if getattr(clip, k) != getattr(scene, k):
                missed.append((tuple(scene), getattr(clip, k)))
    check(len(scenes) > 2000, "scenes:", len(scenes))
    print("  wrong of %d: %s" % (len(scenes), {k: len(missed) for k, missed in wrong.items()}))
    for k, missed in wrong.items():
        check(len(missed) <= 0.01 * len(scenes), k, "is wrong for", len(missed), missed[:5])


def test_positions(tmp):
    """Within half a pixel of where the thing is, on the edge, too; colours and radius as painted."""
    rng = np.random.default_rng(2)
    for shape in words.SHAPES:
        scene = words.Scene("red", shape, "big", "black", "right")
        at = truth.path("right", range(48), (90.3, 1.7), 0)
        frames = truth.paint(scene, range(48), (90.3, 1.7), 0)
        clip = features.measure(truth.spoil(frames, rng, noise=4, sigma=0.7))
        off = (clip.positions - at + 48) % 96 - 48
        check(abs(off).max() < 0.5, shape, "is off by", abs(off).max())
        check(abs(clip.radius / words.SIZES["big"] - 1) < 0.05, "radius", clip.radius)
        check(np.linalg.norm(clip.thing_rgb - words.COLOURS["red"]) < 20, clip.thing_rgb)
        check(np.linalg.norm(clip.background_rgb - words.BACKGROUNDS["black"]) < 5,
              clip.background_rgb)


def test_none(tmp):
    """Nothing there, no scene at all, a colour, a shape, a path without a name; two things."""
    rng = np.random.default_rng(3)
    empty = np.full((48, 96, 96, 3), words.BACKGROUNDS["brown"], np.uint8)
    clip = features.measure(truth.spoil(empty, rng, noise=12))
    check(clip[:5] == (NONE, NONE, NONE, "brown", NONE), "an empty background:", clip[:5])
    clip = features.measure(rng.integers(0, 256, empty.shape, dtype=np.uint8))
    check(clip[:5] == (NONE,) * 5, "noise:", clip[:5])

    painted = truth.paint(RED_BALL, range(48), (50, 50), 0.1)
    is_thing = (abs(painted - words.COLOURS["red"]).sum(3) < 30)[..., None]
    pink = features.measure(np.where(is_thing, (255, 130, 200), painted).astype(np.uint8))
    check(pink.colour == NONE, "pink is", pink.colour)
    bar = empty.copy()
    bar[:, 45:51, 20:70] = words.COLOURS["red"]
    check(features.measure(bar).shape == NONE, "a bar is a", features.measure(bar).shape)
    other = truth.paint(RED_BALL, range(48), (10, 10), 0.1)
    both = np.where(is_thing, painted, other)
    check(features.measure(truth.bytes_of(both)).shape == NONE, "two things are one")
    back = features.measure(truth.bytes_of(painted[::-1]))
    check(back[:4] == RED_BALL[:4] and back.motion == NONE, "anticlockwise is", back[:5])
    jumps = features.measure(truth.bytes_of(painted[rng.permutation(48)]))
    check(jumps.motion == NONE, "jumping about is", jumps.motion)
    short = features.measure(truth.bytes_of(painted[:12]))
    check(short[:5] == RED_BALL[:4] + (NONE,), "twelve frames:", short[:5])


def test_most_frames_count(tmp):
    """A clip is what most of its frames are; a change in the middle leaves what both halves have."""
    red = truth.bytes_of(truth.paint(RED_BALL, range(48), (50, 50), 0))
    blue = truth.bytes_of(truth.paint(RED_BALL._replace(colour="blue"), range(48), (50, 50), 0))
    for n_red, colour in ((40, "red"), (8, "blue")):
        clip = features.measure(np.concatenate([red[:n_red], blue[n_red:]]))
        check(clip[:5] == RED_BALL._replace(colour=colour), n_red, "of 48 red:", clip[:5])
    thirds = [truth.bytes_of(truth.paint(RED_BALL._replace(colour=c), range(16), (50, 50), 0))
              for c in ("red", "blue", "white")]
    check(features.measure(np.concatenate(thirds)).colour == NONE, "a third is most")


def test_true_world(tmp):
    """Areas and reach of the shapes, by school geometry; places in time, by hand."""
    r = 30.0
    areas = {"ball": np.pi * r ** 2, "square": (1.76 * r) ** 2,
             "triangle": 3 * np.sqrt(3) / 4 * (1.15 * r) ** 2,
             "cross": 2 * (2 * r * 0.72 * r) - (0.72 * r) ** 2}
    reach = {"ball": (r, r), "square": (0.88 * r, 0.88 * r), "cross": (r, r),
             "triangle": (1.15 * r, 0.575 * r)}  # up and down
    for shape, area in areas.items():
        cover = truth.coverage(shape, r, (48, 48))
        check(abs(cover.sum() / area - 1) < 0.01, shape, "covers", cover.sum(), "not", area)
        rows = np.flatnonzero(cover.max(1) > 0.4)
        check(abs(48 - rows[0] - reach[shape][0]) < 1.5, shape, "begins in row", rows[0])
        check(abs(rows[-1] + 1 - 48 - reach[shape][1]) < 1.5, shape, "ends in row", rows[-1])
    for motion, at in {"left": (30, 50), "right": (70, 50), "up": (50, 30), "down": (50, 70),
                       "still": (50, 50)}.items():
        check(np.allclose(truth.path(motion, [10], (50, 50), 0), at), motion)
    # From the right, clockwise: the lowest point (y points down) a quarter later.
    circle = truth.path("circle", [0, 12, 24, 48], (50, 50), 0)
    check(np.allclose(circle, [(68, 50), (50, 68), (32, 50), (68, 50)]), "circle:", circle)
    bounce = truth.path("bounce", [0, 12, 24], (50, 50), 0)
    check(np.allclose(bounce, [(50, 50), (50, 24), (50, 50)]), "bounce:", bounce)


def test_y4m(tmp):
    """BT.601 in limited range: black, white and the primaries as the standard has them; two colours
    in the middle of the range, by its formulae."""
    known = {(16, 128, 128): (0, 0, 0), (235, 128, 128): (255, 255, 255),
             (81, 90, 240): (255, 0, 0), (145, 54, 34): (0, 255, 0), (41, 240, 110): (0, 0, 255),
             (126, 128, 180): (211, 86, 128), (126, 180, 128): (128, 108, 233)}
    path = os.path.join(tmp, "v.y4m")
    with open(path, "wb") as f:
        f.write(b"YUV4MPEG2 W4 H2 F16:1 Ip A1:1 C420jpeg XCOLORRANGE=LIMITED\n")
        for y, u, v in known:
            f.write(b"FRAME\n" + bytes([y] * 8 + [u] * 2 + [v] * 2))
    got = y4m.read(path)
    check(got.shape == (len(known), 2, 4, 3), got.shape)
    off = abs(got.astype(int) - np.array(list(known.values()))[:, None, None])
    check(off.max() <= 2, "off by", off.max())
    y4m.write(path, got)
    check(abs(y4m.read(path).astype(int) - got).max() <= 2, "written and read again")


TESTS = [test_true_world, test_y4m, test_positions, test_none, test_most_frames_count,
         test_every_scene]
