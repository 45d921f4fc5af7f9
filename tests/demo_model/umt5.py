"""umt5.py - the umT5 encoder, from its papers (T5: arXiv:1910.10683; umT5: arXiv:2304.09151): RMS
norms before each part, attention without a scale but with a bias by distance, a table for every
layer, gated GELU. Names of parameters are those of Wan 2.1's checkpoint."""
import functools
import math

import torch
from torch import nn

BUCKETS, EPS = 32, 1e-6
STARTS = (8, 12, 16, 23, 32, 46, 64, 91)  # distances at which buckets 8 to 15 begin


class Rms(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x):
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + EPS) * self.weight


def gelu(x):
    return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x ** 3)))


@functools.lru_cache
def buckets(n, device):
    """[n, n] of query and key: which entry of a layer's table their distance has."""
    rel = (torch.arange(n)[None, :] - torch.arange(n)[:, None]).to(device)
    far = rel.abs()
    b = torch.where(far < 8, far, 7 + sum((far >= s).long() for s in STARTS))
    return b + BUCKETS // 2 * (rel > 0)


class Attention(nn.Module):
    def __init__(self, dim, heads, head_dim):
        super().__init__()
        self.heads = heads
        self.q, self.k, self.v = (nn.Linear(dim, heads * head_dim, bias=False) for _ in range(3))
        self.o = nn.Linear(heads * head_dim, dim, bias=False)

    def forward(self, x, bias):
        q, k, v = (f(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
                   for f in (self.q, self.k, self.v))
        p = torch.softmax((q @ k.transpose(-1, -2)).to(bias.dtype) + bias, -1)
        return self.o((p.to(v.dtype) @ v).transpose(1, 2).flatten(2))


class Ffn(nn.Module):
    def __init__(self, dim, ffn_dim):
        super().__init__()
        self.gate = nn.Sequential(nn.Linear(dim, ffn_dim, bias=False))
        self.fc1 = nn.Linear(dim, ffn_dim, bias=False)
        self.fc2 = nn.Linear(ffn_dim, dim, bias=False)

    def forward(self, x):
        return self.fc2(self.fc1(x) * gelu(self.gate(x)))


class Block(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.norm1, self.norm2 = Rms(c["dim"]), Rms(c["dim"])
        self.attn = Attention(c["dim"], c["heads"], c["head_dim"])
        self.ffn = Ffn(c["dim"], c["ffn_dim"])
        self.pos_embedding = nn.Module()
        self.pos_embedding.embedding = nn.Embedding(BUCKETS, c["heads"])

    def forward(self, x, at, mask):
        """mask [B, n]: True for tokens. Keys that are none have a bias that nothing overcomes."""
        bias = self.pos_embedding.embedding.weight[at].permute(2, 0, 1)[None]
        bias = bias.masked_fill(~mask[:, None, None, :], torch.finfo(bias.dtype).min)
        x = x + self.attn(self.norm1(x), bias)
        return x + self.ffn(self.norm2(x))


class Umt5(nn.Module):
    """c: [text] of a configuration. forward(ids [B, n] with 0 for none) -> [B, n, dim], 0 there."""

    def __init__(self, c):
        super().__init__()
        self.token_embedding = nn.Embedding(c["vocab"], c["dim"])
        self.blocks = nn.ModuleList(Block(c) for _ in range(c["layers"]))
        self.norm = Rms(c["dim"])

    def forward(self, ids):
        mask, at = ids != 0, buckets(ids.shape[1], ids.device)
        x = self.token_embedding(ids)
        for block in self.blocks:
            x = block(x, at, mask)
        return self.norm(x) * mask[..., None]
