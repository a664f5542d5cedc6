"""What a cache can do without, and what it keeps only to be faster."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tlcache.arguments import Features
from tlcache.cache.feature_file import open_remains
from tlcache.cache.find import features_folder, kept_folder
from tlcache.cache.pieces import SUFFIX as PIECES
from tlcache.cache.pieces import pieces_folder, stale_pieces
from tlcache.errors import DamagedError
from tlcache.files import cache_folder
from tlcache.inventory.entries import if_idle, list_cache, used_in, workspace_of
from tlcache.options import described
from tlcache.records import as_json

__all__ = ["Leftover", "empty_stores", "find_leftovers", "find_stores", "remove_leftovers"]

_ABANDONED_S = 86_400  # a file that is being written is younger


@dataclass(frozen=True)
class Leftover:
    """Something in the cache that can go: where, why, how large."""

    path: Path
    why: str
    size_bytes: int

    def as_json(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return dict(as_json(self))


@described()
def find_leftovers(features: Features = None) -> list[Leftover]:
    """Return what a cache can do without: parts nobody works on, half-written, outdated and unreadable files."""
    root, found = features_folder(features), []
    for entry in list_cache(root):
        if entry.state == "unfinished":
            why = f"parts of an extraction that was not finished, {entry.rows:,} of {entry.images:,} images"
            found.append(Leftover(entry.path, why, entry.size_bytes))
        elif entry.state == "outdated":
            found.append(Leftover(entry.path, entry.detail, entry.size_bytes))
        elif entry.state == "damaged" and _is_beyond_repair(entry.path):
            found.append(Leftover(entry.path, "damaged beyond repair: its header is lost", entry.size_bytes))
    for path in sorted(root.glob("*/.*.h5-*.tmp")):
        workspace = path.with_name(path.name.rpartition(".h5-")[0] + ".parts")
        with if_idle(workspace) as idle:
            if idle:
                found.append(Leftover(path, "a file that was never finished", path.stat().st_size))
    return found + [each for folder in sorted(root.glob(f"*/*{PIECES}")) for each in _unused(folder)]


def _unused(folder: Path) -> Iterator[Leftover]:
    """Yield the files of a feature file that it does not use, as nobody is at work on it."""
    path, used = folder.with_suffix(".h5"), used_in(folder.parent)
    why = f"rows that '{path.name}' does not use"
    with if_idle(workspace_of(path)) as idle:
        if not path.exists():
            why = f"'{path.name}' is missing, and these rows may be the only copy: the same tlcache extract takes them"
        if used is None or not idle:
            return
        for each in stale_pieces(path, used):
            yield Leftover(each, why, each.stat().st_size)


def _is_beyond_repair(path: Path) -> bool:
    try:
        open_remains(path).close()
    except DamagedError:
        return True
    return False


def remove_leftovers(leftovers: Sequence[Leftover]) -> None:
    """Remove what `find_leftovers` found, save what a process has begun to work on since then."""
    for leftover in leftovers:
        if leftover.path.is_dir():
            with if_idle(leftover.path) as idle:
                if idle:
                    shutil.rmtree(leftover.path)
        else:
            leftover.path.unlink(missing_ok=True)
            if leftover.path.suffix == ".h5":
                shutil.rmtree(pieces_folder(leftover.path), ignore_errors=True)


@described()
def find_stores(features: Features = None) -> list[Leftover]:
    """Return folders of what is worth keeping only for its time: it is computed again when it is needed."""
    places = {
        cache_folder() / "pixels": "images that fine-tuning has decoded",
        cache_folder() / "activations": "what frozen layers give, for --cached-prefix",
        cache_folder() / "indexes": "where images lie in archives",
        cache_folder() / "hashes": "hashes of images in stores, which are read again without",
        kept_folder(features_folder(features)): "embeddings that ImageEmbedder or robust has computed",
    }
    found = []
    for folder, what in places.items():
        files = _stored_files(folder)
        if files:
            size = sum(path.stat().st_size for path in files)
            found.append(Leftover(folder, f"{what}, {len(files):,} files; made again when needed", size))
    return found


def empty_stores(stores: Sequence[Leftover]) -> None:
    """Empty what `find_stores` found, save what is being written; who has read from it before reads on."""
    for store in stores:
        for path in _stored_files(store.path):
            path.unlink(missing_ok=True)


def _stored_files(folder: Path) -> list[Path]:
    now = time.time()
    files = [path for path in folder.rglob("*") if path.is_file()]
    return [path for path in files if path.suffix != ".tmp" or now - path.stat().st_mtime > _ABANDONED_S]
