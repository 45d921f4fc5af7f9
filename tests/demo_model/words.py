"""words.py - the small world in words: what a scene has, how it is said, what training never sees.

A scene is one thing of a colour, shape and size that moves over a background on a torus: what leaves
at one side enters at the other. No library is needed here: training, export and the tests that
measure frames share this file."""
import hashlib
import itertools
import random
from collections import namedtuple

SIDE = 96  # pixels
FPS = 16

COLOURS = {"red": (220, 40, 40), "green": (40, 180, 70), "blue": (50, 80, 230),
           "yellow": (240, 215, 50), "purple": (150, 60, 200), "white": (240, 240, 240)}
BACKGROUNDS = {"black": (16, 16, 16), "gray": (120, 120, 120), "blue": (50, 80, 230),
               "green": (40, 180, 70), "brown": (110, 70, 40)}
# What it is called; the first word is the name of the shape.
SHAPES = {"ball": ("ball", "circle"), "square": ("square", "box"),
          "triangle": ("triangle", "pyramid"), "cross": ("cross", "plus")}
SIZES = {"small": 12.0, "medium": 16.0, "big": 21.0}  # pixels from the middle to the furthest edge
SIZE_WORDS = {"small": ("small", "little"), "medium": ("",), "big": ("big", "large")}
MOTIONS = {
    "left": ("moves to the left", "moves left", "goes left", "moving left"),
    "right": ("moves to the right", "moves right", "goes right", "moving right"),
    "up": ("moves up", "goes up", "rises", "moving up"),
    "down": ("moves down", "goes down", "falls", "moving down"),
    "circle": ("moves in a circle", "goes around in a circle", "circles"),
    "bounce": ("bounces", "bounces up and down", "jumps up and down"),
    "still": ("stays still", "does not move", "stands still", ""),
}
SPEED = 2.0             # pixels a frame, to the left, right, up, down
CIRCLE_RADIUS = 18.0    # pixels, clockwise
CIRCLE_PERIOD = 48      # frames
BOUNCE_HEIGHT = 26.0    # pixels
BOUNCE_PERIOD = 24      # frames

Scene = namedtuple("Scene", "colour shape size background motion")


def all_scenes():
    """Every scene that can be seen: a thing of the background's own colour could not."""
    return [Scene(*s) for s in itertools.product(COLOURS, SHAPES, SIZES, BACKGROUNDS, MOTIONS)
            if s[0] != s[3]]


def is_held_out(scene):
    """One scene in eight is never trained on; which, is the same everywhere and always."""
    return hashlib.sha256(" ".join(scene).encode()).digest()[0] < 32


def plain(scene):
    """The scene in its first words: a red ball moves to the right over a blue background."""
    size = SIZE_WORDS[scene.size][0]
    thing = " ".join(w for w in ("a", size, scene.colour, SHAPES[scene.shape][0]) if w)
    return f"{thing} {MOTIONS[scene.motion][0]} over a {scene.background} background"


def said(scene, rng):
    """The scene in words of rng's choice: synonyms, other articles, other orders, fewer words. What
    is not said is medium, still, or black."""
    size = rng.choice(SIZE_WORDS[scene.size])
    motion = rng.choice(MOTIONS[scene.motion])
    thing = " ".join(w for w in (rng.choice(("a", "a", "the", "one", "")), size, scene.colour,
                                 rng.choice(SHAPES[scene.shape])) if w)
    place = rng.choice((" over a {} background", " over a {} background", " on a {} background",
                        ", {} background", " on {}")).format(scene.background)
    if scene.background == "black" and rng.random() < 0.3:
        place = ""
    text = f"{thing} {motion}{place}" if motion else thing + place
    if rng.random() < 0.1 and place and motion:
        text = f"{place.strip(' ,')}, {thing} {motion}"
    if rng.random() < 0.3:
        text = text[0].upper() + text[1:]
    return text + "." if rng.random() < 0.2 else text


def draw(rng, trained=True):
    """A scene of training, or one that training never sees."""
    while True:
        s = Scene(*(rng.choice(list(x)) for x in (COLOURS, SHAPES, SIZES, BACKGROUNDS, MOTIONS)))
        if s.colour != s.background and is_held_out(s) != trained:
            return s


def change(scene, rng, trained=True):
    """Another scene for a prompt switch: one to three of the attributes are others."""
    while True:
        s = scene
        for k in rng.sample(Scene._fields, rng.choice((1, 1, 2, 3))):
            s = s._replace(**{k: getattr(draw(rng, trained), k)})
        if s != scene and s.colour != s.background and is_held_out(s) != trained:
            return s
