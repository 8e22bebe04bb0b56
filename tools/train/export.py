"""A trained model as a Hugging Face folder in the published layout, which mobilevlm-convert takes like any other."""
import json
import os
import shutil

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from archive import DataError
from model import Sizes

TOWER = "model.vision_tower.vision_tower.vision_model."


def config(s):
    return dict(
        model_type="mobilevlm", architectures=["MobileLlamaForCausalLM"], torch_dtype="float32", transformers_version="4.33.1",
        bos_token_id=1, eos_token_id=2, pad_token_id=0, use_cache=True, hidden_act="silu", tie_word_embeddings=True,
        hidden_size=s.hidden, intermediate_size=s.ffn, num_hidden_layers=s.layers, num_attention_heads=s.heads,
        vocab_size=s.vocab, max_position_embeddings=s.context, max_sequence_length=s.context, rms_norm_eps=s.eps,
        rope_theta=s.rope_theta, rope_scaling=None, conv_mode="short",
        use_mm_proj=True, mm_projector_type="ldpnetv2", mm_hidden_size=s.vision_width, mm_projector_grid=s.grid // 2,
        mm_vision_tower="tinyvlm-draw", mm_vision_select_feature="patch", mm_vision_select_layer=-1,
        mm_use_im_patch_token=False, mm_use_im_start_end=False,
        image_aspect_ratio="pad", vision_tower_type="clip",
        vision_config=dict(
            patch_size=s.patch, image_size=s.image, hidden_size=s.vision_width, intermediate_size=s.vision_ffn,
            num_hidden_layers=s.vision_layers, num_attention_heads=s.vision_heads, hidden_act="quick_gelu", layer_norm_eps=s.eps,
        ),
    )  # fmt: skip


SIDE_FILES = {
    "generation_config.json": dict(_from_model_config=True, bos_token_id=1, eos_token_id=2, pad_token_id=0),
    "special_tokens_map.json": dict(bos_token="<s>", eos_token="</s>", pad_token="<unk>", unk_token="<unk>"),
    "tokenizer_config.json": dict(tokenizer_class="LlamaTokenizer", legacy=True, add_bos_token=True, add_eos_token=False),
}


def weights(state, s):
    """The checkpoint's tensors: the averaged weights, and the norm behind the tower, which nothing reads."""
    ours = {k.removeprefix("vlm."): v for k, v in state["average"].items() if k.startswith("vlm.")}
    tensors = {k: v.float().contiguous() for k, v in ours.items()}
    tensors[TOWER + "post_layernorm.weight"] = torch.ones(s.vision_width)
    tensors[TOWER + "post_layernorm.bias"] = torch.zeros(s.vision_width)
    return tensors


def write(state, root, out):
    """`state` of the last stage -> the folder `out`, complete or absent."""
    s = Sizes(**state["sizes"])
    if os.path.exists(out):
        raise DataError(f"{out}: exists already")
    part = out.rstrip("/") + ".part"
    shutil.rmtree(part, ignore_errors=True)
    os.makedirs(part)
    for name, content in dict(SIDE_FILES, **{"config.json": config(s)}).items():
        with open(os.path.join(part, name), "w", encoding="utf-8") as f:
            json.dump(content, f, indent=2)
    shutil.copy(os.path.join(root, "tok1k.model"), os.path.join(part, "tokenizer.model"))
    try:
        save_file(weights(state, s), os.path.join(part, "model.safetensors"))
    except SafetensorError as e:
        raise DataError(f"{part}/model.safetensors: cannot be written: {e}") from e
    os.replace(part, out)
    print(f"wrote {out}", flush=True)
