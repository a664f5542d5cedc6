"""Tables with embeddings: a column of lists, or a column of numbers for every feature."""

from __future__ import annotations

import csv
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray

from tlcache.errors import DataError, OptionError
from tlcache.exchange.writers import CONSTANT, FORMAT, pyarrow
from tlcache.keys import some

__all__ = ["read_csv", "read_parquet"]

_BLOCK = 4096
_SERIES = re.compile(r"(.*?)(\d+)")
_INDEX = "__index_level_0__"  # pandas' name for an index without one, which is what rows are called

Read = tuple[NDArray[Any], dict[str, Sequence[str]], dict[str, Any]]


def read_parquet(path: Path, key: str | None, spool: Path) -> Read:
    """Return embeddings, the columns beside them, and what `tlcache.dump` says; see `tlcache.exchange.readers.read`."""
    arrow = pyarrow()
    file = arrow.parquet.ParquetFile(path, page_checksum_verification=True)
    schema, rows = file.schema_arrow, file.metadata.num_rows
    lists = {field.name: None for field in schema if _is_list(arrow, field.type)}
    numbers = [field.name for field in schema if arrow.types.is_floating(field.type)]
    names = _features(path, key, [*lists], numbers)
    values = None
    for start, batch in _batches(file, names):
        part = _matrix(path, batch, names)
        if values is None:
            values = np.lib.format.open_memmap(spool, "w+", part.dtype, (rows, part.shape[1]))
        if part.shape[1] != values.shape[1]:
            raise DataError(f"'{path}': '{names[0]}' has lists of {values.shape[1]} and of {part.shape[1]} numbers.")
        values[start : start + len(part)] = part
    if values is None:
        raise DataError(f"'{path}' has no rows.")
    kept = [field.name for field in schema if _is_text(arrow, field.type)]
    columns = {name: [_cell(each) for each in file.read([name])[name].to_pylist()] for name in kept}
    said = (schema.metadata or {}).get(FORMAT.encode(), b"{}")
    return values, _named(columns), json.loads(said)


def read_csv(path: Path, key: str | None, spool: Path) -> Read:
    """Return embeddings, the columns beside them, and what `tlcache.dump` says; see `tlcache.exchange.readers.read`."""
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as stream:
        lines = _lines(stream)
        _, header = next(lines, (0, []))
        first = next(lines, None)
        if first is None:
            raise DataError(f"'{path}' has no rows.")
        numbers = [name for name, cell in zip(header, first[1], strict=False) if _is_number(cell)]
        names = _features(path, key, [], numbers)
        at = [header.index(name) for name in names]
        rest = [number for number in range(len(header)) if number not in set(at)]
        kept: list[list[str]] = [[] for _ in rest]
        with spool.open("wb") as out:
            while block := ([first] if first else []) + list(islice(lines, _BLOCK)):
                first = None
                out.write(np.array([_numbers(path, *each, at, header) for each in block], np.float32).data)
                for column, number in zip(kept, rest, strict=True):
                    column.extend(row[number] for _, row in block)
    values = np.memmap(spool, np.float32, "r", shape=(spool.stat().st_size // 4 // len(at), len(at)))
    columns = {header[number]: column for number, column in zip(rest, kept, strict=True)}
    ours = {"sha256", *CONSTANT} <= columns.keys()
    said = {name: columns.pop(name)[0] for name in CONSTANT} if ours else {}
    return values, _named(columns), said


def _features(path: Path, key: str | None, lists: Sequence[str], numbers: Sequence[str]) -> list[str]:
    """Return the columns of embeddings: one of lists, or those that are numbered, `feature_0`, `feature_1`, ..."""
    series: dict[str, list[tuple[int, str]]] = defaultdict(list)
    for name in numbers:
        if found := _SERIES.fullmatch(name):
            series[found[1]].append((int(found[2]), name))
    known = {name: [name] for name in lists}
    known |= {name: [each for _, each in sorted(columns)] for name, columns in series.items() if len(columns) > 1}
    if key is not None and key not in known:
        raise OptionError(f"--features-key {key}: '{path}' has no such column. It has {some([*known], 10) or 'none'}.")
    if key is None and len(known) != 1:
        what = f"several that may be: {some([*known], 10)}. Say which with --features-key NAME" if known else "none"
        raise DataError(f"'{path}': of columns with embeddings (a list, or numbered ones like e0, e1) there is {what}.")
    return known[next(iter(known)) if key is None else key]


def _batches(file: Any, names: Sequence[str]) -> Iterable[tuple[int, Any]]:
    start = 0
    for batch in file.iter_batches(_BLOCK, columns=list(names)):
        yield start, batch
        start += batch.num_rows


def _matrix(path: Path, batch: Any, names: Sequence[str]) -> NDArray[Any]:
    columns = [batch.column(name) for name in names]
    if any(column.null_count for column in columns):
        raise DataError(f"'{path}': '{names[0]}' has empty cells. Make these embeddings again, or leave the rows out.")
    if len(names) > 1 or not hasattr(columns[0], "flatten"):
        return np.stack([column.to_numpy(zero_copy_only=False) for column in columns], axis=1)
    lengths = (
        {*columns[0].value_lengths().to_pylist()}
        if hasattr(columns[0], "value_lengths")
        else {columns[0].type.list_size}
    )
    if len(lengths) != 1:
        raise DataError(f"'{path}': '{names[0]}' has lists of {min(lengths)} to {max(lengths)} numbers.")
    flat = columns[0].flatten().to_numpy(zero_copy_only=False)
    found: NDArray[Any] = flat.reshape(batch.num_rows, -1)
    return found


def _lines(stream: TextIO) -> Iterator[tuple[int, list[str]]]:
    """Yield the line that each row ends on, and its cells, which are parted as those of the first line are."""
    first = stream.readline()
    lines = csv.reader(chain([first], stream), delimiter=max(",;\t", key=first.count), strict=True)
    return ((lines.line_num, row) for row in lines if row)


def _numbers(path: Path, line: int, row: Sequence[str], at: Sequence[int], header: Sequence[str]) -> list[float]:
    if len(row) != len(header):
        raise DataError(f"{path}:{line}: {len(row)} cells where the header has {len(header)} columns.")
    try:
        return [float(row[number]) for number in at]
    except ValueError:
        number = next(each for each in at if not _is_number(row[each]))
        raise DataError(f"{path}:{line}: '{row[number]}' in column '{header[number]}' is no number.") from None


def _is_list(arrow: Any, kind: Any) -> bool:
    types = arrow.types
    lists = types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)
    return bool(lists and types.is_floating(kind.value_type))


def _is_text(arrow: Any, kind: Any) -> bool:
    types = arrow.types
    return bool(
        types.is_string(kind) or types.is_large_string(kind) or types.is_integer(kind) or types.is_dictionary(kind)
    )


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _cell(value: Any) -> str:
    return "" if value is None else str(value)


def _named(columns: dict[str, list[str]]) -> dict[str, Sequence[str]]:
    """Return the columns, pandas' index called path if nothing else is."""
    named = {"path" if name == _INDEX and "path" not in columns else name: each for name, each in columns.items()}
    return dict(named)
