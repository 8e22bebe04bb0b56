"""Draws the picture that all test pictures are made of: a made-up landscape, photo-like in its
soft gradients, sharp edges, fine texture, letters and a little noise. Nobody took it.

    python make_photo.py OUT.png
"""
import sys

import numpy as np
from PIL import Image

WIDTH, HEIGHT = 320, 240
NOISE = 0.5     # standard deviation in levels; more would only swell the PNG files
# Letters on a five by seven raster, a row a number, most significant bit on the left.
LETTERS = {"L": (16, 16, 16, 16, 16, 16, 31), "O": (14, 17, 17, 17, 17, 17, 14),
           "K": (17, 18, 20, 24, 20, 18, 17), "7": (31, 1, 2, 4, 8, 8, 8)}


def mix(below, colour, cover):
    """colour over below; cover [height, width] from 0 to 1"""
    return below + (np.array(colour, float) - below) * np.clip(cover, 0, 1)[..., None]


def sky_and_hills(x, y, rng):
    height = y[..., None] / HEIGHT
    image = (1 - height) * np.array([70, 120, 200.0]) + height * np.array([250, 215, 170.0])
    image = mix(image, (255, 244, 200), np.exp(-((x - 245) ** 2 + (y - 45) ** 2) / 600))
    for top, colour in ((105, (120, 130, 150)), (128, (90, 120, 90)), (150, (70, 110, 50))):
        waves = sum(rng.uniform(2, 9) * np.sin(x / rng.uniform(15, 60) + rng.uniform(0, 6))
                    for _ in range(3))
        image = mix(image, colour, y - top - waves)
    return image


def water(image, x, y):
    """The lowest fifth mirrors what is above it, darker and rippled."""
    shore = int(HEIGHT * 0.8)
    ripple = (2 * np.sin(y * 1.7) + 1.5 * np.sin(x / 9 + y / 3)).astype(int)
    rows = np.clip(2 * shore - y.astype(int), 0, HEIGHT - 1)
    mirror = image[rows, np.clip(x.astype(int) + ripple, 0, WIDTH - 1)] * 0.7 + (10, 25, 40)
    return np.where((y > shore)[..., None], mirror, image)


def house(image, x, y):
    inside = lambda left, top, right, bottom: ((x >= left) & (x < right) & (y >= top)
                                               & (y < bottom)).astype(float)
    image = mix(image, (200, 60, 40), 1.0 * (y > 95) * (y < 125) * (abs(x - 125) < (y - 90)))
    image = mix(image, (235, 225, 205), inside(97, 125, 153, 180))
    image = mix(image, (60, 40, 30), inside(104, 145, 120, 180))
    for left in (127, 140):
        image = mix(image, (150, 200, 230), inside(left, 138, left + 9, 152))
    return image


def trees(image, x, y, rng):
    for cx, cy, radius in ((205, 120, 26), (232, 140, 19), (50, 135, 22)):
        trunk = 1.0 * (abs(x - cx) < 3) * (y > cy) * (y < cy + 2 * radius)
        image = mix(image, (80, 55, 35), trunk)
        for _ in range(25):
            dx, dy = rng.normal(0, radius / 2.2, 2)
            size, light = rng.uniform(4, 9), rng.uniform(0.6, 1.3)
            leaf = size - np.hypot(x - cx - dx, y - cy - dy)
            image = mix(image, (45 * light, 110 * light, 40 * light), leaf)
    return image


def sign(image, x, y):
    image = mix(image, (240, 235, 90), 1.0 * (x >= 165) * (x < 195) * (y >= 160) * (y < 174))
    for n, letter in enumerate("LOOK7"):
        for row, bits in enumerate(LETTERS[letter]):
            for column in range(5):
                if bits >> (4 - column) & 1:
                    image[163 + row, 166 + 6 * n + column] = (25, 20, 60)
    return image


def photo(seed=7):
    """-> PIL image, RGB"""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH].astype(float)
    image = sky_and_hills(x, y, rng)
    image = sign(trees(house(image, x, y), x, y, rng), x, y)
    image = water(image, x, y) + rng.normal(0, NOISE, (HEIGHT, WIDTH, 1))
    return Image.fromarray(np.clip(image + 0.5, 0, 255).astype(np.uint8))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    photo().save(sys.argv[1])
