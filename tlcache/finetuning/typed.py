"""Settings as they are typed: `NAME=VALUE`, and several values of a sweep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tlcache.errors import OptionError
from tlcache.finetuning.recipe import Recipe
from tlcache.kinds import Kind
from tlcache.options import check_names, parameters

__all__ = ["SWEEP", "read_settings", "read_sweep"]


def read_settings(texts: Sequence[str]) -> dict[str, Any]:
    """Return the settings that are written `NAME=VALUE`.

    >>> read_settings(["lr=1e-3", "batch-norm=eval"])
    {'lr': 0.001, 'batch_norm': 'eval'}
    """
    given = _by_name(texts, "--setting", "NAME=VALUE like lr=1e-3")
    return {name: parameters(Recipe)[name].read(word, "--setting") for name, word in given.items()}


def read_sweep(texts: Sequence[str]) -> dict[str, list[Any]]:
    """Return the settings, each with the values to choose from, that are written `NAME=VALUE,VALUE`.

    >>> read_sweep(["lr=1e-3,0.01", "optimizer=sgd,adamw"])
    {'lr': [0.001, 0.01], 'optimizer': ['sgd', 'adamw']}
    """
    given, known = _by_name(texts, "--sweep", "NAME=VALUE,VALUE like lr=1e-4,1e-3"), parameters(Recipe)
    return {name: [known[name].read(word, "--sweep") for word in words.split(",")] for name, words in given.items()}


SWEEP = Kind(
    "NAME=VALUE,VALUE like lr=1e-4,1e-3",
    "NAME=X,X",
    "dict of lists",
    str,
    lambda value: isinstance(value, Mapping),
    gather=read_sweep,
)


def _by_name(texts: Sequence[str], option: str, form: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for text in texts:
        name, equals, values = text.partition("=")
        if not equals:
            raise OptionError(f"{option} takes {form}; found '{text}'.")
        name = name.strip().removeprefix("--").replace("-", "_")
        check_names(Recipe, [name])
        if name in found:
            raise OptionError(f"{option} has {name} twice, as '{found[name]}' and as '{values}'. Give it once.")
        found[name] = values
    return found
