#!/usr/bin/env python3
"""Captions pictures on a Ray cluster; each actor keeps one `mobilevlm batch --jsonl-in -` worker.

    tools/cluster/ray_caption.py --model model.bin --prompt "Describe the picture." --out captions photos...

Pictures that cannot be read become records with an error. A worker that dies is started again, and what it had is done by it
or by another one. The same command again does only what is not in OUT yet.
"""
import argparse
import glob
import json
import os
import subprocess
import sys
import threading

import numpy as np
import ray

PICTURES = (".jpg", ".jpeg", ".png", ".bmp")
FIELDS = ("id", "path", "image_digest", "text", "finish_reason", "model_digest", "options_digest")


class Captioner:
    """An actor with its own mobilevlm process, which has the model open."""

    def __init__(self, binary, model, prompt, options):
        self.command = [binary, "batch", "-q", "-m", model, "-p", prompt, "--jsonl-in", "-", *options]
        self.process = None
        self.n_asked = 0  # ids that are never used twice, whatever is tried again

    def start(self):
        if self.process is None or self.process.poll() is not None:
            self.process = subprocess.Popen(self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8")

    def stop(self):
        self.process.kill()
        return self.process.wait()

    def write(self, lines):
        """On a thread of its own: with a full pipe on either side nobody would go on."""
        try:
            self.process.stdin.write("".join(lines))
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # reading will tell

    def ask(self, paths):
        """Records of `paths`, in their order; EOFError when the process has died."""
        self.start()
        ids = [str(self.n_asked + i) for i in range(len(paths))]
        self.n_asked += len(paths)
        lines = [json.dumps({"id": name, "image": path}) + "\n" for name, path in zip(ids, paths)]
        writer = threading.Thread(target=self.write, args=(lines,))
        writer.start()
        records = {}
        while len(records) < len(paths):
            line = self.process.stdout.readline()
            if not line.endswith("\n"):
                status = self.stop()
                writer.join()
                raise EOFError(f"mobilevlm ended with {status}")
            record = json.loads(line)
            records[record["id"]] = record
        writer.join()
        return [dict(records[name], id=path) for name, path in zip(ids, paths)]

    def ask_each(self, paths):
        """The same one by one: a picture that ends the process twice costs its own record, and no other."""
        rows = []
        for path in paths:
            for _ in range(2):
                try:
                    rows += self.ask([path])
                    break
                except EOFError as e:
                    problem = str(e)
            else:
                rows.append(failure(path, 6, problem))
        return rows

    def records(self, paths):
        try:
            return self.ask(paths)
        except EOFError:
            return self.ask_each(paths)

    def __call__(self, batch):
        paths = [str(p) for p in batch["path"]]
        good = [p for p in paths if is_text(p)]
        there = dict(zip(good, self.records(good))) if good else {}
        rows = [there.get(p) or failure(readable(p), 4, "its name is no UTF-8") for p in paths]
        columns = {field: np.array([str(row.get(field, "")) for row in rows], dtype=object) for field in FIELDS}
        errors = [row.get("error", {}) for row in rows]
        columns["error"] = np.array([e.get("message", "") for e in errors], dtype=object)
        columns["error_code"] = np.array([e.get("code", 0) for e in errors])
        return columns


def failure(path, code, message):
    return dict(id=path, path=path, error=dict(code=code, message=message))


def is_text(path):
    """Names that are no UTF-8 have surrogates for their bytes."""
    return not any("\ud800" <= c <= "\udfff" for c in path)


def readable(path):
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def pictures(inputs):
    """Files, and the pictures of folders and what is below them."""
    for path in inputs:
        if not os.path.isdir(path):
            yield os.path.abspath(path)
            continue
        for folder, _, names in sorted(os.walk(path)):
            yield from (os.path.abspath(os.path.join(folder, n)) for n in sorted(names) if n.lower().endswith(PICTURES))


def done(out):
    """Ids that have a record in OUT, and the digests of their models and options. Files end in the middle of a line when they
    were being written as everything stopped."""
    ids, digests = set(), set()
    for file in glob.glob(os.path.join(out, "*.json")):
        with open(file, encoding="utf-8") as f:
            for line in f:
                if line.endswith("\n"):
                    record = json.loads(line)
                    ids.add(record["id"])
                    digests.add((record["model_digest"], record["options_digest"]))
    return ids, {d for d in digests if all(d)}


def digests_now(o, options):
    """Those that records have with this model and these options: of a record that fails at once."""
    command = [o.binary, "batch", "-q", "-m", o.model, "-p", o.prompt, *options, os.devnull]
    line = subprocess.run(command, stdout=subprocess.PIPE, encoding="utf-8", check=False).stdout
    if not line:
        sys.exit(f"{o.binary} batch does not run")
    record = json.loads(line)
    return record["model_digest"], record["options_digest"]


def main():
    p = argparse.ArgumentParser(description="Captions pictures on a Ray cluster.")
    p.add_argument("inputs", nargs="+", help="pictures and folders, at the same paths on every node")
    p.add_argument("--model", required=True)
    p.add_argument("--prompt", required=True)
    p.add_argument("--out", required=True, help="folder of JSON lines")
    p.add_argument("--binary", default="mobilevlm")
    p.add_argument("--workers", type=int, default=2)
    p.add_argument("--cpus", type=float, default=1, help="that a worker takes")
    p.add_argument("--batch", type=int, default=16, help="pictures that a worker is given at a time")
    p.add_argument("--options", nargs=argparse.REMAINDER, default=[], help="more for mobilevlm batch; stands last")
    o = p.parse_args()
    options = [*o.options, "-t", str(max(1, int(o.cpus)))]
    there, digests = done(o.out)
    if digests - {digests_now(o, options)}:
        sys.exit(f"{o.out}: holds records of another model, prompt or options")
    items = [{"path": path} for path in pictures(o.inputs) if readable(path) not in there]
    print(f"{len(items)} pictures to caption, {len(there)} are there", flush=True)
    if not items:
        return
    ray.init(ignore_reinit_error=True, log_to_driver=False)
    data = ray.data.from_items(items, override_num_blocks=max(1, len(items) // o.batch))
    data = data.map_batches(
        Captioner,
        fn_constructor_args=(os.path.abspath(o.binary) if os.sep in o.binary else o.binary, os.path.abspath(o.model), o.prompt, options),
        batch_size=o.batch,
        concurrency=o.workers,
        num_cpus=o.cpus,
        max_restarts=-1,
        max_task_retries=-1,
    )
    data.write_json(os.path.abspath(o.out))
    print(f"{len(done(o.out)[0])} records in {o.out}", flush=True)


if __name__ == "__main__":
    main()
