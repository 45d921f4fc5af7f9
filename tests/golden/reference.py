"""LongLive v1.0 from a checkout, at the sizes of our configurations: what is patched is listed in
README.md, and no formula is among it."""
import configparser
import contextlib
import functools
import importlib
import os
import sys
import types

import numpy as np
import torch
import torch.nn.functional

import draw

DECODER = ("conv2.", "decoder.")
HERE = os.path.dirname(os.path.abspath(__file__))


def sizes(name, **over):
    """configs/NAME.ini as a dict of dicts of ints, over LongLive's own values."""
    conf = {"model": {"latent_channels": 16}, "vae": {}, "text": {}, "dit": {}}
    ini = configparser.ConfigParser()
    ini.read(os.path.join(HERE, "../../configs", name + ".ini"))
    for section in (s for s in ini.sections() if not s.startswith("preset.")):
        for key, value in ini[section].items():
            conf[section][key] = int(value)
    for key, value in over.items():
        section, key = key.split("__")
        conf[section][key] = value
    return conf


def _attention(q, k, v, *args, **kwargs):
    """[B, L, N, D] each; no mask reaches any call of the inference path."""
    assert kwargs.get("k_lens") is None
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    return torch.nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).contiguous()


class Tokens:
    """Stands for the tokenizer: a prompt is the name of a row of ids."""

    def __init__(self, ids, mask):
        self.ids, self.mask = ids, mask

    def __call__(self, prompts, **kwargs):
        rows = [int(p) for p in prompts]
        return self.ids[rows], self.mask[rows]


class Embeds(torch.nn.Module):
    """A text encoder that has encoded: prompt "i" is row i."""

    def __init__(self, rows):
        super().__init__()
        self.rows = rows

    def forward(self, text_prompts):
        return {"prompt_embeds": self.rows[[int(p) for p in text_prompts]]}


class Blind(torch.nn.Module):
    """A VAE for a video of which only the latents are wanted."""

    def decode_to_pixel(self, latents, use_cache):
        return torch.zeros(1, 1)


class Torch:
    """torch for a pipeline module: the sizes of its caches follow the configuration, and the
    re-noising reads the dump."""

    def __init__(self, fix_shape, eps):
        self.fix_shape, self.eps = fix_shape, eps

    def __getattr__(self, name):
        return getattr(torch, name)

    def zeros(self, shape, **kwargs):
        return torch.zeros(self.fix_shape(list(shape)), **kwargs)

    def randn_like(self, x):
        return next(self.eps).to(x.dtype)


def load(checkout):
    """Imports the modules of the inference path, and nothing of training."""
    sys.path.insert(0, checkout)
    torch.cuda.current_device = lambda: 0
    torch.compile = lambda f, **kwargs: f
    for name in ("wan", "pipeline"):  # their __init__ imports training and image-to-video
        package = types.ModuleType(name)
        package.__path__ = [os.path.join(checkout, name)]
        sys.modules[name] = package
    names = {
        "wrapper": "utils.wan_wrapper",
        "causal": "wan.modules.causal_model",
        "infinity": "wan.modules.causal_model_infinity",
        "model": "wan.modules.model",
        "t5": "wan.modules.t5",
        "vae": "wan.modules.vae",
        "plain": "pipeline.causal_inference",
        "interactive": "pipeline.interactive_causal_inference",
        "lora": "utils.lora_utils",
    }
    ref = types.SimpleNamespace(**{k: importlib.import_module(v) for k, v in names.items()})
    torch.cuda.current_device = lambda: torch.device("cpu")
    ref.model.flash_attention = _attention
    ref.causal.attention = ref.infinity.attention = _attention
    return ref


@contextlib.contextmanager
def precision(dtype):
    """In float64 the reference's casts to float32 are casts to float64: the mathematics."""
    kept = torch.Tensor.float
    if dtype == torch.float64:
        torch.Tensor.float = torch.Tensor.double
    try:
        with torch.no_grad():
            yield
    finally:
        torch.Tensor.float = kept


def _fill(module, seed, kept, head_dim=1):
    """Weights by our rule; returns their word sum. kept(key): what our model has too."""
    shapes = {k: tuple(p.shape) for k, p in module.named_parameters() if kept(k)}
    drawn = draw.weights(seed, shapes, head_dim)
    state = {k: torch.from_numpy(v) for k, v in drawn.items()}
    missing = module.load_state_dict(state, strict=False)
    assert not missing.unexpected_keys and not [k for k in missing.missing_keys if kept(k)]
    return draw.word_sum(drawn.values())


def text_encoder(ref, conf, seed, ids, mask, dtype):
    c = conf["text"]
    make = functools.partial(
        ref.t5.umt5_xxl, vocab_size=c["vocab"], dim=c["dim"], dim_attn=c["heads"] * c["head_dim"],
        dim_ffn=c["ffn_dim"], num_heads=c["heads"], encoder_layers=c["layers"])
    ref.wrapper.umt5_xxl = make
    ref.wrapper.HuggingfaceTokenizer = lambda **kwargs: Tokens(ids, mask)
    ref.wrapper.torch = types.SimpleNamespace(**vars(torch))
    ref.wrapper.torch.load = lambda *args, **kwargs: make(encoder_only=True).state_dict()
    encoder = ref.wrapper.WanTextEncoder()
    encoder.words = _fill(encoder.text_encoder, seed, lambda k: True, c["head_dim"])
    return encoder.to(dtype)


def vae(ref, conf, seed, dtype, fill=True):
    z, base = conf["model"]["latent_channels"], conf["vae"]["base_dim"]
    temporal = [False, True, True]
    whole = ref.vae.WanVAE_(dim=base, z_dim=z, temperal_downsample=temporal)
    ref.wrapper._video_vae = functools.partial(ref.vae._video_vae, dim=base)
    ref.vae.torch = types.SimpleNamespace(**vars(torch))
    ref.vae.torch.load = lambda *args, **kwargs: whole.state_dict()
    made = ref.wrapper._video_vae
    ref.wrapper._video_vae = lambda pretrained_path, z_dim: made(pretrained_path, z_dim=z)
    v = ref.wrapper.WanVAEWrapper()
    v.mean, v.std = v.mean[:z], v.std[:z]
    if fill:
        v.words = _fill(v.model, seed, lambda k: k.startswith(DECODER))
    return v.to(dtype)


def generator(ref, conf, seed, dtype, relative=False, fill=True):
    c, m = conf["dit"], conf["model"]
    cls = ref.infinity.CausalWanModel if relative else ref.causal.CausalWanModel
    cls.from_pretrained = classmethod(lambda k, path, **kwargs: k(
        dim=c["dim"], ffn_dim=c["ffn_dim"], num_heads=c["heads"], num_layers=c["layers"],
        freq_dim=c["freq_dim"], in_dim=m["latent_channels"], out_dim=m["latent_channels"],
        text_len=conf["text"]["text_len"], text_dim=conf["text"]["dim"], **kwargs))
    g = ref.wrapper.WanDiffusionWrapper(
        is_causal=True, timestep_shift=5.0, local_attn_size=12, sink_size=3,
        use_infinite_attention=relative)
    if fill:
        g.words = _fill(g.model, seed, lambda k: True)
    return g.to(dtype)


def pipeline(ref, conf, gen, encoder, decoder, eps, global_sink=True, steps=(1000, 750, 500, 250)):
    """eps [blocks, steps - 1, frames, z, Y, X], in the order in which the sampler draws."""
    c, text_len = conf["dit"], conf["text"]["text_len"]
    heads, tokens = c["heads"], conf["model"]["latent_rows"] * conf["model"]["latent_cols"] // 4

    def fix(shape):
        if shape[-2:] == [12, 128]:
            shape[-2:] = [heads, c["dim"] // heads]
            shape[1] = text_len if shape[1] == 512 else shape[1]
        return shape

    ref.plain.torch = ref.interactive.torch = Torch(fix, iter(eps.flatten(0, 1)))
    args = types.SimpleNamespace(
        denoising_step_list=list(steps), warp_denoising_step=True, num_frame_per_block=3,
        context_noise=0, global_sink=global_sink, model_kwargs=types.SimpleNamespace(
            local_attn_size=12, timestep_shift=5.0, sink_size=3))
    p = ref.interactive.InteractiveCausalInferencePipeline(
        args, eps.device, generator=gen, text_encoder=encoder, vae=decoder)
    p.num_transformer_blocks = c["layers"]
    p.frame_seq_length = tokens
    return p


def bf16(x):
    """Rounded to what bf16 holds, as f32."""
    return torch.from_numpy(np.ascontiguousarray(x, np.float32)).bfloat16().float()
