#!/usr/bin/env python3
"""Instructions of one layer of MobileVLM V2 1.7B, by function, for each ISA of arm64; and of a whole answer, by arithmetic.
Run by tools/arm-cost.sh."""
import argparse
import os
import re
import subprocess
from collections import Counter

ISAS = ("neon", "dotprod", "i8mm")
ROWS, STEPS, ANSWER = 176, 4, 64
# what a function belongs to, by its name; the first that fits
KINDS = [
    ("non-linear", r"norm|softmax|exp|quantize_rows|finish|attention_weights|attention_output|f_activation|activate|rope|rotate|add_neon|multiply_neon|depthwise"),
    ("matrix products", r"gemm|gemv|chunk|prepare|row_by_row|quarters|pack_rows|steps_of|block|linear|run_task"),
    ("attention", r"attention|attend|mix|kv_cache|append"),
]


def kind_of(name):
    return next((kind for kind, pattern in KINDS if re.search(pattern, name)), "other")


class Costs:
    """Counts of functions: {name: instructions}."""

    def __init__(self, o, isa):
        self.o, self.isa = o, isa

    def count(self, *args):
        out = os.path.join(self.o.work, "counts.tsv")
        argv = [self.o.qemu, "-cpu", "max", "-plugin", f"{self.o.plugin},out={out}", self.o.program, self.o.model, self.isa, *map(str, args)]
        subprocess.run(argv, check=True)
        counts = Counter()
        with open(out, encoding="utf-8") as f:
            for line in f:
                name, n = line.rstrip("\n").split("\t")
                counts[re.sub(r"\.(isra|part|constprop|cold)\.?\d*|\.\d+$", "", name)] += int(n)
        return counts

    def layers(self):
        """-> {what: counts of one}"""
        text = {n: self.count("text", n, 0) for n in (1, 2)}
        steps = {n: minus(self.count("text", n, STEPS), text[n]) for n in (1, 2)}
        picture = {n: self.count("picture", n) for n in (1, 2)}
        step = over(minus(steps[2], steps[1]), STEPS)
        return {
            "decoder layer, a step": step,
            f"decoder layer, {ROWS} rows": minus(text[2], text[1]),
            "vision layer": minus(picture[2], picture[1]),
            "head and the rest of a step": minus(over(steps[1], STEPS), step),
            "the rest of a picture, projector": minus(picture[1], minus(picture[2], picture[1])),
        }


def minus(a, b):
    return Counter({k: v for k in a.keys() | b.keys() if (v := a[k] - b[k]) > 0})


def over(a, n):
    return Counter({k: v / n for k, v in a.items()})


def times(counts, n):
    return Counter({k: n * v for k, v in counts.items()})


def by_kind(counts):
    kinds = Counter()
    for name, n in counts.items():
        kinds[kind_of(name)] += n
    return kinds


def answer(parts, n_vision, n_decoder):
    """A picture, a prompt of 176 rows and 64 steps."""
    whole = times(parts["vision layer"], n_vision) + parts["the rest of a picture, projector"]
    whole += times(parts[f"decoder layer, {ROWS} rows"], n_decoder)
    whole += times(times(parts["decoder layer, a step"], n_decoder) + parts["head and the rest of a step"], ANSWER)
    return whole


def main():
    p = argparse.ArgumentParser()
    for name in ("program", "plugin", "model", "work"):
        p.add_argument("--" + name, required=True)
    p.add_argument("--qemu", default="qemu-aarch64")
    o = p.parse_args()
    kinds = [k for k, _ in KINDS] + ["other"]
    print("Millions of instructions, MobileVLM V2 1.7B q4 (24 decoder layers; 23 of the tower's):\n")
    print("| ISA | what | all | " + " | ".join(kinds) + " |\n|---|---|---:|" + "---:|" * len(kinds))
    details = []
    for isa in ISAS:
        parts = Costs(o, isa).layers()
        parts[f"an answer: picture, {ROWS} rows, {ANSWER} steps"] = answer(parts, 23, 24)
        for what, counts in parts.items():
            total, shares = sum(counts.values()), by_kind(counts)
            cells = [f"{shares[k] / 1e6:.1f} ({100 * shares[k] / total:.1f} %)" for k in kinds]
            print(f"| {isa} | {what} | {total / 1e6:.1f} | " + " | ".join(cells) + " |", flush=True)
            details.append((isa, what, counts, total))
    print("\nBy function, what makes up one part in two hundred or more:\n")
    print("| ISA | what | function | kind | share |\n|---|---|---|---|---:|")
    for isa, what, counts, total in details:
        for name, n in counts.most_common():
            if n >= total / 200:
                print(f"| {isa} | {what} | {name} | {kind_of(name)} | {100 * n / total:.1f} % |")


if __name__ == "__main__":
    main()
