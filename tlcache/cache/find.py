"""Where feature files are, and of which datasets."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from tlcache.cache.attributes import extract_arguments
from tlcache.datasets.layout import Layout
from tlcache.errors import CacheError, DataError
from tlcache.files import folder_meant
from tlcache.kinds import listing
from tlcache.options import made
from tlcache.progress import say

__all__ = [
    "MADE_WORSE",
    "features_folder",
    "find_dataset",
    "find_features",
    "find_file",
    "find_labelled",
    "kept_folder",
    "made_worse",
    "named",
]


def features_folder(features: str | Path | None = None) -> Path:
    """Return the folder of feature files: the argument, else `TLCACHE_FEATURES`, else `features`."""
    return Path(features or os.environ.get("TLCACHE_FEATURES") or "features").expanduser()


MADE_WORSE = "made-worse.txt"  # in a folder of kept embeddings: by what the images are, like `noise:3`


def made_worse(folder: Path) -> str:
    """Return what images were made worse by whose embeddings are kept in a folder, like `noise:3`; else nothing."""
    note = folder / MADE_WORSE
    return note.read_text().strip() if note.is_file() else ""


def kept_folder(features: Path) -> Path:
    """Return where embeddings of images that belong to no dataset are kept: a folder of shards for every key."""
    return features / ".embedder"


def find_features(
    paths: str | Path | Iterable[str | Path] | None = None,
    features: str | Path | None = None,
    data: str | Path | Sequence[str | Path] | None = None,
) -> list[Path]:
    """Return the feature files named by `paths` (files or folders), or all under the folder of features.

    With `data`, names of datasets, or their folders or manifests, only those of these datasets.

    Raises
    ------
    CacheError, UnknownNameError
        There is none, or no such dataset.
    """
    places = [Path(path) for path in listing(paths or features_folder(features))]
    found = [file for place in places for file in ([place] if place.suffix == ".h5" else sorted(place.rglob("*.h5")))]
    if not found:
        raise CacheError(f"No feature files under '{', '.join(map(str, places))}'.{_how_to_have_some(places)}")
    return found if data is None else _of_datasets(found, data)


def _how_to_have_some(places: Sequence[Path]) -> str:
    """Return, after a space, what to do where there are no feature files, or what is left of some or begun."""
    from tlcache.cache.pieces import SUFFIX
    from tlcache.cache.shards import SHARD_FOLDERS

    for place in places:
        if lost := next(place.rglob(f"*{SUFFIX}"), None):
            return (
                f" '{lost.stem}.h5' is missing, whose rows are in '{lost}'. Bring it back, or give the same tlcache "
                "extract again: it takes them."
            )
        if begun := next(place.rglob(".*.parts"), None):
            if any(begun.glob(f"{SHARD_FOLDERS}/*.json")):
                return f" '{begun}' has shards. Publish them, or see which are missing, with: tlcache merge"
            return f" '{begun}' is of an extraction that was not finished. Run the same command again."
    return "".join(map(folder_meant, places)) + " Make some with: tlcache extract"


def named(model: str | None, about: Mapping[Path, str]) -> list[Path]:
    """Return the feature files that `--model` names: of a backbone, in any spelling, or of that name without `.h5`.

    Parameters
    ----------
    model
        None names all.
    about
        Feature file -> its backbone.
    """
    found = [path for path, backbone in about.items() if model in (None, backbone, path.stem)]
    if found or model is None:
        return found
    from tlcache.backbones.sources import lookup  # all sources, which take a while to load

    row = lookup(model)
    return [path for path, backbone in about.items() if row and row.name == backbone]


def find_file(data: str | Path, model: str | None = None, features: str | Path | None = None) -> Path:
    """Return a feature file of a dataset: by that backbone, or of that name without `.h5`; else the first by name.

    Raises
    ------
    CacheError, UnknownNameError
        There is none of the dataset, or none by that backbone.
    """
    from tlcache.cache.feature_file import FeatureFile

    about = {}
    for path in find_features(None, features, data):
        with FeatureFile(path) as file:
            about[path] = str(file.attrs["backbone"])
    fitting = named(model, about)
    if not fitting:
        raise CacheError(
            f"'{data}' is embedded by {', '.join(sorted(set(about.values())))}, not by {model}. Embed it as well: "
            f"tlcache extract --data {data} --model {model}"
        )
    if len(fitting) > 1:
        names = ", ".join(path.stem for path in fitting[1:])
        say(f"{data}: compared by {fitting[0].stem}; with --model by others: {names}")
    return fitting[0]


def find_labelled(
    paths: str | Path | Iterable[str | Path] | None = None,
    features: str | Path | None = None,
    data: str | Path | Sequence[str | Path] | None = None,
) -> list[Path]:
    """Return what `find_features` does; of those that nobody has named, only feature files with labels, if any has."""
    found = find_features(paths, features, data)
    return found if paths or data is not None else list(filter(_may_have_labels, found)) or found


def _may_have_labels(path: Path) -> bool:
    from tlcache.cache.feature_file import FeatureFile

    with suppress(CacheError), FeatureFile(path) as file:
        if not file.classes:
            say(f"{file.attrs['dataset']}: left out, as it has no labels")
            return False
    return True


def _of_datasets(found: Iterable[Path], data: str | Path | Sequence[str | Path]) -> list[Path]:
    from tlcache.datasets.names import chosen_names

    by_dataset: dict[str, list[Path]] = {}
    made_of: dict[str, str] = {}
    for path in found:
        name, arguments = _origin(path)
        made_of[name] = str(arguments["data"])
        by_dataset.setdefault(name, []).append(path)
    return [path for name in chosen_names(data, made_of, "features") for path in by_dataset[name]]


def _origin(path: Path) -> tuple[str, dict[str, Any]]:
    """Return the name of the dataset that a feature file is of, and the arguments that it was made with."""
    from tlcache.cache.feature_file import FeatureFile

    with FeatureFile(path) as file:
        return str(file.attrs["dataset"]), extract_arguments(file.attrs)


def find_dataset(
    data: str | Path, name: str | None, asked: Mapping[str, Any], features: str | Path | None = None
) -> tuple[str, str | None, Layout]:
    """Return the folder, manifest or built-in name of a dataset, its name if it has another one, and its layout.

    What can be read is taken as it is; else it is the name of a dataset whose features are cached, which is understood
    as it was then, save for what is asked now.

    Raises
    ------
    DataError, UnknownNameError
        It is not where it was any more, or there is no such dataset.
    """
    from tlcache.datasets.builtin import BUILT_IN
    from tlcache.datasets.names import is_here, unknown_dataset

    if not str(data) or is_here(data) or Path(data).name != str(data):  # a path is no name, whether it is there or not
        return str(data), name, made(Layout, asked)
    cached = _cached_datasets(features_folder(features))
    if str(data) not in cached:
        raise unknown_dataset(data, {*cached, *BUILT_IN.names})
    arguments = cached[str(data)]
    made_of = str(arguments["data"])
    if made_of == arguments.get("embeddings"):
        raise DataError(
            f"'{data}' is embeddings that were adopted, without images. Say where these are: --data THERE --name {data}"
        )
    if not is_here(made_of):
        raise DataError(
            f"The features of '{data}' were made of '{made_of}', which is not there any more. "
            f"Give its new place: --data THERE --name {data}"
        )
    return made_of, name or str(data), made(Layout, {**Layout.of(arguments).arguments, **asked})


def _cached_datasets(folder: Path) -> dict[str, dict[str, Any]]:
    """Return name -> arguments of the extraction, of every dataset with a feature file that can be read."""
    found: dict[str, dict[str, Any]] = {}
    for path in sorted(folder.glob("*/*.h5")):
        with suppress(CacheError):
            name, found[name] = _origin(path)
    return found
