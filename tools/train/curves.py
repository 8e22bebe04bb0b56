#!/usr/bin/env python3
"""Draws a training run's log as a picture: tools/train/curves.py FOLDER/log.jsonl curves.png"""
import json
import sys

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402

WHAT = dict(teacher="naming head", tower="naming head", whole="its answers", places="its answers", pairs="its answers")


def main(log, out):
    with open(log, encoding="utf-8") as f:
        records = [json.loads(line) for line in f]
    stages = [s for s in WHAT if any(r["stage"] == s for r in records)]
    figure, axes = plt.subplots(1, len(stages), figsize=(4.5 * len(stages), 3.4), sharey=True, squeeze=False)
    for axis, stage in zip(axes[0], stages):
        rows = []
        for r in (r for r in records if r["stage"] == stage):
            # a run that went on from a checkpoint, or began again, has taken the place of what was logged behind it
            rows = [before for before in rows if before["pictures"] < r["pictures"]] + [r]
        for key, label in (("everyday", "210 everyday nouns"), ("all", "all 527 nouns")):
            axis.plot([r["pictures"] / 1000 for r in rows], [100 * r["score"][key] for r in rows], marker=".", label=label)
        axis.set(title=f"{stage}: {WHAT[stage]} ({rows[-1]['minutes']:.0f} minutes)", xlabel="thousand pictures", ylim=(0, 100))
        axis.grid(alpha=0.3)
    axes[0][0].set_ylabel("OpenMoji drawings named, %")
    axes[0][0].legend(loc="lower right")
    figure.tight_layout()
    figure.savefig(out, dpi=110)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: curves.py LOG.jsonl OUT.png")
    main(*sys.argv[1:])
