#!/usr/bin/env python3
"""How much less time `mobilevlm batch` takes than `mobilevlm run` on each picture, the model being loaded already:

    bench/bench_batch.py -m model.bin -n 64 PICTURE...

The pictures are taken in groups; each group is answered by run, one picture after the other, by batch and by batch with
--parallel 1, one way after the other, so that a machine that gets slower does so for all three. Of run, what its record says
that it computed (decode, resize, encode, project, prefill, generate) counts, and of batch everything but opening the model.
The texts are compared too.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import time

COMPUTE = ("jpeg", "preprocess", "encode", "project", "prefill", "generate")
WAYS = {"batch": [], "batch --parallel 1": ["--parallel", "1"]}


def options():
    p = argparse.ArgumentParser(description="batch against run, on the same pictures.")
    p.add_argument("-m", "--model", required=True)
    p.add_argument("-p", "--prompt", default="Describe the picture.")
    p.add_argument("-n", "--max-tokens", default="64")
    p.add_argument("-t", "--threads", default=str(os.cpu_count()))
    p.add_argument("--group", type=int, default=16, help="pictures")
    p.add_argument("--binary", default=os.path.join(os.path.dirname(os.path.abspath(__file__)), "../build/mobilevlm"))
    p.add_argument("pictures", nargs="+")
    return p.parse_args()


def mobilevlm(o, command, *words):
    argv = [o.binary, command, "-q", "-m", o.model, "-p", o.prompt, "-n", o.max_tokens, "-t", o.threads, *words]
    return [json.loads(line) for line in subprocess.run(argv, check=True, capture_output=True).stdout.splitlines()]


def one_by_one(o, group):
    """-> texts, seconds"""
    records = [mobilevlm(o, "run", "--json", "-i", picture)[0] for picture in group]
    seconds = sum(r["timings_ms"][k] for r in records for k in COMPUTE) / 1000
    return {picture: r["text"] for picture, r in zip(group, records)}, seconds


def together(o, group, words):
    start = time.monotonic()
    records = mobilevlm(o, "batch", *words, *group)
    seconds = time.monotonic() - start - records[0]["timings_ms"]["load"] / 1000
    return {r["id"]: r["text"] for r in records}, seconds


def main():
    o = options()
    seconds = {"run": []} | {way: [] for way in WAYS}
    for at in range(0, len(o.pictures), o.group):
        group = o.pictures[at : at + o.group]
        texts, spent = one_by_one(o, group)
        seconds["run"].append(spent)
        for way, words in WAYS.items():
            others, spent = together(o, group, words)
            seconds[way].append(spent)
            if others != texts:
                sys.exit(f"{way}: another text than run's among {group}")
        print(f"{at + len(group)} pictures", file=sys.stderr, flush=True)
    print(f"{len(o.pictures)} pictures, at most {o.max_tokens} tokens each, {o.threads} threads; the texts are the same\n")
    print("| | seconds | pictures a second | run's time / this | by groups |\n|---|---:|---:|---:|---|")
    for way, spent in seconds.items():
        ratios = [alone / own for alone, own in zip(seconds["run"], spent)]
        print(
            f"| {way} | {sum(spent):.1f} | {len(o.pictures) / sum(spent):.2f} | {sum(seconds['run']) / sum(spent):.2f} | "
            f"{min(ratios):.2f} to {max(ratios):.2f}, median {statistics.median(ratios):.2f} |"
        )


if __name__ == "__main__":
    main()
