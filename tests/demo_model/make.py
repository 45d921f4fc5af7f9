#!/usr/bin/env python3
"""Trains the demo model and writes its weights:

    python3 tests/demo_model/make.py WORK [--size demo|smoke] [--device cuda|cpu] [--minutes M]
    torchrun --nproc_per_node 4 tests/demo_model/make.py WORK ...    # each takes its share of a batch

WORK keeps the state, in files of at most 16 MiB, and in the end vae, text, dit and
encoder.safetensors. The same command goes on where an earlier one stopped; every step has a seed of
its own, so that cuts change nothing (on a CPU, to the bit). Prints a line a minute, and `done` when
nothing is left to do. --from PHASE begins there, with the weights that are shipped but for what is
first learnt from there on; --until PHASE is done after that one: `decoder` and `teach` do not need
each other, and can be trained side by side."""
import argparse
import configparser
import glob
import os
import sys
import time

import torch
import torch.distributed as dist

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)

import losses  # noqa: E402
import tensors  # noqa: E402
from dit import Block, Dit  # noqa: E402
from tokens import Tokenizer  # noqa: E402
from umt5 import Umt5  # noqa: E402
from vae import Encoder, Vae  # noqa: E402
from words import SIDE  # noqa: E402
from world import World  # noqa: E402

CONFIGS = os.path.join(HERE, "../../configs")
PART = 15 << 20  # bytes of a state file
# phase: (steps, highest learning rate, sizes of a step by turns: videos, then what the loss is told)
# The VAE needs long clips of whole pictures too: a latent weighs on what comes 38 latents later, and
# a decoder falls apart where it has seen nothing like it: after beginnings, or far from the edge.
PHASES = {
    "demo": {"vae": (4600, 2e-3, ((16, 6, SIDE), (2, 45, SIDE))),
             "decoder": (1400, 1e-3, ((16, 6, SIDE), (2, 45, SIDE))),
             "teach": (4500, 1e-3, ((256, 6, 64),)),
             "roll": (300, 2e-4, ((128, 7),))},
    "smoke": {"vae": (12, 2e-3, ((2, 3, 48), (2, 5, 32))),
              "decoder": (4, 2e-3, ((2, 3, 48),)),
              "teach": (6, 1e-3, ((2, 5, 1),)),
              "roll": (2, 2e-4, ((2, 3),))},
}
TRAINED = {"vae": ("encoder", "vae"), "decoder": ("vae",), "teach": ("text", "dit"),
           "roll": ("text", "dit")}
SHIPPED = {"encoder": HERE, **dict.fromkeys(("vae", "text", "dit"), CONFIGS + "/demo")}
WARM, EMA = 0.03, 0.999  # of the steps; of the weights that are shipped


def config():
    """configs/demo.ini: {section: {key: int}}, and what the models want to know beside."""
    ini, conf = configparser.ConfigParser(), {}
    ini.read(os.path.join(CONFIGS, "demo.ini"))
    for section in ini.sections():
        conf[section] = {k: int(v) for k, v in ini[section].items() if v.isdigit()}
    m, d = conf["model"], conf["dit"]
    d.update(z=16, rows=m["latent_rows"], cols=m["latent_cols"], text_dim=conf["text"]["dim"])
    return conf


def fuse():
    """Compiles what is many small passes over memory, where most of a step's time goes."""
    for owner, name in ((Block, "before"), (Block, "after"), (losses.Streams, "attend"),
                        (losses, "thing_of"), (World, "render")):
        setattr(owner, name, torch.compile(getattr(owner, name)))


class Ranks:
    """The processes that train together, torchrun's, or this one alone."""

    def __init__(self, device):
        self.n = int(os.environ.get("WORLD_SIZE", 1))
        self.i = int(os.environ.get("RANK", 0))
        self.device = device
        if self.n > 1:
            if device != "cpu":
                self.device = f"{device}:{os.environ['LOCAL_RANK']}"
                torch.cuda.set_device(self.device)
            dist.init_process_group("gloo" if device == "cpu" else "nccl")

    def share(self, n):
        """How many of n are this one's."""
        return -(-n // self.n)

    def first_says(self, yes):
        """The same on all of them, so that they stop at the same step."""
        if self.n == 1:
            return yes
        word = torch.tensor(int(yes), device=self.device)
        dist.broadcast(word, 0)
        return bool(word)

    def mean(self, tensors):
        """In place, one message for all of them."""
        if self.n > 1:
            flat = torch.cat([t.flatten() for t in tensors])
            dist.all_reduce(flat)
            for t, f in zip(tensors, flat.split([t.numel() for t in tensors])):
                t.copy_(f.view_as(t) / self.n)


class Training:
    def __init__(self, work, size, ranks):
        self.work, self.phases, self.ranks = work, PHASES[size], ranks
        device = self.device = ranks.device
        c = self.conf = config()
        torch.manual_seed(0)
        self.nets = {"encoder": Encoder(16, SIDE), "vae": Vae(16, c["vae"]["base_dim"]),
                     "text": Umt5(c["text"]), "dit": Dit(c["dit"])}
        for net in self.nets.values():
            net.to(device)
        if device != "cpu":
            fuse()
            for p in self.nets["vae"].parameters():  # a sixth less time a step, on an H100
                if p.dim() == 5:
                    p.data = p.data.contiguous(memory_format=torch.channels_last_3d)
        for layer in self.nets["dit"].blocks:  # a block begins as nothing: its gates are closed
            torch.nn.init.zeros_(layer.modulation)
        torch.nn.init.zeros_(self.nets["dit"].head.head.weight)
        tokenizer = Tokenizer(os.path.join(CONFIGS, "demo/spiece.model"))
        self.world = World(tokenizer.encode, c["text"]["text_len"], device)
        self.at = {"phase": 0, "step": 0}
        self.streams = None
        self.begin_phase()

    def name(self):
        return list(self.phases)[self.at["phase"]]

    def trained(self):
        return {f"{n}.{k}": p for n in TRAINED[self.name()]
                for k, p in self.nets[n].named_parameters()}

    def begin_phase(self):
        if self.device != "cpu":
            torch.compiler.reset()  # another phase has other shapes
        for net in self.nets.values():
            net.requires_grad_(False).eval()
        self.ema = {}
        if self.at["phase"] == len(self.phases):
            return
        for p in self.trained().values():
            p.requires_grad_(True)
        if self.name() == "vae":
            self.nets["encoder"].train()
        self.ema = {k: p.detach().clone() for k, p in self.trained().items()}
        self.optimizer = torch.optim.AdamW(self.trained().values(), betas=(0.9, 0.99),
                                           weight_decay=0.01)

    def loss(self):
        # On a CPU, where only tests train, in f32.
        with torch.autocast(self.device.split(":")[0], torch.bfloat16,
                            enabled=self.device != "cpu"):
            return self.loss_of_phase()

    def loss_of_phase(self):
        name = self.name()
        sizes = self.phases[name][2]
        size = sizes[self.at["step"] % len(sizes)]
        size = (self.ranks.share(size[0]),) + size[1:]
        n, w = self.nets, self.world
        if name in ("vae", "decoder"):
            return losses.vae_loss(w, n["encoder"], n["vae"], *size)
        if name == "teach":
            if self.streams is None:
                self.streams = losses.Streams(n["dit"], size[1], self.ranks.share(size[2]))
            return losses.teach_loss(w, n["encoder"], n["text"], n["dit"], self.streams, size[0])
        return losses.roll_loss(w, n["encoder"], n["text"], n["dit"], *size)

    def step(self):
        steps, top, _ = self.phases[self.name()]
        torch.manual_seed(1000003 * self.at["phase"] + self.at["step"] + 1 + 500009 * self.ranks.i)
        done = self.at["step"] / steps
        rate = top * min(1, (done + 1 / steps) / WARM) * min(1, 1.02 - done)
        loss, params = self.learn(self.loss(), rate), self.trained()
        keep = min(EMA, self.at["step"] / (self.at["step"] + 10))
        with torch.no_grad():
            ema = list(self.ema.values())
            torch._foreach_mul_(ema, keep)
            torch._foreach_add_(ema, list(params.values()), alpha=1 - keep)
        self.at["step"] += 1
        if self.at["step"] == steps:
            with torch.no_grad():
                for k, p in params.items():
                    p.copy_(self.ema[k])
                # each has measured latents of its own clips: from here on they mean the same
                norm = self.nets["encoder"].norm
                self.ranks.mean([norm.running_mean, norm.running_var])
            self.at = {"phase": self.at["phase"] + 1, "step": 0}
            self.begin_phase()
        return loss

    def learn(self, loss, rate):
        self.optimizer.zero_grad()
        loss.backward()
        params = list(self.trained().values())
        self.ranks.mean([p.grad for p in params])
        torch.nn.utils.clip_grad_norm_(params, 1.0)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        return loss.detach()

    def state(self):
        """Everything that the next step depends on, as named tensors."""
        out = {f"net.{n}.{k}": v for n, net in self.nets.items()
               for k, v in net.state_dict().items() if v.is_floating_point()}
        out.update({"ema." + k: v for k, v in self.ema.items()})
        for k, p in self.trained().items() if self.ema else ():
            s = self.optimizer.state.get(p)
            if s:
                out["m." + k], out["v." + k] = s["exp_avg"], s["exp_avg_sq"]
        out["at"] = torch.tensor([self.at["phase"], self.at["step"]], dtype=torch.int32)
        return out

    def save(self):
        part, n_bytes, n_parts = {}, 0, 0
        old = set(glob.glob(os.path.join(self.work, "state-*.safetensors")))
        for k, v in list(self.state().items()) + [(None, None)]:
            if k is None or n_bytes + v.numel() * 4 > PART:
                path = os.path.join(self.work, f"state-{n_parts}.safetensors")
                tensors.save(path, part)
                old.discard(path)
                part, n_bytes, n_parts = {}, 0, n_parts + 1
            if k is not None:
                part[k] = v
                n_bytes += v.numel() * 4
        for path in old:
            os.remove(path)

    def start(self, first, end):
        """At phase number first of those before end: what none of these is the first to learn is
        what is shipped."""
        self.at["phase"] = first
        nets_of = lambda phases: {n for p in phases for n in TRAINED[p]}
        names = list(self.phases)
        for n in SHIPPED.keys() - (nets_of(names[first:end]) - nets_of(names[:first])):
            kept = tensors.load(os.path.join(SHIPPED[n], n + ".safetensors"))
            net = self.nets[n]
            net.load_state_dict({k: v.to(self.device, net.state_dict()[k].dtype)
                                 for k, v in kept.items()})
        self.begin_phase()

    def load(self, first, end):
        """What an earlier slice left, or else, but from the first phase on, what start takes."""
        paths = glob.glob(os.path.join(self.work, "state-*.safetensors"))
        if not paths:
            if first > 0:
                self.start(first, end)
            return
        kept = {k: v.to(self.device) for p in paths for k, v in tensors.load(p).items()}
        phase, step = kept["at"].tolist()
        self.at = {"phase": phase, "step": step}
        for n, net in self.nets.items():
            net.load_state_dict({k: kept[f"net.{n}.{k}"] for k, v in net.state_dict().items()
                                 if v.is_floating_point()}, strict=False)
        self.begin_phase()
        for k, p in self.trained().items() if self.ema else ():
            self.ema[k].copy_(kept["ema." + k])
            if "m." + k in kept:
                self.optimizer.state[p] = {"step": torch.tensor(float(step)),
                                           "exp_avg": kept["m." + k],
                                           "exp_avg_sq": kept["v." + k]}

    def export(self):
        """The product's files, in bf16, and the encoder's, which only training needs. The product
        gives Wan's mean and deviation to latents that the DiT makes, as vae.py does."""
        for name in ("vae", "text", "dit", "encoder"):
            tensors.save(os.path.join(self.work, name + ".safetensors"),
                         {k: v.bfloat16() for k, v in self.nets[name].state_dict().items()},
                         model="longlived demo", license="Apache-2.0")


def main():
    p = argparse.ArgumentParser()
    p.add_argument("work")
    p.add_argument("--size", default="demo", choices=sorted(PHASES))
    p.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    p.add_argument("--minutes", type=float, default=1e9, help="stop then, to go on later")
    p.add_argument("--steps", type=int, default=1 << 60, help="stop after so many")
    # torchrun takes options that begin like its own, such as --start
    p.add_argument("--from", dest="start", choices=list(PHASES["demo"]),
                   default="vae", help="begin there, after what is shipped")
    p.add_argument("--until", choices=list(PHASES["demo"]), default="roll",
                   help="done after that")
    a = p.parse_args()
    os.makedirs(a.work, exist_ok=True)
    torch.backends.cudnn.benchmark = True  # convolutions of few channels: let it look for the best
    torch.set_float32_matmul_precision("high")
    ranks = Ranks(a.device)
    t = Training(a.work, a.size, ranks)
    first, end = (list(t.phases).index(phase) for phase in (a.start, a.until))
    end += 1
    t.load(first, end)
    began = said = time.monotonic()
    recent, left = [], a.steps
    while t.at["phase"] < end and left > 0:
        if t.at["step"] % 16 == 0 and ranks.first_says(time.monotonic() - began > 60 * a.minutes):
            break
        left -= 1
        name, step = t.name(), t.at["step"]
        recent.append(t.step())
        if time.monotonic() - said > 60 or t.at["step"] == 0:
            if ranks.i == 0:
                print(f"{name} {step + 1} loss {torch.stack(recent).mean():.4f} "
                      f"at {time.monotonic() - began:.0f} s", flush=True)
            said, recent = time.monotonic(), []
    if ranks.i == 0:
        t.save()
        if t.at["phase"] >= end:
            t.export()
            print("done")


if __name__ == "__main__":
    main()
