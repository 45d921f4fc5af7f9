#!/usr/bin/env python3
"""Writes the fixtures of one torch version: `make.py VERSION_FOLDER`, run by a Python that has that
torch. README.md lists the versions. The tests know the values by their formulas below, so that a
fixture is never its own judge."""

import argparse
import os
import sys
from collections import OrderedDict

import torch
from torch import nn


def pattern(key, *shape, dtype=torch.float32):
    """Element i of a tensor with number `key`: an eighth of an integer, exact in every format."""
    n = 1
    for d in shape:
        n *= d
    values = [((i * 7 + key * 3) % 31 - 15) / 8 for i in range(n)]
    return torch.tensor(values).reshape(shape).to(dtype)


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.q = nn.Linear(3, 4)
        self.norm = nn.LayerNorm(4)
        self.register_buffer("count", torch.tensor(5))


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList([Block(), Block()])


class Wrapper(nn.Module):
    def __init__(self):
        super().__init__()
        self.model = Model()


def fill(state, first):
    """The i-th tensor of a state_dict gets pattern first + i; the counts stay."""
    i = 0
    for t in state.values():
        if t.is_floating_point():
            t.data.copy_(pattern(first + i, *t.shape))
            i += 1
    return state


def with_fragments(state):
    out = OrderedDict()
    for name, t in state.items():
        name = name.replace("model.", "model._fsdp_wrapped_module.", 1)
        name = name.replace("blocks.1.", "blocks.1._checkpoint_wrapped_module._orig_mod.", 1)
        out[name] = t
    return out


def flat():
    base = pattern(0, 40)
    return {
        "f32": pattern(1, 2, 3, 4),
        "bf16": pattern(2, 5, 7, dtype=torch.bfloat16),
        "f16": pattern(3, 9, dtype=torch.float16),
        "f64": pattern(4, 3, dtype=torch.float64),
        "i64": torch.tensor([-1, 2**40]),
        "bool": torch.tensor([True, False]),
        "scalar": pattern(5, 1).reshape(()),
        "empty": torch.zeros(0, 4),
        "view.a": base[8:20].reshape(3, 4),
        "view.b": base[20:],
        "parameter": nn.Parameter(pattern(6, 2, 2)),
        "nested": [{"x": pattern(7, 2)}, (pattern(8, 3),)],
        "text": "not a tensor",
        "size": torch.Size([1, 2]),
        "number": 0.5,
    }


def rounding():
    """Bit patterns from all of f32; ties of bf16 and of f16; numbers about f16's range."""
    torch.manual_seed(1)
    bits = torch.randint(-(2**31), 2**31 - 1, (2000,), dtype=torch.int64).to(torch.int32)
    bits[:500] = (bits[:500] & ~0xFFFF) | 0x8000
    x = torch.tensor(bits.numpy().view("float32"))
    x = torch.where(torch.isnan(x), torch.zeros_like(x), x)
    near = torch.randn(2000) * torch.exp2(torch.randint(-28, 17, (2000,)).float())
    ties = torch.tensor((torch.tensor(near[:500].numpy().view("int32")) & ~0x1FFF | 0x1000)
                        .numpy().view("float32"))
    x = torch.cat([x, near, ties])
    return {"x": x, "bf16": x.to(torch.bfloat16), "f16": x.to(torch.float16)}


def lora():
    out = {}
    for i in range(2):
        name = "base_model.model.blocks.%d.q" % i
        out[name + ".lora_A.weight"] = pattern(20 + i, 2, 3)
        out[name + ".lora_B.weight"] = pattern(30 + i, 4, 2)
    return out


def main():
    out = sys.argv[1]
    os.makedirs(out, exist_ok=True)

    def save(name, value, **kw):
        torch.save(value, os.path.join(out, name), **kw)

    wrapper, ema = Wrapper().state_dict(), Wrapper().state_dict()
    fill(wrapper, 10)
    fill(ema, 50)
    dump = {
        "generator": with_fragments(wrapper),
        "generator_ema": ema,
        "critic": Wrapper().state_dict(),
        "generator_optimizer": {"state": {0: {"exp_avg": torch.zeros(3), "step": 1}},
                                "param_groups": [{"lr": 1e-4, "betas": (0.9, 0.95)}]},
        "step": 700,
    }
    save("flat.pth", flat())
    save("dump.pt", dump)
    save("model.pt", {"model": fill(Wrapper().state_dict(), 10)})
    save("lora.pt", {"generator_lora": lora(), "critic_lora": lora(), "step": 3})
    save("strided.pt", {"t": pattern(1, 4, 3).t(), "ok": pattern(2, 3)})
    save("legacy.pt", {"t": pattern(1, 4)}, _use_new_zipfile_serialization=False)
    save("protocol4.pt", flat(), pickle_protocol=4)
    save("parameters.pt", Wrapper().state_dict(keep_vars=True))
    save("unknown.pt", {"t": pattern(1, 4), "config": argparse.Namespace(lr=1)})
    if torch.__version__.startswith("2.8"):
        save("rounding.pt", rounding())
        from safetensors.torch import save_file
        save_file({k: v.contiguous() for k, v in flat().items()
                   if isinstance(v, torch.Tensor) and k != "view.b"},
                  os.path.join(out, "flat.safetensors"), metadata={"format": "pt"})
    print(torch.__version__, sorted(os.listdir(out)))


if __name__ == "__main__":
    main()
