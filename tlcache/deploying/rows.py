"""What is said of each image, as rows: CSV, JSON lines or Parquet; whole in a file, or as they come in a stream.

Whoever predicts writes these, so it imports nothing beyond Python's own library, save pyarrow for Parquet.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from tlcache.errors import OptionError
from tlcache.extras import extra
from tlcache.files import first_line_of, naming, whole
from tlcache.keys import portable
from tlcache.text import as_csv

__all__ = ["Columns", "PredictedRow", "Write", "open_writer"]

Write = Callable[[Sequence["PredictedRow"]], None]
_DIGITS = 6  # of probabilities: float32 has no more


@dataclass(frozen=True)
class PredictedRow:
    """What is said of an image.

    Parameters
    ----------
    path
        As it was given.
    labels, confidences
        The likeliest classes, the likeliest first, and their probabilities; none of an image that cannot be used.
    set
        The classes of a conformal set; None where none was asked for.
    unusual
        Share of what the model was trained on that is as far from the rest; None where the model does not know.
    error
        Why the image cannot be used; empty where it can.
    each
        Of a model of several labels or of a number, which has no confidence: the further columns.
    """

    path: str
    labels: Sequence[str] = ()
    confidences: Sequence[float] = ()
    set: Sequence[str] | None = None
    unusual: float | None = None
    error: str = ""
    each: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Columns:
    """Which columns there are.

    Parameters
    ----------
    top
        So many classes of each image.
    sets, unusual
        Whether there are columns for these.
    each
        Further ones in the place of confidences: a probability of every label, or the ends of a number's interval, if
        it has one. None: there are confidences, of classes.
    exact
        Whether `each` are numbers, which read back as what they are, and no probabilities.

    Examples
    --------
    >>> Columns(top=2, sets=True).names
    ('path', 'label', 'confidence', 'label_2', 'confidence_2', 'set', 'error')
    """

    top: int = 1
    sets: bool = False
    unusual: bool = False
    each: tuple[str, ...] | None = None
    exact: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """What they are called, in their order."""
        if self.each is not None:
            return ("path", "label", *self.each, "error")
        further = (f"{name}_{place}" for place in range(2, self.top + 1) for name in ("label", "confidence"))
        asked = [name for name, wanted in (("set", self.sets), ("unusual", self.unusual)) if wanted]
        return ("path", "label", "confidence", *further, *asked, "error")

    def values(self, row: PredictedRow) -> dict[str, Any]:
        """Return a row as JSON values by the names of the columns; null where there is nothing to say."""
        found: dict[str, Any] = {"path": row.path, "set": list(row.set or ()), "error": row.error or None}
        found["unusual"] = _rounded(row.unusual)
        if self.each is not None:
            each = dict(row.each) if self.exact else {name: _rounded(value) for name, value in row.each.items()}
            return {name: {**found, "label": next(iter(row.labels), None), **each}.get(name) for name in self.names}
        for place, (label, confidence) in enumerate(zip(row.labels, row.confidences, strict=True), 1):
            ending = f"_{place}" if place > 1 else ""
            found |= {f"label{ending}": label, f"confidence{ending}": _rounded(confidence)}
        return {name: found.get(name) for name in self.names}

    def cells(self, row: PredictedRow) -> list[str]:
        """Return a row as texts."""
        return [_cell(value, self.exact) for value in self.values(row).values()]


def open_writer(out: Path | BinaryIO, columns: Columns) -> AbstractContextManager[Write]:
    """Return what writes rows, in the order in which it is given them.

    Parameters
    ----------
    out
        A `.csv`, `.jsonl` or `.parquet` file, which is there once all rows are written, or not at all. A stream, or the
        path of a pipe or a device, or `-`, which is standard output, has CSV, as it comes.
    columns
        Which columns to write.

    Raises
    ------
    OptionError
        A file of another kind, Parquet without pyarrow, or a file that is there and holds no predictions.
    """
    if isinstance(out, Path) and str(out) == "-":
        out = sys.stdout.buffer
    if not isinstance(out, Path):
        return _streamed(out, columns)
    if out.exists() and not out.is_file():
        return _csv_file(out, columns)
    if out.suffix.lower() not in _FORMATS:
        raise OptionError(
            f"--out '{out}' is of no kind known here. Known: {', '.join(_FORMATS)}; - is standard output."
        )
    if out.suffix.lower() == ".parquet":
        _pyarrow()
    _check_replaced(out)
    return _into_file(out, columns)


def _check_replaced(out: Path) -> None:
    """Raise OptionError where a file is there that no predictions were written to, like a table of images."""
    first = first_line_of(out).decode("utf-8", "replace").strip()
    if not first:
        return
    if out.suffix.lower() == ".csv":
        ours = first.startswith("path,label,") and first.endswith(",error")
    elif out.suffix.lower() == ".jsonl":
        ours = first.startswith('{"path":')
    else:
        names = _pyarrow().parquet.read_schema(out).names if first.startswith("PAR1") else []
        ours = names[:2] == ["path", "label"] and names[-1] == "error"
    if not ours:
        raise OptionError(f"'{out}' is there and holds no predictions, which would replace it. Give another --out.")


@contextmanager
def _into_file(out: Path, columns: Columns) -> Iterator[Write]:
    with whole(out) as unfinished, naming(out), _FORMATS[out.suffix.lower()](unfinished, columns) as write:
        yield write


@contextmanager
def _streamed(stream: BinaryIO, columns: Columns) -> Iterator[Write]:
    stream.write(_csv([columns.names]))

    def write(rows: Sequence[PredictedRow]) -> None:
        stream.write(_csv(map(columns.cells, rows)))
        stream.flush()

    yield write


@contextmanager
def _csv_file(path: Path, columns: Columns) -> Iterator[Write]:
    with path.open("wb") as stream, _streamed(stream, columns) as write:
        yield write


@contextmanager
def _json_lines(path: Path, columns: Columns) -> Iterator[Write]:
    with path.open("w", encoding="utf-8") as stream:
        yield lambda rows: stream.writelines(json.dumps(portable(columns.values(row))) + "\n" for row in rows)


@contextmanager
def _parquet(path: Path, columns: Columns) -> Iterator[Write]:
    arrow = _pyarrow()
    further = arrow.float64() if columns.exact else arrow.float32()
    schema = arrow.schema(
        [(name, further if name in (columns.each or ()) else _kind(arrow, name)) for name in columns.names]
    )
    with arrow.parquet.ParquetWriter(path, schema) as writer:
        yield lambda rows: writer.write_table(
            arrow.Table.from_pylist([_valid(columns.values(row)) for row in rows], schema)
        )


def _valid(values: Mapping[str, Any]) -> Any:
    """Return texts that are UTF-8, which Parquet insists on: what is none in the name of a file is marked."""
    return json.loads(json.dumps(portable(values), ensure_ascii=False).encode("utf-8", "replace"))


def _kind(arrow: Any, name: str) -> Any:
    if name.startswith(("confidence", "unusual")):
        return arrow.float32()
    return arrow.list_(arrow.string()) if name == "set" else arrow.string()


def _pyarrow() -> Any:
    return extra("pyarrow.parquet", "Parquet needs pyarrow, which", "pyarrow")


def _rounded(number: float | None) -> float | None:
    return None if number is None else round(float(number), _DIGITS)


def _cell(value: Any, exact: bool) -> str:
    if isinstance(value, list):
        return as_csv([value], ";").removesuffix("\n")  # a cell of cells, as names may have any letter
    rounded = isinstance(value, float) and not exact
    return "" if value is None else f"{value:.{_DIGITS}f}" if rounded else str(value)


def _csv(rows: Iterable[Iterable[str]]) -> bytes:
    """Return rows as CSV; names of files are the bytes that they are on disk."""
    return os.fsencode(as_csv(rows))


_FORMATS: Mapping[str, Callable[[Path, Columns], AbstractContextManager[Write]]] = {
    ".csv": _csv_file,
    ".jsonl": _json_lines,
    ".parquet": _parquet,
}
