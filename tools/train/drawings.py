"""The data archive in memory: every drawing with its noun, in three sizes and three looks.

A drawing is an emoji of one style or a piece of clip art. It is kept as premultiplied RGBA, one byte a
channel, cut to a square, as it is (look 0) and in two drawn variants that make the styles more: with dark
strokes along its edges (1), and the strokes alone on white (2).
"""
import os

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from archive import DataError, table

SIZES = (160, 96, 56)  # pixels; a drawing is warped from the smallest that is large enough
PLAIN, OUTLINED, SKETCHED = range(3)
LINE_STYLES = ("fluent-hc", "streamline")  # strokes already
# How often a style is drawn, where not 1: clip art is labelled by its title and not proofread.
STYLE_WEIGHT = {"clipart": 0.3, "fluent-hc": 0.6, "fluent-3d": 0.9}
EVERYDAY_WEIGHT = 1.5


def save(path, what):
    """Writes a file of torch's whole or not at all."""
    try:
        with open(path + ".part", "wb") as f:  # a file of Python's says why a write fails
            torch.save(what, f)
        os.replace(path + ".part", path)
    except (OSError, RuntimeError) as e:
        if os.path.lexists(path + ".part"):
            os.unlink(path + ".part")
        raise DataError(f"{path}: cannot be written: {getattr(e, 'strerror', None) or e}") from e


def read_drawing(path, side):
    """-> [4, side, side] bytes, premultiplied, centred on a square."""
    image = Image.open(path).convert("RGBA")
    if image.width != image.height:
        square = Image.new("RGBA", (max(image.size),) * 2)
        square.paste(image, ((square.width - image.width) // 2, (square.height - image.height) // 2))
        image = square
    pixels = torch.from_numpy(np.array(image, dtype=np.float32)).permute(2, 0, 1)
    pixels[:3] *= pixels[3:] / 255
    return resized(pixels[None], side)[0]


def resized(pixels, side):
    """[N, 4, s, s] numbers in 0..255 -> [N, 4, side, side] bytes."""
    pixels = pixels.float()
    if pixels.shape[-1] != side:
        pixels = F.interpolate(pixels, size=(side, side), mode="bilinear", antialias=True, align_corners=False)
    return pixels.round().clamp(0, 255).to(torch.uint8)


def strokes(drawings, generator):
    """[N, 4, s, s] in 0..1 -> how dark a stroke lies on each pixel: along the edges of colour and of alpha."""
    alpha = drawings[:, 3:]
    on_white = F.avg_pool2d(drawings[:, :3] + 1 - alpha, 3, 1, 1, count_include_pad=False)
    contrast = (F.max_pool2d(on_white, 3, 1, 1) + F.max_pool2d(-on_white, 3, 1, 1)).amax(1, keepdim=True)
    border = F.max_pool2d(alpha, 3, 1, 1) + F.max_pool2d(-alpha, 3, 1, 1)
    threshold = 0.18 + 0.2 * torch.rand(len(drawings), 1, 1, 1, generator=generator)
    edge = torch.maximum(((contrast - threshold) * 8).clamp(0, 1), ((border - 0.3) * 4).clamp(0, 1))
    if torch.rand((), generator=generator) < 0.5:
        edge = F.max_pool2d(edge, 3, 1, 1)
    return (1.5 * F.avg_pool2d(edge, 3, 1, 1)).clamp(0, 1)


def looks(drawings, generator):
    """[N, 4, s, s] bytes -> the outlined and the sketched drawings, bytes."""
    pixels = drawings.float() / 255
    stroke = strokes(pixels, generator)
    alpha = torch.maximum(pixels[:, 3:], stroke)
    outlined = torch.cat([pixels[:, :3] * (1 - stroke), alpha], 1)
    sketched = torch.cat([(alpha * (1 - stroke)).expand(-1, 3, -1, -1), alpha], 1)
    return [(255 * x).round().to(torch.uint8) for x in (outlined, sketched)]


class Drawings:
    """All drawings of a role: `pixels[size][look]` [N, 4, size, size], `rows` (dictionaries), `noun` [N] (index into
    `nouns`), `code_point` [N], `weight` [N] (how often each is drawn)."""

    def __init__(self, root, folder, role):
        path = os.path.join(folder, f"{role}.pt")
        if not os.path.exists(path):
            prepare(root, role, path)
        kept = torch.load(path, mmap=True, weights_only=False)
        self.rows, self.pixels = kept["rows"], kept["pixels"]
        self.concepts = {row["concept"]: row for row in table(root, "concepts.tsv")}
        self.nouns = sorted(self.concepts)
        number = {noun: i for i, noun in enumerate(self.nouns)}
        self.everyday = torch.tensor([self.concepts[noun]["everyday"] == "1" for noun in self.nouns])
        self.noun = torch.tensor([number[row["concept"]] for row in self.rows])
        code_points = sorted({row["codepoints"] for row in self.rows})
        self.n_code_points = len(code_points)
        number = {code_point: i for i, code_point in enumerate(code_points)}
        self.code_point = torch.tensor([number[row["codepoints"]] for row in self.rows])
        self.is_line_art = torch.tensor([row["style"] in LINE_STYLES for row in self.rows])
        self.weight = self._weights()

    def _weights(self):
        """Nouns are balanced most of the way: one with n drawings comes n^0.3 times as often as one with a single one."""
        n_drawings = torch.bincount(self.noun, minlength=len(self.nouns)).float()
        weight = n_drawings[self.noun] ** -0.7 * (1 + (EVERYDAY_WEIGHT - 1) * self.everyday[self.noun])
        weight *= torch.tensor([STYLE_WEIGHT.get(row["style"], 1.0) for row in self.rows])
        return weight / weight.sum()

    def main_colour(self, drawing):
        """-> the name of the colour that covers most of a drawing, and its share; none: "", 0."""
        colour, _, share = self.rows[drawing]["colours"].split("|")[0].partition(":")
        return colour, float(share or 0)

    def take(self, chosen, look, side):
        """Drawings `chosen` [n] in looks `look` [n] to be drawn `side` pixels wide -> [n, 4, s, s] in 0..1."""
        size = min((s for s in SIZES if s >= 0.9 * side), default=SIZES[0])
        out = torch.empty(len(chosen), 4, size, size, dtype=torch.uint8)
        for k, pixels in enumerate(self.pixels[size]):
            here = (look == k).nonzero().flatten()
            if len(here):
                out[here] = pixels[chosen[here]]
        return out.float().mul_(1 / 255)


def prepare(root, role, path):
    """Reads the drawings of a role that have a noun, makes their looks and sizes, and writes them to `path`."""
    rows = [row for row in table(root, "emoji.tsv") if row["role"] == role and row["concept"]]
    if role == "train":
        rows += [
            dict(file="openclipart/" + row["file"], concept=row["concept"], style="clipart", codepoints=row["file"], colours="")
            for row in table(root, "openclipart.tsv")
            if row["role"] == role and row["concept"]
        ]
    print(f"preparing {len(rows)} drawings ({role})", flush=True)
    plain = torch.stack([read_drawing(os.path.join(root, row["file"]), SIZES[0]) for row in rows])
    generator = torch.Generator().manual_seed(0)
    drawn = [looks(part, generator) for part in plain.split(64)] if role == "train" else []
    variants = [plain] + [torch.cat(parts) for parts in zip(*drawn)]
    pixels = {size: [torch.cat([resized(part, size) for part in v.split(64)]) for v in variants] for size in SIZES}
    keep = ("file", "concept", "style", "codepoints", "colours")
    kept = dict(rows=[{k: row[k] for k in keep} for row in rows], pixels=pixels)
    save(path, kept)
