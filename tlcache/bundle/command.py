"""The command line of a deployed model: `python -m tlcache.bundle`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tlcache.bundle.model import TAKES, Bundle
from tlcache.bundle.packing import pack, packed
from tlcache.datasets.layout import Layout
from tlcache.datasets.table import is_image_name
from tlcache.datasets.tree import scan
from tlcache.deploying.rows import open_writer
from tlcache.deploying.stdin import standard_input
from tlcache.errors import DataError, OptionError, TlcacheError
from tlcache.kinds import Kind, whole
from tlcache.text import counted

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return its status."""
    own = packed()
    asked = _parser(own is None).parse_intermixed_args(arguments)  # options may stand between images
    try:
        model = own or Path(asked.model).read_bytes()
        bundle = Bundle(model, sys.argv[0] if own else asked.model, asked.max_pixels)
        if asked.pack and asked.images:
            raise OptionError("--pack takes no images: it writes the model and its program. Leave one of them out.")
        if asked.pack:
            if asked.pack.exists() and asked.pack.samefile(sys.argv[0] if own else asked.model):
                raise OptionError(f"--pack would replace the model itself, '{asked.pack}'. Give it another name.")
            pack(model, asked.pack)
        elif not asked.images:
            raise OptionError("No images are given. Give files or folders, or - for paths on standard input.")
        else:
            return _predict(bundle, asked)
    except TlcacheError as error:
        return _end(f"error: {error}", 2 if isinstance(error, OptionError) else 1)
    except BrokenPipeError:  # who reads has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    except OSError as error:
        return _end(f"error: {error.strerror or error}: {error.filename or 'no file named'}", 1)
    except KeyboardInterrupt:
        return _end("stopped", 130)
    return 0


def _predict(bundle: Bundle, asked: argparse.Namespace) -> int:
    """Write what images show; return 1 where none of them can be used."""
    judge = bundle.judge(sets=asked.sets, right=asked.right, reject=asked.reject)
    paths, bad = _paths(asked.images), 0
    columns = bundle.columns(judge, asked.top)
    if judge.answers_nothing:
        _end(f"No confidence is enough for {asked.right:g} right answers: all images are unsure.", 0)
    if least := judge.least_unusual:
        _end(
            f"With so few training images no p-value is below {least:.3g}: --reject {asked.reject:g} rejects nothing.",
            0,
        )
    with open_writer(asked.out or Path("-"), columns) as write:
        for rows in bundle.rows(paths, judge, asked.top):
            write(rows)
            bad += sum(bool(row.error) for row in rows)
    if bad:
        _end(f"{counted(bad, 'image')} of {len(paths):,} cannot be used; the column error says why.", 0)
    return int(bad == len(paths))


def _paths(given: Sequence[str]) -> list[str]:
    """Return the files that are meant: those named, what lies in folders, and those named on standard input."""
    found: list[str] = []
    for each in given:
        if each == "-":
            found += standard_input()
        elif Path(each).is_dir():
            found += [os.path.join(each, path) for path in scan(Path(each), Layout()).paths()]  # noqa: PTH118  as given
        elif os.path.lexists(each) or is_image_name(each):  # noqa: PTH110  as given
            found.append(each)
        else:
            raise DataError(f"There is nothing at '{each}'. Give images, folders, or - for paths on standard input.")
    if not found:
        raise DataError(f"There are no images in {', '.join(map(repr, given))}.")
    return found


def _parser(with_model: bool) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=None if not with_model else "python -m tlcache.bundle",
        description="Say what images show, as CSV: path, label, confidence, error and more.",
    )
    if with_model:
        parser.add_argument("model", metavar="MODEL", help="the .onnx file that tlcache export made of a run")
    parser.add_argument("images", metavar="IMAGES", nargs="*", help="files and folders; -: paths on standard input")
    parser.add_argument("--out", metavar="FILE", type=Path, help="a .csv, .jsonl or .parquet; -: standard output")
    parser.add_argument("--top", metavar="N", type=_of(TAKES["top"]), default=1, help="name the N likeliest classes")
    parser.add_argument("--sets", action="store_true", help="the classes that may be right, as often as promised")
    parser.add_argument(
        "--right", metavar="X", type=_of(TAKES["right"]), help="unsure, save where this share of answers is right"
    )
    parser.add_argument(
        "--reject", metavar="X", type=_of(TAKES["reject"]), help="unknown, where unusual as this share of images is"
    )
    parser.add_argument(
        "--max-pixels", metavar="N", type=_of(whole(1)), help="largest image to read (default: 89,478,485)"
    )
    parser.add_argument("--pack", metavar="FILE.pyz", type=Path, help="write model and program as one file; no images")
    return parser


def _of(kind: Kind) -> Callable[[str], Any]:
    """Return what reads an option's text as `argparse` has it."""

    def read(word: str) -> Any:
        try:
            return kind.value(word)
        except ValueError:
            raise argparse.ArgumentTypeError(f"takes {kind.takes}; found {word!r}") from None

    return read


def _end(message: str, status: int) -> int:
    sys.stderr.write(f"{message}\n")
    return status
