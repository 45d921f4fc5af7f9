"""rollout.py - how LongLive makes a video (arXiv:2509.22622): block after block of latent frames by
four denoising passes over a KV cache, a clean pass that fills the cache, and at a prompt switch a
pass over what was made, which computes the cache anew."""
import torch

from dit import Rope, attention

SHIFT, T_MAX = 5.0, 1000


def f32(x):
    return torch.tensor(x, dtype=torch.float32).item()


def sigma_of(r):
    """The noise level at r of the way, by Self-Forcing's shifted schedule (arXiv:2506.08009)."""
    return SHIFT * r / (1 + (SHIFT - 1) * r)


SIGMAS = tuple(f32(sigma_of(r)) for r in (1.0, 0.75, 0.5, 0.25))


class Cache:
    """K (not rotated) and V of the frames that are seen: the sink, and a window of the newest."""

    def __init__(self, model, window=12, sink=3, relative=True):
        c = model.c
        p = next(model.parameters())
        self.rope = Rope(c["dim"] // c["heads"], c["rows"] // 2, c["cols"] // 2, p.device)
        self.n_tokens = c["rows"] * c["cols"] // 4
        self.window, self.sink, self.relative = window, sink, relative
        self.base = 0  # the sink's first frame
        self.layers = [{} for _ in range(c["layers"])]  # frame -> k, v [B, S, N, H, d]

    def seen(self, end):
        """Frames, in order, that a pass which ends before `end` attends to."""
        first = self.base + self.sink
        oldest = max(first, end - (self.window - self.sink))
        return list(range(self.base, min(first, end))) + list(range(oldest, end))

    def attend(self, start, n):
        """For Dit.forward: frames start to start + n - 1, which replace what is cached of them."""
        seen = self.seen(start + n)
        at = list(range(len(seen))) if self.relative else seen

        def attend(layer, q, k, v):
            kept = self.layers[layer]
            for f in [f for f in kept if f not in seen]:
                del kept[f]
            for i in range(n):
                part = slice(i * self.n_tokens, (i + 1) * self.n_tokens)
                kept[start + i] = (k[:, :, part], v[:, :, part])
            keys, values = (torch.cat([kept[f][j] for f in seen], 2) for j in (0, 1))
            wide = torch.promote_types(q.dtype, torch.float32)
            turn = lambda x, p: Rope.turn(x, self.rope.table(p, wide)).to(v.dtype)
            return attention(turn(q, at[len(at) - n:]), turn(keys, at), values)

        return attend


class Session:
    """One video, or B at once. noise(block) and eps(block, step) give [B, F, z, Y, X]."""

    def __init__(self, model, noise, eps, window=12, sink=3, n_frames=3, global_sink=True,
                 relative=True, sigmas=SIGMAS):
        self.model, self.noise, self.eps = model, noise, eps
        self.n, self.global_sink, self.sigmas = n_frames, global_sink, sigmas
        self.cache = Cache(model, window, sink, relative)
        self.latents, self.text = [], None  # blocks [B, F, z, Y, X]

    def forward(self, x, t, start):
        """x [B, f, z, Y, X] -> flow, like x."""
        times = torch.full((len(x), 1), float(t), dtype=torch.float64, device=x.device)
        return self.model(x[:, None], times, self.text, self.cache.attend(start, x.shape[1]))[:, 0]

    def prompt(self, embeds):
        """From the next block on: embeds [B, L, text_dim]."""
        self.text = [(k[:, None], v[:, None]) for k, v in self.model.text(embeds)]
        cache, made = self.cache, len(self.latents) * self.n
        if made == 0:
            return
        if self.global_sink and made > cache.window:
            start = made - (cache.window - cache.sink)
        else:
            start = cache.base = max(0, made - cache.window)
            cache.layers = [{} for _ in cache.layers]
        with torch.no_grad():
            self.forward(torch.cat(self.latents, 1)[:, start:], 0, start)

    def renoise(self, x, i):
        """The last step's x as step i wants it: at its noise level, under fresh noise."""
        if i == 0:
            return x
        return (1 - self.sigmas[i]) * x + self.sigmas[i] * self.eps(len(self.latents), i - 1)

    def denoise(self, x, i, start):
        """x at noise level i -> what it hides."""
        return x - self.sigmas[i] * self.forward(x, f32(T_MAX * self.sigmas[i]), start)

    def block(self):
        """The next block, [B, F, z, Y, X]."""
        b = len(self.latents)
        x = self.noise(b)
        for i in range(len(self.sigmas)):
            x = self.denoise(self.renoise(x, i), i, b * self.n)
        return self.commit(x)

    def commit(self, x):
        self.forward(x, 0, len(self.latents) * self.n)
        self.latents.append(x)
        return x
