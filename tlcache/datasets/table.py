"""Tables as people have them: CSV, TSV, lists with blanks, JSON lines -> columns of texts, and the lines of rows."""

from __future__ import annotations

import codecs
import csv
import json
import re
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, dropwhile, islice
from pathlib import Path
from typing import Any, NamedTuple

from tlcache.datasets.texts import filled
from tlcache.errors import DataError
from tlcache.keys import native

__all__ = ["SUFFIXES", "Table", "column_of", "is_image_name", "read_table"]

SUFFIXES = (".csv", ".tsv", ".txt", ".jsonl")

_MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
_SEPARATORS = "\t;|,"  # of those that a header has equally often, the first
_IMAGE = re.compile(
    r"\.(avif|bmp|dcm|dicom|gif|hei[cf]|hif|j2k|jfif|jp2|jpe?g?|jpx|mpo|p[bgnp]m|pfm|png|tiff?|webp)$", re.IGNORECASE
)

_LINE = re.compile(r"[^\r\n]*(?:\r\n?|\n)|[^\r\n]+")
_FEW = 4096  # texts of a column that may stand there again


class Table(NamedTuple):
    """A table of texts.

    Parameters
    ----------
    path
        The file, or what to call it.
    columns
        What they are called.
    lines
        (N,) the line that each row ends on.
    cells
        Of each column, (N,).
    has_header
        False: it is a list of images, perhaps with labels, and the columns are called path and label.
    """

    path: Path | str
    columns: list[str]
    lines: Sequence[int]
    cells: Sequence[Sequence[str]]
    has_header: bool = True

    @classmethod
    def of_rows(
        cls, path: Path | str, columns: list[str], rows: Iterable[tuple[int, Sequence[str]]], has_header: bool = True
    ) -> Table:
        """Return a table of rows, each a line and as many cells as there are columns."""
        lines, cells, known = array("q"), [list[str]() for _ in columns], [dict[str, str]() for _ in columns]
        for line, row in rows:
            lines.append(line)
            for column, seen, cell in zip(cells, known, row, strict=True):
                column.append(_same(seen, cell))
        return cls(path, columns, lines, cells, has_header)

    @classmethod
    def of_objects(cls, path: Path | str, objects: Iterable[tuple[int, Mapping[str, str]]]) -> Table:
        """Return a table of objects, each with its line; what one does not have is an empty cell."""
        lines, columns = array("q"), dict[str, tuple[list[str], dict[str, str]]]()
        for number, (line, each) in enumerate(objects):
            lines.append(line)
            for name, cell in each.items():
                column, seen = columns.setdefault(name, ([], {}))
                filled(column, number).append(_same(seen, cell))
        return cls(path, [*columns], lines, [filled(column, len(lines)) for column, _ in columns.values()])


def column_of(cells: Iterable[str]) -> list[str]:
    """Return cells, in which a text that stands there again is no object of its own, as of labels."""
    seen = dict[str, str]()
    return [_same(seen, cell) for cell in cells]


def _same(seen: dict[str, str], cell: str) -> str:
    return seen.setdefault(cell, cell) if len(seen) < _FEW else seen.get(cell, cell)


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
    said = ((line, cells) for line, cells in stripped if any(cells))
    found = islice(dropwhile(lambda row: row[1][0].startswith(("#", "sep=")), said), most)
    first, header = next(found, (0, list[str]()))
    if len(header) <= 2 and any(images := [is_image_name(cell) for cell in header]):
        columns = ["path", "label"] if images[0] else ["label", "path"]
        rows = ((line, _fitting(path, line, cells, len(header))) for line, cells in chain([(first, header)], found))
        return Table.of_rows(path, columns[: len(header)], rows, has_header=False)
    if any(map(is_image_name, header)):
        raise DataError(f"{path}:{first}: no header, but {', '.join(header)}. Add a line like path,label.")
    rows = (
        (line, _fitting(path, line, cells, len(header))) for line, cells in found if not re.match(r"#(\s|$)", cells[0])
    )
    return Table.of_rows(path, header, rows)


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
    said = ((line, content) for line, content in enumerate(_lines(text), 1) if content.strip())
    return Table.of_objects(path, ((line, _object(path, line, content)) for line, content in islice(said, most)))


def _from_columns(path: Path, most: int | None) -> Table:
    """Return a parquet file without images as a table."""
    from tlcache.datasets.parquet_rows import open_file

    read = open_file(str(path)).read().slice(0, most)
    cells = [column_of(map(_cell, column.to_pylist())) for column in read.columns]
    return Table(path, list(read.column_names), range(1, read.num_rows + 1), cells)


def _is_text(text: str) -> bool:
    """Return whether a text can be a name of a file or a class; what JSON escapes need not be one."""
    try:
        return b"\0" not in text.encode()
    except UnicodeEncodeError:
        return False


def _object(path: Path, line: int, content: str) -> dict[str, str]:
    try:
        found = {name: _cell(value) for name, value in dict(native(json.loads(content))).items()}
    except (ValueError, TypeError):
        example = '{"path": "a.png", "label": "cat"}'
        raise DataError(f"{path}:{line}: no object of JSON. Each line is one, as in {example}.") from None
    if not _is_text("".join(found.values())):
        raise DataError(f"{path}:{line}: a null byte, or half of a character, in a text. Write it anew.")
    return found


def _cell(value: Any) -> str:
    """Return a value of JSON as a cell; several are joined as lists of labels are in tables."""
    if isinstance(value, list):
        return "|".join(map(_cell, value))
    return "" if value is None else (value if isinstance(value, str) else json.dumps(value, default=str)).strip()
