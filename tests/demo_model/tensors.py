"""tensors.py - safetensors files, read and written: a length, a header in JSON, the bytes."""
import json
import struct

import numpy as np
import torch

KINDS = {"F64": (torch.float64, 8), "F32": (torch.float32, 4), "BF16": (torch.bfloat16, 2),
         "F16": (torch.float16, 2), "I32": (torch.int32, 4), "U8": (torch.uint8, 1)}


def load(path):
    """{name: tensor}"""
    with open(path, "rb") as f:
        header = json.loads(f.read(struct.unpack("<Q", f.read(8))[0]))
        data = bytearray(f.read())
    out = {}
    for name, t in header.items():
        if name != "__metadata__":
            begin, end = t["data_offsets"]
            flat = torch.frombuffer(data, dtype=KINDS[t["dtype"]][0], offset=begin,
                                    count=(end - begin) // KINDS[t["dtype"]][1])
            out[name] = flat.reshape(t["shape"]).clone()
    return out


def save(path, tensors, **words):
    """tensors: {name: tensor}; words: of the header's metadata."""
    names = {k: n for n, (k, _) in KINDS.items()}
    header, parts, at = {"__metadata__": {k: str(v) for k, v in words.items()}}, [], 0
    for name in sorted(tensors):
        t = tensors[name].detach().cpu().contiguous()
        raw = t.reshape(-1).view(torch.uint8).numpy().tobytes()
        header[name] = {"dtype": names[t.dtype], "shape": list(t.shape),
                        "data_offsets": [at, at + len(raw)]}
        parts.append(raw)
        at += len(raw)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + b"".join(parts))
