"""The data archive: its tables, and what counts as a right name."""
import csv
import os
import sys
import tarfile
import zlib


class DataError(Exception):
    """One sentence for the user: what is wrong with which file."""


def ended(main):
    """The exit status of a program: main()'s, or 1 after one sentence about what is wrong."""
    program = os.path.basename(sys.argv[0])
    try:
        return main() or 0
    except DataError as e:
        print(f"{program}: {e}", file=sys.stderr)
    except OSError as e:
        print(f"{program}: {e.filename}: {e.strerror}" if e.filename else f"{program}: {e}", file=sys.stderr)
    return 1


def unpack(archive, folder):
    """Unpacks the data archive into `folder`, unless that is done; returns the folder with its tables."""
    root = os.path.join(folder, "demo-data")
    if not os.path.exists(os.path.join(root, ".unpacked")):
        if not os.path.isfile(archive):
            raise DataError(f"{archive}: the data archive is missing (name it with --data)")
        try:
            with tarfile.open(archive) as tar:
                safe = dict(filter="data") if hasattr(tarfile, "data_filter") else {}  # since Python 3.11.4
                tar.extractall(folder, **safe)
        except (tarfile.TarError, EOFError, zlib.error) as e:
            raise DataError(f"{archive}: is not a readable tar archive") from e
        open(os.path.join(root, ".unpacked"), "w").close()
    return root


def table(root, name):
    """Rows of a tab-separated table, as dictionaries."""
    with open(os.path.join(root, name), encoding="utf-8", newline="") as f:
        return list(csv.DictReader(f, delimiter="\t", quoting=csv.QUOTE_NONE))


def bare(text):
    """An answer without article, full stop and capitals."""
    text = text.strip().rstrip(".").lower()
    for article in ("a ", "an ", "the "):
        text = text.removeprefix(article)
    return text


def accepted(concept):
    """Names of a row of concepts.tsv, bare."""
    return {bare(w) for w in [concept["concept"]] + concept["accepted_answers"].split("|")}
