"""Writes a full-size checkpoint of random numbers in the published layout, for tests and benchmarks
where the real weights are not at hand.

    python make_checkpoint.py NAME OUT --tokenizer FILE [--seed N]

    NAME -> table of tensors -> pickle directory + stored ZIP, a block at a time

NAME is v1-1.7b, v2-1.7b, v1-3b, v2-3b or v2-7b. Needs numpy only, and less than 200 MB whatever the
size: all numbers are cut from one block of normal noise, at another place for every tensor.
"""
import argparse
import json
import math
import shutil
import struct
import sys
import time
import zipfile
from pathlib import Path

import numpy as np

LLAMA = {
    "1.7b": dict(hidden_size=2048, intermediate_size=5632, num_hidden_layers=24,
                 num_attention_heads=16, rms_norm_eps=1e-6, max_position_embeddings=2048),
    "3b": dict(hidden_size=2560, intermediate_size=6912, num_hidden_layers=32,
               num_attention_heads=32, rms_norm_eps=1e-6, max_position_embeddings=2048),
    "7b": dict(hidden_size=4096, intermediate_size=11008, num_hidden_layers=32,
               num_attention_heads=32, rms_norm_eps=1e-5, max_position_embeddings=4096),
}
# What the published 3B config still holds of the program it was trained with; n_head is wrong.
LEFTOVERS_3B = dict(n_head=16, n_query_groups=16, n_embd=2560, n_layer=32, norm_eps=1e-5,
                    rope_base=10000, rotary_percentage=1.0, block_size=2048,
                    padded_vocab_size=32000, parallel_residual=False, gelu_approximate="none",
                    lm_head_bias=False, _norm_class="FusedRMSNorm", _mlp_class="LLaMAMLP")
NAMES = ("v1-1.7b", "v2-1.7b", "v1-3b", "v2-3b", "v2-7b")
VOCABULARY = 32000
TOWER, TOWER_FFN, TOWER_LAYERS, PATCH, POSITIONS = 1024, 4096, 24, 14, 577
SHARD_BYTES = 10_000_000_000   # transformers' own limit, which gives the 7B its two files
ELEMENT = 2                    # bytes of a bf16
ALIGNMENT = 64                 # of torch's ZIP records
# A prime length: rows, whose length is a power of two times a little, fall on other places each.
BLOCK = 4_000_037

# Python turns to ZIP64 at 2 GiB; torch at 4 GiB, and it refuses a file that does so earlier.
zipfile.ZIP64_LIMIT = (1 << 32) - 2


# The tensors: (published name, shape), in the order of the published state dict.

def linear(name, rows, columns, bias=True):
    yield name + ".weight", (rows, columns)
    if bias:
        yield name + ".bias", (rows,)


def norm(name, width, bias=True):
    yield name + ".weight", (width,)
    if bias:
        yield name + ".bias", (width,)


def decoder_tensors(size):
    hidden, ffn = size["hidden_size"], size["intermediate_size"]
    yield "model.embed_tokens.weight", (VOCABULARY, hidden)
    for n in range(size["num_hidden_layers"]):
        layer = f"model.layers.{n}."
        for part in "qkvo":
            yield from linear(f"{layer}self_attn.{part}_proj", hidden, hidden, bias=False)
        yield from linear(layer + "mlp.gate_proj", ffn, hidden, bias=False)
        yield from linear(layer + "mlp.up_proj", ffn, hidden, bias=False)
        yield from linear(layer + "mlp.down_proj", hidden, ffn, bias=False)
        yield from norm(layer + "input_layernorm", hidden, bias=False)
        yield from norm(layer + "post_attention_layernorm", hidden, bias=False)
    yield from norm("model.norm", hidden, bias=False)


def tower_tensors():
    tower = "model.vision_tower.vision_tower.vision_model."
    yield tower + "embeddings.class_embedding", (TOWER,)
    yield tower + "embeddings.patch_embedding.weight", (TOWER, 3, PATCH, PATCH)
    yield tower + "embeddings.position_embedding.weight", (POSITIONS, TOWER)
    yield from norm(tower + "pre_layrnorm", TOWER)
    for n in range(TOWER_LAYERS):
        layer = f"{tower}encoder.layers.{n}."
        for part in ("k_proj", "v_proj", "q_proj", "out_proj"):
            yield from linear(f"{layer}self_attn.{part}", TOWER, TOWER)
        yield from norm(layer + "layer_norm1", TOWER)
        yield from linear(layer + "mlp.fc1", TOWER_FFN, TOWER)
        yield from linear(layer + "mlp.fc2", TOWER, TOWER_FFN)
        yield from norm(layer + "layer_norm2", TOWER)
    yield from norm(tower + "post_layernorm", TOWER)


def ldp_tensors(hidden):
    p = "model.mm_projector.model."
    squeezed = hidden // 4
    yield from linear(p + "mlp.1", hidden, TOWER)
    yield from linear(p + "mlp.3", hidden, hidden)
    for n in (1, 2):
        block = f"{p}mb_block.{n}.block."
        yield block + "0.0.weight", (hidden, 1, 3, 3)
        yield from norm(block + "0.1", hidden)
        yield block + "1.fc1.weight", (squeezed, hidden, 1, 1)
        yield block + "1.fc1.bias", (squeezed,)
        yield block + "1.fc2.weight", (hidden, squeezed, 1, 1)
        yield block + "1.fc2.bias", (hidden,)
        yield block + "2.0.weight", (hidden, hidden, 1, 1)
        yield from norm(block + "2.1", hidden)


def ldpv2_tensors(hidden):
    p = "model.mm_projector."
    yield from linear(p + "mlp.mlp.0", hidden, TOWER)
    yield from linear(p + "mlp.mlp.2", hidden, hidden)
    yield p + "peg.peg.0.weight", (hidden, 1, 3, 3)
    yield p + "peg.peg.0.bias", (hidden,)


def tensors(name):
    """-> [(published name, shape)] of a model"""
    version, _, size = name.partition("-")
    hidden = LLAMA[size]["hidden_size"]
    projector = ldp_tensors if version == "v1" else ldpv2_tensors
    head = [("lm_head.weight", (VOCABULARY, hidden))]
    return [*decoder_tensors(LLAMA[size]), *tower_tensors(), *projector(hidden), *head]


# The numbers.

def to_bf16(values):
    """float32 -> the nearest bf16's bits, ties to even; no NaN comes here"""
    bits = values.view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2")


def mean_and_scale(name, shape):
    """The scales of reference.randomize: every stage stays lively, nothing saturates."""
    if name.endswith("bias"):
        return 0.0, 0.1
    if "embed" in name and "patch" not in name:
        return 0.0, 0.3
    if len(shape) == 1:
        return 1.0, 0.1   # a norm
    return 0.0, 1.5 / math.sqrt(math.prod(shape[1:]))


class Numbers:
    """One block of noise, and its scaled bf16 form for each scale in use (there are about ten)."""

    def __init__(self, seed):
        self.rng = np.random.default_rng(seed)
        self.noise = self.rng.standard_normal(BLOCK, dtype=np.float32)
        self.scaled = {}

    def pieces(self, name, shape):
        """Yields the tensor's bytes in order, from a random place of the block, around and around."""
        key = mean_and_scale(name, shape)
        if key not in self.scaled:
            self.scaled[key] = to_bf16(np.float32(key[0]) + np.float32(key[1]) * self.noise)
        block, left = self.scaled[key], math.prod(shape)
        start = int(self.rng.integers(BLOCK))
        while left:
            piece = block[start:start + left]
            yield piece.data.cast("B")
            left, start = left - len(piece), 0


# The file: torch's ZIP with a pickled directory.

def pickled_string(text):
    data = text.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def pickled_int(value):
    if value < 1 << 31:
        return b"J" + struct.pack("<i", value)
    return b"\x8a\x08" + struct.pack("<q", value)


def pickled_tuple(items):
    return b"(" + b"".join(items) + b"t"


def pickled_tensor(key, shape):
    """torch._utils._rebuild_tensor_v2(storage, offset, size, stride, requires_grad, hooks)"""
    count = math.prod(shape)
    strides = [math.prod(shape[n + 1:]) for n in range(len(shape))]
    storage = pickled_tuple([pickled_string("storage"), b"ctorch\nBFloat16Storage\n",
                             pickled_string(str(key)), pickled_string("cpu"),
                             pickled_int(count)]) + b"Q"
    arguments = pickled_tuple([storage, pickled_int(0), pickled_tuple(map(pickled_int, shape)),
                               pickled_tuple(map(pickled_int, strides)), b"\x89",
                               b"ccollections\nOrderedDict\n)R"])
    return b"ctorch._utils\n_rebuild_tensor_v2\n" + arguments + b"R"


def pickled_directory(part):
    entries = b"".join(pickled_string(name) + pickled_tensor(key, shape)
                       for key, (name, shape) in enumerate(part))
    return b"\x80\x02ccollections\nOrderedDict\n)R(" + entries + b"u."


def write_record(archive, name, pieces):
    """A stored record whose data begin at a multiple of 64, by torch's padding field "FB"."""
    info = zipfile.ZipInfo(name)
    data_at = archive.fp.tell() + 30 + len(name) + 4
    padding = -data_at % ALIGNMENT
    info.extra = b"FB" + struct.pack("<H", padding) + b"Z" * padding
    with archive.open(info, "w") as record:
        for piece in pieces:
            record.write(piece)
    info.extra = b""   # the central directory has no padding, so its entry is of another length


def write_bin(path, part, numbers):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        write_record(archive, "archive/data.pkl", [pickled_directory(part)])
        for key, (name, shape) in enumerate(part):
            write_record(archive, f"archive/data/{key}", numbers.pieces(name, shape))
        write_record(archive, "archive/version", [b"3\n"])


def tensor_bytes(part):
    return sum(ELEMENT * math.prod(shape) for _, shape in part)


def split(table):
    """-> shards of at most SHARD_BYTES, filled in order"""
    out, size = [[]], 0
    for entry in table:
        bytes_ = tensor_bytes([entry])
        if size + bytes_ > SHARD_BYTES:
            out.append([])
            size = 0
        out[-1].append(entry)
        size += bytes_
    return out


def write_weights(folder, table, numbers):
    parts, index = split(table), {}
    for k, part in enumerate(parts):
        name = "pytorch_model.bin"
        if len(parts) > 1:
            name = f"pytorch_model-{k + 1:05d}-of-{len(parts):05d}.bin"
        write_bin(folder / name, part, numbers)
        index |= {tensor: name for tensor, _ in part}
    if len(parts) > 1:
        text = json.dumps({"metadata": {"total_size": tensor_bytes(table)}, "weight_map": index})
        (folder / "pytorch_model.bin.index.json").write_text(text)


def config(name):
    """As published: without the tower's own numbers."""
    version, _, size = name.partition("-")
    extra = LEFTOVERS_3B if size == "3b" else {"max_sequence_length": 2048}
    if version == "v2":
        extra = extra | {"mm_projector_lr": None}
    return LLAMA[size] | extra | {
        "architectures": ["MobileLlamaForCausalLM"], "model_type": "mobilevlm",
        "num_key_value_heads": LLAMA[size]["num_attention_heads"], "vocab_size": VOCABULARY,
        "hidden_act": "silu", "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
        "rope_theta": 10000.0, "rope_scaling": None, "tie_word_embeddings": False,
        "pretraining_tp": 1, "torch_dtype": "bfloat16", "transformers_version": "4.33.1",
        "use_cache": True, "image_aspect_ratio": "pad", "image_grid_pinpoints": None,
        "mm_hidden_size": TOWER, "mm_projector_type": "ldpnet" if version == "v1" else "ldpnetv2",
        "mm_use_im_patch_token": False, "mm_use_im_start_end": False,
        "mm_vision_select_feature": "patch", "mm_vision_select_layer": -2,
        "mm_vision_tower": "openai/clip-vit-large-patch14-336", "vision_tower_type": "clip",
        "use_mm_proj": True, "tune_mm_mlp_adapter": False, "freeze_mm_mlp_adapter": False,
    }


def write_small_files(folder, name, tokenizer):
    shutil.copyfile(tokenizer, folder / "tokenizer.model")
    write = lambda file, fields: (folder / file).write_text(json.dumps(fields, indent=2) + "\n")
    write("config.json", config(name))
    write("generation_config.json", {"_from_model_config": True, "bos_token_id": 1,
                                     "eos_token_id": 2, "pad_token_id": 0})
    write("special_tokens_map.json", {"bos_token": "<s>", "eos_token": "</s>",
                                      "pad_token": "<unk>", "unk_token": "<unk>"})
    write("tokenizer_config.json", {"add_bos_token": True, "add_eos_token": False,
                                    "model_max_length": 2048, "tokenizer_class": "LlamaTokenizer"})


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=NAMES)
    parser.add_argument("out", type=Path, help="a folder; made when it is not there")
    parser.add_argument("--tokenizer", type=Path, required=True, metavar="FILE",
                        help="a SentencePiece .model of at most 32,000 pieces")
    parser.add_argument("--seed", type=int, default=1)
    a = parser.parse_args()
    began, table = time.monotonic(), tensors(a.name)
    a.out.mkdir(parents=True, exist_ok=True)
    write_small_files(a.out, a.name, a.tokenizer)
    write_weights(a.out, table, Numbers(a.seed))
    print(f"{a.out}: {len(table)} tensors, {tensor_bytes(table)} bytes of weights, "
          f"{time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    sys.exit(main())
