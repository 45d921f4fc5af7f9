#!/usr/bin/env python3
"""These models against LongLive's own numbers, in float64: tests/golden, made by its public code.

    python3 tests/demo_model/test_golden.py        # ends in ok or not ok, a line a case
"""
import os
import sys

import torch

HERE = os.path.dirname(os.path.abspath(__file__))
GOLDEN = os.path.join(HERE, "../golden")
sys.path[:0] = [HERE, GOLDEN]

import draw  # noqa: E402
import reference  # noqa: E402
from dit import Dit  # noqa: E402
from rollout import SIGMAS, Session, f32  # noqa: E402
from tensors import load  # noqa: E402
from umt5 import Umt5  # noqa: E402
from vae import Vae  # noqa: E402

SEED = 5


def sizes(name, **over):
    """configs/NAME.ini, and what the DiT wants to know of the other models."""
    conf = reference.sizes(name, **over)
    m = conf["model"]
    conf["dit"].update(z=m["latent_channels"], rows=m["latent_rows"], cols=m["latent_cols"],
                       text_dim=conf["text"]["dim"])
    return conf


def filled(module, head_dim=1):
    """By the rule of weights = random:5, in float64."""
    shapes = {k: tuple(v.shape) for k, v in module.state_dict().items()}
    drawn = draw.weights(SEED, shapes, head_dim)
    module.double().load_state_dict({k: torch.from_numpy(v) for k, v in drawn.items()})
    return module.requires_grad_(False)


def distance(got, want):
    want = want.double()
    return float((got.double() - want).norm() / want.norm())


def test_umt5():
    for name, over in (("nano", {}), ("tiny", {}), ("long", {"text__text_len": 200})):
        conf = sizes("nano" if name == "long" else name, **over)
        g = load(os.path.join(GOLDEN, f"text-{name}.safetensors"))
        model = filled(Umt5(conf["text"]), head_dim=conf["text"]["head_dim"])
        got = model(g["ids"].long())
        yield f"umt5 {name}", distance(got, g["exact"].reshape(got.shape)), 1e-6


def test_passes():
    for name in ("nano", "tiny"):
        conf = sizes(name)
        g = load(os.path.join(GOLDEN, f"dit-{name}.safetensors"))
        model = filled(Dit(conf["dit"]))
        s = Session(model, None, None, relative=False)
        s.prompt(g["embeds"][:1].double())
        frames, steps, at = g["frames"].tolist(), g["steps"].tolist(), 0
        flows = g["flow"].reshape(-1, 3, *g["flow"].shape[-3:])
        for start in range(0, len(g["clean"]), 3):
            part, worst = slice(start, start + 3), 0.0
            if start in frames:
                for j, i in enumerate(steps):
                    got = s.forward(g["x"][j, part][None].double(), f32(1000 * SIGMAS[i]), start)
                    worst = max(worst, distance(got[0], flows[at]))
                    at += 1
                yield f"pass {name}, frame {start}", worst, 1e-6
            s.commit(g["clean"][part][None].double())


def test_rolls():
    for name in ("nano", "tiny"):
        conf = sizes(name)
        g = load(os.path.join(GOLDEN, f"roll-{name}.safetensors"))
        model = filled(Dit(conf["dit"]))
        noise, eps, embeds = (g[k].double() for k in ("noise", "eps", "prompt_embeds"))
        for key in g:
            words = key.split(".")
            if words[0] not in ("absolute", "relative") or words[-1] == "error":
                continue
            switches = [int(w) for w in words[1].split("-")] if len(words) > 1 else []
            s = Session(model, lambda b: noise[None, 3 * b:3 * b + 3],
                        lambda b, i: eps[b, i].reshape(1, 3, *noise.shape[1:]),
                        global_sink=words[-1] != "move", relative=words[0] == "relative")
            s.prompt(embeds[:1])
            for b in range(len(noise) // 3):
                if switches and 3 * b >= switches[0]:
                    switches.pop(0)
                    s.prompt(embeds[len(words[1].split("-")) - len(switches):][:1])
                s.block()
            yield f"roll {name}, {key}", distance(torch.cat(s.latents, 1)[0], g[key]), 1e-6


def test_vae():
    for name in ("nano", "tiny"):
        conf = sizes(name)
        g = load(os.path.join(GOLDEN, f"vae-{name}.safetensors"))
        model = filled(Vae(conf["model"]["latent_channels"], conf["vae"]["base_dim"]))
        got = model.decode(g["latents"].double().transpose(0, 1)[None])[0].permute(1, 2, 3, 0)
        kept = [f for i in g["kept"].tolist() for f in ([0] if i == 0 else range(4 * i - 3, 4 * i + 1))]
        yield f"vae {name}", distance(got[kept], g["exact"].reshape(len(kept), *got.shape[1:])), 1e-6


def main():
    failed = 0
    for test in (test_umt5, test_passes, test_rolls, test_vae):
        for what, got, most in test():
            good = got <= most
            failed += not good
            print(f"{'ok' if good else 'not ok'} {what}: {got:.1e}", flush=True)
    return failed > 0


if __name__ == "__main__":
    sys.exit(main())
