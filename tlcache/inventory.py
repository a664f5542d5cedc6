"""What is cached, whether it is what was written, and what of it is of no use any more."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from filelock import Timeout
from numpy.typing import NDArray

from tlcache.arguments import Features, Paths, Repair
from tlcache.backbones.model import EXPORT_VERSION, KEY_VERSION
from tlcache.cache.feature_file import FeatureFile, open_remains
from tlcache.cache.find import features_folder, find_features, kept_folder, made_worse
from tlcache.cache.pieces import ATTRIBUTE as FILES
from tlcache.cache.pieces import SUFFIX as PIECES
from tlcache.cache.pieces import pieces_folder, stale_pieces
from tlcache.cache.shards import find_shards, read_shard
from tlcache.datasets.dataset import source_of
from tlcache.errors import CacheError, DamagedError, DataError, OutdatedError, TlcacheError
from tlcache.extraction.extract import extract
from tlcache.extraction.ledgers import count_done, is_worked_on, shards_of
from tlcache.extraction.target import lock_of
from tlcache.files import cache_folder
from tlcache.images import RULES_VERSION
from tlcache.keys import native
from tlcache.options import described
from tlcache.progress import step_bar
from tlcache.records import as_json
from tlcache.text import counted

__all__ = [
    "Check",
    "CacheEntry",
    "Leftover",
    "empty_stores",
    "find_leftovers",
    "find_stores",
    "list_cache",
    "remove_leftovers",
    "verify",
]

_ABANDONED_S = 86_400  # a file that is being written is younger


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


@dataclass(frozen=True)
class Check:
    """What a feature file looks like on a close look.

    Parameters
    ----------
    path
        The file.
    rows
        How many it has; 0 when it cannot be read.
    damaged
        Paths of the rows that are not what was written; `row 17` where even the path is lost.
    problem
        Why the file as a whole cannot be used; empty when it can.
    repaired
        It was damaged and has been made whole.
    warnings
        What the extraction that repaired it had to say.
    """

    path: Path
    rows: int
    damaged: tuple[str, ...] = ()
    problem: str = ""
    repaired: bool = False
    warnings: tuple[str, ...] = ()

    @property
    def sound(self) -> bool:
        """Whether all is what was written, or has been made so."""
        return self.repaired or not (self.damaged or self.problem)

    def as_json(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return {**as_json(self), "sound": self.sound}


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


@described()
def verify(paths: Paths = None, features: Features = None, *, repair: Repair = False) -> list[Check]:
    """Read feature files whole and compare every row and the header with their checksums.

    Raises
    ------
    CacheError
        No such file, or nothing is cached.

    Examples
    --------
    >>> [(check.rows, check.sound) for check in verify([feature_file])]
    [(24, True)]
    """
    found = find_features(paths, features)
    checks = []
    with step_bar("verifying", len(found)) as advance:
        for path in found:
            check = _check(path)
            checks.append(_repaired(check) if repair and not check.sound else check)
            advance(1)
    return checks


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
        with _if_idle(workspace) as idle:
            if idle:
                found.append(Leftover(path, "a file that was never finished", path.stat().st_size))
    return found + [each for folder in sorted(root.glob(f"*/*{PIECES}")) for each in _unused(folder)]


def _unused(folder: Path) -> Iterator[Leftover]:
    """Yield the files of a feature file that it does not use, as nobody is at work on it."""
    path, used = folder.with_suffix(".h5"), _used(folder.parent)
    why = f"rows that '{path.name}' does not use"
    with _if_idle(_workspace(path)) as idle:
        if not path.exists():
            why = f"'{path.name}' is missing, and these rows may be the only copy: the same tlcache extract takes them"
        if used is None or not idle:
            return
        for each in stale_pieces(path, used):
            yield Leftover(each, why, each.stat().st_size)


def _used(folder: Path) -> list[Path] | None:
    """Return what the feature files in a folder consist of; None where one cannot be read, which may need any."""
    used = list[Path]()
    for path in sorted(folder.glob("*.h5")):
        try:
            with FeatureFile(path) as file:
                used += file.files
        except CacheError:
            return None
    return used


def _lost(folder: Path) -> list[Path]:
    """Return the files of a feature file that is missing, unless it is being made, and that no other beside it uses."""
    path = folder.with_suffix(".h5")
    is_whole = path.exists() or _workspace(path).exists()
    return [] if is_whole else stale_pieces(path, _used(folder.parent) or ())


def _workspace(path: Path) -> Path:
    """Return the folder of the parts of a feature file."""
    return path.with_name(f".{path.stem}.parts")


def remove_leftovers(leftovers: Sequence[Leftover]) -> None:
    """Remove what `find_leftovers` found, save what a process has begun to work on since then."""
    for leftover in leftovers:
        if leftover.path.is_dir():
            with _if_idle(leftover.path) as idle:
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


def _entry_of_file(path: Path) -> CacheEntry:
    size = path.stat().st_size
    try:
        with FeatureFile(path) as file:
            text = {name: str(file.attrs[name]) for name in ("dataset", "backbone", "weights", "created")}
            identity = json.loads(file.attrs["key_json"])
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
                output=json.loads(file.attrs["arguments"]).get("output"),
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
    images, done = int(note.get("images", 0)), count_done(workspace)
    with _if_idle(workspace) as idle:
        state = "unfinished" if idle else "running"
    who = "" if state == "unfinished" else f"process {note.get('process')} on {note.get('host')}"
    shards = f"{done:,} of {counted(len(shards_of(images)), 'shard')}" if done or is_worked_on(workspace) else ""
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


@contextmanager
def _if_idle(workspace: Path) -> Iterator[bool]:
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


def _is_beyond_repair(path: Path) -> bool:
    try:
        open_remains(path).close()
    except DamagedError:
        return True
    return False


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


def _check(path: Path) -> Check:
    try:
        with FeatureFile(path) as file:
            file.check_columns()
            problem = ""
    except DamagedError as error:
        problem = str(error)
    except OutdatedError as error:
        return Check(path, 0, problem=str(error))
    try:
        with open_remains(path) as file:
            good = np.concatenate([rows for _, rows in file.intact()])
            bad = np.flatnonzero(~good)
            if FILES in file.attrs and not good.any():
                return Check(path, len(file), problem=problem)
            names = file.paths() if len(bad) else ()
            known = {name for name, intact in zip(names, good, strict=bool(names)) if intact}
            damaged = tuple(names[row] if _plausible(names[row], known) else f"row {row}" for row in bad)
            if file.salvaged and not damaged:
                problem = "all rows are as written, but a checksum of HDF5's own is not"
            told = not damaged or FILES in file.attrs  # which of them it is
            return Check(path, len(file), damaged, problem if told else "")
    except DamagedError as error:
        return Check(path, 0, problem=str(error))


def _plausible(name: str, known: set[str]) -> bool:
    """Return whether the path of a damaged row can be the one that was written."""
    return bool(name) and name.isprintable() and name not in known


def _repaired(check: Check) -> Check:
    try:
        with open_remains(check.path) as file:
            arguments = native(json.loads(file.attrs["arguments"]))
        if "embeddings" in arguments:
            raise DataError(f"its embeddings were adopted. Do that again: tlcache adopt '{arguments['embeddings']}'")
        if arguments["mean"]:
            arguments |= {name: tuple(arguments[name]) for name in ("mean", "std")}
        done = extract(split_seed=arguments.pop("seed"), **arguments, features=check.path.parent.parent)
    except (DamagedError, OutdatedError):
        problem = (
            f"'{check.path}' cannot be repaired: its header is lost, and with it what it was made of. "
            "Run its tlcache extract again, or remove it with tlcache prune."
        )
        return Check(check.path, check.rows, check.damaged, problem)
    except TlcacheError as error:
        problem = f"{check.problem} It cannot be repaired: {error}".strip()
        if isinstance(error, DataError) and not source_of(arguments["data"]):
            again = f"--model {arguments['model']} --data THERE --name {arguments['name']}"
            problem = f"{problem.rstrip('.')}. If the data have moved: tlcache extract {again}"
        return Check(check.path, check.rows, check.damaged, problem)
    if not done.path.exists() or done.path.resolve() != check.path.resolve():
        return Check(
            check.path,
            check.rows,
            check.damaged,
            f"Extracting again made '{done.path}': the weights or the model are not those it was made with.",
        )
    return Check(check.path, check.rows, check.damaged, check.problem, _check(check.path).sound, done.warnings)
