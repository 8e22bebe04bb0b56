"""Writes golden token ids.

    python make_tokens.py TOKENIZER.model LINES SEED OUT.jsonl
        {"text", "ids"} a line: plain SentencePiece, no BOS
    python make_tokens.py --chat CHECKPOINT OUT.json
        conversations, with both values of the tokenizer's legacy flag
"""
import json
import random
import sys
from pathlib import Path

import sentencepiece

import reference as ref
import sentences

ALPHABETS = ["abcdefghijklmnopqrstuvwxyz", "ABCDEFGHIJKLMNOPQRSTUVWXYZ", "0123456789", " \t\n\r",
             ".,;:!?'\"()[]{}<>/\\|@#$%^&*-_=+`~", "áéíóúñçßøåæœğışžłđ",
             "абвгдежзиклмнопрстуфхцчшщыэюя", "αβγδεζηθλμπσφψω", "漢字仮名交文日本語中国话",
             "한국어말글", "عربيكتابسلام", "हिन्दीभाषा", "😀😺🍎👩‍👩‍👧🇫🇷❤️",
             "\u00a0\u2003\u200b\ufeff\u0301\u0000\u0007", "▁ ▁"]
TRICKY = ["", " ", "  ", "   a", "a   ", "\n", "\n\n", " \n ", "</s>", "<s>", "<unk>", "<0x41>",
          "<image>", "▁", "▁▁x", "a▁b", "don't", "I'm", "1234567890", "3.14159", "x" * 300,
          "ab" * 200, "😀" * 20, "é", "e\u0301", "\ufeffhi", "USER: ASSISTANT:", "a\0b", "\0",
          "<pic>", "a<pic> <pic>b", "<pic", "concat cats Cat", "1212 121 2", "ca" + "t" * 9,
          " left    right  ", "left right. " * 30]


def lines(count, seed):
    """The tricky ones, then pieces of our own text and random strings of mixed alphabets."""
    rng = random.Random(seed)
    text = sentences.text(20000, seed) + "\n".join(sentences.ODD)
    yield from TRICKY
    for n in range(count - len(TRICKY)):
        if n % 3 == 0:
            start = rng.randrange(len(text) - 200)
            yield text[start:start + rng.randrange(1, 200)]
        else:
            sets = rng.sample(ALPHABETS, rng.randrange(1, 5))
            yield "".join(rng.choice(rng.choice(sets)) for _ in range(rng.randrange(1, 80)))


CHATS = [
    [["<image>\nWhat's that?", None]],
    [["<image>\nHow many cats are there?\nAnswer with a single word.", None]],
    [["Hello!", None]],
    [["<image>\nWhat is this?", "It is a cat."], ["What colour is it?", None]],
    [["<image>\nWhat is this?", "It is a cat."], ["<image>\nAnd this?", "A dog."],
     ["Which is larger?", None]],
    [["<image>\n<image>\nCompare the two.", None]],
    [["<image>\n", None]],
    [["  two  spaces  ", None]],
    [["<image>\nÜber naïve café 😀 日本語?", None]],
    [["first line\nsecond line\n", None]],
]


def write_lines(model, count, seed, out):
    tokenizer = sentencepiece.SentencePieceProcessor(model_file=str(model))
    with open(out, "w") as file:
        for line in lines(count, seed):
            file.write(json.dumps({"text": line, "ids": tokenizer.encode(line)}) + "\n")


def write_chats(checkpoint, out):
    from transformers import LlamaTokenizer
    records = []
    for legacy in (False, True):
        tokenizer = LlamaTokenizer.from_pretrained(checkpoint, legacy=legacy)
        for turns in CHATS:
            text = ref.conversation(turns)
            records.append({"legacy": legacy, "turns": turns, "prompt": text,
                            "ids": ref.prompt_ids(tokenizer, text)})
    body = ",\n".join(json.dumps(r, ensure_ascii=False) for r in records)
    Path(out).write_text("[\n" + body + "\n]\n")


if __name__ == "__main__":
    if len(sys.argv) == 4 and sys.argv[1] == "--chat":
        write_chats(sys.argv[2], sys.argv[3])
    elif len(sys.argv) == 5:
        write_lines(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
    else:
        sys.exit(__doc__)
