"""Where feature files are."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from tlcache.errors import CacheError

__all__ = ["features_folder", "find_features", "kept_folder"]


def features_folder(features: str | Path | None = None) -> Path:
    """Return the folder of feature files: the argument, else `TLCACHE_FEATURES`, else `features`."""
    return Path(features or os.environ.get("TLCACHE_FEATURES") or "features").expanduser()


def kept_folder(features: Path) -> Path:
    """Return where embeddings of images that belong to no dataset are kept: a folder of shards for every key."""
    return features / ".embedder"


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
    from tlcache.cache.feature_file import FeatureFile
    from tlcache.datasets.dataset import names_of

    by_dataset: dict[str, list[Path]] = {}
    for path in found:
        with FeatureFile(path) as file:
            by_dataset.setdefault(str(file.attrs["dataset"]), []).append(path)
    for name in names_of(data):
        if name in by_dataset:
            return by_dataset[name]
    raise CacheError(f"No features of '{data}'; there are some of: {', '.join(sorted(by_dataset))}.")
