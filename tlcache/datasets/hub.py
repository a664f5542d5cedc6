"""Data sets of Hugging Face's hub that have been downloaded: `hf:NAME[:SPLIT]` -> their parquet files in the cache."""

from __future__ import annotations

import glob
from pathlib import Path

from tlcache.errors import DataError
from tlcache.files import hub_folder

__all__ = ["files_of", "is_of_hub"]


def is_of_hub(data: str) -> bool:
    """Return whether `--data` names a data set of the hub."""
    return data.startswith("hf:")


def files_of(data: str) -> str:
    """Return the pattern of the files of a data set, or of one split of it; nothing is downloaded.

    Raises
    ------
    DataError
        It is not in the cache, or has no parquet files there.
    """
    name, _, split = data.removeprefix("hf:").partition(":")
    folder = hub_folder() / f"datasets--{name.replace('/', '--')}"
    for inner in ("data", "", "*", "*/*"):
        pattern = str(Path(glob.escape(str(_snapshot(folder)))) / inner / f"{glob.escape(split)}*.parquet")
        if glob.glob(pattern):  # noqa: PTH207  folders are patterns, too
            return pattern
    of_split = f" of the split '{split}'" if split else ""
    raise DataError(
        f"'{data}': there are no parquet files{of_split} in '{folder}'. Nothing is downloaded here; do that once: "
        f"hf download --repo-type dataset {name}"
    )


def _snapshot(folder: Path) -> Path:
    """Return the folder of the revision that `main` was when it was downloaded, or of any."""
    main, snapshots = folder / "refs" / "main", folder / "snapshots"
    if main.is_file():
        return snapshots / main.read_text().strip()
    return max(snapshots.glob("*"), key=lambda each: each.stat().st_mtime, default=snapshots)
