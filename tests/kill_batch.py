#!/usr/bin/env python3
"""Kills `mobilevlm batch` at random, again and again, and lets it go on:

    tests/kill_batch.py -m model.bin --kills 200 PICTURE...

After each kill every line that is whole has to be a record, none may be there twice; when all are there, the texts have to be
those of a run that nobody disturbed, and a new output is begun. (tests/test_batch_faults.c does the same a few times.)
"""
import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time


def options():
    p = argparse.ArgumentParser(description="Kills batch at random and lets it go on.")
    p.add_argument("-m", "--model", required=True)
    p.add_argument("-p", "--prompt", default="What is this?")
    p.add_argument("--kills", type=int, default=200)
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--binary", default=os.path.join(os.path.dirname(os.path.abspath(__file__)), "../build/mobilevlm"))
    p.add_argument("pictures", nargs="+")
    return p.parse_args()


def records(path):
    """{id: text} of the lines that are whole; whether the last one is torn."""
    if not os.path.exists(path):
        return {}, False
    with open(path, "rb") as f:
        *lines, rest = f.read().split(b"\n")
    found = {}
    for line in lines:
        record = json.loads(line)
        if record["id"] in found:
            sys.exit(f"{record['id']} is there twice")
        found[record["id"]] = record["text"]
    return found, bool(rest)


def main():
    o = options()
    chance = random.Random(o.seed)
    killed = torn = finished = 0
    with tempfile.TemporaryDirectory() as folder:
        out, undisturbed = os.path.join(folder, "out.jsonl"), os.path.join(folder, "undisturbed.jsonl")
        argv = [o.binary, "batch", "-q", "-m", o.model, "-p", o.prompt, "--resume", *o.pictures, "-o"]
        start = time.monotonic()
        subprocess.run([*argv, undisturbed], check=True)
        seconds, expected = time.monotonic() - start, records(undisturbed)[0]
        while killed < o.kills:
            worker = subprocess.Popen([*argv, out])
            try:
                worker.wait(chance.uniform(0, 0.7 * seconds))
            except subprocess.TimeoutExpired:
                worker.send_signal(signal.SIGKILL)
                worker.wait()
                killed += 1
            found, is_torn = records(out)
            torn += is_torn
            if worker.returncode == 0:
                if found != expected:
                    sys.exit("an answer is missing, or another one than that of an undisturbed run")
                os.unlink(out)
                finished += 1
            elif worker.returncode != -signal.SIGKILL:
                sys.exit(f"exit status {worker.returncode}")
        subprocess.run([*argv, out], check=True)
        if records(out)[0] != expected:
            sys.exit("an answer is missing, or another one than that of an undisturbed run")
    print(f"killed {killed} times ({torn} lines torn); {finished + 1} outputs of {len(expected)} records, each once and as undisturbed")


if __name__ == "__main__":
    main()
