#!/usr/bin/env python3
"""The public LongLive on this machine, by its own code and in the units of `longlived bench`.

    bench/longlive_checkout.py CHECKOUT [--device cuda:0|cpu] [--size full|tiny|nano] [--quick]
                                        [--lora RANK] [-o OUT.json]

CHECKOUT is a clone of https://github.com/NVlabs/LongLive at v1.0. It needs torch, numpy and
safetensors; weights are random, of the true shapes, and nothing is downloaded. All in bf16 on a GPU.

fresh   `pipeline.inference` of one block of 3 latents, from an empty window: prompt, caches, four
        passes and the clean one, the VAE; from the end of one call to the end of the next
steady  a block of one stream with a full window: the passes, and the VAE streaming behind them
switch  the new prompt's encoding, and from the begin of the recache to its first latent decoded
        (first_ms is their sum), or to the block's last (block_ms)

--lora RANK leaves an adapter of that rank unmerged, as inference.py does (rank 256; needs peft);
without it the weights stand for merged ones. Times are CUDA events, read after the run."""
import argparse
import contextlib
import io
import json
import math
import os
import sys
import time

import torch

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "../tests/golden"))

import full_size  # noqa: E402
import stand_ins  # noqa: E402

BLOCK, STEPS, SEED, PROMPTS = 3, 4, 5, 8
TEXT = {"vocab": 256384, "dim": 4096, "heads": 64, "head_dim": 64, "ffn_dim": 10240, "layers": 24,
        "text_len": 512}


# --- time -----------------------------------------------------------------------------------------

class Clock:
    """Marks in the order of the device's work; their times after the run."""

    def __init__(self, device):
        self.device, self.marks = device, []

    def mark(self):
        if self.device.type == "cuda":
            event = torch.cuda.Event(enable_timing=True)
            event.record()
        else:
            event = time.perf_counter()
        self.marks.append(event)
        return len(self.marks) - 1

    def ms(self, a, b):
        a, b = self.marks[a], self.marks[b]
        if self.device.type != "cuda":
            return 1000 * (b - a)
        torch.cuda.synchronize()
        return a.elapsed_time(b)


def stats(v):
    """Percentiles are values that were measured: nearest rank."""
    s, n = sorted(v), len(v)
    mean = sum(v) / n
    out = {"n": n, "mean": mean, "std": math.sqrt(sum((x - mean) ** 2 for x in v) / n),
           "max": s[-1], "min": s[0], "values": v}
    for p in (50, 95, 99):
        out["p%d" % p] = s[math.ceil(p * n / 100) - 1]
    return out


# --- the models -----------------------------------------------------------------------------------

def fill(module, device, seed):
    """Matrices at N(0, 1 / fan-in), so that nothing grows or dies on its way; the rest as it is."""
    g = torch.Generator(device).manual_seed(seed)
    for p in module.parameters():
        if p.dim() > 1 and p[0].numel() > 1:
            p.data.copy_(torch.randn(p.shape, generator=g, device=device) / math.sqrt(p[0].numel()))


def text_encoder(R, ref, conf, device, dtype):
    """Their encoder and its forward pass; of the tokenizer only that its rows have 512 ids."""
    c = conf["text"]
    encoder = ref.wrapper.WanTextEncoder.__new__(ref.wrapper.WanTextEncoder)
    torch.nn.Module.__init__(encoder)
    with torch.device(device):
        encoder.text_encoder = ref.t5.umt5_xxl(
            encoder_only=True, return_tokenizer=False, dtype=dtype, device=device,
            vocab_size=c["vocab"], dim=c["dim"], dim_attn=c["heads"] * c["head_dim"],
            dim_ffn=c["ffn_dim"], num_heads=c["heads"], encoder_layers=c["layers"])
    encoder = encoder.eval().requires_grad_(False)
    fill(encoder, device, SEED)
    g = torch.Generator().manual_seed(SEED)
    ids = torch.randint(3, c["vocab"], (PROMPTS, c["text_len"]), generator=g)
    mask = (torch.arange(c["text_len"]) < max(2, c["text_len"] // 12)).long().repeat(PROMPTS, 1)
    encoder.tokenizer = R.Tokens(ids, mask)
    return encoder


def models(a, device, dtype):
    R, ref = stand_ins.load(a.checkout, device)
    conf = {**full_size.FULL, "text": TEXT} if a.size == "full" else R.sizes(a.size)
    with torch.device(device):
        gen = R.generator(ref, conf, SEED, torch.float32, fill=False)
        vae = R.vae(ref, conf, SEED, torch.float32, fill=False)
    gen.scheduler.set_timesteps(1000, training=True)  # again, on the CPU, where users make it
    for m in (gen.model, vae.model):
        fill(m, device, SEED)
    gen, vae = gen.to(device, dtype), vae.to(device, dtype)
    return R, ref, conf, gen, text_encoder(R, ref, conf, device, dtype), vae


def add_lora(ref, p, rank):
    """As inference.py does, after the pipeline is made."""
    if not hasattr(sys.modules["peft"], "LoraConfig"):
        sys.exit("longlive_checkout.py: --lora needs peft, which is not installed")
    like = next(p.generator.model.parameters())
    adapter = {"type": "lora", "rank": rank, "alpha": rank, "dropout": 0.0, "verbose": False}
    p.generator.model = ref.lora.configure_lora_for_model(
        p.generator.model, "generator", adapter, is_main_process=False).to(like.device, like.dtype)


class Stream(torch.nn.Module):
    """Stands before the generator, sees when a block's latents are there (the clean pass is given
    them) and lets the VAE decode them, latent by latent, as a stream does."""

    def __init__(self, inner, vae, clock):
        super().__init__()
        self.inner, self.vae, self.clock = inner, vae, clock
        self.n_calls, self.blocks = 0, []
        vae.model.clear_cache()

    def __getattr__(self, name):
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("inner"), name)

    def decode(self, latents):
        marks = {"made": self.clock.mark()}
        for i in range(BLOCK):
            self.vae.decode_to_pixel(latents[:, i : i + 1], use_cache=True)
            if i == 0:
                marks["first"] = self.clock.mark()
        marks["decoded"] = self.clock.mark()
        return marks

    def forward(self, **k):
        x = k["noisy_image_or_video"]
        if x.shape[1] != BLOCK:  # a recache
            return self.inner(**k)
        marks = self.decode(x) if self.n_calls % (STEPS + 1) == STEPS else None
        out = self.inner(**k)
        self.n_calls += 1
        if marks:
            marks["end"] = self.clock.mark()
            self.blocks.append(marks)
        return out


# --- what is measured -----------------------------------------------------------------------------

def pipeline(device, parts, decoder):
    R, ref, conf, gen, encoder, _ = parts
    like = torch.zeros(1, STEPS - 1, 1, device=device)
    with contextlib.redirect_stdout(io.StringIO()):
        p = R.pipeline(ref, conf, gen, encoder, decoder, like)
    ref.plain.torch.randn_like = torch.randn_like  # it draws by itself
    return p


def noise_of(conf, blocks, device, dtype):
    m = conf["model"]
    return torch.randn(1, blocks * BLOCK, m["latent_channels"], m["latent_rows"], m["latent_cols"],
                       device=device, dtype=dtype)


def infer(p, noise, prompts, at):
    with contextlib.redirect_stdout(io.StringIO()):
        p.inference(noise, text_prompts_list=[[x] for x in prompts], switch_frame_indices=at)


def fresh(p, conf, device, dtype, warm, n):
    clock, ends = Clock(device), []
    for i in range(warm + n + 1):
        infer(p, noise_of(conf, 1, device, dtype), [str(i % PROMPTS)], [])
        if i >= warm:
            ends.append(clock.mark())
    return {"call_ms": stats([clock.ms(i, j) for i, j in zip(ends, ends[1:])]),
            "latents_per_call": BLOCK, "px_frames_per_call": 1 + 4 * (BLOCK - 1)}


def streamed(p, vae, conf, device, dtype, blocks, prompts, at):
    """The marks of every block, and those of every recache's begin."""
    clock, begins, theirs = Clock(device), [], p._recache_after_switch
    inner, p.generator = p.generator, Stream(p.generator, vae, clock)

    def recache(*args):
        begins.append(clock.mark())
        return theirs(*args)

    p._recache_after_switch = recache
    infer(p, noise_of(conf, blocks, device, dtype), prompts, at)
    out, p.generator = p.generator.blocks, inner
    del p._recache_after_switch
    return clock, out, begins


def steady(p, vae, conf, device, dtype, warm, n):
    clock, marks, _ = streamed(p, vae, conf, device, dtype, warm + n + 1, ["0"], [])
    pairs = list(zip(marks[warm:], marks[warm + 1 :]))
    return {"call_ms": stats([clock.ms(x["end"], y["end"]) for x, y in pairs]),
            "denoise_ms": stats([clock.ms(x["end"], y["made"]) for x, y in pairs]),
            "vae_decode_ms": stats([clock.ms(y["made"], y["decoded"]) for _, y in pairs]),
            "clean_ms": stats([clock.ms(y["decoded"], y["end"]) for _, y in pairs]),
            "latents_per_call": BLOCK, "px_frames_per_call": 4 * BLOCK}


def encodings(p, device, n):
    """In ms, of n prompts after three."""
    clock, marks = Clock(device), []
    for i in range(3 + n):
        begin = clock.mark()
        p.text_encoder(text_prompts=[str(i % PROMPTS)])
        marks.append((begin, clock.mark()))
    return [clock.ms(*m) for m in marks[3:]]


def switch(p, vae, conf, device, dtype, warm, n):
    blocks = [warm + 2 * i for i in range(n)]
    prompts = [str(i % PROMPTS) for i in range(n + 1)]
    clock, marks, begins = streamed(p, vae, conf, device, dtype, blocks[-1] + 1, prompts,
                                    [BLOCK * b for b in blocks])
    encode = encodings(p, device, n)
    first = [clock.ms(b, marks[k]["first"]) for b, k in zip(begins, blocks)]
    whole = [clock.ms(b, marks[k]["decoded"]) for b, k in zip(begins, blocks)]
    mean = sum(encode) / n
    return {"encode_ms": stats(encode), "recache_to_first_ms": stats(first),
            "recache_to_block_ms": stats(whole),
            "first_ms": stats([x + mean for x in first]), "block_ms": stats([x + mean for x in whole])}


# --- the report -----------------------------------------------------------------------------------

def name_as_seed(o, prefix, s):
    for key in ("mean", "std", "p50", "p95", "p99", "max", "min"):
        o["%s_%s" % (prefix, key)] = s[key]
    o[prefix + "_samples"] = s["n"]


def add_units(o):
    """Both of them."""
    call = o["call_ms"]
    name_as_seed(o, "ss", call)
    o["fps"] = 1000 * o["latents_per_call"] / call["mean"]
    o["px_fps"] = 1000 * o["px_frames_per_call"] / call["mean"]


def gpu_state(device):
    out = {}
    for name in ("clock_rate", "power_draw", "temperature"):
        try:
            out[name] = getattr(torch.cuda, name)(device)
        except Exception as why:  # NVML, or its module, is not there
            out[name] = "absent: %s" % str(why)[:80]
    return out


def row(name, s):
    print("%-32s %5d %10.3f %9.3f %10.3f %10.3f %10.3f %10.3f" % (
        name, s["n"], s["mean"], s["std"], s["p50"], s["p99"], s["max"], s["min"]))


def report(out):
    print("%-32s %5s %10s %9s %10s %10s %10s %10s" % (
        "ms", "n", "mean", "std", "P50", "P99", "max", "min"))
    for part in ("fresh", "steady", "switch"):
        for key, s in out[part].items():
            if isinstance(s, dict):
                row(part + "." + key, s)
    for part in ("fresh", "steady"):
        o = out[part]
        print("%s: %.2f latent frames a second, %.2f pixel frames a second" % (
            part, o["fps"], o["px_fps"]))
    print("peak memory: %.2f GB" % out["peak_memory_gb"])


def measure(a, device, dtype):
    warm, n = (2, 3) if a.quick else (10, 50)
    parts = models(a, device, dtype)
    _, ref, conf, _, _, vae = parts
    window = 12 // BLOCK + 1
    out = {}
    with torch.no_grad():
        p = pipeline(device, parts, vae)
        if a.lora:
            add_lora(ref, p, a.lora)
        out["fresh"] = fresh(p, conf, device, dtype, warm, n)
        out["gpu"] = gpu_state(device) if device.type == "cuda" else {}
        p.vae = parts[0].Blind()
        out["steady"] = steady(p, vae, conf, device, dtype, window + warm, n)
        out["switch"] = switch(p, vae, conf, device, dtype, window + warm, max(3, n // 5))
    for part in ("fresh", "steady"):
        add_units(out[part])
    name_as_seed(out["steady"], "ps", out["switch"]["first_ms"])
    peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0
    out["peak_memory_gb"] = peak / 1e9
    return out


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("checkout", type=os.path.abspath)
    p.add_argument("--device", default="cuda:0")
    p.add_argument("--size", choices=("full", "tiny", "nano"), default="full")
    p.add_argument("--quick", action="store_true", help="3 samples after 2, instead of 50 after 10")
    p.add_argument("--lora", type=int, default=0, metavar="RANK")
    p.add_argument("-o", "--out", metavar="OUT.json")
    a = p.parse_args()
    device = torch.device(a.device)
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    about = {"pipeline_type": "LongLive, public checkout", "size": a.size, "lora_rank": a.lora,
             "torch": torch.__version__, "quick": a.quick,
             "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"}
    print(about, flush=True)
    out = {**about, **measure(a, device, dtype)}
    report(out)
    if a.out:
        with open(a.out, "w", encoding="ascii") as f:
            json.dump(out, f, indent=1)
            f.write("\n")


if __name__ == "__main__":
    main()
