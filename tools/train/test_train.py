#!/usr/bin/env python3
"""From nothing to a converted model on a made-up archive, and what goes wrong on the way. Needs build/; some minutes:

    python3 tools/train/test_train.py
"""
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import unittest
from dataclasses import asdict

import numpy as np
import sentencepiece
import torch
from PIL import Image, ImageDraw
from safetensors.torch import load_file

from model import MobileVLM, Sizes
from questions import Conversation
from scenes import normalised

HERE = os.path.dirname(os.path.abspath(__file__))
BUILD = os.path.join(HERE, "../../build")
NOUNS = dict(ball="ellipse", box="rectangle", rope="line")
STYLES = dict(noto="train", twemoji="train", openmoji="heldout-dev")


def write_table(path, rows):
    with open(path, "w", encoding="utf-8") as f:
        f.write("\t".join(rows[0]) + "\n" + "".join("\t".join(map(str, r.values())) + "\n" for r in rows))


def make_archive(folder):
    """An archive of three nouns in three styles, with the tables and the tokenizer that training reads."""
    root = os.path.join(folder, "demo-data")
    os.makedirs(os.path.join(root, "cases-dev"))
    emoji = []
    for style, role in STYLES.items():
        os.makedirs(os.path.join(root, "emoji", style))
        for i, (noun, form) in enumerate(NOUNS.items()):
            image = Image.new("RGBA", (168, 168))
            getattr(ImageDraw.Draw(image), form)((30, 40, 140, 120), fill=(200, 40, 40), width=9)
            file = f"emoji/{style}/{i}.png"
            image.save(os.path.join(root, file))
            emoji.append(dict(codepoints=i, style=style, file=file, name=noun, concept=noun, family=style, role=role, colours="red:1.00"))
    write_table(os.path.join(root, "emoji.tsv"), emoji)
    write_table(
        os.path.join(root, "concepts.tsv"),
        [dict(concept=n, article="a", accepted_answers=n, broader="", everyday=int(n != "rope")) for n in NOUNS],
    )
    write_table(os.path.join(root, "openclipart.tsv"), [dict(file="x.png", concept="", role="train")])
    Image.new("RGB", (168, 168), "red").save(os.path.join(root, "cases-dev/0000.png"))
    case = dict(image="0000.png", set="shapes", kind="bg", question="What colour is the background?")
    case.update(answer="red.", accept=["red"], broader=[], concept=None)
    with open(os.path.join(root, "cases-dev/cases.jsonl"), "w", encoding="utf-8") as f:
        f.write(json.dumps(case) + "\n")
    text = ["USER: What is this? ASSISTANT: a ball.", "How many things are there? two. What colour is the background? red."]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(text * 50), model_prefix=os.path.join(root, "tok1k"), vocab_size=330, model_type="bpe",
        byte_fallback=True, hard_vocab_limit=False, minloglevel=2, normalization_rule_name="identity", remove_extra_whitespaces=False,
    )  # fmt: skip
    archive = os.path.join(folder, "demo-data.tar.gz")
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(root, "demo-data")
    return archive


def program(name, *args):
    """-> exit status, standard output, standard error"""
    done = subprocess.run([sys.executable, os.path.join(HERE, name), *args], capture_output=True, encoding="utf-8", check=False)
    return done.returncode, done.stdout, done.stderr


class Training(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.archive = make_archive(cls.folder.name)

    @classmethod
    def path(cls, name):
        return os.path.join(cls.folder.name, name)

    @classmethod
    def tearDownClass(cls):
        cls.folder.cleanup()

    def train(self, work, *args):
        return program("train.py", "--data", self.archive, "--work", self.path(work), *args)

    def assert_refused(self, result, *words):
        status, _, said = result
        self.assertEqual(status, 1, said)
        self.assertEqual(len(said.strip().splitlines()), 1, said)
        for word in words:
            self.assertIn(word, said)

    def test_from_nothing_to_a_model(self):
        scale = ["--scale", "0.0005"]
        status, said, error = self.train("work", *scale, "--minutes", "0")
        self.assertEqual(status, 0, error)  # paused at once; the same command goes on
        paused = torch.load(self.path("work/teacher.pt"), weights_only=False)
        self.assertEqual((paused["done"], paused["step"]), (False, 1))
        self.assertFalse(os.path.exists(self.path("work/tower.pt")))
        self.assertFalse(os.path.exists(self.path("out")))
        status, said, error = self.train("work", *scale, "--out", self.path("out"))
        self.assertEqual(status, 0, error)
        with open(self.path("work/log.jsonl"), encoding="utf-8") as f:
            self.assertEqual({json.loads(line)["stage"] for line in f}, {"teacher", "tower", "whole", "places", "pairs"})
        self.assertEqual(torch.load(self.path("work/teacher.pt"), weights_only=False)["step"], 3)  # 120 pictures, 48 a step
        self.assert_refused(self.train("work", "--scale", "0.001"), "teacher.pt", "pictures 120", "240")
        self.assert_refused(self.train("work", *scale, "--seed", "2"), "teacher.pt", "seed 1")
        model = self.path("model.bin")
        subprocess.run([BUILD + "/mobilevlm-convert", self.path("out"), "-o", model, "--type", "q8", "-q"], check=True)
        status, said, error = program("evaluate.py", "-m", model, "--data", self.archive, "--work", self.path("work"), "--against", model)
        self.assertEqual(status, 0, error)
        self.assertIn("| shapes: bg |", said)
        self.assertIn("cases-dev: 1 of 1 answers (100.0 %) are the same text", said)
        self.assertIn("everyday nouns: 2 of 2 answers (100.0 %) are the same text", said)
        self.assert_refused(self.train("work", *scale, "--out", self.path("out")), "out", "exists already")
        self.check_stages()

    def check_stages(self):
        """The engine's f32 numbers are those of model.py: the tower's rows, the projector's, the tokens of the answer."""
        picture, question, n = self.path("demo-data/cases-dev/0000.png"), "What is this?", 6
        model, trace = self.path("f32.bin"), self.path("trace")
        subprocess.run([BUILD + "/mobilevlm-convert", self.path("out"), "-o", model, "--type", "f32", "-q"], check=True)
        ask = [BUILD + "/mobilevlm", "trace", "-m", model, "-i", picture, "-p", question, "-n", str(n), "-o", trace]
        subprocess.run(ask, check=True, stdout=subprocess.DEVNULL)
        vlm = MobileVLM(Sizes()).eval()
        vlm.load_state_dict({k: v for k, v in load_file(self.path("out/model.safetensors")).items() if "post_layernorm." not in k})
        conversation = Conversation(self.path("out/tokenizer.model"))
        pixels = torch.from_numpy(np.array(Image.open(picture), dtype=np.float32)).permute(2, 0, 1)[None] / 255
        prompt, ids = conversation.prompt(question), []
        with torch.no_grad():
            rows, features = vlm.rows_of(normalised(pixels))
            for name, ours in (("vision", features[0]), ("projector", rows[0])):
                theirs = torch.from_numpy(np.load(f"{trace}/{name}.npy")).view_as(ours)
                self.assertLess((ours - theirs).abs().max() / ours.abs().max(), 1e-4, name)
            for _ in range(n):
                states = vlm(torch.tensor([conversation.before]), rows, torch.tensor([prompt + ids]))[0]
                ids.append(vlm.head(states[:, -1])[:, : len(conversation.pieces)].argmax().item())
        ids = ids[: ids.index(conversation.EOS)] if conversation.EOS in ids else ids
        self.assertEqual(np.load(f"{trace}/generated_ids.npy").tolist(), ids)

    def test_missing_archive(self):
        result = program("train.py", "--data", self.path("none.tar.gz"), "--work", self.path("w1"))
        self.assert_refused(result, "none.tar.gz", "missing")

    def test_archive_that_is_none(self):
        with open(self.path("text.tar.gz"), "w", encoding="utf-8") as f:
            f.write("text")
        result = program("train.py", "--data", self.path("text.tar.gz"), "--work", self.path("w2"))
        self.assert_refused(result, "text.tar.gz", "tar archive")
        with open(self.archive, "rb") as f, open(self.path("half.tar.gz"), "wb") as half:
            half.write(f.read()[:3000])
        result = program("train.py", "--data", self.path("half.tar.gz"), "--work", self.path("w6"))
        self.assert_refused(result, "half.tar.gz", "tar archive")

    def test_checkpoint_of_other_sizes(self):
        os.makedirs(self.path("w3"))
        torch.save(dict(done=False, sizes=dict(asdict(Sizes()), hidden=32)), self.path("w3/teacher.pt"))
        self.assert_refused(self.train("w3", "--processes", "1"), "teacher.pt", "hidden 32", "256")

    def test_full_disk(self):
        os.makedirs(self.path("w4"))
        os.symlink("/dev/full", self.path("w4/train.pt.part"))
        self.assert_refused(self.train("w4"), "train.pt", "No space left")

    def test_model_of_another_vocabulary(self):
        model = self.path("other.bin")
        subprocess.run([BUILD + "/mobilevlm-convert", HERE + "/../../tests/golden/cases/v2/checkpoint", "-o", model, "-q"], check=True)
        result = program("evaluate.py", "-m", model, "--data", self.archive, "--work", self.path("w5"))
        self.assert_refused(result, "other.bin", "tokenizer is not tok1k.model")


if __name__ == "__main__":
    unittest.main()
