"""Loads any checkpoint folder into the reference, in 32-bit floats.

    config.json -> fields -> Reference without memory -> .bin or .safetensors, a tensor at a time

Files are mapped, so beside the model itself only one tensor is held at a time.
"""
import json
from pathlib import Path

import torch
from safetensors import safe_open

import reference as ref

# The published config.json names its tower only; this is the config published beside the tower.
CLIP_L_336 = dict(hidden_size=1024, intermediate_size=4096, num_hidden_layers=24,
                  num_attention_heads=16, image_size=336, patch_size=14, hidden_act="quick_gelu",
                  layer_norm_eps=1e-5)
# Only these: the published 3B config holds misleading fields of another program besides.
LLAMA_FIELDS = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
                "num_key_value_heads", "vocab_size", "rms_norm_eps", "rope_theta", "rope_scaling",
                "max_position_embeddings", "tie_word_embeddings", "hidden_act", "bos_token_id",
                "eos_token_id", "pad_token_id")
IGNORED = ("rotary_emb.inv_freq", "embeddings.position_ids")   # computed, never learned


class CheckpointError(ValueError):
    pass


def read_config(folder):
    return json.loads((Path(folder) / "config.json").read_text())


def llama_fields(config):
    return {k: config[k] for k in LLAMA_FIELDS if k in config}


def vision_fields(config):
    """-> None for a text-only model"""
    if not config.get("mm_projector_type") and not config.get("mm_vision_tower"):
        return None
    if config.get("mm_vision_select_feature", "patch") != "patch":
        raise CheckpointError("mm_vision_select_feature: only \"patch\" is known")
    return CLIP_L_336 | config.get("vision_config", {})


def weight_files(folder):
    """-> the files that hold the weights; safetensors first, as the published loader prefers"""
    folder = Path(folder)
    for stem, suffix in (("model", ".safetensors"), ("pytorch_model", ".bin")):
        index = folder / f"{stem}{suffix}.index.json"
        if index.exists():
            names = json.loads(index.read_text())["weight_map"].values()
            return [folder / n for n in sorted(set(names))]
        if (folder / (stem + suffix)).exists():
            return [folder / (stem + suffix)]
    raise CheckpointError(f"{folder}: no model.safetensors, pytorch_model.bin or index of them")


def tensors(folder):
    """Yields (published name, tensor as stored)."""
    for path in weight_files(folder):
        if path.suffix == ".safetensors":
            with safe_open(path, "pt") as file:
                for name in file.keys():
                    yield name, file.get_tensor(name)
        else:
            yield from torch.load(path, mmap=True, weights_only=True, map_location="cpu").items()


def empty_reference(config):
    """The modules with tables that are computed, but no memory for the weights yet."""
    with torch.device("meta"):
        model = ref.Reference(llama_fields(config), vision_fields(config),
                              config.get("mm_projector_type", "ldpnet"),
                              config.get("mm_vision_select_layer", -2))
    for layer in model.llama.model.layers:
        layer.self_attn._init_rope()
    if model.tower is not None:
        embeddings = model.tower.vision_model.embeddings
        embeddings.position_ids = torch.arange(embeddings.num_positions).expand(1, -1)
    return model


def attribute_name(name):
    """Published name -> name in Reference."""
    for prefix, ours in (("model.vision_tower.vision_tower.", "tower."),
                         ("model.mm_projector.", "projector.")):
        if name.startswith(prefix):
            return ours + name[len(prefix):]
    return "llama." + name


def place(model, name, tensor):
    """The parameter's memory is the f32 copy itself: a model is never held twice."""
    owner, _, leaf = name.rpartition(".")
    module = model.get_submodule(owner)
    wanted = module._parameters[leaf].shape
    if wanted != tensor.shape:
        raise CheckpointError(f"{name}: expected {list(wanted)}, got {list(tensor.shape)}")
    copy = tensor.to(torch.float32, copy=True).contiguous()
    module._parameters[leaf] = torch.nn.Parameter(copy, requires_grad=False)


def fill_absent(model, config):
    """What a checkpoint may lack: a tied head, and the tower's last norm, which is never used."""
    if config.get("tie_word_embeddings"):
        model.llama.lm_head.weight = model.llama.model.embed_tokens.weight
    for name, parameter in list(model.named_parameters()):
        if parameter.is_meta and "post_layernorm" in name:
            place(model, name, torch.ones(parameter.shape))
    absent = [n for n, p in model.named_parameters() if p.is_meta]
    if absent:
        raise CheckpointError(f"{len(absent)} tensors are missing, {absent[0]} is the first")


def load(folder):
    """-> (Reference in f32, config)"""
    config = read_config(folder)
    model = empty_reference(config)
    known = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    for name, tensor in tensors(folder):
        if name.endswith(IGNORED):
            continue
        if attribute_name(name) not in known:
            raise CheckpointError(f"{folder}: unknown tensor {name}")
        place(model, attribute_name(name), tensor)
    fill_absent(model, config)
    return model.eval(), config
