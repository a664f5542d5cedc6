"""What tlcache finds on this machine, for a person who wonders why something does not work."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import distributions
from itertools import groupby
from pathlib import Path
from typing import Any

from rich import filesize
from rich.console import RenderableType
from rich.text import Text

from tlcache.cache.find import features_folder
from tlcache.errors import CacheError, first_line
from tlcache.files import cache_folder, check_folder, hub_folder
from tlcache.locks import Lock
from tlcache.machine import hardware, versions
from tlcache.report.plain import plain_table
from tlcache.runs.folder import runs_folder

__all__ = ["Finding", "findings_table", "run_doctor"]

_SCARCE = 2_000_000_000  # bytes: a few exported networks and the embeddings of a large dataset


@dataclass(frozen=True)
class Finding:
    """What one look found.

    Parameters
    ----------
    what
        What was looked at.
    state
        `ok`; `no`: is not there, and nothing but itself needs it; `problem`.
    found
        What it is, or what is wrong and what to do.
    """

    what: str
    state: str
    found: str

    def as_json(self) -> dict[str, Any]:
        """Return it for `--json`."""
        return {"what": self.what, "state": self.state, "found": self.found}


def run_doctor(features: str | Path | None = None, runs: str | Path | None = None) -> list[Finding]:
    """Look at packages, processor, engines, GPU, folders and locks, and embed and classify a few made images.

    Takes a few seconds, the first time longer: the network that is part of tlcache is exported then. What the trial
    writes is in a temporary folder, which is removed.

    Parameters
    ----------
    features, runs
        Folders of feature files and of run records.
    """
    folders = {
        "--features": features_folder(features),
        "--runs": runs_folder(runs),
        "TLCACHE_CACHE": cache_folder(),
    }
    return [*_packages(), _processor(), *_engines(), *_folders(folders), _weights(), _locks(), _trial()]


def findings_table(found: list[Finding]) -> RenderableType:
    """Return what was found, with problems in red."""
    table = plain_table("Looked at", "", "Found")
    for each in found:
        style = "bold red" if each.state == "problem" else ""
        table.add_row(each.what, Text(each.state, style=style), Text(each.found, style=style, overflow="fold"))
    return table


def _packages() -> Iterator[Finding]:
    found = versions()
    yield Finding("packages", "ok", ", ".join(f"{name} {number}" for name, number in found.items()))
    runtimes = sorted({each.name for each in distributions() if each.name in ("onnxruntime", "onnxruntime-gpu")})
    if len(runtimes) > 1:
        advice = "only one may be there, as they are one module: pip uninstall both, then install one of them"
        yield Finding("ONNX Runtime", "problem", f"{' and '.join(runtimes)} are installed; {advice}")


def _processor() -> Finding:
    found = hardware()
    return Finding("processor", "ok", f"{found['cpu']}, {found['cpus']} to be used; {found['system']}")


def _engines() -> Iterator[Finding]:
    from tlcache.backbones.paces import ways

    for name, found in groupby(ways(), lambda each: f"{each[0].engine} on {each[0].device}"):
        known = list(found)
        able = [way.precision for way, why in known if not why]
        whys = (f"{way.precision}: {why}" if able else why for way, why in known if why)
        words = "; ".join(filter(None, [", ".join(able), *dict.fromkeys(whys)]))
        yield Finding(name, "ok" if able else "no", words)


def _folders(folders: dict[str, Path]) -> Iterator[Finding]:
    for option, folder in folders.items():
        try:
            check_folder(folder, option)
        except CacheError as error:
            yield Finding(option, "problem", str(error))
            continue
        there = next(each for each in (folder, *folder.parents) if each.exists())
        free = shutil.disk_usage(there).free
        words = f"{folder}{'' if folder.exists() else ' (not made yet)'}, {filesize.decimal(free)} free"
        yield Finding(option, "ok" if free > _SCARCE else "problem", words + ("" if free > _SCARCE else ": make room"))


def _weights() -> Finding:
    torch_home = os.environ.get("TORCH_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "torch"
    folders = (Path(torch_home).expanduser() / "hub" / "checkpoints", hub_folder())
    words = (f"{folder}: {len(list(folder.iterdir())) if folder.is_dir() else 'none'}" for folder in folders)
    return Finding("downloaded weights", "ok", "; ".join(words))


def _locks() -> Finding:
    folder = next(each for each in (cache_folder(), *cache_folder().parents) if each.is_dir())
    try:
        with tempfile.TemporaryDirectory(dir=folder) as made:
            lock = Lock(Path(made, "lock"))
            with lock:
                if lock.advice:
                    return Finding("locks", "ok", f"the disk of '{folder}' has none: files stand for them")
    except OSError as error:
        return Finding("locks", "problem", f"in '{folder}': {error}")
    return Finding("locks", "ok", f"work in '{folder}'")


def _trial() -> Finding:
    began = time.monotonic()
    try:
        with _silent(), tempfile.TemporaryDirectory() as made:
            words = _embed_and_classify(Path(made))
    except Exception as error:  # whatever is wrong here is what was asked for
        return Finding("trial", "problem", f"{type(error).__name__}: {first_line(error)}")
    return Finding("trial", "ok", f"{words}, in {time.monotonic() - began:.1f} s")


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Let nothing be told of a dataset that nobody knows."""
    logger = logging.getLogger("tlcache")
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before


def _embed_and_classify(folder: Path, images: int = 48) -> str:
    """Extract noise of two brightnesses, fit a head, read the file again; return what that came to."""
    import numpy as np
    from PIL import Image

    from tlcache.extraction.extract import extract
    from tlcache.inventory.checks import verify
    from tlcache.probing.fit import fit_heads

    noise = np.random.default_rng(0).integers(0, 128, (images, 32, 32, 3), np.uint8)
    for number, pixels in enumerate(noise):
        name = ("dark", "bright")[number % 2]
        (folder / "images" / name).mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels + 127 * np.uint8(number % 2)).save(folder / "images" / name / f"{number}.png")
    done = extract(folder / "images", "resnet20_cifar", features=folder / "features")
    (run,) = fit_heads([done.path], heads=["ridge"], runs=folder / "runs")
    (check,) = verify([done.path])
    if not check.sound or run.test.accuracy < 1:
        raise RuntimeError(f"of {images} images, {run.test.accuracy:.0%} of those for testing are classified right")
    return f"{images} images embedded, a head fitted and right, the file as it was written"
