"""The product's counter generator (common/rng.h) in numpy, bit for bit, and the rule by which
`weights = random:SEED` fills a model: mean + std * normal(seed, name), in the product's layout."""
import numpy as np

F = np.float32


def stream(name):
    """FNV-1a, 64 bits."""
    h = 0xCBF29CE484222325
    for byte in name.encode():
        h = (h ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return h


def _fma(a, b, c):
    """fmaf: the f64 product of two f32 is exact; the sum is rounded to odd, so that rounding it
    again to f32 rounds the true value."""
    p = np.float64(a) * np.float64(b)
    c = np.broadcast_to(np.float64(c), p.shape)
    s = p + c
    t = s - p
    lost = (p - (s - t)) + (c - t)
    even = (s.view(np.uint64) & np.uint64(1)) == 0
    nudged = np.nextafter(s, np.where(lost > 0, np.inf, -np.inf))
    return np.where((lost != 0) & even, nudged, s).astype(F)


def _philox(seed, strm, at):
    u32, mask = np.uint64, np.uint64(0xFFFFFFFF)
    c0, c1 = at & mask, at >> u32(32)
    c2 = np.full_like(at, strm & 0xFFFFFFFF)
    c3 = np.full_like(at, strm >> 32)
    k0, k1 = seed & 0xFFFFFFFF, seed >> 32
    for _ in range(10):
        p0, p1 = u32(0xD2511F53) * c0, u32(0xCD9E8D57) * c2
        n0 = (p1 >> u32(32)) ^ c1 ^ u32(k0)
        n2 = (p0 >> u32(32)) ^ c3 ^ u32(k1)
        c0, c1, c2, c3 = n0, p1 & mask, n2, p0 & mask
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return c0, c1, c2, c3


def _log_unit(w):
    v = w + np.uint64(1)
    zeros = 63 - np.floor(np.log2(v.astype(np.float64))).astype(np.int64)  # v < 2^53: exact
    mant = ((v << (zeros - 31).astype(np.uint64)) >> np.uint64(9)) & np.uint64(0xFFFFFFFF)
    m1 = mant.astype(F) * F(1.1920928955078125e-7)
    high = m1 >= F(1.5)
    m = np.where(high, F(0.5) * m1, m1)
    e = (31 - zeros + high).astype(F)
    s = (m - F(1)) / (m + F(1))
    s2 = s * s
    p = np.full_like(s, F(0.11111111))
    for k in (0.14285715, 0.2, 0.33333334, 1.0):
        p = _fma(p, s2, F(k))
    return _fma(e, F(0.6931472), F(2) * s * p)


def _cos_sin(w):
    quarter = ((w >> np.uint64(29)) + np.uint64(1)) >> np.uint64(1)
    rest = (w - (quarter << np.uint64(30))).astype(np.int64)
    x = rest.astype(F) * F(1.4629180792671596e-9)
    x2 = x * x
    s = np.full_like(x, F(2.7557319e-6))
    for k in (-1.9841270e-4, 8.3333333e-3, -0.16666667):
        s = _fma(s, x2, F(k))
    s = _fma(s * x2, x, x)
    c = np.full_like(x, F(2.4801587e-5))
    for k in (-1.3888889e-3, 4.1666668e-2, -0.5, 1.0):
        c = _fma(c, x2, F(k))
    odd = (quarter & np.uint64(1)) != 0
    a, b = np.where(odd, s, c), np.where(odd, c, s)
    a = np.where(((quarter + np.uint64(1)) & np.uint64(2)) != 0, -a, a)
    b = np.where((quarter & np.uint64(2)) != 0, -b, b)
    return a, b


def normals(seed, strm, n):
    """Numbers 0 to n - 1 of a sequence, f32."""
    w = _philox(seed, strm, np.arange((n + 3) // 4, dtype=np.uint64))
    out = np.empty((len(w[0]), 4), F)
    for i in (0, 2):
        radius = np.sqrt(F(-2) * _log_unit(w[i]))
        a, b = _cos_sin(w[i + 1])
        out[:, i], out[:, i + 1] = radius * a, radius * b
    return out.reshape(-1)[:n]


def noise(seed, block, step, shape):
    """What a session with this seed draws for a block: step -1 its noise, else its re-noising."""
    return normals(seed, 1 << 63 | block << 8 | step + 1, int(np.prod(shape))).reshape(shape)


def scale(key, shape, head_dim):
    """mean, std of a tensor, by its name: the same table as the declarations in procs/."""
    fan_in = int(np.prod(shape[1:]))
    linear = F(1) / np.sqrt(F(fan_in))
    if key.endswith("modulation"):
        return F(0), F(0.3)
    if key.endswith("norm3.bias"):
        return F(0), F(0.1)
    if key.endswith(".bias"):
        return F(0), F(0.05)
    if key.endswith("gamma") or "norm" in key:
        return F(1), F(0.1)
    if key == "token_embedding.weight":
        return F(0), F(1)
    if key.endswith("pos_embedding.embedding.weight"):
        return F(0), F(0.5)
    if ".attn.q." in key:
        return F(0), linear / np.sqrt(F(head_dim))
    return F(0), linear


def weights(seed, shapes, head_dim=1):
    """{key: f32 array} for {key: shape}. A convolution of the VAE is drawn as [O, kt, k, k, C]."""
    out = {}
    for key, shape in shapes.items():
        mean, std = scale(key, shape, head_dim)
        z = normals(seed, stream(key), int(np.prod(shape)))
        w = mean + std * z
        if len(shape) > 3 and key != "patch_embedding.weight" and not key.endswith("gamma"):
            w = np.moveaxis(w.reshape(shape[0], *shape[2:], shape[1]), -1, 1)
        out[key] = np.ascontiguousarray(w.reshape(shape))
    return out


def word_sum(arrays):
    """Sum of all f32 words, modulo 2^64: tells whether two sets of weights are the same bits."""
    return sum(int(a.view(np.uint32).astype(np.uint64).sum()) for a in arrays) % 2**64
