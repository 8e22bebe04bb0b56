"""Golden cases for the models that come after MobileVLM: the Imp family and composite attention.

    python make_family.py [--only NAME]     of tests/golden/family.json, into tests/golden/cases; with requirements-family.txt

Imp = SigLIP + two-layer projector + Phi-2, Qwen1.5 or Phi-3, from transformers' own classes.
Folders and files as in ../README.md. The tokenizers are small ones trained here, in the published file formats.
"""
import argparse
import copy
import json
import random
import shutil
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn
from transformers import (AutoTokenizer, CodeGenTokenizer, Phi3Config, Phi3ForCausalLM, PhiConfig, PhiForCausalLM,
                          Qwen2Config, Qwen2ForCausalLM, Qwen2Tokenizer, SiglipVisionConfig, SiglipVisionModel)
from transformers.models.clip.image_processing_clip import CLIPImageProcessor

import make_cases
import make_tokens
import reference as ref

GOLDEN = Path(__file__).resolve().parents[2] / "tests" / "golden"

KINDS = {"imp": (PhiConfig, PhiForCausalLM), "imp_qwen2": (Qwen2Config, Qwen2ForCausalLM),
         "imp_phi3": (Phi3Config, Phi3ForCausalLM)}
PIECES = 470   # of tests/golden/tokenizer.model
PHI3_TOKENS = ["<|endoftext|>", "<|assistant|>", "<|placeholder1|>", "<|placeholder2|>", "<|placeholder3|>",
               "<|placeholder4|>", "<|system|>", "<|end|>", "<|placeholder5|>", "<|placeholder6|>", "<|user|>"]


class Imp(nn.Module):
    """SigLIP already cut to the layers that are read; no norm after it; every patch goes to the decoder."""

    def __init__(self, kind, llm, vision):
        super().__init__()
        config, model = KINDS[kind]
        self.llama = model(config(**llm, attn_implementation="eager"))
        self.tower = SiglipVisionModel(SiglipVisionConfig(**vision, attn_implementation="eager"))
        self.tower.vision_model.post_layernorm = nn.Identity()
        self.tower.vision_model.head = nn.Identity()
        self.tower.vision_model.use_head = False
        self.projector = ref.projector("mlp2x_gelu", vision["hidden_size"], llm["hidden_size"])
        self.eval()

    rows, logits, embed = ref.Reference.rows, ref.Reference.logits, ref.Reference.embed

    @torch.no_grad()
    def see(self, pixels):
        patches = self.tower(pixels[None], output_hidden_states=True).hidden_states[-1]
        return patches[0], self.projector(patches)[0]

    def checkpoint(self, old_names):
        state = {k: v for k, v in self.llama.state_dict().items() if "rotary_emb" not in k}
        for k, v in self.tower.state_dict().items():
            state["model.vision_tower.vision_tower." + k] = v
        for k, v in self.projector.state_dict().items():
            state["model.mm_projector." + k] = v
        return old_phi_names(state) if old_names else state


def old_phi_names(state):
    """The first Imp releases: transformer.h.N.mixer.Wqkv, with q, k and v one above the other."""
    plain = {"model.embed_tokens.weight": "transformer.embd.wte.weight", "input_layernorm": "ln",
             "self_attn.dense": "mixer.out_proj", "model.final_layernorm": "lm_head.ln", "model.layers": "transformer.h",
             "model.vision_tower": "transformer.vision_tower", "model.mm_projector": "transformer.mm_projector"}
    out = {}
    for name, value in state.items():
        if ".vision_tower." not in name and "self_attn.q_proj." in name:
            parts = [state[name.replace("q_proj", p)] for p in ("q_proj", "k_proj", "v_proj")]
            value, name = torch.cat(parts), name.replace("self_attn.q_proj", "mixer.Wqkv")
        elif ".vision_tower." not in name and (".k_proj." in name or ".v_proj." in name):
            continue
        if name.startswith("lm_head."):
            name = name.replace("lm_head.", "lm_head.linear.")
        for new, old in plain.items():
            if ".vision_tower.vision_model." not in name or new == "model.vision_tower":
                name = name.replace(new, old)
        out[name] = value
    return out


def train_bytes_bpe(folder, size):
    """A small byte-level BPE in vocab.json and merges.txt."""
    from tokenizers import ByteLevelBPETokenizer
    t = ByteLevelBPETokenizer()
    t.train([str(GOLDEN / "text.txt")], vocab_size=size, min_frequency=2)
    t.save_model(str(folder))


def tokenizer_files(kind, folder):
    """-> a tokenizer as the published one behaves, its files left in the folder."""
    if kind == "imp_phi3":
        shutil.copy(GOLDEN / "tokenizer.model", folder / "tokenizer.model")
        added = {str(PIECES + n): {"content": t, "lstrip": False, "normalized": False, "rstrip": n > 0, "single_word": False,
                                "special": True} for n, t in enumerate(PHI3_TOKENS)}
        added |= {"0": dict(content="<unk>", lstrip=False, normalized=False, rstrip=False, single_word=False, special=True),
                  "1": dict(content="<s>", lstrip=False, normalized=False, rstrip=False, single_word=False, special=True),
                  "2": dict(content="</s>", lstrip=False, normalized=False, rstrip=True, single_word=False, special=False)}
        config = {"tokenizer_class": "LlamaTokenizer", "add_bos_token": True, "add_eos_token": False, "legacy": False,
                  "bos_token": "<s>", "eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>", "unk_token": "<unk>",
                  "added_tokens_decoder": added, "model_max_length": 4096}
        (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=1))
        (folder / "added_tokens.json").write_text(json.dumps({t: PIECES + n for n, t in enumerate(PHI3_TOKENS)}))
    elif kind == "imp":
        train_bytes_bpe(folder, 400)
        t = CodeGenTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"), unk_token="<|endoftext|>")
        t.add_tokens([" " * n for n in range(31, 1, -1)] + ["\t" * n for n in range(9, 1, -1)])
        t.add_tokens(["</s>", "<image>"], special_tokens=True)
        t.save_pretrained(folder)
    else:
        train_bytes_bpe(folder, 400)
        t = Qwen2Tokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"), unk_token="<|endoftext|>",
                           eos_token="<|im_end|>", pad_token="<|endoftext|>")
        t.add_tokens(["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<image>"], special_tokens=True)
        t.save_pretrained(folder)
    return AutoTokenizer.from_pretrained(folder, use_fast=False)


def conversation(kind, turns):
    if kind in ("imp", "llava"):
        return ref.conversation(turns)
    start, end = {"imp_qwen2": ("<|im_start|>", "<|im_end|>"), "imp_phi3": (None, "<|end|>")}[kind]
    role = (lambda r: f"{start}{r}\n") if start else (lambda r: f"<|{r}|>\n")
    text = role("system") + ref.SYSTEM + end
    for question, answer in turns:
        text += "\n" + role("user") + question + end + "\n" + role("assistant")
        text += answer + end if answer is not None else ""
    return text


def prompt_ids(tokenizer, text):
    """As MobileVLM's; these vocabularies may have no BOS."""
    ids = []
    for n, chunk in enumerate(text.split("<image>")):
        piece = tokenizer(chunk).input_ids
        if n and piece and piece[0] == tokenizer.bos_token_id:
            piece = piece[1:]
        ids += ([ref.IMAGE_ID] if n else []) + piece
    return ids


def imp_pixels(path, side, pad):
    """Squashed to a square (or padded with grey first), bicubic, mean and deviation 0.5."""
    image = ref.load_rgb(path, exif=True)
    if pad:
        canvas = Image.new("RGB", (max(image.size),) * 2, (127, 127, 127))
        canvas.paste(image, ((max(image.size) - image.width) // 2, (max(image.size) - image.height) // 2))
        image = canvas
    make = CLIPImageProcessor(size={"height": side, "width": side}, do_center_crop=False, resample=3,
                              image_mean=[0.5] * 3, image_std=[0.5] * 3)
    return make.preprocess(image, return_tensors="np", input_data_format="channels_last")["pixel_values"][0].astype(np.float32)


def composite_logits(model):
    """Rows of pictures attend to themselves alone; text rows attend to everything before them."""
    def logits(rows):
        n = rows.shape[0]
        allowed = torch.ones(n, n).tril().bool()
        for first, count in model.image_spans:
            allowed[first:first + count] = False
            allowed[range(first, first + count), range(first, first + count)] = True
        mask = torch.zeros(n, n).masked_fill(~allowed, torch.finfo(torch.float32).min)[None, None]
        with torch.no_grad():
            return model.llama(inputs_embeds=rows[None], attention_mask=mask).logits[0]
    return logits


@torch.no_grad()
def answer(model, rows, count, eos):
    """-> ids without the end token, logits that chose each one, smallest top-2 margin; every step computes all anew."""
    ids, chosen, margin = [], [], float("inf")
    for _ in range(count):
        chosen.append(model.logits(rows)[-1])
        best = chosen[-1].topk(2)
        margin = min(margin, (best.values[0] - best.values[1]).item())
        ids.append(best.indices[0].item())
        if ids[-1] == eos:
            ids.pop()
            break
        rows = torch.cat([rows, model.embed(ids[-1])])
    return ids, torch.stack(chosen), margin


def make(spec, out, images):
    while make_once(copy.deepcopy(spec), out, images) < make_cases.LEAST_MARGIN:
        spec["seed"] += 100


def make_once(spec, out, image_folder):
    case, kind, dtype = out / spec["name"], spec["kind"], make_cases.DTYPES[spec["dtype"]]
    shutil.rmtree(case, ignore_errors=True)
    folder, expected = case / "checkpoint", case / "expected"
    folder.mkdir(parents=True)
    expected.mkdir()
    if kind == "llava":
        shutil.copy(GOLDEN / "tokenizer.model", folder / "tokenizer.model")
        (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "LlamaTokenizer", "legacy": False}))
        tokenizer = AutoTokenizer.from_pretrained(folder, use_fast=False)
        eos, vision = 2, make_cases.vision_fields(spec)
        model = ref.Reference(make_cases.llama_fields(spec), vision, spec["projector"])
        config = make_cases.config(spec)
        if spec.get("composite"):
            config["mm_composite_attention"] = True
    else:
        tokenizer = tokenizer_files(kind, folder)
        llm, vision = dict(spec["llm"]), dict(patch_size=14, hidden_act="gelu_pytorch_tanh", layer_norm_eps=1e-6) | spec["vision"]
        eos = {"imp": "</s>", "imp_qwen2": "<|im_end|>", "imp_phi3": "<|end|>"}[kind]
        eos = tokenizer.convert_tokens_to_ids(eos)
        llm |= {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": eos, "pad_token_id": None}
        model = Imp(kind, llm, vision)
        config = {k: v for k, v in model.llama.config.to_dict().items() if not k.startswith("_")}
        config |= {"model_type": kind, "torch_dtype": make_cases.NAMES[spec["dtype"]], "image_aspect_ratio": spec["aspect"],
                   "mm_hidden_size": vision["hidden_size"], "mm_projector_type": "mlp2x_gelu", "mm_use_im_patch_token": False,
                   "mm_use_im_start_end": False, "mm_vision_select_feature": "patch", "mm_vision_select_layer": -2,
                   "mm_vision_tower": "google/siglip-so400m-patch14-384", "use_mm_proj": True, "eos_token_id": eos,
                   "architectures": [{"imp": "ImpForCausalLM", "imp_qwen2": "ImpQwen2ForCausalLM",
                                      "imp_phi3": "ImpPhi3ForCausalLM"}[kind]], "vision_config": vision}
    (folder / "config.json").write_text(json.dumps(config, indent=1, default=str))
    ref.randomize(model, spec["seed"], dtype)
    with torch.no_grad():       # published vocabularies are padded beyond the tokenizer; those rows never win
        model.llama.lm_head.weight[len(tokenizer):] = 0
        if model.llama.lm_head.bias is not None:
            model.llama.lm_head.bias[len(tokenizer):] = -8
    state = model.checkpoint(spec.get("old_names")) if kind != "llava" else model.checkpoint()
    make_cases.write_weights(folder, state, spec)
    save = lambda name, x: np.save(expected / name, np.asarray(x, dtype=np.float32))
    rows_of, side = [], spec["vision"]["image_size"]
    for k, name in enumerate(spec["images"]):
        path = image_folder / name
        pixels = ref.pixels_of(path, side)[1] if kind == "llava" else imp_pixels(path, side, spec["aspect"] == "pad")
        patches, tokens = model.see(torch.from_numpy(pixels))
        rows_of.append(tokens)
        tag = f".{k}" if k else ""
        save(f"pixels{tag}.npy", pixels), save(f"vision{tag}.npy", patches), save(f"projector{tag}.npy", tokens)
    text = conversation(kind, spec["turns"])
    ids = prompt_ids(tokenizer, text)
    if spec.get("composite"):
        spans, at, left = [], 0, [len(r) for r in rows_of]
        for i in ids:
            if i == ref.IMAGE_ID:
                spans.append((at, left.pop(0)))
            at += spans[-1][1] if i == ref.IMAGE_ID else 1
        model.image_spans = spans
        model.logits = composite_logits(model)
    rows = model.rows(ids, rows_of)
    logits = model.logits(rows)
    greedy, chosen, margin = answer(model, rows, spec.get("count", 24), eos)
    few = slice(None) if logits.shape[1] < 4096 else slice(-1, None)
    save("logits.npy", logits[few]), save("generated_logits.npy", chosen[few])
    record = {"name": spec["name"], "seed": spec["seed"], "images": spec["images"], "turns": spec["turns"], "prompt": text,
              "input_ids": ids, "image_tokens": [len(r) for r in rows_of], "count": spec.get("count", 24), "generated_ids": greedy,
              "text": tokenizer.decode(greedy, skip_special_tokens=True).strip(), "ended": len(chosen) > len(greedy),
              "smallest_margin": margin, "logits_rms": logits.pow(2).mean().sqrt().item()}
    (expected / "case.json").write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n")
    print(f"{spec['name']:22s} rows {rows.shape[0]:4d} margin {margin:.4f} rms {record['logits_rms']:.2f} {record['text'][:60]!r}")
    return margin


def write_tokens(name):
    """Texts with their ids, and ids with what becomes of them, as the case's tokenizer does both."""
    tokenizer = AutoTokenizer.from_pretrained(GOLDEN / "cases" / name / "checkpoint", use_fast=False)
    rng, spelled = random.Random(1), [" .", " ,", " ?", " !", " ' ", " n't", " 'm", " 's", " 've", " 're", "  ", "\t\t", "it", "'", " "]
    with open(GOLDEN / "tokens" / f"{name}.jsonl", "w") as out:
        for line in make_tokens.lines(120, 1):
            if not any(t in line for t in ("</s>", "<image>", "<|", "<s>", "<unk>")):
                out.write(json.dumps({"text": line, "ids": tokenizer(line, add_special_tokens=False).input_ids}) + "\n")
        for _ in range(60):
            text = "".join(rng.choice(spelled) for _ in range(rng.randrange(1, 12)))
            ids = tokenizer(text, add_special_tokens=False).input_ids
            if rng.random() < 0.5:
                ids.insert(rng.randrange(len(ids) + 1), rng.choice(list(tokenizer.get_added_vocab().values())))
            out.write(json.dumps({"ids": ids, "decoded": tokenizer.decode(ids, skip_special_tokens=True).strip()}) + "\n")


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--only")
    a = arguments.parse_args()
    torch.set_num_threads(1)   # sums in one order
    for s in json.loads((GOLDEN / "family.json").read_text()):
        if a.only in (None, s["name"]):
            make(s, GOLDEN / "cases", GOLDEN / "images")
            if s["kind"] != "llava":
                write_tokens(s["name"])
