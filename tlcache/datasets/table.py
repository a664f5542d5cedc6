"""Tables as people have them: CSV, TSV, lists with blanks, JSON lines -> columns, and rows with their lines."""

from __future__ import annotations

import codecs
import csv
import json
import re
from collections.abc import Iterator
from itertools import chain, dropwhile, islice
from pathlib import Path
from typing import Any, NamedTuple

from tlcache.errors import DataError
from tlcache.keys import native

__all__ = ["SUFFIXES", "Table", "is_image_name", "read_table"]

SUFFIXES = (".csv", ".tsv", ".txt", ".jsonl")

_MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
_SEPARATORS = "\t;|,"  # of those that a header has equally often, the first
_IMAGE = re.compile(
    r"\.(avif|bmp|dcm|dicom|gif|hei[cf]|hif|j2k|jfif|jp2|jpe?g?|jpx|mpo|p[bgnp]m|pfm|png|tiff?|webp)$", re.IGNORECASE
)

_LINE = re.compile(r"[^\r\n]*(?:\r\n?|\n)|[^\r\n]+")


class Table(NamedTuple):
    """A table of texts.

    Parameters
    ----------
    path
        The file, or what to call it.
    columns
        What they are called.
    rows
        The line that each row ends on, and its cells, as many as there are columns.
    has_header
        False: it is a list of images, perhaps with labels, and the columns are called path and label.
    """

    path: Path | str
    columns: list[str]
    rows: list[tuple[int, list[str]]]
    has_header: bool = True


def is_image_name(name: str) -> bool:
    """Return whether a file is an image by the end of its name."""
    return bool(_IMAGE.search(name))


def read_table(path: Path, most: int | None = None) -> Table:
    """Read a table: UTF-8 or, by its byte order mark, UTF-16; what parts the cells is found in the first line.

    Blanks around a cell are no part of it. Lines before the header that begin with `#`, or
    `sep=` as Excel has it, are remarks.

    Parameters
    ----------
    path
        The file.
    most
        So many of its first lines with something in them are enough.

    Raises
    ------
    DataError
        It cannot be read, or a line of it has too many or too few cells; says which.
    """
    if path.suffix.lower() == ".parquet":
        return _from_columns(path, most)
    text = _text(path)
    if path.suffix.lower() == ".jsonl":
        return _from_objects(path, text, most)
    stripped = ((line, [cell.strip() for cell in cells]) for line, cells in _cells(path, native(text)))
    filled = ((line, cells) for line, cells in stripped if any(cells))
    found = islice(dropwhile(lambda row: row[1][0].startswith(("#", "sep=")), filled), most)
    first, header = next(found, (0, list[str]()))
    if len(header) <= 2 and any(images := [is_image_name(cell) for cell in header]):
        columns = ["path", "label"] if images[0] else ["label", "path"]
        rows = [(line, _fitting(path, line, cells, len(header))) for line, cells in chain([(first, header)], found)]
        return Table(path, columns[: len(header)], rows, has_header=False)
    if any(map(is_image_name, header)):
        raise DataError(f"{path}:{first}: no header, but {', '.join(header)}. Add a line like path,label.")
    rows = [
        (line, _fitting(path, line, cells, len(header))) for line, cells in found if not re.match(r"#(\s|$)", cells[0])
    ]
    return Table(path, header, rows)


def _text(path: Path) -> str:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"Cannot read '{path}': {error.strerror}.") from None
    encoding = next((name for mark, name in _MARKS.items() if data.startswith(mark)), "utf-8")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise DataError(
            f"{path}:{line}: not {encoding[:6].upper()} (byte {data[error.start]:#04x}). Save it as UTF-8."
        ) from None
    if "\0" in text:
        raise DataError(f"'{path}' has null bytes and is no text in UTF-8. Save it as UTF-8.")
    return text


def _cells(path: Path, text: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the lines' numbers and cells; without any separator in the first line, a path, blanks and a label."""
    first = next((line for line in _lines(text) if line.strip() and not line.startswith("#")), "")
    bare = re.sub(r'"[^"]*"', "", first)
    separator = max(_SEPARATORS, key=bare.count)
    if separator not in bare and len(first.split()) > 1:
        yield from ((number, line.rsplit(None, 1)) for number, line in enumerate(_lines(text), 1) if line.strip())
        return
    reader = csv.reader(_lines(text), delimiter=separator, skipinitialspace=True, strict=True)
    try:
        yield from ((reader.line_num, cells) for cells in reader if cells)
    except csv.Error as error:
        raise DataError(f"{path}:{reader.line_num}: {error}. Is a quotation mark left open?") from None


def _lines(text: str) -> Iterator[str]:
    """Yield lines with what ends them; `io.StringIO` would take four bytes for each character."""
    return (line[0] for line in _LINE.finditer(text))


def _fitting(path: Path, line: int, cells: list[str], count: int) -> list[str]:
    """Return the cells of a row; empty ones after the last column are no cells."""
    if len(cells) < count or any(cells[count:]):
        raise DataError(f"{path}:{line}: {len(cells)} cells where the header has {count} columns.")
    return cells[:count]


def _from_objects(path: Path, text: str, most: int | None) -> Table:
    """Return lines of JSON as a table; what an object does not have is an empty cell."""
    filled = ((line, content) for line, content in enumerate(_lines(text), 1) if content.strip())
    objects = [(line, _object(f"{path}:{line}", content)) for line, content in islice(filled, most)]
    columns = list(dict.fromkeys(name for _, each in objects for name in each))
    rows = [(line, [_cell(each.get(name)) for name in columns]) for line, each in objects]
    for line, cells in rows:
        if not _is_text("".join(cells)):
            raise DataError(f"{path}:{line}: a null byte, or half of a character, in a text. Write it anew.")
    return Table(path, columns, rows)


def _from_columns(path: Path, most: int | None) -> Table:
    """Return a parquet file without images as a table."""
    from tlcache.datasets.parquet_rows import open_file

    read = open_file(str(path)).read().slice(0, most)
    cells = zip(*(map(_cell, column.to_pylist()) for column in read.columns), strict=True)
    return Table(path, list(read.column_names), [(row, list(each)) for row, each in enumerate(cells, 1)])


def _is_text(text: str) -> bool:
    """Return whether a text can be a name of a file or a class; what JSON escapes need not be one."""
    try:
        return b"\0" not in text.encode()
    except UnicodeEncodeError:
        return False


def _object(where: str, content: str) -> dict[str, Any]:
    try:
        return dict(native(json.loads(content)))
    except (ValueError, TypeError):
        example = '{"path": "a.png", "label": "cat"}'
        raise DataError(f"{where}: no object of JSON. Each line is one, as in {example}.") from None


def _cell(value: Any) -> str:
    """Return a value of JSON as a cell; several are joined as lists of labels are in tables."""
    if isinstance(value, list):
        return "|".join(map(_cell, value))
    return "" if value is None else (value if isinstance(value, str) else json.dumps(value, default=str)).strip()
