#!/usr/bin/env python3
"""Writes the fuzz targets' first inputs, from the golden cases: make_seeds.py FOLDER [PROGRAM]

Each target gets a folder of its own. PROGRAM is mobilevlm-convert, which writes the model files that fuzz_model begins with.
What fuzzing has made of them is kept in tests/fuzz/corpus.
"""
import json
import pathlib
import subprocess
import sys
import tempfile
import zipfile

GOLDEN = pathlib.Path(__file__).resolve().parent.parent / "golden"
CASES = GOLDEN / "cases"
MARK = b"\n%%%%\n"
CONFIG_FILES = ["config.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json",
                "merges.txt", "generation_config.json", "preprocessor_config.json", "tokenizer.json"]


def write(folder, name, content):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content)


def model_seeds(out, program):
    for case in sorted(CASES.iterdir()):
        for kind in ("f32", "q4"):
            with tempfile.TemporaryDirectory() as work:
                path = pathlib.Path(work) / "model.bin"
                subprocess.run([program, case / "checkpoint", "-o", path, "--type", kind, "--calibrate", "0", "-q"], check=True)
                model = path.read_bytes()
            front = int.from_bytes(model[0x58:0x60], "little")
            assert front % 16384 == 0 and 0 < front < len(model), front
            write(out, f"{case.name}-{kind}", b"\x03" + model[:front].rstrip(b"\0"))


def safetensors_seeds(out):
    for path in CASES.glob("*/checkpoint/*.safetensors"):
        content = path.read_bytes()
        header = content[8:8 + int.from_bytes(content[:8], "little")]
        n_data = len(content) - 8 - len(header)
        write(out, path.parent.parent.name + "-" + path.stem, b"\x01" + (n_data // 64).to_bytes(2, "little") + header)
    tiny = b'{"a":{"dtype":"F16","shape":[2,3],"data_offsets":[0,12]},"__metadata__":{"format":"pt"}}'
    write(out, "tiny", b"\0" + len(tiny).to_bytes(8, "little") + tiny + bytes(12))


def torch_seeds(out_zip, out_pickle):
    for path in CASES.glob("*/checkpoint/*.bin"):
        name = path.parent.parent.name + "-" + path.stem
        with zipfile.ZipFile(path) as archive:
            records = {entry.filename: archive.read(entry) for entry in archive.infolist()}
        pickle = next(value for key, value in records.items() if key.endswith("/data.pkl"))
        write(out_pickle, name, pickle)
        small = pathlib.Path(tempfile.mkdtemp()) / "small.bin"
        with zipfile.ZipFile(small, "w") as archive:
            for key, value in records.items():
                archive.writestr(key, value if "/data/" not in key else value[:64])
        write(out_zip, name, small.read_bytes())


def config_seeds(out, out_index):
    for case in sorted(CASES.iterdir()):
        folder = case / "checkpoint"
        parts = [(folder / name).read_bytes() if (folder / name).exists() else b"" for name in CONFIG_FILES]
        write(out, case.name, MARK.join(parts))
        for path in folder.glob("*.index.json"):
            write(out_index, case.name, path.read_bytes())
    write(out_index, "small", b'{"weight_map": {"a": "a.safetensors"}}')
    vocabulary = json.loads((CASES / "imp-phi2/checkpoint/vocab.json").read_text())
    merges = (CASES / "imp-phi2/checkpoint/merges.txt").read_text().split("\n")
    tokenizer = {"model": {"type": "BPE", "vocab": vocabulary, "merges": [m for m in merges if m and m[0] != "#"]},
                 "added_tokens": [{"id": len(vocabulary), "content": "<|im_end|>", "special": True}],
                 "normalizer": {"type": "NFC"},
                 "pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "Split", "pattern": {"Regex": "x"}}]}}
    config = (CASES / "imp-phi2/checkpoint/config.json").read_bytes()
    write(out, "tokenizer-json", MARK.join([config] + [b""] * 7 + [json.dumps(tokenizer).encode()]))


def lora_seeds(out):
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj"], "bias": "none"}
    key = "base_model.model.model.layers.0.self_attn.q_proj.lora_"
    header = {key + "A.weight": {"dtype": "F32", "shape": [2, 8], "data_offsets": [0, 64]},
              key + "B.weight": {"dtype": "F32", "shape": [8, 2], "data_offsets": [64, 128]},
              "pad": {"dtype": "U8", "shape": [3968], "data_offsets": [128, 4096]}}
    write(out, "lora", json.dumps(config).encode() + MARK + json.dumps(header).encode())


def picture_seeds(out):
    for path in sorted(GOLDEN.glob("images/**/*")):
        if path.is_file() and path.stat().st_size < 8192 and path.suffix in (".jpg", ".png", ".bmp"):
            write(out, path.name, path.read_bytes())
    for depth, colour in ((1, 0), (8, 0), (16, 2), (8, 2), (4, 3), (8, 6), (16, 4)):
        for interlace in (0, 1):
            head = (5).to_bytes(4, "big") + (4).to_bytes(4, "big") + bytes([depth, colour, 0, 0, interlace])
            palette = bytes(range(12)) if colour == 3 else b""
            write(out, f"rows-{depth}-{colour}-{interlace}",
                  b"R" + head + bytes([len(palette) // 3]) + palette + bytes(i % 5 if i % 7 == 0 else i for i in range(250)))


def text_seeds(out_tokenizer, out_prompt):
    lines = [json.loads(line) for path in sorted((GOLDEN / "tokens").glob("*.jsonl")) for line in path.read_text().split("\n")
             if line]
    texts = [line["text"] for line in lines if isinstance(line, dict) and "text" in line][::40]
    for i, text in enumerate(texts):
        write(out_tokenizer, f"text-{i}", bytes([i % 3 | (i & 1) << 2]) + text.encode("utf-8", "surrogatepass")[:600])
    write(out_tokenizer, "mixed", b"\x05" + "<|endoftext|> <image>\n   caf\u00e9 \U0001f600 1234 don't </s>".encode())
    write(out_prompt, "one", b"\x10what is this?")
    write(out_prompt, "marks", b"\x20<image> and <image>?")
    write(out_prompt, "system", b"\x16Be kind.\n%%%%\nWhy?\n%%%%\nSo.\n%%%%\nAnd <image>?")
    write(out_prompt, "raw", b"\x11<image>\nUSER: </s> <|endoftext|>")


def command_seeds(out):
    lines = [b"run\0-m\0a.bin\0-i\0b.jpg\0-p\0what?\0--temp=0.5\0--seed\x003", b"batch\0-m\0a\0-p\0x\0--shard\x001/2\0dir",
             b"bench\0-m\0a\0-p\x001-8*2\0-t\x001,2\0-r\x002", b"help\0man", b"--version", b"-m\0x\0--max-rss\x0012M\0-C\0f0"]
    for i, line in enumerate(lines):
        write(out, f"line-{i}", b"\0" + line)
    write(out, "environment", b"\1MOBILEVLM_TEMP=0.3\0MOBILEVLM_MODEL=x\0-p\0y")


def batch_seeds(out):
    digest = b"0123456789abcdef0123456789abcdef"
    record = (b'{"text":"a cat.","finish_reason":"stop","model_digest":"' + digest + b'","options_digest":"' + digest +
              b'","id":"a","path":"a.jpg","image_digest":"' + digest + b'"}\n')
    failed = b'{"error":{"code":4,"message":"no"},"id":"b","path":"b"}\n'
    write(out, "lines", b"\0" + b'{"id":"1","image":"a.jpg","prompt":"x","max_tokens":3}\n\n{"image":"b.jpg","prompt":"y"}\n')
    write(out, "list", b"\1a.jpg\nb.png\r\n\nc/d.bmp")
    write(out, "nul-list", b"\2a.jpg\0b.png\0")
    for name, kind, forced in (("records", 3, 68), ("merge", 4, 69)):
        write(out, name, bytes([kind]) + record + failed + b'{"text":"torn')
        write(out, name + "-forced", bytes([forced]) + record * 2)


def main():
    out, program = pathlib.Path(sys.argv[1]), sys.argv[2]
    model_seeds(out / "model", program)
    safetensors_seeds(out / "safetensors")
    torch_seeds(out / "zip", out / "pickle")
    config_seeds(out / "config", out / "index")
    lora_seeds(out / "lora")
    for path in list(CASES.glob("v1/checkpoint/tokenizer.model")) + [GOLDEN / "tokenizer-spaces.model"]:
        write(out / "sentencepiece", path.name, path.read_bytes())
    picture_seeds(out / "picture")
    text_seeds(out / "tokenizer", out / "prompt")
    command_seeds(out / "options")
    batch_seeds(out / "batch")
    write(out / "cache", "empty", b"")


main()
