"""Which feature files `--join a+b` names."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from tlcache.cache.feature_file import FeatureFile
from tlcache.cache.find import named
from tlcache.errors import OptionError, UnknownNameError, closest
from tlcache.kinds import listing

__all__ = ["find_joins"]

_Known = dict[Path, str]  # feature file -> backbone


def find_joins(found: Iterable[Path], joins: str | Sequence[str]) -> list[tuple[Path, ...]]:
    """Return the feature files to join, of every dataset that has some among `found`.

    Parameters
    ----------
    found
        Feature files.
    joins
        Names of backbones, or of feature files where one backbone has several, with `+` between them. Their order does
        not matter.

    Raises
    ------
    OptionError, UnknownNameError
        Less than two names, a name twice, one that no file has, or one that several have.
    """
    by_dataset: dict[str, _Known] = {}
    for path in found:
        with FeatureFile(path) as file:
            by_dataset.setdefault(str(file.attrs["dataset"]), {})[path] = str(file.attrs["backbone"])
    return [_files(known, dataset, str(join)) for dataset, known in by_dataset.items() for join in listing(joins)]


def _files(known: _Known, dataset: str, join: str) -> tuple[Path, ...]:
    names = [name.strip() for name in join.split("+") if name.strip()]
    files = [_file(known, dataset, name) for name in names]
    if len(set(files)) < max(2, len(files)):
        raise OptionError(f"--join takes two or more backbones with + between them, each once; found '{join}'.")
    return tuple(sorted(files, key=lambda path: (known[path], path.stem)))


def _file(known: _Known, dataset: str, name: str) -> Path:
    found = named(name, known)
    if not found:
        raise UnknownNameError(
            f"{closest(f'backbone among the features of {dataset}', name, dict.fromkeys(known.values()))} "
            f"Make its features with: tlcache extract --data {dataset} --model {name}"
        )
    if len(found) > 1:
        stems = ", ".join(f"{path.stem} ({_label(path)})" for path in found)
        raise OptionError(
            f"{dataset} has {len(found)} feature files by '{name}': {stems}. Give the first word of one in its place."
        )
    return found[0]


def _label(path: Path) -> str:
    with FeatureFile(path) as file:
        return file.label
