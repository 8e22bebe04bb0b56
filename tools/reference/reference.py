"""The reference MobileVLM, in 32-bit floats, built from the libraries of the published model.

transformers: CLIP vision tower, LLaMA, LlamaTokenizer, CLIPImageProcessor
torchvision:  InvertedResidual + SqueezeExcitation (LDP)
timm:         LayerNormAct2d (LDP)
Parameter names are those of the published checkpoints.
"""
from functools import partial

import numpy as np
import torch
from PIL import Image, ImageOps
from timm.layers.norm_act import LayerNormAct2d
from torch import nn
from torchvision.models.mobilenetv3 import InvertedResidual, InvertedResidualConfig
from transformers import (CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModel, LlamaConfig,
                          LlamaForCausalLM)

IMAGE_ID = -200
SYSTEM = ("A chat between a curious user and an artificial intelligence assistant. "
          "The assistant gives helpful, detailed, and polite answers to the user's questions.")
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)


def square(x):
    """[batch, side*side, channels] -> [batch, channels, side, side], rows first."""
    batch, tokens, channels = x.shape
    side = int(tokens ** 0.5)
    return x.transpose(1, 2).reshape(batch, channels, side, side)


def flat(x):
    return x.flatten(2).transpose(1, 2)


class Ldp(nn.Module):
    """LDP: two linear layers, then two depthwise-separable blocks with squeeze-excite; the second
    halves the grid."""

    def __init__(self, vision, hidden):
        super().__init__()

        def block(stride):
            row = InvertedResidualConfig(hidden, 3, hidden, hidden, True, "HS", stride, 1, 1)
            return InvertedResidual(row, partial(LayerNormAct2d, act_layer=None))

        self.model = nn.ModuleDict({
            "mlp": nn.Sequential(nn.Identity(), nn.Linear(vision, hidden), nn.GELU(),
                                 nn.Linear(hidden, hidden)),
            "mb_block": nn.Sequential(nn.Identity(), block(1), block(2)),
        })

    def forward(self, x):
        return flat(self.model["mb_block"](square(self.model["mlp"](x))))


class LdpV2(nn.Module):
    """LDPv2: two linear layers, adaptive mean pool to a fixed grid, depthwise 3x3 convolution added
    to its input."""

    def __init__(self, vision, hidden, grid=12):
        super().__init__()
        self.mlp = nn.ModuleDict({"mlp": nn.Sequential(nn.Linear(vision, hidden), nn.GELU(),
                                                       nn.Linear(hidden, hidden))})
        self.pool = nn.AdaptiveAvgPool2d((grid, grid))
        conv = nn.Conv2d(hidden, hidden, 3, 1, 1, groups=hidden, bias=True)
        self.peg = nn.ModuleDict({"peg": nn.Sequential(conv)})

    def forward(self, x):
        x = self.pool(square(self.mlp["mlp"](x)))
        return flat(x + self.peg["peg"](x))


def projector(kind, vision, hidden):
    if kind == "ldpnet":
        return Ldp(vision, hidden)
    if kind == "ldpnetv2":
        return LdpV2(vision, hidden)
    if kind == "linear":
        return nn.Linear(vision, hidden)
    depth = int(kind[len("mlp"):-len("x_gelu")])
    layers = [nn.Linear(vision, hidden)]
    for _ in range(depth - 1):
        layers += [nn.GELU(), nn.Linear(hidden, hidden)]
    return nn.Sequential(*layers)


class Reference(nn.Module):
    """One checkpoint. vision is None for a text-only model. select_layer counts the tower's hidden
    states as the config does: -2 is the output of the last layer but one, -1 of the last."""

    def __init__(self, llama, vision=None, projector_kind=None, select_layer=-2):
        super().__init__()
        self.llama = LlamaForCausalLM(LlamaConfig(**llama))
        self.select_layer = select_layer
        self.tower = CLIPVisionModel(CLIPVisionConfig(**vision)) if vision else None
        self.projector = (projector(projector_kind, vision["hidden_size"], llama["hidden_size"])
                          if vision else None)
        self.eval()

    def checkpoint(self):
        """Published name -> tensor."""
        state = {k: v for k, v in self.llama.state_dict().items() if "rotary_emb" not in k}
        if self.tower is not None:
            for k, v in self.tower.state_dict().items():
                if "position_ids" not in k:
                    state["model.vision_tower.vision_tower." + k] = v
            for k, v in self.projector.state_dict().items():
                state["model.mm_projector." + k] = v
        return state

    @torch.no_grad()
    def see(self, pixels):
        """pixels [3, side, side] -> (patch features [patches, vision], rows [tokens, hidden])"""
        states = self.tower(pixels[None], output_hidden_states=True).hidden_states
        patches = states[self.select_layer][:, 1:]
        return patches[0], self.projector(patches)[0]

    def embed(self, i):
        return self.llama.model.embed_tokens(torch.tensor([i]))

    @torch.no_grad()
    def rows(self, ids, images):
        """ids with IMAGE_ID where an image stands; images in order -> [sequence, hidden]"""
        images = list(images)
        out = [images.pop(0) if i == IMAGE_ID else self.embed(i) for i in ids]
        assert not images
        return torch.cat(out)

    @torch.no_grad()
    def logits(self, rows):
        return self.llama(inputs_embeds=rows[None]).logits[0]

    @torch.no_grad()
    def greedy(self, rows, count, eos, cached=False):
        """-> (ids without the end token, logits that chose each one including the end token,
        smallest top-2 margin). cached keeps keys and values as a large model needs it; without,
        every step computes the whole sequence anew, which needs no trust in the cache."""
        ids, chosen, margin, past = [], [], float("inf"), None
        for _ in range(count):
            out = self.llama(inputs_embeds=rows[None], past_key_values=past, use_cache=cached)
            chosen.append(out.logits[0, -1])
            best = chosen[-1].topk(2)
            margin = min(margin, (best.values[0] - best.values[1]).item())
            ids.append(best.indices[0].item())
            if ids[-1] == eos:
                ids.pop()
                break
            rows = self.embed(ids[-1]) if cached else torch.cat([rows, self.embed(ids[-1])])
            past = out.past_key_values if cached else None
        return ids, torch.stack(chosen), margin


def randomize(model, seed, dtype, embedding=1.0):
    """Weights that keep every stage lively (no dead or saturated rows), rounded to the dtype.
    Tied embeddings need a small scale: a head that finds its own row would repeat the last id."""
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in model.named_parameters():
            noise = torch.randn(p.shape, generator=rng)
            if name.endswith("bias"):
                value = 0.1 * noise
            elif p.dim() == 1 and "class_embedding" not in name:  # norm weights
                value = 1 + 0.1 * noise
            elif "embed" in name and "patch" not in name:  # token, position, class embeddings
                value = (embedding if "tokens" in name else 0.3) * noise
            else:
                value = noise * (1.5 / p[0].numel() ** 0.5)
            p.copy_(value.to(dtype).float())
    return model


def load_rgb(path, exif):
    image = Image.open(path)
    return (ImageOps.exif_transpose(image) if exif else image).convert("RGB")


def processor(side):
    return CLIPImageProcessor(size={"shortest_edge": side},
                              crop_size={"height": side, "width": side}, resample=3,
                              image_mean=list(MEAN), image_std=list(STD))


def pad_square(image):
    """Centred on a square of the mean colour."""
    side = max(image.size)
    canvas = Image.new("RGB", (side, side), tuple(int(m * 255) for m in MEAN))
    canvas.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return canvas


def pixels_of(path, side, exif=True, pad=True):
    """-> (uint8 [side, side, 3] before normalising, float32 [3, side, side])
    pad is image_aspect_ratio "pad"; with any other value the published code runs the plain
    processor: shortest edge to side, centre crop."""
    image = load_rgb(path, exif)
    image = pad_square(image) if pad else image
    make = partial(processor(side).preprocess, image, return_tensors="np",
                   input_data_format="channels_last")
    values = make()["pixel_values"][0]
    raw = make(do_rescale=False, do_normalize=False)["pixel_values"][0]
    return raw.astype(np.uint8).transpose(1, 2, 0), values.astype(np.float32)


def conversation(turns, system=SYSTEM):
    """turns: [(question, answer or None)...]; "<image>\\n" in a question stands for an image."""
    text = system + " "
    for question, answer in turns:
        text += "USER: " + question + " ASSISTANT:"
        if answer is not None:
            text += " " + answer + "</s>"
    return text


def prompt_ids(tokenizer, text):
    """Every piece between images is encoded alone; only the first keeps its BOS."""
    ids = []
    for n, chunk in enumerate(text.split("<image>")):
        piece = tokenizer(chunk).input_ids
        ids += ([IMAGE_ID] if n else []) + (piece[1:] if n else piece)
    return ids


def text_of(tokenizer, ids):
    """The answer as the command line promises it: special tokens left out, bytes that are no UTF-8
    as U+FFFD in the way of bytes.decode, white space at both ends dropped."""
    sp, out = tokenizer.sp_model, b""
    for i in ids:
        if sp.is_byte(i):
            out += bytes([int(sp.id_to_piece(i)[3:5], 16)])
        elif not sp.is_control(i) and not sp.is_unknown(i):
            out += sp.id_to_piece(i).replace("\u2581", " ").encode()
    return out.decode(errors="replace").strip()
