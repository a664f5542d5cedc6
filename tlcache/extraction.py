"""Dataset + backbone -> feature file: what is there is reused, what is missing is embedded."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tlcache.errors import CacheError
from tlcache.files import check_folder
from tlcache.worker import run_apart

__all__ = ["Extraction", "extract", "features_folder", "find_features"]


@dataclass(frozen=True)
class Extraction:
    """What `extract` did; `as_json` gives the contract of `--json`.

    Parameters
    ----------
    path
        The feature file.
    dataset, backbone, rows
        What it holds.
    embedded, reused, quarantined
        Images that went through the network now, whose embedding was there, and that could not be used.
    up_to_date
        Nothing had to be written.
    seconds
        `decode_s`, `infer_s`, `write_s` summed over threads, and `wall_s`.
    images_per_s
        Embedded images per second of wall time; 0 when there were none.
    peak_rss_bytes
        Largest memory of the processes that did it, at one time; what they share counts once.
    provider
        What computed the newest rows: ONNX Runtime's execution provider, or OpenVINO and its precision.
    warnings
        What a user should know: leaks between splits, unusable images, empty classes.
    """

    path: Path
    dataset: str
    backbone: str
    rows: int
    embedded: int
    reused: int
    quarantined: int
    up_to_date: bool
    seconds: Mapping[str, float]
    images_per_s: float
    peak_rss_bytes: int
    provider: str
    warnings: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return {**vars(self), "path": str(self.path), "seconds": dict(self.seconds), "warnings": list(self.warnings)}

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Extraction:
        """Return what `as_json` described."""
        return cls(**{**fields, "path": Path(fields["path"]), "warnings": tuple(fields["warnings"])})


def features_folder(features: str | Path | None = None) -> Path:
    """Return the folder of feature files: the argument, else `TLCACHE_FEATURES`, else `features`."""
    return Path(features or os.environ.get("TLCACHE_FEATURES") or "features").expanduser()


def find_features(
    paths: Iterable[str | Path] | None = None, features: str | Path | None = None, data: str | None = None
) -> list[Path]:
    """Return the feature files named by `paths` (files or folders), or all under the folder of features.

    With `data`, a dataset's name, folder or manifest, only those of that dataset.

    Raises
    ------
    CacheError
        There is none.
    """
    places = [Path(path) for path in paths] if paths else [features_folder(features)]
    found = [file for place in places for file in ([place] if place.suffix == ".h5" else sorted(place.rglob("*.h5")))]
    if not found:
        raise CacheError(f"No feature files under '{', '.join(map(str, places))}'. Make some with: tlcache extract")
    return found if data is None else _of_dataset(found, data)


def _of_dataset(found: Iterable[Path], data: str) -> list[Path]:
    from tlcache.datasets import names_of
    from tlcache.store import FeatureFile

    by_dataset: dict[str, list[Path]] = {}
    for path in found:
        with FeatureFile(path) as file:
            by_dataset.setdefault(str(file.attrs["dataset"]), []).append(path)
    for name in names_of(data):
        if name in by_dataset:
            return by_dataset[name]
    raise CacheError(f"No features of '{data}'; there are some of: {', '.join(sorted(by_dataset))}.")


def extract(
    data: str | Path = "digits",
    model: str = "mobilenetv3_large",
    weights: str | None = None,
    *,
    pool: str | None = None,
    output: str | None = None,
    crop_borders: bool = False,
    resize: int | None = None,
    crop: int | None = None,
    mean: tuple[float, float, float] | None = None,
    std: tuple[float, float, float] | None = None,
    device: str = "auto",
    engine: str = "onnxruntime",
    precision: str = "fp32",
    features: str | Path | None = None,
    name: str | None = None,
    seed: int = 0,
    batch_size: int | None = None,
    max_bad: float = 0.05,
    wait: bool = True,
) -> Extraction:
    """Run a backbone once over a dataset and keep the embeddings in a feature file.

    Images whose embeddings are there already, under whatever name or folder, are not embedded again. A run that is
    stopped or killed continues where it was. The work is done in a process of its own, which an image that kills or
    hangs its decoder may take down: that image is listed as unusable and the run goes on.

    Parameters
    ----------
    data, name
        A dataset as for `tlcache.datasets.load_dataset`, and a name for it.
    model, weights, pool, output, crop_borders, resize, crop, mean, std
        The backbone as for `tlcache.models.load_model`.
    device
        `auto`, `cpu` or `cuda`.
    engine
        What runs the network: `onnxruntime` or `openvino`.
    precision
        Of the network's arithmetic, part of the key: `fp32`, `fp16` (ONNX Runtime on a GPU) or `bf16` (OpenVINO).
    features
        Folder of feature files; default `TLCACHE_FEATURES` or `features`.
    seed
        Of the splits that have to be drawn.
    batch_size
        Images per call of the network; default: what is fast on the device.
    max_bad
        Largest share of unusable images to go on with.
    wait
        Wait for another process that extracts the same features; otherwise that is an error.

    Raises
    ------
    TlcacheError
        One of its kinds, for everything that the caller can mend.

    Examples
    --------
    >>> done = extract(photos, tiny_model, features=folder)
    >>> done.rows, done.embedded, done.quarantined
    (24, 24, 0)
    >>> extract(photos, tiny_model, features=folder).up_to_date
    True
    """
    arguments = {
        "data": str(data),
        "model": model,
        "weights": weights,
        "pool": pool,
        "output": output,
        "crop_borders": crop_borders,
        "resize": resize,
        "crop": crop,
        "mean": mean,
        "std": std,
        "device": device,
        "engine": engine,
        "precision": precision,
        "features": str(check_folder(features_folder(features), "--features")),
        "name": name,
        "seed": seed,
        "batch_size": batch_size,
        "max_bad": max_bad,
        "wait": wait,
    }
    return Extraction.from_json(run_apart(arguments))
