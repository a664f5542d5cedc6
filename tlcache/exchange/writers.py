"""Embeddings as Parquet, NumPy's archive, or CSV, written a block at a time."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from tlcache.extras import extra
from tlcache.text import as_csv

__all__ = ["CONSTANT", "FORMAT", "NUMBERS", "TEXTS", "WRITERS", "pyarrow"]

FORMAT = "tlcache-embeddings"
TEXTS = ("path", "sha256", "label", "split", "group")
NUMBERS = ("width", "height", "frames")
CONSTANT = ("dataset", "source", "drawn", "backbone", "key")  # columns of CSV, which has no other place for them
_GROUP_BYTES = 64 << 20

Block = Mapping[str, Any]  # `TEXTS` and `NUMBERS` (n,), `features` float32 (n, dim)
Write = Callable[[Block], None]


def pyarrow() -> Any:
    """Return pyarrow with its modules for Parquet; raises OptionError where it is not installed."""
    return extra("pyarrow.parquet", "Parquet needs pyarrow, which", "'tlcache[parquet]'")


@contextmanager
def _parquet(path: Path, dim: int, said: Mapping[str, Any]) -> Iterator[Write]:
    arrow = pyarrow()
    kinds = {**dict.fromkeys(TEXTS, arrow.string()), **dict.fromkeys(NUMBERS, arrow.int32())}
    embedding = arrow.list_(arrow.float32(), dim)
    schema = arrow.schema([*kinds.items(), ("embedding", embedding)], metadata={FORMAT: _json(said)})
    waiting: list[Any] = []
    with arrow.parquet.ParquetWriter(
        path, schema, use_dictionary=["label", "split", "group"], write_page_checksum=True
    ) as writer:

        def flush() -> None:
            if waiting:
                writer.write_table(arrow.Table.from_batches(waiting))
                waiting.clear()

        def write(block: Block) -> None:
            columns = [arrow.array(block[name], kind) for name, kind in kinds.items()]
            flat = arrow.array(np.ascontiguousarray(block["features"]).ravel())
            columns.append(arrow.FixedSizeListArray.from_arrays(flat, dim))
            waiting.append(arrow.RecordBatch.from_arrays(columns, schema=schema))
            if sum(batch.num_rows for batch in waiting) * 4 * dim > _GROUP_BYTES:
                flush()

        yield write
        flush()


@contextmanager
def _npz(path: Path, dim: int, said: Mapping[str, Any]) -> Iterator[Write]:
    columns: dict[str, list[Any]] = {name: [] for name in (*TEXTS, *NUMBERS)}
    with zipfile.ZipFile(path, "w", allowZip64=True) as archive:
        with archive.open("features.npy", "w", force_zip64=True) as member:
            header = {"descr": "<f4", "fortran_order": False, "shape": (said["rows"], dim)}
            np.lib.format.write_array_header_1_0(member, header)

            def write(block: Block) -> None:
                member.write(np.ascontiguousarray(block["features"], "<f4").tobytes())
                for name, values in columns.items():
                    values.extend(block[name])

            yield write
        arrays = {name: np.array(values, np.int32 if name in NUMBERS else np.str_) for name, values in columns.items()}
        for name, array in {
            **arrays,
            "classes": np.array(said["classes"], np.str_),
            FORMAT: np.array(_json(said)),
        }.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)


@contextmanager
def _csv(path: Path, dim: int, said: Mapping[str, Any]) -> Iterator[Write]:
    """Write numbers as Python shows them, which reads back as exactly the same float32."""
    constant = [said.get(name, "") for name in CONSTANT]
    with path.open("wb") as stream:

        def lines(rows: Sequence[Sequence[Any]]) -> None:
            stream.write(os.fsencode(as_csv(rows)))

        def write(block: Block) -> None:
            columns = zip(*(block[name] for name in (*TEXTS, *NUMBERS)), strict=True)
            values = block["features"].tolist()
            lines([[*known, *constant, *map(repr, row)] for known, row in zip(columns, values, strict=True)])

        lines([[*TEXTS, *NUMBERS, *CONSTANT, *(f"e{number}" for number in range(dim))]])
        yield write


def _json(said: Mapping[str, Any]) -> str:
    return json.dumps(said, sort_keys=True)


WRITERS: Mapping[str, Callable[[Path, int, Mapping[str, Any]], AbstractContextManager[Write]]] = {
    ".parquet": _parquet,
    ".npz": _npz,
    ".csv": _csv,
}
