"""What a checkout of LongLive imports and a machine may not have: modules in their place, with what
building and running the models takes from them. No formula is among it."""
import importlib
import sys
import types

import torch


def rearrange(x, pattern, t=None):
    """The two rearrangements of the VAE."""
    if pattern.startswith("b c t"):
        return x.transpose(1, 2).flatten(0, 1)
    return x.unflatten(0, (-1, t)).transpose(1, 2)


def stand_in(name, **attributes):
    """A module that is not installed, with what building and running the models takes from it."""
    try:
        importlib.import_module(name)
    except ImportError:
        at = ""
        for part in name.split("."):
            at = at + "." + part if at else part
            sys.modules.setdefault(at, types.ModuleType(at))
        vars(sys.modules[name]).update(attributes)


def load(checkout, device):
    stand_in("diffusers.configuration_utils", ConfigMixin=type("ConfigMixin", (), {}),
             register_to_config=lambda f: f)
    stand_in("diffusers.models.modeling_utils", ModelMixin=torch.nn.Module)
    stand_in("einops", rearrange=rearrange, repeat=None)
    stand_in("transformers", AutoTokenizer=None)
    stand_in("peft", get_peft_model_state_dict=None)
    for name in ("ftfy", "regex"):
        stand_in(name)
    current = torch.cuda.current_device
    import reference
    ref = reference.load(checkout)
    if device.type == "cuda":
        torch.cuda.current_device = current
        torch.cuda.set_device(device)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    return reference, ref
