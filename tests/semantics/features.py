"""features.py - what is to be seen in frames of the small world: the words of a scene, measured.

Each frame by itself: the background is the median colour. The thing's colour is that which, mixed
with the background in some part, explains the picture best, so that blurred edges do no harm; the
part it has in a pixel is its opacity there. Shape and size are those of the analytic template that
is likest to the opacity, the position is the opacity's mean on the torus. The clip has what most of
its frames have, and the motion whose path lies nearest to the positions. What cannot be told is
NONE, which is never right."""
from collections import Counter, namedtuple

import numpy as np

import truth
import words

NONE = "none"
COLOUR_OFF = 80.0    # RGB distance at which a colour is none of those that have names
FLAT = 0.6           # of the picture at least this is background
AREA_MIN = 60        # pixels; the smallest thing has 170
LIKENESS_MIN = 0.85  # cosine; true shapes under noise and blur reach 0.95
PATH_OFF = 6.0       # pixels RMS from the nearest path
SEEN_MIN = 0.7       # of the frames, for a path
FRAMES_MIN = 36      # three quarters of a circle

CROP = 56            # pixels around the thing, for templates
SHIFT = 2            # and how far from the middle they are tried
SCALES = (0.86, 1.0, 1.16)

# positions [T, 2] (x, y), NaN where there is no thing; background_rgb, thing_rgb [3] and radius are
# medians over the frames.
Clip = namedtuple("Clip", words.Scene._fields + ("positions", "background_rgb", "thing_rgb",
                                                 "radius"))


def nearest(rgb, names):
    """[T] names, of [T, 3] colours."""
    known = np.array(list(names.values()), np.float32)
    off = np.linalg.norm(rgb[:, None] - known, axis=2)
    return [list(names)[i] if off[t, i] < COLOUR_OFF else NONE
            for t, i in enumerate(off.argmin(1))]


def backgrounds(frames):
    """[T, 3] colours and [T] names."""
    rgb = np.median(frames.reshape(len(frames), -1, 3), 1)
    flat = (np.linalg.norm(frames - rgb[:, None, None], axis=3) < 60).mean((1, 2)) >= FLAT
    return rgb, [name if f else NONE for name, f in zip(nearest(rgb, words.BACKGROUNDS), flat)]


def smooth(pictures):
    """Mean of 3x3 pixels on the torus."""
    for axis in (1, 2):
        pictures = (pictures + np.roll(pictures, 1, axis) + np.roll(pictures, -1, axis)) / 3
    return pictures


def opacities(frames, background_rgb, background):
    """[T] names of the thing's colour, and [T, H, W] how much of it a pixel has."""
    off = frames - background_rgb[:, None, None]
    total = (off ** 2).sum(3)
    best = np.full(len(frames), np.inf)
    names, opacity = [NONE] * len(frames), np.zeros(frames.shape[:3], np.float32)
    for name, rgb in words.COLOURS.items():
        way = np.asarray(rgb, np.float32) - background_rgb
        length = np.maximum((way ** 2).sum(1), 1)[:, None, None]
        along = np.einsum("thwc,tc->thw", off, way)
        part = along / length
        inside = np.clip(part, 0, 1)
        unexplained = (total - 2 * inside * along + inside ** 2 * length).sum((1, 2))
        for t in np.flatnonzero(unexplained < best):
            if name != background[t]:
                best[t], names[t], opacity[t] = unexplained[t], name, part[t]
    return names, smooth(opacity)


def things(frames, names, opacity):
    """Names again, NONE where there is no thing, and [T, 3] the thing's colours."""
    rgb = np.full((len(frames), 3), np.nan)
    names = list(names)
    for t, part in enumerate(opacity):
        area = (part > 0.5).sum()
        if names[t] == NONE or not AREA_MIN <= area <= (1 - FLAT) * part.size:
            names[t] = NONE
            continue
        rgb[t] = np.median(frames[t][part >= np.quantile(part[part > 0.5], 0.5)], 0)
        if np.linalg.norm(rgb[t] - words.COLOURS[names[t]]) > COLOUR_OFF:
            names[t] = NONE
    return names, rgb


def edged(opacity):
    """Opacity with a sharper edge and without the noise of the background."""
    return np.clip(2 * opacity - 0.5, 0, 1)


def middles(opacity):
    """[T, 2] circular means (x, y) in pixels."""
    found = []
    for axis in (1, 2):  # the axis summed over: rows for x
        n = opacity.shape[3 - axis]
        turn = np.exp(2j * np.pi * (np.arange(n) + 0.5) / n)
        found.append(np.angle(opacity.sum(axis) @ turn) / (2 * np.pi) * n % n)
    return np.stack(found, 1)


def make_templates():
    """[N, CROP * CROP] of length 1, and the N (shape, size, radius) that they are of."""
    kinds, rows = [], []
    shifts = range(-SHIFT, SHIFT + 1)
    for shape in words.SHAPES:
        for size, nominal in words.SIZES.items():
            for radius in (nominal * s for s in SCALES):
                cover = [truth.coverage(shape, radius, (CROP / 2 + dx, CROP / 2 + dy), side=CROP)
                         for dx in shifts for dy in shifts]
                rows.append(edged(smooth(np.stack(cover))).reshape(len(cover), -1))
                kinds += [(shape, size, radius)] * len(cover)
    rows = np.concatenate(rows).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True), kinds


TEMPLATES, KINDS = make_templates()


def shapes(opacity, positions):
    """[T] of (shape, size, radius), (NONE, NONE, NaN) where nothing is like it."""
    crops = np.empty((len(opacity), CROP * CROP), np.float32)
    for t, (x, y) in enumerate(positions):
        h, w = opacity[t].shape
        rows = (int(round(y)) - CROP // 2 + np.arange(CROP)) % h
        columns = (int(round(x)) - CROP // 2 + np.arange(CROP)) % w
        crops[t] = opacity[t][np.ix_(rows, columns)].ravel()
    lengths = np.sqrt((opacity ** 2).sum((1, 2)))  # of the whole picture: another thing is unlike
    likeness = crops @ TEMPLATES.T / np.maximum(lengths, 1e-6)[:, None]
    best = likeness.argmax(1)
    return [KINDS[i] if likeness[t, i] >= LIKENESS_MIN else (NONE, NONE, np.nan)
            for t, i in enumerate(best)]


def unwrapped(positions, sides):
    """Indices and [T, 2] positions of the frames that have one, without the jumps at the edges."""
    seen = np.flatnonzero(~np.isnan(positions[:, 0]))
    steps = (np.diff(positions[seen], axis=0) + sides / 2) % sides - sides / 2
    return seen, np.concatenate([np.zeros((1, 2)), steps.cumsum(0)])


def path_misses(times, at):
    """By motion: how far, RMS, the path [T, 2] is from the nearest of that motion. Speeds, radii and
    heights may be half and one and a half times what they should, periods 15 % off."""
    at = at - at.mean(0)
    t = times - times.mean()

    def miss(*coordinates):
        return np.sqrt(sum((abs(c - c.mean()) ** 2).mean() for c in coordinates))

    def gain(pattern, values, nominal):
        return np.clip(pattern @ values / (pattern @ pattern), 0.5 * nominal, 1.5 * nominal)

    x, y = at.T
    misses = {"still": miss(x, y)}
    for motion, along, across, way in (("left", x, y, -1), ("right", x, y, 1), ("up", y, x, -1),
                                       ("down", y, x, 1)):
        misses[motion] = miss(along - way * t * gain(way * t, along, words.SPEED), across)
    misses["circle"] = misses["bounce"] = np.inf
    for tempo in (0.86, 1.0, 1.16):
        turn = np.exp(2j * np.pi * t * tempo / words.CIRCLE_PERIOD)
        fit = np.stack([np.ones_like(turn), turn], 1)
        arm = np.linalg.lstsq(fit, x + 1j * y, rcond=None)[0][1]
        size = np.clip(abs(arm), 0.5 * words.CIRCLE_RADIUS, 1.5 * words.CIRCLE_RADIUS)
        arm *= size / max(abs(arm), 1e-9)
        misses["circle"] = min(misses["circle"], miss(x + 1j * y - arm * turn))
        for phase in np.arange(24) / 24:
            hop = -abs(np.sin(np.pi * (t * tempo / words.BOUNCE_PERIOD + phase)))
            hop -= hop.mean()
            misses["bounce"] = min(misses["bounce"],
                                   miss(x, y - hop * gain(hop, y, words.BOUNCE_HEIGHT)))
    return misses


def motion_of(positions, sides, every):
    """The name, of positions that are `every` frames apart on a torus of `sides` [2]."""
    if len(positions) * every < FRAMES_MIN or np.isnan(positions[:, 0]).mean() > 1 - SEEN_MIN:
        return NONE
    seen, at = unwrapped(positions, sides)
    misses = path_misses(seen * every, at)
    motion = min(misses, key=misses.get)
    return motion if misses[motion] < PATH_OFF else NONE


def most(labels):
    """What at least half of the frames have."""
    label, n = Counter(labels).most_common(1)[0]
    return label if 2 * n >= len(labels) else NONE


def measure(frames, every=1):
    """The Clip of [T, H, W, 3] uint8, which are each `every`-th frame of a video; the motion is NONE
    where they span fewer than FRAMES_MIN."""
    sides = np.array(frames.shape[2:0:-1])
    frames = frames.astype(np.float32)
    background_rgb, background = backgrounds(frames)
    names, opacity = opacities(frames, background_rgb, background)
    names, thing_rgb = things(frames, names, opacity)
    opacity = edged(opacity)
    positions = middles(opacity)
    seen = [s if n != NONE else (NONE, NONE, np.nan)
            for s, n in zip(shapes(opacity, positions), names)]
    positions[[s[0] == NONE for s in seen]] = np.nan
    rgb = thing_rgb[[n != NONE for n in names]]
    radii = [s[2] for s in seen if s[0] != NONE]
    return Clip(colour=most(names), shape=most([s[0] for s in seen]),
                size=most([s[1] for s in seen]), background=most(background),
                motion=motion_of(positions, sides, every), positions=positions,
                background_rgb=np.median(background_rgb, 0),
                thing_rgb=np.median(rgb, 0) if len(rgb) else np.full(3, np.nan),
                radius=float(np.median(radii)) if radii else np.nan)
