"""world.py - clips of the small world, many at once, on any device: pictures, prompts as token ids,
and where the prompt changes. words.py says what a scene is."""
import math
import random

import torch

import words as W

NAMES = [list(x) for x in (W.COLOURS, W.SHAPES, W.SIZES, W.BACKGROUNDS, W.MOTIONS)]
SAID, CHANGES = 24, 32  # ways to say a scene, scenes that it can become, drawn beforehand
N_CIRCLE, N_BOUNCE = NAMES[4].index("circle"), NAMES[4].index("bounce")


def frame_of(latent):
    """The first picture that a latent frame decodes to."""
    return max(0, 4 * latent - 3)


class World:
    """encode(text) -> token ids, end of text included."""

    def __init__(self, encode, text_len, device, seed=0, trained=True):
        rng, self.device, self.text_len = random.Random(seed), device, text_len
        scenes = [s for s in W.all_scenes() if W.is_held_out(s) != trained]
        number = {s: i for i, s in enumerate(scenes)}
        self.scenes = scenes
        tensor = lambda x, **k: torch.tensor(x, device=device, **k)
        self.attributes = tensor([[n.index(a) for n, a in zip(NAMES, s)] for s in scenes])
        said = [[W.said(s, rng) if i else W.plain(s) for i in range(SAID)] for s in scenes]
        self.said = torch.stack([torch.stack([self.ids(encode(t)) for t in ts])
                                 for ts in said]).to(device)
        self.changes = tensor([[number[W.change(s, rng, trained)] for _ in range(CHANGES)]
                               for s in scenes])
        table = lambda d: tensor(list(d.values()), dtype=torch.float32)
        self.colours, self.backgrounds, self.sizes = map(table, (W.COLOURS, W.BACKGROUNDS, W.SIZES))
        way = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
        self.speed = W.SPEED * tensor([way.get(m, (0, 0)) for m in NAMES[4]], dtype=torch.float32)

    def ids(self, tokens):
        """[text_len] on the CPU; a longer prompt is cut before its end."""
        out = torch.zeros(self.text_len, dtype=torch.long)
        tokens = tokens[:self.text_len - 1] + tokens[-1:] if len(tokens) > self.text_len else tokens
        out[:len(tokens)] = torch.tensor(tokens)
        return out

    def random(self, *shape):
        return torch.rand(*shape, device=self.device)

    def pick(self, n, *shape):
        return torch.randint(n, shape, device=self.device)

    def scene_pairs(self, n):
        """[n, 2]: a scene and what it becomes."""
        a = self.pick(len(self.scenes), n)
        return torch.stack([a, self.changes[a, self.pick(CHANGES, n)]], 1)

    def prompts(self, scenes):
        """Token ids [..., text_len] of scenes [...], said in one of their ways."""
        return self.said[scenes, self.pick(SAID, *scenes.shape)]

    def path(self, motion, f, phase):
        """How far a thing has come [B, f, 2] since f = 0; motion, phase [B]; f [B, f] frames."""
        turn = lambda g: 2 * math.pi * (g + phase[:, None]) / W.CIRCLE_PERIOD
        hop = lambda g: W.BOUNCE_HEIGHT * torch.sin(
            math.pi * (g + phase[:, None]) / W.BOUNCE_PERIOD).abs()
        zero = torch.zeros_like(f)
        circle = W.CIRCLE_RADIUS * torch.stack([turn(f).cos() - turn(zero).cos(),
                                                turn(f).sin() - turn(zero).sin()], -1)
        bounce = torch.stack([zero, hop(zero) - hop(f)], -1)
        straight = self.speed[motion][:, None] * f[..., None]
        m = motion[:, None, None]
        return torch.where(m == N_CIRCLE, circle, torch.where(m == N_BOUNCE, bounce, straight))

    def clip(self, scenes, switch, n_latents, place, phase):
        """Pictures [B, 3, 1 + 4(n - 1), SIDE, SIDE] in -1 to 1. scenes [B, 2], the second from
        latent switch [B] on; place [B, 2] pixels at the start; phase [B] frames."""
        f = torch.arange(frame_of(n_latents), dtype=torch.float32, device=self.device)[None]
        at = torch.where(switch > 0, 4 * switch - 3, 0).float()[:, None]
        a, b = self.attributes[scenes].unbind(1)
        m1, m2 = a[:, 4], b[:, 4]
        first = self.path(m1, f.expand(len(a), -1), phase)
        start = torch.where(m2 == N_CIRCLE, 0.75 * W.CIRCLE_PERIOD, 0.0)  # at the top; on the floor
        then = self.path(m1, at, phase) + self.path(m2, f - at, start)
        is_new = f >= at
        goes_on = (m1 == m2)[:, None] | ~is_new
        where = place[:, None] + torch.where(goes_on[..., None], first, then)
        now = torch.where(is_new[..., None], b[:, None], a[:, None])
        return self.render(now[..., 0], now[..., 1], now[..., 2], now[..., 3], where)

    def render(self, colour, shape, size, background, where):
        """All [B, f], where [B, f, 2] -> [B, 3, f, SIDE, SIDE]. Edges are a pixel wide."""
        axis = torch.arange(W.SIDE, device=self.device) + 0.5
        near = lambda d: torch.remainder(d + W.SIDE / 2, W.SIDE) - W.SIDE / 2
        x = near(axis - where[..., :1])[:, :, None, :]
        y = near(axis - where[..., 1:])[:, :, :, None]
        r, ax, ay = self.sizes[size][..., None, None], x.abs(), y.abs()
        ball = (x * x + y * y).sqrt() - r
        square = torch.maximum(ax, ay) - 0.88 * r
        triangle = torch.maximum(y, math.sqrt(3) / 2 * ax - y / 2) - 1.15 * r / 2
        cross = torch.minimum(torch.maximum(ax - r, ay - 0.36 * r),
                              torch.maximum(ax - 0.36 * r, ay - r))
        s = shape[..., None, None]
        edge = torch.where(s == 0, ball, torch.where(s == 1, square, torch.where(
            s == 2, triangle, cross)))
        alpha = (0.5 - edge).clamp(0, 1)[:, None]
        ink, paper = (t.permute(0, 2, 1)[..., None, None] for t in (
            self.colours[colour], self.backgrounds[background]))
        return (alpha * ink + (1 - alpha) * paper) / 127.5 - 1


def place_of(noise):
    """Where the first block's noise puts the thing, and at which phase: noise [B, 3, z, Y, X] ->
    pixels [B, 2], frames [B]. So the first denoising step has one right answer instead of a blur of
    all places, and still every place is as likely as every other: the thing is where the noise of
    four channels, smoothed on the torus, is highest."""
    field = noise[:, :, :4].mean((1, 2))
    Y, X = field.shape[-2:]
    blur = lambda n: torch.exp(-0.5 * (torch.fft.fftfreq(n, device=noise.device) * 2 * math.pi
                                       * 1.5) ** 2)
    kernel = blur(Y)[:, None] * blur(X)
    smooth = torch.fft.ifft2(torch.fft.fft2(field.float()) * kernel).real
    best = smooth.flatten(1).argmax(1)
    row, col = best // X, best % X
    i = torch.arange(len(best), device=noise.device)

    def refine(at, n, value):
        """The top of the parabola through the highest value and its two neighbours."""
        a, b, c = value(at - 1), value(at), value(at + 1)
        return at + 0.5 + 0.5 * (a - c) / (a - 2 * b + c).clamp(max=-1e-6)

    y = refine(row, Y, lambda r: smooth[i, r % Y, col])
    x = refine(col, X, lambda c: smooth[i, row, c % X])
    phase = torch.atan2(noise[:, :, 8].mean((1, 2, 3)), noise[:, :, 9].mean((1, 2, 3)))
    return 8.0 * torch.stack([x, y], 1), phase * W.CIRCLE_PERIOD / (2 * math.pi)
