"""Holds our engine against the published libraries, stage by stage, on one checkpoint and question.

    python check.py CHECKPOINT PICTURE... "QUESTION"

    checkpoint -> mobilevlm-convert -> mobilevlm trace -> arrays -+-> table, exit code
    checkpoint -> checkpoint.py -> reference.py ------> arrays ---+

PICTURE is a file, or "none" for a question without one. A question without <image> marks has the
pictures in front, each with a newline. Exit code: 0 all stages hold, 1 one does not, 2 usage.
"""
import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np

BOUND = 1e-4   # of an array's largest magnitude, for f32 files
FLOATS = ("pixels", "vision", "projector", "logits")
BINARIES = Path(__file__).resolve().parents[2] / "build"


class Row(NamedTuple):
    """One line of the table. holds is None for what is shown and not judged."""
    stage: str
    shape: str
    difference: str
    cosine: str
    verdict: str
    holds: bool | None


class Failure(Exception):
    pass


# The comparison.

def shape_of(array):
    return "x".join(map(str, array.shape))


def cosine(a, b):
    product = np.linalg.norm(a) * np.linalg.norm(b)
    return float(a @ b / product) if product else float(not (a.any() or b.any()))


def compare_floats(stage, expected, got, bound):
    """bound None: shown only"""
    if expected.shape != got.shape:
        return Row(stage, shape_of(got), "", "", f"expected {shape_of(expected)}", False)
    a, b = expected.astype(np.float64).ravel(), got.astype(np.float64).ravel()
    if not np.isfinite(b).all():
        return Row(stage, shape_of(got), "", "", "not finite", False)
    largest = np.abs(a).max() or 1.0
    difference = np.abs(a - b).max() / largest
    holds = None if bound is None else bool(difference <= bound)
    verdict = ("equal" if difference == 0 else "shown" if holds is None
               else f"within {bound:g}" if holds else f"beyond {bound:g}")
    return Row(stage, shape_of(got), f"{difference:.2e}", f"{cosine(a, b):.8f}", verdict, holds)


def first_difference(a, b):
    """-> how many leading entries are the same"""
    same = [x == y for x, y in zip(a, b)]
    return same.index(False) if False in same else len(same)


def compare_ids(stage, expected, got, judged=True):
    expected, got = list(map(int, expected)), list(map(int, got))
    equal = expected == got
    verdict = "equal" if equal else f"differ at {first_difference(expected, got)}"
    return Row(stage, str(len(got)), "", "", verdict, equal if judged else None)


def compare_generated(expected, got, judged, bound):
    """Ids, and the logits of the steps before the two part; then every later step differs anyway."""
    a, b = expected["generated_ids"], got["generated_ids"]
    row = compare_ids("generated ids", a, b, judged)
    steps = len(expected["generated_logits"])
    if row.verdict != "equal":
        steps = min(first_difference(a, b) + 1, steps, len(got["generated_logits"]))
        best = np.sort(expected["generated_logits"][steps - 1])[-2:]
        row = row._replace(verdict=f"{row.verdict}, margin there {best[1] - best[0]:.2g}")
    logits = compare_floats("generated logits", expected["generated_logits"][:steps],
                            got["generated_logits"][:steps], bound)
    return [row, logits]


def compare(expected, got, kind, bound):
    """expected, got: {name of trace file without .npy: array, "text": str}. kind: the model's type.
    A smaller type than f32 changes what comes after the pixels: without a bound that is only shown."""
    judged = kind == "f32"
    bound = BOUND if bound is None and judged else bound
    absent = [name for name in expected if name not in got]
    if absent:
        return [Row(name, "", "", "", "missing", False) for name in absent]
    rows = [compare_ids("input ids", expected["input_ids"], got["input_ids"])]
    for stage in FLOATS:
        for name in sorted(n for n in expected if n.split(".")[0] == stage):
            limit = BOUND if stage == "pixels" else bound
            rows.append(compare_floats(name, expected[name], got[name], limit))
    rows += compare_generated(expected, got, judged, bound)
    same = expected["text"] == got["text"]
    rows.append(Row("text", "", "", "", "equal" if same else "differs", same if judged else None))
    return rows


def print_table(rows, expected, got):
    heads = Row("stage", "shape", "largest diff.", "cosine", "verdict", None)
    widths = [max(len(row[n]) for row in [heads, *rows]) for n in range(5)]
    for row in [heads, *rows]:
        mark = "  FAIL" if row.holds is False else ""
        print("  ".join(row[n].ljust(widths[n]) for n in range(5)).rstrip() + mark)
    print(f"reference: {expected.get('text')!r}\nours:      {got.get('text')!r}")


# Our side.

def run(command):
    """-> stdout as bytes. Variables that set our options are kept away from the run."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MOBILEVLM_")}
    done = subprocess.run(list(map(str, command)), capture_output=True, env=environment)
    if done.returncode:
        message = done.stderr.decode(errors="replace").strip()
        raise Failure(f"{command[0].name}: exit {done.returncode}: {message}")
    return done.stdout


def read_trace(folder):
    return {path.name.removesuffix(".npy"): np.load(path) for path in sorted(folder.glob("*.npy"))}


def ours(a, pictures, work):
    model, trace = work / "model.bin", work / "trace"
    model.unlink(missing_ok=True)
    shutil.rmtree(trace, ignore_errors=True)
    run([a.bin / "mobilevlm-convert", a.checkpoint, "-o", model, "--type", a.type])
    images = [word for picture in pictures for word in ("-i", picture)]
    out = run([a.bin / "mobilevlm", "trace", "-m", model, *images, "-p", a.question, "-n", a.count,
               "-o", trace, "--temp", "0"])
    text = out.decode(errors="replace").removesuffix("\n")
    return read_trace(trace) | {"text": text}


# The reference's side.

def with_marks(question, pictures):
    if "<image>" in question:
        return question
    return "<image>\n" * pictures + question


def theirs(a, pictures):
    import torch
    from transformers import LlamaTokenizer, logging

    import checkpoint
    import reference as ref

    logging.set_verbosity_error()
    model, config = checkpoint.load(a.checkpoint)
    tokenizer = LlamaTokenizer.from_pretrained(a.checkpoint)
    out, rows = {}, []
    for k, picture in enumerate(pictures):
        if model.tower is None:
            raise Failure("the checkpoint has no vision tower, so no picture can be asked about")
        pad = config.get("image_aspect_ratio") == "pad"
        side = checkpoint.vision_fields(config)["image_size"]
        _, pixels = ref.pixels_of(picture, side, pad=pad)
        patches, tokens = model.see(torch.from_numpy(pixels))
        tag = f".{k}" if k else ""
        out |= {"pixels" + tag: pixels, "vision" + tag: patches.numpy(),
                "projector" + tag: tokens.numpy()}
        rows.append(tokens)
    if model.tower is None:   # a base model completes the bare text
        ids = tokenizer(a.question).input_ids
    else:
        text = ref.conversation([(with_marks(a.question, len(pictures)), None)])
        ids = ref.prompt_ids(tokenizer, text)
    sequence = model.rows(ids, rows)
    out["logits"] = model.logits(sequence).numpy()
    new, chosen, _ = model.greedy(sequence, a.count, config.get("eos_token_id", 2), cached=True)
    return out | {"input_ids": np.array(ids, np.int32), "generated_ids": np.array(new, np.int32),
                  "generated_logits": chosen.numpy(), "text": ref.text_of(tokenizer, new)}


# The command.

def same_pixels(picture, folder):
    """Two JPEG decoders differ by rounding, so a JPEG is decoded once, turned as its EXIF says, and
    both sides get the PNG of it."""
    import reference as ref
    from PIL import Image
    with Image.open(picture) as image:
        if image.format != "JPEG":
            return picture
    path = folder / (picture.stem + ".decoded.png")
    ref.load_rgb(picture, exif=True).save(path)
    return path


def check(a, work):
    """-> whether all stages hold"""
    pictures = [same_pixels(p, work) for p in a.pictures]
    got = ours(a, pictures, work)   # first, so that the two models are never in memory together
    expected = theirs(a, pictures)
    if a.keep:
        (work / "reference").mkdir(exist_ok=True)
        for name, array in expected.items():
            if name != "text":
                np.save(work / "reference" / (name + ".npy"), array)
    rows = compare(expected, got, a.type, a.bound)
    print_table(rows, expected, got)
    return all(row.holds is not False for row in rows)


def arguments(words):
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("pictures", nargs="+", metavar="picture", help='files, or "none"')
    parser.add_argument("question")
    parser.add_argument("--bin", type=Path, default=BINARIES, metavar="DIR",
                        help="where mobilevlm and mobilevlm-convert are (default: build)")
    parser.add_argument("--type", default="f32", choices=("f32", "f16", "q8", "q4"),
                        help="of the converted file; below f32 the later stages are shown, not judged")
    parser.add_argument("--bound", type=float, metavar="X",
                        help="largest difference relative to the array's largest magnitude "
                             f"(default for f32: {BOUND:g}; other types: none)")
    parser.add_argument("--count", type=int, default=24, metavar="N", help="tokens to generate")
    parser.add_argument("--keep", type=Path, metavar="FOLDER",
                        help="keep the model, the trace and the reference's arrays there")
    a = parser.parse_args(words)
    a.pictures = [] if a.pictures == ["none"] else [Path(p) for p in a.pictures]
    a.bin = a.bin.resolve()
    needed = [a.checkpoint / "config.json", *a.pictures, a.bin / "mobilevlm",
              a.bin / "mobilevlm-convert"]
    for path in needed:
        if not path.is_file():
            parser.error(f"{path}: no such file")
    if a.count < 1:
        parser.error("--count must be 1 at least")
    marks = a.question.count("<image>")
    if marks not in (0, len(a.pictures)):
        parser.error(f"{marks} <image> marks for {len(a.pictures)} pictures")
    return a


def main(words=None):
    a = arguments(words)
    try:
        if a.keep:
            a.keep.mkdir(parents=True, exist_ok=True)
            return 0 if check(a, a.keep) else 1
        with tempfile.TemporaryDirectory(prefix="mobilevlm-check-") as work:
            return 0 if check(a, Path(work)) else 1
    except (Failure, OSError, ValueError, KeyError, json.JSONDecodeError) as fault:
        print(f"check.py: {fault}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    warnings.filterwarnings("ignore", category=FutureWarning)   # transformers 4.33 with a later torch
    sys.exit(main())
