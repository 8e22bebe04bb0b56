"""Scenes: which drawings and shapes stand where, on which background; and the pictures made of them, in batches.

Positions are in units of the picture's half side, (-1, -1) its top left corner; sizes are shares of its side.
"""
import math
import random
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw
import numpy as np

from drawings import OUTLINED, PLAIN, SKETCHED

COLOURS = {
    "white": (250, 250, 250), "black": (20, 20, 22), "gray": (150, 152, 155), "red": (214, 48, 49),
    "orange": (243, 146, 40), "yellow": (250, 215, 70), "green": (70, 165, 80), "blue": (60, 120, 220),
    "light blue": (165, 212, 248), "purple": (130, 70, 175), "pink": (245, 170, 200), "brown": (130, 85, 50),
}  # fmt: skip
SHAPES = {"circle": 0, "square": 0, "triangle": 3, "star": 10, "diamond": 4}  # corners of a polygon
# CLIP's mean and deviation of red, green and blue, which the engine applies too
MEAN = torch.tensor([0.48145466, 0.4578275, 0.40821073]).view(1, 3, 1, 1)
STD = torch.tensor([0.26862954, 0.26130258, 0.27577711]).view(1, 3, 1, 1)


def normalised(pictures):
    return (pictures - MEAN) / STD


@dataclass
class Object:
    drawing: int
    size: float
    x: float
    y: float
    look: int = PLAIN
    angle: float = 0.0
    flip: bool = False
    aspect: float = 1.0
    shear: float = 0.0
    recoloured: bool = True


@dataclass
class Shape:
    kind: str
    colour: str
    x: float
    y: float
    radius: float

    @property
    def size(self):
        return 2 * self.radius


@dataclass
class Scene:
    kind: str  # one, row, copies, shapes
    background: str
    colour: tuple  # of the background, 0..1
    slope: float = 0.0  # the background grows lighter or darker downwards
    objects: list = field(default_factory=list)
    shapes: list = field(default_factory=list)
    vertical: bool = False


@dataclass
class Batch:
    """pictures [B, 3, S, S] normalised; of each object its picture, its number there, its drawing, and how much of each
    patch it covers."""

    scenes: list
    pictures: torch.Tensor
    owner: torch.Tensor
    number: list
    drawing: torch.Tensor
    cover: torch.Tensor


def cells_of(thing, grid):
    """[grid * grid]: 1 where a cell of the picture shows some of an object or a shape."""
    at = (torch.arange(grid) + 0.5) / grid
    reach = thing.size / 2 + 0.25 / grid
    across, down = (((at - (c + 1) / 2).abs() <= reach).float() for c in (thing.x, thing.y))
    return (down[:, None] * across).flatten()


class SceneMaker:
    """Random scenes. `strength` 0..1 scales all that makes drawings harder to name; `smallest` are the shares of a
    drawing that stands alone and of one in a row, of the room that it has."""

    def __init__(self, drawings, seed, smallest):
        self.drawings, self.strength, self.smallest = drawings, 1.0, smallest
        self.random = random.Random(seed)
        self.cumulative = torch.cumsum(drawings.weight.double(), 0).tolist()
        self.line_art = drawings.is_line_art.tolist()

    def pick(self, n):
        return self.random.choices(range(len(self.cumulative)), cum_weights=self.cumulative, k=n)

    def chance(self, p):
        return self.random.random() < p

    def look(self, drawing):
        u = self.random.random()
        if self.line_art[drawing] or u > 0.42:
            return PLAIN
        return SKETCHED if u < 0.10 else OUTLINED

    def background(self, kind):
        r = self.random
        name = "white" if kind == "one" and self.chance(0.4) else r.choice(list(COLOURS))
        colour = tuple(c / 255 + r.uniform(-0.055, 0.055) for c in COLOURS[name])
        slope = r.choice((-1, 1)) * r.uniform(0.02, 0.09) if self.chance(0.3) else 0.0
        return Scene(kind, name, colour, slope)

    def place(self, drawing, size, x, y):
        """An object with the distortions that leave its name."""
        r, s = self.random, self.strength
        return Object(
            drawing, size, x, y,
            look=self.look(drawing),
            angle=r.uniform(-0.35, 0.35) if self.chance(0.45 * s) else 0.0,
            flip=self.chance(0.5 * s),
            aspect=1 + r.uniform(-0.1, 0.1) * s,
            shear=r.uniform(-0.2, 0.2) if self.chance(0.25 * s) else 0.0,
        )  # fmt: skip

    def one(self):
        scene, r = self.background("one"), self.random
        size = r.uniform(1 - (1 - self.smallest[0]) * self.strength, 1.0)
        free = 1 - size
        scene.objects = [self.place(self.pick(1)[0], size, r.uniform(-free, free), r.uniform(-free, free))]
        return scene

    def row(self, n):
        """Two or three different nouns side by side or one above the other."""
        scene, r = self.background("row"), self.random
        scene.vertical = self.chance(0.45)
        size, chosen, nouns = r.uniform(self.smallest[1], 1.0) / n, [], set()
        while len(chosen) < n:
            drawing = self.pick(1)[0]
            noun = self.drawings.rows[drawing]["concept"]
            if noun not in nouns:
                chosen.append(drawing)
                nouns.add(noun)
        across = r.uniform(-0.3, 0.3)
        for i, drawing in enumerate(chosen):
            along = 2 * (i + 0.5) / n - 1 + r.uniform(-1, 1) * (1 / n - size)
            side = across + r.uniform(-0.1, 0.1)
            x, y = (side, along) if scene.vertical else (along, side)
            scene.objects.append(self.place(drawing, size, x, y))
        return scene

    def copies(self):
        """One drawing several times, for counting."""
        scene, r = self.background("copies"), self.random
        drawing, n = self.pick(1)[0], r.randint(1, 6)
        side = 2 if n <= 4 and self.chance(0.5) else 3
        scene.objects = [self.place(drawing, *at) for at in self.spread(n, side)]
        first = scene.objects[0]
        for other in scene.objects[1:]:
            other.look, other.flip = first.look, first.flip
        return scene

    def spread(self, n, side):
        """n cells of a grid of side x side -> size, x, y of what stands in each, jittered."""
        r = self.random
        for cell in r.sample(range(side * side), n):
            size = r.uniform(0.65, 0.95) / side
            free = 1 / side - size
            x, y = (2 * (c + 0.5) / side - 1 for c in (cell % side, cell // side))
            yield size, x + r.uniform(-free, free), y + r.uniform(-free, free)

    def shapes(self):
        scene, r = self.background("shapes"), self.random
        # a background and a shape that are hard to tell apart would make the question unfair
        near = {scene.background, {"light blue": "blue", "blue": "light blue"}.get(scene.background)}
        colours = [c for c in COLOURS if c not in near and c != "light blue"]
        alike, n = self.chance(0.4), r.randint(1, 6)
        kind, colour = r.choice(list(SHAPES)), r.choice(colours)
        for size, x, y in self.spread(n, 3):
            same = alike and self.chance(0.7)
            scene.shapes.append(
                Shape(kind if same else r.choice(list(SHAPES)), colour if same else r.choice(colours), x, y, size / 2)
            )
        return scene

    def scenes(self, n, mix):
        """n scenes; `mix` {kind: share} of one, two, three, copies, shapes."""
        make = dict(one=self.one, two=lambda: self.row(2), three=lambda: self.row(3), copies=self.copies, shapes=self.shapes)
        return [make[kind]() for kind in self.random.choices(list(mix), mix.values(), k=n)]


def draw_shapes(scene, size):
    """The background with its shapes, drawn twice as large and averaged -> [3, size, size] in 0..1."""
    side = 2 * size
    canvas = Image.new("RGB", (side, side), tuple(int(255 * min(max(c, 0), 1)) for c in scene.colour))
    draw = ImageDraw.Draw(canvas)
    for s in scene.shapes:
        x, y, r = (s.x + 1) * side / 2, (s.y + 1) * side / 2, s.radius * side
        if s.kind == "circle":
            draw.ellipse((x - r, y - r, x + r, y + r), fill=COLOURS[s.colour])
        elif s.kind == "square":
            draw.rectangle((x - 0.88 * r, y - 0.88 * r, x + 0.88 * r, y + 0.88 * r), fill=COLOURS[s.colour])
        else:
            n = SHAPES[s.kind]
            reach = [r * (0.45 if s.kind == "star" and i % 2 else 1) for i in range(n)]
            angle = [2 * math.pi * i / n for i in range(n)]
            draw.polygon([(x + a * math.sin(t), y - a * math.cos(t)) for a, t in zip(reach, angle)], fill=COLOURS[s.colour])
    return torch.from_numpy(np.array(canvas.reduce(2))).permute(2, 0, 1).float() / 255


def warp(pixels, size, objects):
    """[n, 4, s, s] -> [n, 4, size, size]: each drawing where its object stands."""
    t = torch.tensor([(o.size, o.x, o.y, o.angle, -1.0 if o.flip else 1.0, o.aspect, o.shear) for o in objects])
    scale, x, y, angle, flip, aspect, shear = t.unbind(1)
    cos, sin = angle.cos(), angle.sin()
    # from the picture's coordinates back to the drawing's: turn, shear, stretch
    a, b = flip * (cos + shear * -sin) / (scale * aspect), flip * (sin + shear * cos) / (scale * aspect)
    c, d = -sin * aspect / scale, cos * aspect / scale
    matrix = torch.stack([a, b, -(a * x + b * y), c, d, -(c * x + d * y)], 1).view(-1, 2, 3)
    grid = F.affine_grid(matrix, (len(objects), 4, size, size), align_corners=False)
    return F.grid_sample(pixels, grid, mode="bilinear", align_corners=False)


# red, green, blue -> lightness and the two axes of colour of NTSC's YIQ
YIQ = torch.tensor([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])


class Painter:
    """Scenes -> pictures, with the distortions of colour. Tensors only; all of a batch at once."""

    def __init__(self, drawings, size, seed):
        self.drawings, self.size, self.strength = drawings, size, 1.0
        self.generator = torch.Generator().manual_seed(seed)

    def uniform(self, n, low=0.0, high=1.0):
        return low + (high - low) * torch.rand(n, generator=self.generator)

    def where(self, n, p):
        """1 with probability p, else 0."""
        return (self.uniform(n) < p).float()

    def recolour(self, pixels):
        """Premultiplied RGBA, in place: hue, saturation, contrast, brightness of each drawing."""
        n, s = len(pixels), self.strength
        hue = self.where(n, 0.6 * s) * self.uniform(n, -0.5, 0.5) + self.where(n, 0.07 * s) * self.uniform(n, -3.1, 3.1)
        saturation = (1 + self.where(n, 0.5 * s) * self.uniform(n, -0.7, 0.4)) * (1 - self.where(n, 0.08 * s))
        contrast = 1 + self.where(n, 0.4 * s) * self.uniform(n, -0.35, 0.15)
        shift = self.where(n, 0.3 * s) * self.uniform(n, -0.08, 0.12)
        cos, sin, one, zero = hue.cos() * saturation, hue.sin() * saturation, torch.ones(n), torch.zeros(n)
        turn = torch.stack([one, zero, zero, zero, cos, -sin, zero, sin, cos], 1).view(n, 3, 3)
        matrix = torch.linalg.inv(YIQ) @ turn @ YIQ * contrast.view(n, 1, 1)
        rgb, alpha = pixels[:, :3], pixels[:, 3:]
        turned = torch.bmm(matrix, rgb.flatten(2)).view_as(rgb) + shift.view(n, 1, 1, 1) * alpha
        pixels[:, :3] = torch.minimum(turned.clamp_(min=0), alpha)
        return pixels

    def finish(self, pictures):
        """Contrast, brightness, noise and blur of whole pictures."""
        n, s = len(pictures), self.strength
        contrast = 1 + self.where(n, 0.5) * self.uniform(n, -0.2, 0.15)
        shift = self.where(n, 0.5) * self.uniform(n, -0.06, 0.06)
        pictures = pictures * contrast.view(n, 1, 1, 1) + shift.view(n, 1, 1, 1)
        noisy = self.where(n, 0.15 * s).nonzero().flatten()
        noise = torch.randn(len(noisy), 1, *pictures.shape[2:], generator=self.generator)
        pictures[noisy] += noise * self.uniform(len(noisy), 0.01, 0.04).view(-1, 1, 1, 1)
        blurred = self.where(n, 0.15 * s).nonzero().flatten()
        pictures[blurred] = F.avg_pool2d(pictures[blurred], 3, 1, 1, count_include_pad=False)
        return pictures.clamp_(0, 1)

    def erase(self, pictures):
        """A patch of one colour over some pictures: nothing hangs on one detail."""
        side = pictures.shape[-1]
        for i in self.where(len(pictures), 0.15 * self.strength).nonzero().flatten().tolist():
            w, x, y = self.uniform(3).tolist()
            w = int(side * (0.12 + 0.2 * w))
            x, y = int(x * (side - w)), int(y * (side - w))
            pictures[i, :, y : y + w, x : x + w] = self.uniform(3).view(3, 1, 1)

    def backgrounds(self, scenes):
        colour = torch.tensor([s.colour for s in scenes]).view(-1, 3, 1, 1)
        pictures = colour.expand(-1, -1, self.size, self.size).clone()
        for i, s in enumerate(scenes):
            if s.shapes:
                pictures[i] = draw_shapes(s, self.size)
        slope = torch.tensor([s.slope for s in scenes]).view(-1, 1, 1, 1)
        return pictures + slope * torch.linspace(-1, 1, self.size).view(1, 1, -1, 1)

    def objects(self, objects):
        """-> [n, 4, S, S]; drawn from the same size, so of objects of about one size"""
        drawing, look = (torch.tensor([getattr(o, name) for o in objects]) for name in ("drawing", "look"))
        pixels = self.drawings.take(drawing, look, max(o.size for o in objects) * self.size)
        recoloured = torch.tensor([o.recoloured for o in objects])
        if recoloured.any():
            pixels[recoloured] = self.recolour(pixels[recoloured])
        return warp(pixels, self.size, objects)

    def paint(self, scenes, patch, erase=False):
        pictures, cover, owner, number, drawing = self.backgrounds(scenes), [], [], [], []
        for layer in range(max(len(s.objects) for s in scenes)):
            for alone in (True, False):  # objects that stand alone are large, others small
                here = [i for i, s in enumerate(scenes) if len(s.objects) > layer and (s.kind == "one") == alone]
                if not here:
                    continue
                painted = self.objects([scenes[i].objects[layer] for i in here])
                alpha = painted[:, 3:]
                pictures[here] = pictures[here] * (1 - alpha) + painted[:, :3]
                cover.append(F.avg_pool2d(alpha, patch).flatten(1))
                owner += here
                number += [layer] * len(here)
                drawing += [scenes[i].objects[layer].drawing for i in here]
        if erase:
            self.erase(pictures)
        n_patches = (self.size // patch) ** 2
        cover = torch.cat(cover) if cover else torch.zeros(0, n_patches)
        pictures = normalised(self.finish(pictures))
        owner, drawing = (torch.tensor(t, dtype=torch.long) for t in (owner, drawing))
        return Batch(scenes, pictures, owner, number, drawing, cover)


def on_white(drawings, chosen, size, share=0.9):
    """Plain pictures of single drawings, as models are chosen on: centred on white -> [n, 3, size, size] normalised."""
    side = int(size * share)
    pixels = F.interpolate(
        drawings.take(chosen, torch.zeros_like(chosen), side), size=(side, side), mode="bilinear", antialias=True, align_corners=False
    )
    pictures, start = torch.ones(len(chosen), 3, size, size), (size - side) // 2
    window = pictures[:, :, start : start + side, start : start + side]
    window.mul_(1 - pixels[:, 3:]).add_(pixels[:, :3])
    return normalised(pictures)
