#!/usr/bin/env python3
"""Makes models/pictures from the data archive: tools/train/pictures.py demo-data.tar.gz FOLDER models/pictures

Only from sources whose licence lets a picture be committed: Noto, Fluent, public-domain clip art; and shapes.
"""
import os
import sys

from PIL import Image, ImageDraw

from archive import ended, table, unpack

SIDE = 336
# file: background, [(source, centre x, centre y, side)] in shares of the picture's side
PICTURES = {
    "tiger.png": ((250, 236, 200), [("noto:tiger", 0.5, 0.5, 0.8)]),
    "dog-and-umbrella.png": ((250, 250, 250), [("noto:dog", 0.27, 0.52, 0.44), ("fluent-flat:umbrella", 0.74, 0.5, 0.44)]),
    "apples.png": (
        (165, 212, 248),
        [("fluent-color:red apple", x, y, 0.3) for x, y in ((0.22, 0.28), (0.72, 0.25), (0.48, 0.72))],
    ),
    "guitar.png": ((70, 165, 80), [("fluent-3d:guitar", 0.5, 0.5, 0.8)]),
}


def drawing(root, source):
    style, name = source.split(":")
    row = next(r for r in table(root, "emoji.tsv") if r["style"] == style and r["name"] == name)
    return Image.open(os.path.join(root, row["file"])).convert("RGBA")


def compose(root, background, things):
    picture = Image.new("RGB", (SIDE, SIDE), background)
    for source, x, y, share in things:
        side = int(share * SIDE)
        thing = drawing(root, source).resize((side, side), Image.BICUBIC)
        picture.paste(thing, (int(x * SIDE - side / 2), int(y * SIDE - side / 2)), thing)
    return picture


def shapes():
    picture = Image.new("RGB", (2 * SIDE, 2 * SIDE), (250, 215, 70))
    draw = ImageDraw.Draw(picture)
    draw.ellipse((90, 90, 270, 270), fill=(214, 48, 49))
    draw.rectangle((400, 110, 560, 270), fill=(60, 120, 220))
    draw.polygon([(336, 380), (440, 570), (232, 570)], fill=(60, 120, 220))
    return picture.reduce(2)


def main(archive, work, out):
    root = unpack(archive, work)
    os.makedirs(out, exist_ok=True)
    for file, (background, things) in PICTURES.items():
        compose(root, background, things).save(os.path.join(out, file), optimize=True)
    shapes().save(os.path.join(out, "shapes.png"), optimize=True)


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit("usage: pictures.py ARCHIVE WORK OUT")
    sys.exit(ended(lambda: main(*sys.argv[1:])))
