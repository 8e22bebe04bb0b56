"""Writes the test pictures and what Pillow makes of them.

    python make_images.py OUT [PHOTO.png]

Without a photo, the one of make_photo.py. A photo is 305 x 235 at least.


OUT/NAME                 valid pictures in every form a user may bring
OUT/bad/NAME             what must be refused with a clear error
OUT/expected/NAME.png    the reference's uint8 picture before normalising: EXIF turn, padded square,
                         resized to 112
OUT/expected/NAME.crop.png   for a few: no padding; shortest edge to 112, centre crop
"""
import io
import struct
import sys
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

import make_photo
import reference as ref

SIDE = 112


# Those whose picture without padding is kept as well.
CROPPED = ("landscape.png", "portrait.png", "square.png", "double.png")


def save(path, image, **options):
    image.save(path, **options, **({"optimize": True} if path.suffix == ".png" else {}))


def pngs(photo, small, put):
    w, h = photo.size
    crop = lambda *box: photo.crop(box)
    grey, ramp = photo.convert("L"), Image.linear_gradient("L").resize(photo.size)
    put("landscape.png", small)
    put("portrait.png", crop(60, 0, 180, h).resize((61, 150), 1))
    put("square.png", crop(100, 20, 100 + SIDE, 20 + SIDE))
    put("double.png", crop(80, 10, 80 + 2 * SIDE, 10 + 2 * SIDE))
    put("one-pixel.png", crop(200, 100, 201, 101))
    put("tiny.png", crop(200, 100, 205, 103))
    put("odd.png", crop(200, 100, 217, 119))
    put("wide.png", photo.resize((700, 29), 1))
    put("tall.png", photo.resize((23, 600), 1))
    put("grey.png", grey.resize(small.size, 1))
    for name, image in (("grey-alpha.png", grey.convert("LA")),
                        ("alpha.png", photo.convert("RGBA"))):
        image.putalpha(ramp)
        put(name, image.resize(small.size, 1))
    put("palette.png", small.quantize(32))
    put("palette-transparent.png", small.quantize(16), transparency=3)
    put("one-bit.png", grey.resize(small.size, 1).convert("1"))


def others(photo, small, put):
    put("bmp24.bmp", small)
    put("bmp8.bmp", small.quantize(64))
    put("444.jpg", small, quality=95, subsampling=0)
    put("420.jpg", photo, quality=75, subsampling=2)
    put("422.jpg", small, quality=80, subsampling=1)
    put("progressive.jpg", photo, quality=75, subsampling=2, progressive=True)
    put("grey.jpg", photo.convert("L"), quality=80)
    put("cmyk.jpg", small.convert("CMYK"), quality=90)
    put("restart.jpg", small, quality=85, restart_marker_rows=1)
    put("jpeg named png.png", small, format="JPEG", quality=90)


def turned(small, put):
    """Every EXIF orientation; the sixth in a PNG too."""
    exif = Image.Exif()
    for turn in range(1, 9):
        exif[0x0112] = turn
        put(f"exif{turn}.jpg", small, quality=92, subsampling=0, exif=exif)
    exif[0x0112] = 6
    put("exif6.png", small, exif=exif)


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width, height, body=b""):
    """An RGB PNG with whatever body."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body)
            + chunk(b"IEND", b""))


def wide_huffman_table(jpeg):
    """The first Huffman table claims 16 x 255 codes."""
    at = jpeg.index(b"\xff\xc4")
    table = struct.pack(">H", 19 + 4080) + b"\x00" + b"\xff" * 16 + b"\x01" * 4080
    return jpeg[:at] + b"\xff\xc4" + table + jpeg[at:]


def encoded(image, kind, **options):
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def bad(photo, small):
    """-> {name: bytes}"""
    jpeg, flat = encoded(photo, "JPEG", quality=80), encoded(small, "PNG")
    return {
        "empty.jpg": b"",
        "text.jpg": b"this is not a picture\n",
        "half.jpg": jpeg[:len(jpeg) // 2],
        "half.png": flat[:len(flat) // 2],
        "header-only.png": flat[:33],
        "bomb.png": png(65535, 65535, zlib.compress(b"\0" * 999)),
        "zero-width.png": png(0, 10),
        "wide-huffman.jpg": wide_huffman_table(jpeg),
        "soi-only.jpg": b"\xff\xd8",
        "zip.png": b"PK\x03\x04" + bytes(100),
        "heic.jpg": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(64),
        "animation.gif": encoded(small, "GIF"),
        "picture.webp": encoded(small, "WEBP"),
        "picture.tiff": encoded(small, "TIFF"),
    }


def expect(out):
    for path in sorted(p for p in out.iterdir() if p.is_file()):
        raw, _ = ref.pixels_of(path, SIDE)
        save(out / "expected" / (path.name + ".png"), Image.fromarray(raw))
        if path.name in CROPPED:
            raw, _ = ref.pixels_of(path, SIDE, pad=False)
            save(out / "expected" / (path.name + ".crop.png"), Image.fromarray(raw))


def main(out, photo):
    for folder in (out, out / "bad", out / "expected"):
        folder.mkdir(parents=True, exist_ok=True)
    small = photo.resize((photo.width // 4 | 1, photo.height // 4 | 1), 1)
    put = lambda name, image, **options: save(out / name, image, **options)
    pngs(photo, small, put)
    others(photo, small, put)
    turned(small, put)
    for name, data in bad(photo, small).items():
        (out / "bad" / name).write_bytes(data)
    expect(out)
    print(f"{out}: {sum(p.stat().st_size for p in out.rglob('*') if p.is_file())} bytes")


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    main(Path(sys.argv[1]),
         Image.open(sys.argv[2]).convert("RGB") if len(sys.argv) == 3 else make_photo.photo())
