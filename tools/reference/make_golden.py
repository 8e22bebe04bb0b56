"""Makes all of tests/golden anew from specs.json; nothing outside the project is read.

    python make_golden.py [FOLDER]     holds specs.json; default: tests/golden of this project

    sentences -> tokenizers, text.txt -> pictures -> cases -> token ids

The same package versions on the same machine give the same bytes; elsewhere float arrays may differ
in the last bits, as two machines sum in different orders.
"""
import json
import sys
from pathlib import Path

import torch

import make_cases
import make_images
import make_photo
import make_tokenizer
import make_tokens
import sentences

HERE = Path(__file__).resolve().parent
MOST_BYTES = 9_000_000   # of the whole folder: it lives in the repository


def main(golden):
    specs = json.loads((golden / "specs.json").read_text())
    torch.set_num_threads(1)   # sums in one order
    make_tokenizer.main(golden)
    (golden / "text.txt").write_text(sentences.text(6000, seed=2))
    make_images.main(golden / "images", make_photo.photo())
    for spec in specs:
        torch.manual_seed(0)
        make_cases.make(spec, golden / "cases", golden, golden / "images")
    tokens = golden / "tokens"
    tokens.mkdir(exist_ok=True)
    for name in make_tokenizer.TOKENIZERS:
        stem = name.removesuffix(".model")
        make_tokens.write_lines(golden / name, 150, 1, tokens / f"{stem}.jsonl")
    make_tokens.write_chats(golden / "cases" / "v1" / "checkpoint", tokens / "chat.json")
    size = sum(p.stat().st_size for p in golden.rglob("*") if p.is_file())
    print(f"{golden}: {size} bytes")
    return 0 if size <= MOST_BYTES else 1


if __name__ == "__main__":
    if len(sys.argv) > 2 or sys.argv[1:] in (["-h"], ["--help"]):
        sys.exit(__doc__)
    default = HERE.parents[1] / "tests" / "golden"
    sys.exit(main(Path(sys.argv[1]) if len(sys.argv) == 2 else default))
