"""dit.py - the causal diffusion transformer of LongLive (arXiv:2509.22622) on Wan 2.1
(arXiv:2503.20314): names of parameters are those of Wan's checkpoint.

Letters: B videos, S streams, F latent frames of a stream, N tokens of a frame, D width, H heads, d
width of a head, L rows of text. A stream is F frames that see one another and whatever `attend`
lets them see; streams of one call differ in what they see, in time step and in prompt."""
import math

import torch
from torch import nn
from torch.nn import functional as F

EPS = 1e-6


class Rms(nn.Module):
    """Over the whole width, before heads are split."""

    def __init__(self, dim):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x):
        y = x.to(torch.promote_types(x.dtype, torch.float32))
        y = y * torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + EPS)
        return y.to(x.dtype) * self.weight.to(x.dtype)


def attention(q, k, v):
    """q [..., n, H, d], k and v [..., m, H, d]."""
    q, k, v = (x.transpose(-2, -3) for x in (q, k, v))
    if hasattr(F, "scaled_dot_product_attention"):
        shape = q.shape
        q, k, v = (x.reshape(-1, *x.shape[-3:]) for x in (q, k, v))
        return F.scaled_dot_product_attention(q, k, v).reshape(shape).transpose(-2, -3)
    s = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
    return (torch.softmax(s, -1) @ v).transpose(-2, -3)


class Rope:
    """Rotation of interleaved pairs: about a third of them each by time, row and column."""

    def __init__(self, head_dim, rows, cols, device):
        sixth = head_dim // 6
        self.device, self.rows, self.cols = device, rows, cols
        freq = lambda n: 10000.0 ** (-2 * torch.arange(n, dtype=torch.float64) / (2 * n))
        self.time, space = freq(head_dim // 2 - 2 * sixth), freq(sixth)
        place = torch.cat([
            (torch.arange(rows)[:, None] * space)[:, None].expand(-1, cols, -1),
            (torch.arange(cols)[:, None] * space)[None].expand(rows, -1, -1)], -1)
        self.place = place.reshape(rows * cols, -1)

    def table(self, positions, dtype):
        """[f * N, 1, d/2, 2]: cosines and sines for frames at these positions in time."""
        time = torch.as_tensor(positions, dtype=torch.float64)[:, None] * self.time
        n = len(self.place)
        angle = torch.cat([time[:, None].expand(-1, n, -1),
                           self.place[None].expand(len(time), -1, -1)], -1).flatten(0, 1)[:, None]
        return torch.stack([angle.cos(), angle.sin()], -1).to(self.device, dtype)

    @staticmethod
    def turn(x, table):
        cos, sin = table.unbind(-1)
        a, b = x.unflatten(-1, (-1, 2)).to(table.dtype).unbind(-1)
        return torch.stack([a * cos - b * sin, a * sin + b * cos], -1).flatten(-2).to(x.dtype)


class Attend(nn.Module):
    """The projections of one attention; what is attended to is the caller's."""

    def __init__(self, dim, heads):
        super().__init__()
        self.heads = heads
        self.q, self.k, self.v, self.o = (nn.Linear(dim, dim) for _ in range(4))
        self.norm_q, self.norm_k = Rms(dim), Rms(dim)

    def split(self, x):
        return x.unflatten(-1, (self.heads, -1))

    def query(self, x):
        return self.split(self.norm_q(self.q(x)))

    def key_value(self, x):
        return self.split(self.norm_k(self.k(x))), self.split(self.v(x))


class Block(nn.Module):
    def __init__(self, c):
        super().__init__()
        dim = c["dim"]
        self.self_attn, self.cross_attn = Attend(dim, c["heads"]), Attend(dim, c["heads"])
        self.norm3 = nn.LayerNorm(dim, EPS)
        self.ffn = nn.Sequential(nn.Linear(dim, c["ffn_dim"]), nn.GELU(approximate="tanh"),
                                 nn.Linear(c["ffn_dim"], dim))
        self.modulation = nn.Parameter(torch.randn(1, 6, dim) / dim ** 0.5)

    def forward(self, x, time, text, attend):
        """x [B, S, n, D]; time [B, S, 6, D]; text: k and v [B, S, L, H, d]; attend(q, k, v)."""
        return self.after(x, time, text, attend(*self.before(x, time)))

    def modulated(self, time):
        """Shift, scale and gate of self-attention, then of the FFN, each [B, S, 1, D]."""
        return (self.modulation + time).unsqueeze(-2).unbind(2)

    def before(self, x, time):
        """Up to self-attention: its q, k, v."""
        shift, scale = self.modulated(time)[:2]
        h = normed(x) * (1 + scale) + shift
        return self.self_attn.query(h), *self.self_attn.key_value(h)

    def after(self, x, time, text, attended):
        """From what self-attention saw on."""
        _, _, gate1, shift, scale, gate2 = self.modulated(time)
        x = x + gate1 * self.self_attn.o(attended.flatten(-2))
        q = self.cross_attn.query(self.norm3(x))
        x = x + self.cross_attn.o(attention(q, *text).flatten(-2))
        return x + gate2 * self.ffn(normed(x) * (1 + scale) + shift)


def normed(x):
    return F.layer_norm(x, x.shape[-1:], eps=EPS)


class Head(nn.Module):
    def __init__(self, dim, n_out):
        super().__init__()
        self.head = nn.Linear(dim, n_out)
        self.modulation = nn.Parameter(torch.randn(1, 2, dim) / dim ** 0.5)

    def forward(self, x, e):
        shift, scale = (self.modulation + e.unsqueeze(-2)).unsqueeze(-2).unbind(2)
        return self.head(normed(x) * (1 + scale) + shift)


class Dit(nn.Module):
    """c: [dit] of a configuration, and z, rows, cols of its latents, text_dim."""

    def __init__(self, c):
        super().__init__()
        self.c, dim = c, c["dim"]
        self.patch_embedding = nn.Conv3d(c["z"], dim, (1, 2, 2), (1, 2, 2))
        self.text_embedding = nn.Sequential(nn.Linear(c["text_dim"], dim),
                                            nn.GELU(approximate="tanh"), nn.Linear(dim, dim))
        self.time_embedding = nn.Sequential(nn.Linear(c["freq_dim"], dim), nn.SiLU(),
                                            nn.Linear(dim, dim))
        self.time_projection = nn.Sequential(nn.SiLU(), nn.Linear(dim, 6 * dim))
        self.blocks = nn.ModuleList(Block(c) for _ in range(c["layers"]))
        self.head = Head(dim, 4 * c["z"])

    def text(self, embeds):
        """embeds [B, L, text_dim], rows without a token 0 -> for each layer k and v of the prompt,
        [B, L, H, d]. Those rows are attended to as well."""
        rows = self.text_embedding(embeds)
        return [b.cross_attn.key_value(rows) for b in self.blocks]

    def forward(self, x, t, text, attend):
        """x [B, S, F, z, Y, X] at times t [B, S] in 0 to 1000; text: of each layer k and v [B, S, L,
        H, d]; attend(layer, q, k, v), each [B, S, F*N, H, d]. Returns the flow, like x."""
        B, S, n = x.shape[:3]
        w = self.patch_embedding.weight
        h = F.linear(patches(x), w.flatten(1), self.patch_embedding.bias).to(x.dtype)
        e = self.time_embedding(sinusoid(t, self.c["freq_dim"]).to(w.dtype))
        time = self.time_projection(e).unflatten(-1, (6, -1))
        for i, block in enumerate(self.blocks):
            h = block(h, time, text[i], lambda q, k, v: attend(i, q, k, v))
        y = self.head(h, e)
        return unpatch(y, n, *x.shape[-2:])


def patches(x):
    """[B, S, F, z, Y, X] -> [B, S, F*N, z*4], of a patch the channel slowest."""
    B, S, n, z, Y, X = x.shape
    x = x.reshape(B, S, n, z, Y // 2, 2, X // 2, 2).permute(0, 1, 2, 4, 6, 3, 5, 7)
    return x.reshape(B, S, n * Y * X // 4, z * 4)


def unpatch(y, n, Y, X):
    """[B, S, F*N, 4*z], of a patch the channel fastest -> [B, S, F, z, Y, X]."""
    B, S = y.shape[:2]
    y = y.reshape(B, S, n, Y // 2, X // 2, 2, 2, -1).permute(0, 1, 2, 7, 3, 5, 4, 6)
    return y.reshape(B, S, n, -1, Y, X)


def sinusoid(t, dim):
    """[...] -> [..., dim]: cosines, then sines."""
    half = dim // 2
    w = 10000.0 ** (-torch.arange(half, dtype=torch.float64, device=t.device) / half)
    a = t.double()[..., None] * w
    return torch.cat([a.cos(), a.sin()], -1)
