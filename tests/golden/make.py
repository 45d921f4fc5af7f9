#!/usr/bin/env python3
"""Makes the golden files of this folder from a checkout of LongLive v1.0:

    python3 tests/golden/make.py CHECKOUT [NAME...]

NAME: sampler ops text vae dit roll lora whole; all by default. README.md says what each file holds."""
import json
import os
import platform
import sys

import numpy as np
import peft
import torch
from safetensors.torch import save_file

import draw
import reference as R

SEED = 5
FRAMES = 27
BLOCK = 3
PASSES = (0, 3, 9, 12, 24)
F64, BF16 = torch.float64, torch.bfloat16
STEPS = (1000, 750, 500, 250)


def save(name, tensors):
    commit = os.popen(f"git -C {CHECKOUT} rev-parse HEAD 2>/dev/null").read().strip()
    meta = {"reference": "NVlabs/LongLive v1.0 " + (commit or "e52d9ef"), "torch": torch.__version__,
            "python": platform.python_version(), "seed": str(SEED)}
    path = os.path.join(R.HERE, name + ".safetensors")
    save_file({k: v.contiguous() for k, v in tensors.items()}, path, meta)
    print(f"{name}: {len(tensors)} tensors, {os.path.getsize(path)} bytes")


def words(n):
    """A word sum, as u64 in two i32 halves of little-endian memory."""
    return torch.from_numpy(np.array([n], np.uint64).view(np.int32))


def error(got, want):
    """Relative distance from the exact, f32 [1]."""
    got, want = got.double(), want.double()
    return ((got - want).norm() / want.norm()).float().reshape(1)


def latent_shape(conf, n):
    m = conf["model"]
    return (n, m["latent_channels"], m["latent_rows"], m["latent_cols"])


def dumped_noise(conf, n=FRAMES):
    """What a session of seed SEED draws, rounded to bf16: noise [T,...], eps [T/3, 3, 3,...]."""
    shape = latent_shape(conf, BLOCK)
    noise = [draw.noise(SEED, b, -1, shape) for b in range(n // BLOCK)]
    eps = [[draw.noise(SEED, b, i, shape) for i in range(3)] for b in range(n // BLOCK)]
    return R.bf16(np.concatenate(noise)), R.bf16(np.array(eps))


def whole_prompts():
    """Prompts as a user gives them, and the ids that Hugging Face's tokenizer gives them once they
    are clean: lines of tokenizer/, by their numbers from 1."""
    folder = os.path.join(R.HERE, "tokenizer")
    with open(os.path.join(folder, "prompts.txt"), encoding="utf-8") as f:
        prompts = [json.loads(line) for line in f if line.strip()]
    with open(os.path.join(folder, "clean.txt"), encoding="ascii") as f:
        clean = [json.loads(line) for line in f]
    with open(os.path.join(folder, "bytes", "ids.txt"), encoding="ascii") as f:
        ids = [[int(i) for i in line.split(":")[1].split()] for line in f]
    chosen = [n - 1 for n in (7, 26, 126)]
    return [prompts[n] for n in chosen], [ids[prompts.index(clean[n])] for n in chosen]


def token_rows(conf, lengths):
    text_len, vocab = conf["text"]["text_len"], conf["text"]["vocab"]
    rng = np.random.Generator(np.random.PCG64(7))
    ids = torch.zeros(len(lengths), text_len, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for i, n in enumerate(lengths):
        ids[i, : n - 1] = torch.from_numpy(rng.integers(2, vocab, n - 1))
        ids[i, n - 1] = 1  # end of text, also where the prompt was cut
        mask[i, :n] = 1
    return ids, mask


def encode(conf, lengths, dtype):
    ids, mask = token_rows(conf, lengths)
    with R.precision(dtype):
        encoder = R.text_encoder(REF, conf, SEED, ids, mask, dtype)
        rows = [encoder(text_prompts=[str(i)])["prompt_embeds"] for i in range(len(lengths))]
    return ids, torch.cat(rows), encoder.words


def make_text():
    for name, conf, lengths in (("nano", R.sizes("nano"), (1, 7, 15, 16)),
                                ("tiny", R.sizes("tiny"), (2, 9, 31, 32)),
                                ("long", R.sizes("nano", text__text_len=200), (100, 200))):
        ids, exact, n_words = encode(conf, lengths, F64)
        rounded = encode(conf, lengths, BF16)[1]
        save("text-" + name, {
            "ids": ids.int(), "n": torch.tensor(lengths, dtype=torch.int32),
            "exact": exact.float(), "words": words(n_words), "rounded": rounded.bfloat16(),
            "error": torch.cat([error(rounded[i], exact[i]) for i in range(len(lengths))])})


def make_vae():
    for name, kept in (("nano", range(6)), ("tiny", (0, 5))):
        conf, out, entered, seen = R.sizes(name), {}, {}, {}
        z = R.bf16(draw.noise(SEED, 0, 100, latent_shape(conf, 6)))
        for dtype in (F64, BF16):
            with R.precision(dtype):
                v = R.vae(REF, conf, SEED, dtype)
                frames = seen[dtype] = []
                v.model.decoder.register_forward_hook(lambda m, i, y: frames.append(y[0]))
                v.model.conv2.register_forward_pre_hook(
                    lambda m, i: entered.__setitem__(dtype, i[0][0]))
                out[dtype] = v.decode_to_pixel(z[None].to(dtype))[0]
        thwc = lambda x: x.permute(1, 2, 3, 0)
        exact = [thwc(x) for x in seen[F64]]
        unit = (out[F64] * 0.5 + 0.5).clamp(0, 1)
        save("vae-" + name, {
            "latents": z.bfloat16(), "words": words(v.words),
            "denormed": entered[BF16].permute(1, 0, 2, 3),
            "rgb": (unit * 255).permute(0, 2, 3, 1).to(torch.uint8),
            "error": torch.cat([error(thwc(g), x) for g, x in zip(seen[BF16], exact)]),
            "kept": torch.tensor(list(kept), dtype=torch.int32),
            "exact": torch.cat([exact[i] for i in kept]).float()})


def make_sampler():
    """The scheduler's table, and x0 and re-noising in bf16 on dumped inputs."""
    conf = R.sizes("nano")
    with R.precision(BF16):
        g = R.generator(REF, conf, SEED, BF16, fill=False)
        s = g.get_scheduler()
        steps = torch.cat((s.timesteps, torch.tensor([0.0])))[1000 - torch.tensor(STEPS)]
        x, flow, eps = (R.bf16(draw.noise(SEED, 7, i, (3, 4, 16, 16))).bfloat16()
                        for i in range(3))
        flow = flow * 3
        x0 = [g._convert_flow_pred_to_x0(flow, x, t * torch.ones(3)) for t in steps]
        noised = [s.add_noise(x, eps, t * torch.ones(3, dtype=torch.long)) for t in steps[1:]]
        times = torch.cat((steps, torch.zeros(1)))
        save("sampler", {
            "sigmas": s.sigmas, "timesteps": s.timesteps, "steps": times,
            "x": x, "flow": flow, "eps": eps, "x0": torch.stack(x0),
            "noised": torch.stack(noised),
            "sinusoid": REF.model.sinusoidal_embedding_1d(256, times).bfloat16()})


class Watch:
    """What enters and leaves modules while they run."""

    def __init__(self):
        self.entered, self.left = {}, {}

    def __call__(self, name, module):
        def keep(_, entered, left):
            self.entered[name], self.left[name] = entered, left

        module.register_forward_hook(keep)
        return module


def watched_attention(calls):
    """The attention in use, which keeps q, k, v and o of its last call."""
    def attention(q, k, v, *args, **kwargs):
        calls[:] = [q, k, v, R._attention(q, k, v, *args, **kwargs)]
        return calls[3]
    return attention


def ops_dit(out):
    """One block of the DiT, twelve frames at once."""
    conf, w = R.sizes("nano"), Watch()
    embeds, (noise, _) = prompts_of(conf, (7,)), dumped_noise(conf, 12)
    own, cross = [], []
    with R.precision(BF16):
        teach = Teacher(conf, embeds[0], BF16)
        block = w("block", teach.gen.model.blocks[1])
        for name in ("self_attn", "cross_attn", "norm3", "norm2", "ffn"):
            w(name, getattr(block, name))
        for name in "qkvo":
            w("self." + name, getattr(block.self_attn, name))
        w("gelu", block.ffn[1])
        block.self_attn.forward = wrap(block.self_attn.forward, "attention", REF.causal, own)
        block.cross_attn.forward = wrap(block.cross_attn.forward, "flash_attention", REF.model,
                                        cross)
        e = []
        block.register_forward_pre_hook(lambda m, x, k: e.append(k["e"]), with_kwargs=True)
        teach(noise, 937.5, 0)
        mod = (block.modulation.unsqueeze(1) + e[0])[0, 0]
    p = dict(block.named_parameters())
    out.update({
        "mod.x": w.entered["block"][0][0], "mod.shift": mod[0], "mod.scale": mod[1],
        "mod.y": w.entered["self_attn"][0][0],
        "qkv": torch.cat([w.left["self." + n][0] for n in "qkv"], 1),
        "wq": p["self_attn.norm_q.weight"], "wk": p["self_attn.norm_k.weight"],
        "o.w": p["self_attn.o.weight"], "o.b": p["self_attn.o.bias"], "o.gate": mod[2],
        "o.y": w.entered["norm3"][0][0],
        "norm3.w": p["norm3.weight"], "norm3.b": p["norm3.bias"], "norm3.y": w.left["norm3"][0],
        "cross.w": p["cross_attn.o.weight"], "cross.b": p["cross_attn.o.bias"],
        "cross.y": w.entered["norm2"][0][0],
        "ffn.x": w.entered["ffn"][0][0], "ffn.w": p["ffn.0.weight"], "ffn.b": p["ffn.0.bias"],
        "ffn.y": w.left["gelu"][0]})
    for name, calls in (("self", own), ("cross", cross)):
        out.update({f"{name}.{n}": t[0].flatten(1) for n, t in zip("qkvo", calls)})


def wrap(forward, name, module, calls):
    """forward, during which module.name is watched."""
    def watched(*args, **kwargs):
        kept = getattr(module, name)
        setattr(module, name, watched_attention(calls))
        try:
            return forward(*args, **kwargs)
        finally:
            setattr(module, name, kept)
    return watched


def ops_text(out):
    """One block of umT5, 200 tokens."""
    conf, w = R.sizes("nano", text__text_len=200), Watch()
    ids, mask = token_rows(conf, (200,))
    with R.precision(BF16):
        encoder = R.text_encoder(REF, conf, SEED, ids, mask, BF16)
        block = encoder.text_encoder.blocks[1]
        for name in "qkvo":
            w(name, getattr(block.attn, name))
        w("norm1", block.norm1), w("gate", block.ffn.gate[0]), w("fc1", block.ffn.fc1)
        w("fc2", block.ffn.fc2)
        encoder(text_prompts=["0"])
    out.update({"t5." + n: w.left[n][0] for n in "qkv"})
    out.update({"t5.o": w.entered["o"][0][0],
                "t5.table": block.pos_embedding.embedding.weight,
                "rms.x": w.entered["norm1"][0][0], "rms.w": block.norm1.weight,
                "rms.y": w.left["norm1"][0], "gelu.a": w.left["fc1"][0],
                "gelu.g": w.left["gate"][0], "gelu.y": w.entered["fc2"][0][0]})


def ops_vae(out):
    """Of the VAE, a norm and the SiLU behind it, the end of a residual block, a doubled picture."""
    conf, w = R.sizes("nano"), Watch()
    z = R.bf16(draw.noise(SEED, 0, 100, latent_shape(conf, 6)))
    with R.precision(BF16):
        v = R.vae(REF, conf, SEED, BF16)
        block = w("block", v.model.decoder.middle[0])
        norm, silu, conv = block.residual[0], block.residual[1], block.residual[6]
        double = next(m for m in v.model.decoder.upsamples if hasattr(m, "resample")).resample
        w("norm", norm), w("silu", silu), w("conv", conv), w("double", double)
        v.decode_to_pixel(z[None].to(BF16))
    last = lambda x: x[0].permute(1, 2, 3, 0).flatten(0, 2)
    taps = lambda k: k.movedim(1, -1).flatten(1)  # [O, C, ...] to [O, ... C]
    x, past = w.entered["conv"]
    out.update({"l2.x": last(w.entered["norm"][0]), "l2.g": norm.gamma.flatten(),
                "l2.y": last(w.left["norm"]), "l2.silu": last(w.left["silu"]),
                "conv.x": last(x), "conv.past": last(past), "conv.w": taps(conv.weight),
                "conv.b": conv.bias, "conv.h": last(w.entered["block"][0]),
                "conv.y": last(w.left["block"]), "double.w": taps(double[1].weight),
                "double.x": w.entered["double"][0].movedim(1, -1).flatten(0, 2),
                "double.b": double[1].bias,
                "double.y": w.left["double"].movedim(1, -1).flatten(0, 2)})


def make_ops():
    """What single operations make of what they were given, in bf16, inside the models."""
    out = {}
    for part in (ops_dit, ops_text, ops_vae):
        part(out)
    save("ops", {k: v.detach().bfloat16() for k, v in out.items()})


class Teacher:
    """Passes with given inputs: clean latents fill the cache, noisy ones give a flow."""

    def __init__(self, conf, embed, dtype, gen=None):
        self.gen = gen if gen is not None else R.generator(REF, conf, SEED, dtype)
        self.dtype, self.embed = dtype, embed[None].to(dtype)
        self.tokens = conf["model"]["latent_rows"] * conf["model"]["latent_cols"] // 4
        self.p = R.pipeline(REF, conf, self.gen, R.Embeds(None), torch.nn.Identity(),
                            torch.zeros(1, 1, 1))
        self.p._initialize_kv_cache(1, dtype, torch.device("cpu"), 12 * self.tokens)
        self.p._initialize_crossattn_cache(1, dtype, torch.device("cpu"))
        self.p._set_all_modules_max_attention_size(12)

    def __call__(self, x, t, frame):
        with R.precision(self.dtype):
            return self.gen(
                noisy_image_or_video=x[None].to(self.dtype),
                conditional_dict={"prompt_embeds": self.embed},
                timestep=torch.full((1, len(x)), float(t)), kv_cache=self.p.kv_cache1,
                crossattn_cache=self.p.crossattn_cache, current_start=frame * self.tokens)[0][0]


def roll(conf, noise, eps, embeds, dtype, switches=(), keep=True, relative=False, decoder=None):
    """A whole video: latents [T, z, Y, X] and, with a decoder, frames in [0, 1]."""
    with R.precision(dtype):
        gen = R.generator(REF, conf, SEED, dtype, relative)
        p = R.pipeline(REF, conf, gen, R.Embeds(embeds.to(dtype)), decoder or R.Blind(),
                       eps.to(dtype), keep)
        video, latents = p.inference(
            noise[None].to(dtype), return_latents=True, switch_frame_indices=list(switches),
            text_prompts_list=[[str(i)] for i in range(len(switches) + 1)])
    return latents[0], video[0]


def prompts_of(conf, lengths):
    """Embeddings as the bf16 encoder makes them: one input for both precisions."""
    return encode(conf, lengths, BF16)[1].float()


def make_dit():
    for name, lengths, steps in (("nano", (7, 1, 15, 16), (0, 1, 2, 3)),
                                 ("tiny", (9, 1, 31, 32), (0, 3))):
        conf, out = R.sizes(name), {}
        embeds = prompts_of(conf, lengths)
        noise, eps = dumped_noise(conf)
        clean = R.bf16(roll(conf, noise, eps, embeds, F64)[0].float().numpy())
        teach = {d: Teacher(conf, embeds[0], d) for d in (F64, BF16)}
        times = [1000, 937.5, 833.33331298828125, 625]
        x = torch.stack([noise] + [
            R.bf16(((1 - t / 1000) * clean + t / 1000 * torch.cat(list(eps[:, i - 1]))).numpy())
            for i, t in enumerate(times) if i > 0])
        flows, errors = [], []
        for at in range(0, FRAMES, BLOCK):
            part = slice(at, at + BLOCK)
            for i in steps if at in PASSES else ():
                exact, rounded = (teach[d](x[i][part], times[i], at) for d in (F64, BF16))
                flows.append(exact.float())
                errors.append(error(rounded, exact))
            for d in (F64, BF16):
                teach[d](clean[part], 0, at)
            if name == "nano" and at in (0, 12, 24):
                cache = teach[F64].p.kv_cache1
                for k in "kv":
                    out[f"{k}.{at}"] = torch.stack([c[k][0].flatten(1) for c in cache]).float()
        pads = []
        for row in embeds:
            both = [Teacher(conf, row, d, teach[d].gen)(noise[:BLOCK], 1000, 0) for d in (F64, BF16)]
            pads.append(both[0].float())
            errors.append(error(both[1], both[0]))
        save("dit-" + name, {
            "embeds": embeds.bfloat16(), "n": torch.tensor(lengths, dtype=torch.int32),
            "clean": clean.bfloat16(), "x": x[list(steps)].bfloat16(),
            "steps": torch.tensor(steps, dtype=torch.int32),
            "frames": torch.tensor(PASSES, dtype=torch.int32), "flow": torch.stack(flows),
            "pad": torch.stack(pads), "error": torch.cat(errors),
            "words": words(teach[F64].gen.words), **out})


def make_roll():
    """Nine blocks: one prompt, and switches, in both sink modes and both kinds of position."""
    for name, lengths, plans in (
            ("nano", (5, 16, 9), [(6,), (12,), (15,), (21,), (12, 15), (15, 21)]),
            ("tiny", (9, 32, 20), [(12, 15)])):
        conf = R.sizes(name)
        embeds, (noise, eps) = prompts_of(conf, lengths), dumped_noise(conf)
        out = {"prompt_embeds": embeds.bfloat16(), "noise": noise.bfloat16(),
               "eps": eps.bfloat16()}
        for relative in (False, True):
            mode = "relative" if relative else "absolute"
            if name == "tiny" and relative:
                continue
            with R.precision(F64):
                decoder = R.vae(REF, conf, SEED, F64) if name == "nano" and not relative else None
            latents, video = roll(conf, noise, eps, embeds, F64, relative=relative, decoder=decoder)
            rounded = roll(conf, noise, eps, embeds, BF16, relative=relative)[0]
            out[mode] = latents.float()
            out[mode + ".error"] = error(rounded, latents)
            if decoder is not None:
                out["rgb"] = (video * 255).permute(0, 2, 3, 1).to(torch.uint8)
            for plan in [p for p in plans if not relative or p in ((15,), (15, 21))]:
                for keep in (True, False):
                    key = f"{mode}.{'-'.join(map(str, plan))}.{'keep' if keep else 'move'}"
                    out[key] = roll(conf, noise, eps, embeds, F64, plan, keep, relative)[0].float()
        save("roll-" + name, out)


def make_lora():
    """An unmerged adapter of rank 4 and alpha 6, as the reference runs it."""
    conf = R.sizes("nano")
    embeds, (noise, _) = prompts_of(conf, (7,)), dumped_noise(conf, 3)
    with R.precision(F64):
        gen = R.generator(REF, conf, SEED, F64)
        adapter = adapter_of(gen)
        gen.to(F64)
        flow = Teacher(conf, embeds[0], F64, gen)(noise, 1000, 0)
        plain = Teacher(conf, embeds[0], F64)(noise, 1000, 0)
    save("lora-adapter", adapter)
    save("lora-nano", {"embeds": embeds.bfloat16(), "x": noise.bfloat16(), "flow": flow.float(),
                       "flow_without": plain.float(),
                       "alpha": torch.tensor([6.0]), "n": torch.tensor([7], dtype=torch.int32)})


def keep_half(module):
    """Weights as a bf16 file holds them."""
    for p in module.parameters():
        p.data = p.data.bfloat16().to(p.dtype)


def adapter_of(gen):
    """Puts an adapter of rank 4 and alpha 6 on the generator; returns its tensors, drawn."""
    gen.model = REF.lora.configure_lora_for_model(
        gen.model, "generator", {"type": "lora", "rank": 4, "alpha": 6}, False)
    adapter = {}
    for key, was in peft.get_peft_model_state_dict(gen.model).items():
        z = draw.normals(SEED, draw.stream(key), was.numel()).reshape(was.shape)
        adapter[key] = torch.from_numpy(z * np.float32(0.2))
    peft.set_peft_model_state_dict(gen.model, adapter)
    return adapter


def make_whole():
    """Everything from files, as they are downloaded, to frames: prompts in words, three of them, an
    adapter, and the weights of all three models; umT5 and VAE in bf16, the DiT in f32."""
    prompts, rows = whole_prompts()
    conf = R.sizes("nano", text__vocab=568, text__text_len=24, vae__base_dim=4)
    ids = torch.zeros(len(rows), 24, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for i, row in enumerate(rows):
        ids[i, : len(row)], mask[i, : len(row)] = torch.tensor(row), 1
    noise, eps = dumped_noise(conf)
    with R.precision(F64):
        encoder = R.text_encoder(REF, conf, SEED, ids, mask, F64)
        v = R.vae(REF, conf, SEED, F64)
        for p in v.model.encoder.parameters():
            p.data.zero_()  # it is in the file, and nobody's business
        for m in (encoder.text_encoder, v.model):
            keep_half(m)
        gen = R.generator(REF, conf, SEED, F64)
        base = {"model." + k: t.float() for k, t in gen.model.state_dict().items()}
        adapter = adapter_of(gen)
        embeds = encoder(text_prompts=[str(i) for i in range(len(rows))])["prompt_embeds"]
        p = R.pipeline(REF, conf, gen.to(F64), R.Embeds(embeds), v, eps.to(F64))
        video, latents = p.inference(noise[None].to(F64), return_latents=True,
                                     switch_frame_indices=[12, 15],
                                     text_prompts_list=[[str(i)] for i in range(len(rows))])
    folder = os.path.join(R.HERE, "whole")
    os.makedirs(folder, exist_ok=True)
    half = lambda m: {k: t.bfloat16() for k, t in m.state_dict().items()}
    torch.save(half(encoder.text_encoder), os.path.join(folder, "text.pth"))
    torch.save(half(v.model), os.path.join(folder, "vae.pth"))
    torch.save({"generator": base, "step": 700}, os.path.join(folder, "base.pt"))
    torch.save({"generator_lora": adapter, "step": 900}, os.path.join(folder, "lora.pt"))
    with open(os.path.join(folder, "script.jsonl"), "w", encoding="ascii") as f:
        f.write(json.dumps({"prompts": prompts, "switch": [12, 15]}) + "\n")
    save("whole/video", {"latents": latents[0].float(),
                         "rgb": (video[0] * 255).permute(0, 2, 3, 1).to(torch.uint8)})


if __name__ == "__main__":
    CHECKOUT = os.path.abspath(sys.argv[1])
    REF = R.load(CHECKOUT)
    makers = {k[5:]: f for k, f in list(globals().items()) if k.startswith("make_")}
    for maker in sys.argv[2:] or ["sampler", "ops", "text", "vae", "dit", "roll", "lora",
                               "whole"]:
        makers[maker]()
