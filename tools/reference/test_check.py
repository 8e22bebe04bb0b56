"""Tests check.py and the reference's loader with a made-up engine that answers from the golden cases.

    python -m unittest test_check
"""
import contextlib
import io
import json
import shutil
import sys
import tempfile
import unittest
import warnings
from pathlib import Path

import numpy as np

import check

warnings.filterwarnings("ignore", category=FutureWarning)
GOLDEN = Path(__file__).resolve().parents[2] / "tests" / "golden"
# It copies a case's expected arrays into the trace folder, where a real engine would write its own.
ENGINE = """#!{python}
import json, shutil, sys
from pathlib import Path
import numpy as np
expected = Path({expected!r})
out = Path(sys.argv[sys.argv.index("-o") + 1])
out.mkdir()
for path in expected.glob("*.npy"):
    shutil.copy(path, out)
case = json.loads((expected / "case.json").read_text())
for name in ("input_ids", "generated_ids"):
    np.save(out / (name + ".npy"), np.array(case[name], np.int32))
print(case["text"])
"""
CONVERTER = """#!{python}
import sys
open(sys.argv[sys.argv.index("-o") + 1], "w").write("model")
"""


def quiet(function, *words):
    """-> (exit code, what was printed)"""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        try:
            code = function(list(map(str, words)))
        except SystemExit as end:
            code = end.code
    return code, out.getvalue()


class WithFakeEngine(unittest.TestCase):
    def setUp(self):
        self.folder = Path(tempfile.mkdtemp(prefix="mobilevlm-test-"))
        self.addCleanup(shutil.rmtree, self.folder)

    def bring(self, case):
        """The case's expected folder as a copy that a test may spoil -> its path"""
        expected = self.folder / "expected"
        shutil.copytree(GOLDEN / "cases" / case / "expected", expected)
        for name, text in (("mobilevlm", ENGINE), ("mobilevlm-convert", CONVERTER)):
            path = self.folder / name
            path.write_text(text.format(python=sys.executable, expected=str(expected)))
            path.chmod(0o755)
        return expected

    def check(self, case, picture, question, *options):
        picture = picture if picture == "none" else GOLDEN / "images" / picture
        return quiet(check.main, GOLDEN / "cases" / case / "checkpoint", picture, question,
                     "--bin", self.folder, *options)

    def test_holds_with_a_picture(self):
        self.bring("v1")
        code, out = self.check("v1", "landscape.png", "What is this?")
        self.assertEqual(code, 0, out)
        self.assertNotIn("FAIL", out)

    def test_holds_without_padding(self):
        self.bring("linear-last-layer")
        code, out = self.check("linear-last-layer", "portrait.png", "<image>\nWhat is on the left?")
        self.assertEqual(code, 0, out)

    def test_holds_for_text_until_the_end_token(self):
        self.bring("text")
        code, out = self.check("text", "none", "How many horses are there?", "--count", 40)
        self.assertEqual(code, 0, out)

    def test_a_wrong_stage_fails(self):
        path = self.bring("v1") / "projector.npy"
        rows = np.load(path)
        rows[2, 3] += 1e-3 * np.abs(rows).max()
        np.save(path, rows)
        code, out = self.check("v1", "landscape.png", "What is this?")
        self.assertEqual(code, 1, out)
        self.assertRegex(out, r"projector .*beyond 0.0001  FAIL")
        self.assertEqual(out.count("FAIL"), 1)

    def test_a_wrong_id_fails(self):
        path = self.bring("v1") / "case.json"
        case = json.loads(path.read_text())
        case["generated_ids"][3] += 1
        path.write_text(json.dumps(case))
        code, out = self.check("v1", "landscape.png", "What is this?")
        self.assertEqual(code, 1, out)
        self.assertIn("differ at 3, margin there", out)

    def test_an_absent_array_fails(self):
        (self.bring("v1") / "vision.npy").unlink()
        code, out = self.check("v1", "landscape.png", "What is this?")
        self.assertEqual(code, 1, out)
        self.assertRegex(out, r"vision .*missing")

    def test_a_smaller_type_is_shown_and_not_judged(self):
        path = self.bring("v1") / "logits.npy"
        np.save(path, np.load(path) * 1.1)
        code, out = self.check("v1", "landscape.png", "What is this?", "--type", "q4")
        self.assertEqual(code, 0, out)
        self.assertRegex(out, r"logits .*shown")

    def test_a_failing_engine_is_named(self):
        self.bring("v1")
        (self.folder / "mobilevlm").write_text("#!/bin/sh\necho no such model >&2\nexit 3\n")
        code, out = self.check("v1", "landscape.png", "What is this?")
        self.assertEqual(code, 1)
        self.assertIn("mobilevlm: exit 3: no such model", out)

    def test_usage(self):
        self.bring("v1")
        self.assertEqual(self.check("v1", "absent.png", "What is this?")[0], 2)
        self.assertEqual(self.check("v1", "none", "<image>\nWhat is this?")[0], 2)
        self.assertEqual(quiet(check.main)[0], 2)


class Golden(unittest.TestCase):
    """The cases come back from their files, and the cache gives what the recomputation gave."""

    def test_every_case(self):
        import checkpoint
        import reference as ref
        import torch
        for case in sorted((GOLDEN / "cases").iterdir()):
            with self.subTest(case.name):
                record = json.loads((case / "expected" / "case.json").read_text())
                read = lambda name: torch.from_numpy(np.load(case / "expected" / name))
                model, config = checkpoint.load(case / "checkpoint")
                pad, images = config.get("image_aspect_ratio") == "pad", []
                for k, name in enumerate(record["images"]):
                    tag = f".{k}" if k else ""
                    _, pixels = ref.pixels_of(GOLDEN / "images" / name,
                                              config["vision_config"]["image_size"], pad=pad)
                    patches, rows = model.see(torch.from_numpy(pixels))
                    torch.testing.assert_close(torch.from_numpy(pixels), read(f"pixels{tag}.npy"))
                    torch.testing.assert_close(patches, read(f"vision{tag}.npy"))
                    images.append(rows)
                sequence = model.rows(record["input_ids"], images)
                torch.testing.assert_close(model.logits(sequence), read("logits.npy"))
                for cached in (False, True):
                    ids, chosen, _ = model.greedy(sequence, record["count"], 2, cached=cached)
                    self.assertEqual(ids, record["generated_ids"])
                    self.assertEqual(len(chosen) > len(ids), record["ended"])


class Comparison(unittest.TestCase):
    def test_bound_is_relative_to_the_largest_magnitude(self):
        a = np.array([1000.0, 0.0], np.float32)
        self.assertTrue(check.compare_floats("x", a, a + [0, 0.09], 1e-4).holds)
        self.assertFalse(check.compare_floats("x", a, a + [0, 0.11], 1e-4).holds)

    def test_what_is_not_comparable_fails(self):
        a = np.ones(3, np.float32)
        self.assertFalse(check.compare_floats("x", a, np.ones(2, np.float32), None).holds)
        self.assertFalse(check.compare_floats("x", a, np.array([1, np.nan, 1]), None).holds)
        self.assertFalse(check.compare_ids("x", [1, 2], [1]).holds)


if __name__ == "__main__":
    unittest.main()
