"""y4m.py - raw video files as the gateway writes them: 8 bits, 4:2:0, BT.601 in limited range."""
import re

import numpy as np

MARK = b"FRAME\n"


def read(path):
    """[T, H, W, 3] uint8 RGB; the colour of four pixels is the same, as in the file."""
    with open(path, "rb") as f:
        head = f.readline()
        data = np.frombuffer(f.read(), np.uint8)
    size = re.match(rb"YUV4MPEG2 W(\d+) H(\d+) .*C420jpeg XCOLORRANGE=LIMITED\n", head)
    if not size:
        raise ValueError("%s: not a y4m file of the gateway: %r" % (path, head))
    w, h = int(size[1]), int(size[2])
    frames = data.reshape(-1, len(MARK) + w * h * 3 // 2)
    if any(frame[:len(MARK)].tobytes() != MARK for frame in frames):
        raise ValueError("%s: a frame without its mark" % path)
    luma, u, v = np.split(frames[:, len(MARK):].astype(np.float32), [w * h, w * h * 5 // 4], 1)
    luma = (luma.reshape(-1, h, w) - 16) * (255 / 219)
    u, v = (((c - 128) * (255 / 224)).reshape(-1, h // 2, w // 2).repeat(2, 1).repeat(2, 2)
            for c in (u, v))
    rgb = np.stack([luma + 1.402 * v,
                    luma - (0.114 * 1.772 * u + 0.299 * 1.402 * v) / 0.587,
                    luma + 1.772 * u], -1)
    return np.clip(np.rint(rgb), 0, 255).astype(np.uint8)


def write(path, frames):
    """What the gateway would write of [T, H, W, 3] uint8 RGB."""
    t, h, w, _ = frames.shape
    r, g, b = np.moveaxis(frames.astype(np.float32), -1, 0)
    luma = 0.299 * r + 0.587 * g + 0.114 * b
    u, v = (c.reshape(t, h // 2, 2, w // 2, 2).mean((2, 4))
            for c in ((b - luma) / 1.772, (r - luma) / 1.402))
    planes = [luma * (219 / 255) + 16, u * (224 / 255) + 128, v * (224 / 255) + 128]
    planes = [np.rint(p).astype(np.uint8) for p in planes]
    with open(path, "wb") as f:
        f.write(b"YUV4MPEG2 W%d H%d F16:1 Ip A1:1 C420jpeg XCOLORRANGE=LIMITED\n" % (w, h))
        for planes_of_frame in zip(*planes):
            f.write(MARK + b"".join(p.tobytes() for p in planes_of_frame))
