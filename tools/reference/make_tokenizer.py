"""Trains the two tiny SentencePiece tokenizers of the golden cases on the project's own sentences.

    python make_tokenizer.py OUT_FOLDER

tokenizer.model          set as LLaMA's: white space is kept as it is
tokenizer-spaces.model   extra white space is removed, and some symbols are frozen (user-defined)

The same package version gives the same bytes: one thread, no sampling.
"""
import io
import sys
from pathlib import Path

import sentencepiece

import sentences

COMMON = dict(model_type="bpe", byte_fallback=True, normalization_rule_name="identity",
              split_digits=True, add_dummy_prefix=True, unk_id=0, bos_id=1, eos_id=2, pad_id=-1,
              character_coverage=1.0, num_threads=1, minloglevel=2)
# 470 is no multiple of 4, so the rows of the embedding and of the head are ragged.
TOKENIZERS = {
    "tokenizer.model": dict(vocab_size=470, remove_extra_whitespaces=False,
                            allow_whitespace_only_pieces=True),
    "tokenizer-spaces.model": dict(vocab_size=430, remove_extra_whitespaces=True,
                                   user_defined_symbols=["<pic>", "cat", "12", "😀", "é"]),
}


def train(options):
    """-> the bytes of a .model file"""
    # Repeated so that signs and runs of spaces get pieces. There is no tab and no newline among
    # them: those are bytes, as in LLaMA's tokenizer.
    lines = list(sentences.paragraphs(300, seed=1)) + 3 * sentences.ODD
    lines += 100 * sentences.GAPS + 100 * sentences.SPEECH
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(lines), model_writer=model,
                                             **COMMON, **options)
    return model.getvalue()


def main(out):
    out.mkdir(parents=True, exist_ok=True)
    for name, options in TOKENIZERS.items():
        data = train(options)
        (out / name).write_bytes(data)
        pieces = sentencepiece.SentencePieceProcessor(model_proto=data).get_piece_size()
        print(f"{name}: {pieces} pieces, {len(data)} bytes")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
