"""The words into which GPT-2's and Qwen2's published expressions cut texts, by their bytes of UTF-8: tests/golden/words.jsonl.

    python tools/reference/make_words.py >tests/golden/words.jsonl

The expressions are those of the published tokenizers, read by the module that they are written for."""
import json
import random

import regex

EXPRESSIONS = {
    "gpt2": r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    "qwen2": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|"
             r"\s*[\r\n]+|\s+(?!\S)|\s+",
}
WRITTEN = [
    "What is this?", "It's  a\t\tcat, isn't it?\n\n  1234 naïve IT'S   ", " \n\n x\r\n\r\n", "a\n", "\n a", "  ", "\t",
    "'S 'T 'Re 'VE 'm 'lL 'D 'x ''s 'ſ 'ſx s'", "don't'll've", "12 345½ x²y Ⅷ ٣٤", "...\n\n!?\r\r.", "(a)[b]{c} _d-e",
    "日本語、テスト。", "Ünïcödé e\u0301 \u0301x", "\u00a0a\u3000b\u2028c\u0085d\u1680e", "🐅🐅 tiger🐅\n", "a\u200bb\u00adc\ufeffd",
]
CHARACTERS = list("aZéſßжא中ｱ15٣Ⅷ½²'''stmdlrevSTMDLREV.,!?-_()$+<>\"/\\") + list(" " * 8 + "\n\n\n\r\t\v\f") + [
    "\u00a0", "\u3000", "\u2028", "\u0085", "\u1680", "\u0301", "\u200b", "\u00ad", "🐅", "\U0001d400", "\x00", "\x1c", "\u2019"]

chosen = random.Random(9)
texts = WRITTEN + ["".join(chosen.choices(CHARACTERS, k=chosen.randint(1, 24))) for _ in range(500)]
for text in texts:
    words = {name: regex.findall(expression, text) for name, expression in EXPRESSIONS.items()}
    assert all("".join(found) == text for found in words.values()), text
    print(json.dumps({"text": text, **{name: [len(word.encode()) for word in found] for name, found in words.items()}}))
