"""vae.py - the decoder of Wan 2.1's causal VAE (arXiv:2503.20314, section 4.1), for a whole clip at
once, and an encoder of our own, which only training needs. Names of the decoder's parameters are
those of Wan's checkpoint.

A clip [B, C, T, Y, X] begins with a video: before it is nothing, and its first latent frame is one
picture, every later one four."""
import math

import torch
from torch import nn
from torch.nn import functional as F

MEAN = (-0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508,
        0.4134, -0.0715, 0.5517, -0.3632, -0.1922, -0.9497, 0.2503, -0.2921)
STD = (2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743,
       3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253, 2.8251, 1.9160)


# Deviation of latents. Noise has 1: with that, too little of a small thing stands in the noise of the
# sampler's second level (sigma 0.9375) to find it by, and what the first step decided is lost.
SPREAD = 3.0


class Causal(nn.Conv3d):
    """Sees this frame and kt - 1 before it."""

    def forward(self, x):
        kt, k = self.kernel_size[:2]
        return super().forward(F.pad(x, (k // 2,) * 4 + (kt - 1, 0)))


class Norm(nn.Module):
    """x / |x| * sqrt(C) * gamma, over the channels. Large passes stay in x's type, which counts where
    channels are few."""

    def __init__(self, dim, axes):
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(dim, *(1,) * axes))

    def forward(self, x):
        wide = torch.promote_types(x.dtype, torch.float32)
        mean = (x * x).sum(1, keepdim=True, dtype=wide) / x.shape[1]
        return x * mean.clamp(min=1e-24).rsqrt().to(x.dtype) * self.gamma.to(x.dtype)


class Res(nn.Module):
    def __init__(self, n_in, n_out):
        super().__init__()
        self.residual = nn.Sequential(
            Norm(n_in, 3), nn.SiLU(), Causal(n_in, n_out, 3), Norm(n_out, 3), nn.SiLU(),
            nn.Identity(), Causal(n_out, n_out, 3))
        self.shortcut = Causal(n_in, n_out, 1) if n_in != n_out else nn.Identity()

    def forward(self, x):
        return self.shortcut(x) + self.residual(x)


class Attention(nn.Module):
    """One head, within a frame."""

    def __init__(self, dim):
        super().__init__()
        self.norm = Norm(dim, 2)
        self.to_qkv, self.proj = nn.Conv2d(dim, 3 * dim, 1), nn.Conv2d(dim, dim, 1)

    def forward(self, x):
        B, C, T, Y, X = x.shape
        y = x.transpose(1, 2).flatten(0, 1)
        q, k, v = self.to_qkv(self.norm(y)).flatten(2).transpose(1, 2).chunk(3, -1)
        p = torch.softmax(q @ k.transpose(1, 2) / math.sqrt(C), -1)
        y = self.proj((p @ v).transpose(1, 2).reshape(B * T, C, Y, X))
        return x + y.reshape(B, T, C, Y, X).transpose(1, 2)


class Up(nn.Module):
    """Twice the rows and columns; with time_conv also two frames of one, but of the clip's first."""

    def __init__(self, dim, in_time):
        super().__init__()
        self.resample = nn.Sequential(nn.Upsample(scale_factor=2, mode="nearest"),
                                      nn.Conv2d(dim, dim // 2, 3, padding=1))
        if in_time:
            self.time_conv = nn.Conv3d(dim, 2 * dim, (3, 1, 1))
        self.in_time = in_time

    def forward(self, x):
        if self.in_time and x.shape[2] > 1:
            y = self.time_conv(F.pad(x[:, :, 1:], (0, 0, 0, 0, 2, 0)))
            y = torch.stack(y.chunk(2, 1), 3).flatten(2, 3)
            x = torch.cat([x[:, :, :1], y], 2)
        B, C, T, Y, X = x.shape
        y = self.resample(x.transpose(1, 2).flatten(0, 1))
        return y.reshape(B, T, C // 2, 2 * Y, 2 * X).transpose(1, 2)


class Decoder(nn.Module):
    def __init__(self, z, base):
        super().__init__()
        w = 4 * base
        self.conv1 = Causal(z, w, 3)
        self.middle = nn.Sequential(Res(w, w), Attention(w), Res(w, w))
        ups, n = [], w
        for stage, out in enumerate((w, w, 2 * base, base)):
            for _ in range(3):
                ups.append(Res(n, out))
                n = out
            if stage < 3:
                ups.append(Up(n, stage < 2))
                n //= 2
        self.upsamples = nn.Sequential(*ups)
        self.head = nn.Sequential(Norm(n, 3), nn.SiLU(), Causal(n, 3, 3))

    def forward(self, x):
        return self.head(self.upsamples(self.middle(self.conv1(x))))


class Vae(nn.Module):
    """decode(latents [B, z, T, Y, X], of mean 0 and deviation SPREAD) -> pictures [B, 3, 1 + 4(T - 1),
    8Y, 8X], about -1 to 1."""

    def __init__(self, z, base):
        super().__init__()
        self.conv2, self.decoder = Causal(z, z, 1), Decoder(z, base)
        stats = torch.tensor([MEAN[:z], STD[:z]], dtype=torch.float64)
        self.register_buffer("stats", stats.reshape(2, 1, z, 1, 1, 1), persistent=False)

    def decode(self, latents):
        mean, std = self.stats.to(latents.dtype)
        return self.decoder(self.conv2(latents * std + mean))


class Encoder(nn.Module):
    """Pictures [B, 3, 1 + 4(T - 1), 8Y, 8X] -> latents [B, z, T, Y, X] of mean 0 and deviation
    `spread`, each from its own four pictures and the four before."""

    def __init__(self, z, side, width=64, spread=SPREAD):
        super().__init__()
        self.spread = spread
        self.shape = (z, side // 8, side // 8)
        conv = lambda a, b: nn.Sequential(nn.GroupNorm(8, a), nn.SiLU(), nn.Conv2d(a, b, 3, padding=1))
        self.first = nn.Conv2d(24, width, 4, 4)
        self.fine = conv(width, width)
        self.down = nn.Conv2d(width, 2 * width, 2, 2)
        self.coarse = nn.ModuleList(nn.Sequential(conv(2 * width, 2 * width), conv(2 * width, 2 * width))
                                    for _ in range(2))
        self.last = nn.Conv2d(2 * width, z, 1)
        self.norm = nn.BatchNorm2d(z, affine=False, momentum=0.02)

    def forward(self, x):
        B, _, n, Y, X = x.shape
        T = (n + 3) // 4
        x = torch.cat([x[:, :, :1].expand(-1, -1, 7, -1, -1), x], 2)  # a still picture before
        x = x.unfold(2, 8, 4).permute(0, 2, 1, 5, 3, 4).reshape(B * T, 24, Y, X)
        h = self.first(x)
        h = self.down(h + self.fine(h))
        for block in self.coarse:
            h = h + block(h)
        z = self.spread * self.norm(self.last(h))
        return z.reshape(B, T, -1, Y // 8, X // 8).transpose(1, 2)
