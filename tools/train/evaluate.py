#!/usr/bin/env python3
"""Scores a model.bin through the mobilevlm binary itself, one process a question:

    tools/train/evaluate.py -m models/tinyvlm-draw.bin --data demo-data.tar.gz --work FOLDER [--against OTHER.bin]

Questions: cases-dev of the data archive, and "What is this?" for every OpenMoji drawing of an everyday noun, on white.
`--against` also runs another model and says how many answers are the same text.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor

import sentencepiece
from PIL import Image

from archive import DataError, accepted, bare, ended, table, unpack

HERE = os.path.dirname(os.path.abspath(__file__))
CASES_DEV, OPENMOJI = "cases-dev", "OpenMoji, 210 everyday nouns"  # the two sets of questions
SIDE, SHARE = 168, 0.9  # of the pictures made here: pixels, and how much of them the drawing takes


def options():
    p = argparse.ArgumentParser(description="Scores a model through the mobilevlm binary.")
    p.add_argument("-m", "--model", required=True)
    p.add_argument("--against", metavar="MODEL", help="another model, to compare texts with")
    p.add_argument("--data", required=True, help="demo-data.tar.gz")
    p.add_argument("--work", required=True, help="folder where the archive is unpacked and pictures are put")
    p.add_argument("--binary", default=os.path.join(HERE, "../../build/mobilevlm"))
    p.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes at a time, of one thread each")
    p.add_argument("--json", metavar="FILE", help="write every question and answer")
    return p.parse_args()


# ---- Questions ----------------------------------------------------------------------------------


def cases_dev(root, concepts):
    """[{image, question, group, answers, broader}] of cases-dev."""
    cases = []
    with open(os.path.join(root, "cases-dev/cases.jsonl"), encoding="utf-8") as f:
        for row in map(json.loads, f):
            group = f"{row['set']}: {row['kind']}"
            if row["set"] == "openmoji-name":
                group += ", everyday noun" if concepts[row["concept"]]["everyday"] == "1" else ", other noun"
            cases.append(
                dict(
                    image=os.path.join(root, "cases-dev", row["image"]), question=row["question"], group=group,
                    answers={bare(a) for a in row["accept"] + [row["answer"]]}, broader={bare(b) for b in row["broader"]},
                )
            )  # fmt: skip
    return cases


def openmoji(root, concepts, folder):
    """Every OpenMoji drawing of an everyday noun, centred on white."""
    os.makedirs(folder, exist_ok=True)
    cases = []
    for row in table(root, "emoji.tsv"):
        concept = concepts.get(row["concept"])
        if row["role"] != "heldout-dev" or not concept or concept["everyday"] != "1":
            continue
        path = os.path.join(folder, row["codepoints"] + ".png")
        if not os.path.exists(path):
            side = int(SIDE * SHARE)
            drawing = Image.open(os.path.join(root, row["file"])).convert("RGBA").resize((side, side), Image.BICUBIC)
            picture = Image.new("RGB", (SIDE, SIDE), "white")
            picture.paste(drawing, ((SIDE - side) // 2,) * 2, drawing)
            picture.save(path)
        broader = {bare(b) for b in concept["broader"].split("|") if b}
        cases.append(dict(image=path, question="What is this?", group=OPENMOJI, answers=accepted(concept), broader=broader))
    return cases


def set_of(case):
    return OPENMOJI if case["group"] == OPENMOJI else CASES_DEV


# ---- Answers ------------------------------------------------------------------------------------


def run(binary, *args, text=None):
    try:
        done = subprocess.run([binary, *args], input=text, capture_output=True, encoding="utf-8", errors="replace", check=False)
    except OSError as e:
        raise DataError(f"{binary}: {e.strerror} (build it first)") from e
    if done.returncode:
        raise DataError(done.stderr.strip() or f"{binary}: exit status {done.returncode}")
    return done.stdout


def demand_vocabulary(binary, model, root, cases):
    """Refuses a model that reads the questions as other pieces than those it would have learnt them by."""
    texts = sorted({c["question"] for c in cases} | {a for c in cases for a in c["answers"]})
    lines = "".join(json.dumps({"text": t}) + "\n" for t in texts)
    pieces = sentencepiece.SentencePieceProcessor(model_file=os.path.join(root, "tok1k.model"))
    for text, line in zip(texts, run(binary, "tokenize", "-m", model, "--jsonl", text=lines).splitlines(), strict=True):
        ids = json.loads(line)
        if ids != pieces.encode(text):
            raise DataError(f'{model}: its tokenizer is not tok1k.model: "{text}" is {ids}, expected {pieces.encode(text)}')


def answers(opts, model, cases):
    """-> texts, and the seconds that each took from the process's start to its last byte."""

    def one(case):
        start = time.monotonic()
        text = run(opts.binary, "-m", model, "-i", case["image"], "-p", case["question"], "-n", "32", "-t", "1", "-q")
        return text.strip(), time.monotonic() - start

    with ThreadPoolExecutor(opts.jobs) as pool:
        return zip(*pool.map(one, cases))


def scores(cases, texts):
    """{group: [right, also right in a broader term] of each question}"""
    judged = defaultdict(list)
    for case, text in zip(cases, texts):
        right = bare(text) in case["answers"]
        verdict = right, right or bare(text) in case["broader"]
        judged[case["group"]].append(verdict)
        if set_of(case) == CASES_DEV:
            judged[CASES_DEV].append(verdict)
        if case["group"].endswith("yesno"):
            word = bare(text).split(",")[0] in {a.split(",")[0] for a in case["answers"]}
            judged[case["group"] + ", first word"].append((word, word))
    return dict(sorted(judged.items()))


def main():
    opts = options()
    os.makedirs(opts.work, exist_ok=True)
    root = unpack(opts.data, opts.work)
    concepts = {row["concept"]: row for row in table(root, "concepts.tsv")}
    cases = cases_dev(root, concepts) + openmoji(root, concepts, os.path.join(opts.work, "openmoji"))
    demand_vocabulary(opts.binary, opts.model, root, cases)
    texts, seconds = answers(opts, opts.model, cases)
    print("| questions | right | share | or a broader term |\n|---|---:|---:|---:|")
    for group, verdicts in scores(cases, texts).items():
        n, (right, broader) = len(verdicts), map(sum, zip(*verdicts))
        print(f"| {group} | {right} of {n} | {100 * right / n:.1f} % | {100 * broader / n:.1f} % |")
    print(f"\nA question takes {1000 * statistics.median(seconds):.0f} ms (median, one thread, {opts.jobs} at a time).")
    if opts.against:
        others, _ = answers(opts, opts.against, cases)
        for name in (CASES_DEV, OPENMOJI):
            pairs = [(a, b) for case, a, b in zip(cases, texts, others) if set_of(case) == name]
            same = sum(a == b for a, b in pairs)
            print(f"{name}: {same} of {len(pairs)} answers ({100 * same / len(pairs):.1f} %) are the same text as {opts.against}'s.")
    if opts.json:
        with open(opts.json, "w", encoding="utf-8") as f:
            for case, text in zip(cases, texts):
                f.write(json.dumps(dict(case, answers=sorted(case["answers"]), broader=sorted(case["broader"]), said=text)) + "\n")


if __name__ == "__main__":
    sys.exit(ended(main))
