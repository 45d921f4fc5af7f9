"""truth.py - the small world of tests/demo_model/words.py, painted as it should be, and spoilt.

Features are tested on these frames, where every answer is known. The world's y axis points down, as
the picture's does."""
import numpy as np

import words

CHROMA = np.array([[0.299, 0.587, 0.114],
                   [-0.299 / 1.772, -0.587 / 1.772, 0.5],
                   [0.5, -0.587 / 1.402, -0.114 / 1.402]], np.float32)  # BT.601: Y, U, V of R, G, B


def distance(shape, x, y, radius):
    """Signed distance to the edge of a shape around 0, 0: negative inside. At corners it is that to
    the nearest side's line, which is enough for coverage."""
    if shape == "ball":
        return np.hypot(x, y) - radius
    if shape == "square":
        return np.maximum(abs(x), abs(y)) - 0.88 * radius
    if shape == "triangle":  # the circumradius is twice the inradius
        return np.maximum(y, np.sqrt(0.75) * abs(x) - 0.5 * y) - 1.15 / 2 * radius
    arm = 0.36 * radius
    return np.minimum(np.maximum(abs(x) - radius, abs(y) - arm),
                      np.maximum(abs(x) - arm, abs(y) - radius))


def coverage(shape, radius, at, stretch=1.0, side=words.SIDE):
    """[side, side]: how much of each pixel a thing in the middle of `at` (x, y) covers, on a torus;
    `stretch` makes it wider and as much lower."""
    x, y = ((np.arange(side) + 0.5 - c + side / 2) % side - side / 2 for c in at)
    d = distance(shape, x[None, :] / stretch, y[:, None] * stretch, radius)
    return np.clip(0.5 - d, 0, 1).astype(np.float32)


def path(motion, times, start, phase):
    """[T, 2]: where the thing's middle is; for a circle `start` is the circle's, for a bounce the
    lowest point. `phase` is in periods."""
    f = np.asarray(times, float)
    step = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}.get(motion, (0, 0))
    at = np.asarray(start, float) + words.SPEED * f[:, None] * np.asarray(step)
    if motion == "circle":
        turn = 2 * np.pi * (f / words.CIRCLE_PERIOD + phase)
        at += words.CIRCLE_RADIUS * np.stack([np.cos(turn), np.sin(turn)], 1)
    if motion == "bounce":
        at[:, 1] -= words.BOUNCE_HEIGHT * abs(np.sin(np.pi * (f / words.BOUNCE_PERIOD + phase)))
    return at


def paint(scene, times, start, phase, stretch=1.0, tint=0):
    """[T, side, side, 3] float, 0 to 255. `tint` [3] is added to the thing's colour."""
    background = np.array(words.BACKGROUNDS[scene.background], np.float32)
    thing = np.array(words.COLOURS[scene.colour], np.float32) + tint
    cover = np.stack([coverage(scene.shape, words.SIZES[scene.size], at, stretch)
                      for at in path(scene.motion, times, start, phase)])
    return background + cover[..., None] * (thing - background)


def blur(frames, sigma):
    """Gaussian, on the torus."""
    side = frames.shape[1]
    kernel = np.exp(-2 * (np.pi * sigma * np.fft.fftfreq(side)) ** 2)
    kernel = (kernel[:, None] * kernel[None, :side // 2 + 1])[..., None]
    return np.fft.irfft2(np.fft.rfft2(frames, axes=(1, 2)) * kernel, s=(side, side), axes=(1, 2))


def bytes_of(frames):
    return np.clip(np.rint(frames), 0, 255).astype(np.uint8)


def spoil(frames, rng, noise=0.0, sigma=0.0):
    """As a small model and a video file leave them: blurred, noisy, with a quarter of the colour."""
    if sigma:
        frames = blur(frames, sigma)
    if noise:
        frames = frames + rng.normal(0, noise, frames.shape)
    yuv = bytes_of(frames).astype(np.float32) @ CHROMA.T
    t, h, w, _ = yuv.shape
    half = yuv[..., 1:].reshape(t, h // 2, 2, w // 2, 2, 2).mean((2, 4))
    yuv[..., 1:] = half.repeat(2, 1).repeat(2, 2)
    return bytes_of(yuv @ np.linalg.inv(CHROMA).T)
