"""What is cached: feature files, parts of those that are not finished, and what is kept beside them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from filelock import Timeout
from numpy.typing import NDArray

from tlcache.arguments import Features
from tlcache.backbones.model import EXPORT_VERSION, KEY_VERSION
from tlcache.cache.attributes import extract_arguments, identity_of
from tlcache.cache.feature_file import FeatureFile
from tlcache.cache.find import features_folder, kept_folder, made_worse
from tlcache.cache.pieces import SUFFIX as PIECES
from tlcache.cache.pieces import stale_pieces
from tlcache.cache.shards import find_shards, read_shard
from tlcache.errors import CacheError, OutdatedError
from tlcache.extraction.ledgers import has_ledgers, is_worked_on, progress_of
from tlcache.extraction.target import lock_of
from tlcache.images import RULES_VERSION
from tlcache.options import described
from tlcache.records import as_json

__all__ = ["CacheEntry", "if_idle", "list_cache", "used_in", "workspace_of"]


@dataclass(frozen=True)
class CacheEntry:
    """A feature file, the rows of one that is missing, the parts of one that is not finished, or what is kept.

    Parameters
    ----------
    path
        The file, or the folder of rows or parts.
    dataset, backbone, weights
        What it holds; empty when it cannot be read, or is of no dataset.
    rows, dim
        Embeddings and their length.
    images
        Images of the dataset; for parts, how many there will be.
    size_bytes
        On disk.
    created
        When it was published, UTC, ISO 8601; empty for parts.
    identity
        What decided the embeddings, as in the key; empty when it cannot be read.
    state
        `complete`, `running` (a process works on these parts), `unfinished` (parts that the next extraction continues
        from), `kept` (embeddings that `ImageEmbedder` or `robust` has computed), `outdated` (made by a version whose
        embeddings this one would not use), `damaged`, or `lost` (rows whose feature file is missing).
    detail
        What there is to say of the state; of what `robust` keeps, the kind and severity, like `noise:3`.
    output
        The layer that was asked for; None where it is the last.
    """

    path: Path
    dataset: str
    backbone: str
    weights: str
    rows: int
    dim: int
    images: int
    size_bytes: int
    created: str
    identity: Mapping[str, Any]
    state: str
    detail: str = ""
    output: str | None = None

    def as_json(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return dict(as_json(self))


@described()
def list_cache(features: Features = None) -> list[CacheEntry]:
    """Return every feature file, rows whose file is missing, every folder of parts, and what is kept, by path.

    Examples
    --------
    >>> [(entry.backbone, entry.rows, entry.state) for entry in list_cache(feature_file.parent.parent)]
    [('tiny', 24, 'complete')]
    """
    root = features_folder(features)
    files = [_entry_of_file(path) for path in sorted(root.glob("*/*.h5"))]
    lost = [_entry_of_rows(folder, rows) for folder in sorted(root.glob(f"*/*{PIECES}")) if (rows := _lost(folder))]
    parts = [_entry_of_parts(path) for path in sorted(root.glob("*/.*.parts"))]
    kept = [_entry_of_kept(path) for path in sorted(kept_folder(root).glob("*")) if find_shards(path)]
    return sorted(files + lost + parts + kept, key=lambda entry: (entry.path.parent, entry.path.name.lstrip(".")))


def _entry_of_file(path: Path) -> CacheEntry:
    size = path.stat().st_size
    try:
        with FeatureFile(path) as file:
            text = {name: str(file.attrs[name]) for name in ("dataset", "backbone", "weights", "created")}
            identity = identity_of(file.attrs)
            old = _outdated(identity)
            rows, state = len(file), "outdated" if old else "complete"
            detail = old or ("" if file.classes else "no labels: for tlcache suggest, audit and predict")
            images = rows + len(file.quarantine)
            size = sum(each.stat().st_size for each in file.files)
            return CacheEntry(
                path,
                rows=rows,
                dim=file.dim,
                images=images,
                size_bytes=size,
                identity=identity,
                state=state,
                detail=detail,
                output=extract_arguments(file.attrs).get("output"),
                **text,
            )
    except CacheError as error:
        state = "outdated" if isinstance(error, OutdatedError) else "damaged"
        backbone = path.stem.rpartition("-")[0]
        size += sum(each.stat().st_size for each in stale_pieces(path, ()))
        return CacheEntry(path, path.parent.name, backbone, "", 0, 0, 0, size, "", {}, state, str(error))


def _entry_of_rows(folder: Path, files: Sequence[Path]) -> CacheEntry:
    rows = [entry for entry in map(_entry_of_file, files) if entry.state != "damaged"]
    first = rows[0] if rows else _entry_of_file(files[0])
    return replace(
        first,
        path=folder,
        dataset=folder.parent.name,
        backbone=folder.name.rpartition("-")[0],
        rows=sum(entry.rows for entry in rows),
        images=sum(entry.images for entry in rows),
        size_bytes=sum(path.stat().st_size for path in files),
        state="lost",
        detail=f"'{folder.stem}.h5' is missing, and these are its rows. Bring it back, or give the same tlcache "
        "extract again: it takes them. tlcache prune removes them.",
    )


def _entry_of_parts(workspace: Path) -> CacheEntry:
    try:
        note = json.loads((workspace / "run.json").read_bytes())
    except (OSError, ValueError):
        note = {}
    hashes, dim = _in_parts(workspace)
    images = int(note.get("images", 0))
    with if_idle(workspace) as idle:
        state = "unfinished" if idle else "running"
    who = "" if state == "unfinished" else f"process {note.get('process')} on {note.get('host')}"
    shards = ""
    if has_ledgers(workspace) or is_worked_on(workspace):
        published = workspace.with_name(f"{workspace.name[1:].removesuffix('.parts')}.h5")
        stays = f"; '{published.name}' stays as it is until all are done" if published.exists() else ""
        shards = f"{progress_of(workspace)}{stays}"
    return CacheEntry(
        workspace,
        workspace.parent.name,
        workspace.name[1:].rpartition("-")[0],
        str(note.get("weights", "")),
        rows=len(hashes),
        dim=dim,
        images=images,
        size_bytes=sum(path.stat().st_size for path in workspace.rglob("*") if path.is_file()),
        created="",
        identity=note.get("identity", {}),
        state=state,
        detail=shards or who,
        output=note.get("arguments", {}).get("output"),
    )


def _entry_of_kept(folder: Path) -> CacheEntry:
    hashes, dim = _in_parts(folder)
    rows = len(np.unique(hashes))
    return CacheEntry(
        folder,
        "",
        folder.name.rpartition("-")[0],
        "",
        rows=rows,
        dim=dim,
        images=rows,
        size_bytes=sum(path.stat().st_size for path in folder.glob("*")),
        created="",
        identity={},
        state="kept",
        detail=made_worse(folder),
    )


def _in_parts(folder: Path) -> tuple[NDArray[np.bytes_], int]:
    """Return the hashes of the images that have rows in the parts of a folder, and how long these are."""
    hashes, dim = [np.empty(0, "S64")], 0
    for part in filter(None, map(read_shard, find_shards(folder))):  # one at a time: all may be more than memory holds
        hashes.append(part.sha256)
        dim = max(dim, part.features.shape[1])
    return np.concatenate(hashes), dim


def _outdated(identity: dict[str, Any]) -> str:
    """Return why no key of this version can be equal to this one; empty when one can."""
    backbone, rules = identity["backbone"], identity["preprocess"]["rules"]
    versions = {
        "keys": (identity["version"], KEY_VERSION),
        "exports": (backbone.get("export", EXPORT_VERSION), EXPORT_VERSION),
        "decoding": (rules, RULES_VERSION),
    }
    old = [f"{name} version {found}, now {now}" for name, (found, now) in versions.items() if found < now]
    return f"made by an earlier tlcache ({', '.join(old)})" if old else ""


def _lost(folder: Path) -> list[Path]:
    """Return the files of a feature file that is missing, unless it is being made, and that no other beside it uses."""
    path = folder.with_suffix(".h5")
    is_whole = path.exists() or workspace_of(path).exists()
    return [] if is_whole else stale_pieces(path, used_in(folder.parent) or ())


def used_in(folder: Path) -> list[Path] | None:
    """Return what the feature files in a folder consist of; None where one cannot be read, which may need any."""
    used = list[Path]()
    for path in sorted(folder.glob("*.h5")):
        try:
            with FeatureFile(path) as file:
                used += file.files
        except CacheError:
            return None
    return used


def workspace_of(path: Path) -> Path:
    """Return the folder of the parts of a feature file."""
    return path.with_name(f".{path.stem}.parts")


@contextmanager
def if_idle(workspace: Path) -> Iterator[bool]:
    """Hold the lock of a folder of parts and yield whether nobody works there."""
    lock = lock_of(workspace)
    try:
        lock.acquire(0)
    except Timeout:
        yield False
        return
    try:
        yield not is_worked_on(workspace)
    finally:
        lock.release()
