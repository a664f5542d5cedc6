"""A CSV or TSV file as a dataset: path, label and, where it has them, split and group."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterator
from pathlib import Path

from tlcache.datasets.folder import open_folder
from tlcache.datasets.layout import Layout
from tlcache.datasets.source import Form, Listing, Source
from tlcache.datasets.splits import SPLIT_FOLDERS, SPLITS, Row
from tlcache.errors import DataError

__all__ = ["MANIFEST"]


class Manifest(Source):
    """A source: a table of paths, which are relative to its own folder."""

    forms = (
        Form(
            "manifest",
            "--data photos.csv",
            "path,label[,split][,group] with a header, comma or tab; paths relative to the manifest's own folder",
        ),
    )

    def takes(self, data: str) -> bool:
        """Return whether there is such a file, by its ending."""
        path = Path(data).expanduser()
        return path.suffix.lower() in (".csv", ".tsv") and path.is_file()

    def find(self, data: str, layout: Layout) -> Listing:
        """Return the rows of the table."""
        del layout
        path = Path(data).expanduser()
        rows = list(_rows(path))
        if not rows:
            raise DataError(f"'{path}' has a header and no rows.")
        return Listing(path.stem, str(path.absolute()), open_folder(path.parent.resolve()), rows)


MANIFEST = Manifest()


def _rows(path: Path) -> Iterator[Row]:
    """Yield the rows of a manifest; raises DataError with the line number where one is malformed."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        line = path.read_bytes()[: error.start].count(b"\n") + 1
        raise DataError(
            f"{path}:{line}: not UTF-8 (byte {error.object[error.start]:#04x}). Save it as UTF-8."
        ) from None
    header = text.partition("\n")[0]
    reader = csv.reader(io.StringIO(text, newline=""), delimiter="\t" if "\t" in header else ",")
    columns = [column.strip().lower() for column in next(reader, [])]
    missing = [column for column in ("path", "label") if column not in columns]
    if missing:
        raise DataError(f"{path}:1: no column {' and '.join(missing)}; found {', '.join(columns) or 'nothing'}.")
    first: dict[str, int] = {}
    for cells in reader:
        line = reader.line_num
        if not any(cell.strip() for cell in cells):
            continue
        if len(cells) != len(columns):
            raise DataError(f"{path}:{line}: {len(cells)} cells where the header has {len(columns)} columns.")
        row = dict(zip(columns, (cell.strip() for cell in cells), strict=True))
        yield _manifest_row(row, f"{path}:{line}")
        if row["path"] in first:
            raise DataError(f"{path}:{line}: '{row['path']}' is listed already, on line {first[row['path']]}.")
        first[row["path"]] = line


def _manifest_row(row: dict[str, str], where: str) -> Row:
    given = row.get("split", "").lower() or "train"
    if given not in SPLIT_FOLDERS:
        raise DataError(f"{where}: unknown split '{row['split']}'. Known: {', '.join(SPLITS)}.")
    if not row["label"]:
        raise DataError(f"{where}: '{row['path']}' has no label.")
    path = os.path.normpath(row["path"]).replace(os.sep, "/")
    if not row["path"] or path.startswith(("../", "/")) or path in (".", ".."):
        raise DataError(f"{where}: '{row['path']}' leads out of the manifest's folder.")
    return Row(path, row["label"], SPLIT_FOLDERS[given], row.get("group", ""))
