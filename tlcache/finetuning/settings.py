"""What each setting of a fine-tuning may be, and how it is read from a command line."""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tlcache.errors import OptionError, TlcacheError, UnknownNameError, closest
from tlcache.heads.optimizers import OPTIMIZERS
from tlcache.heads.table import tuned_heads

__all__ = ["CHOICES", "check_name", "check_value", "parse_settings", "parse_sweep"]

CHOICES: Mapping[str, tuple[str, ...]] = {
    "init_head": ("cached", "scratch"),
    "optimizer": tuple(OPTIMIZERS),
    "schedule": ("constant", "cosine", "step"),
    "augment": ("none", "light", "study", "strong"),
    "loss": ("ce", "bce"),
    "class_weight": ("balanced",),
    "batch_norm": ("train", "eval"),
    "precision": ("auto", "fp32", "bf16"),
    "layout": ("auto", "contiguous", "channels_last"),
}


@dataclass(frozen=True)
class _Rule:
    """What a setting takes, in words; how it is read from text; and whether it may be a value."""

    takes: str
    read: Callable[[str], Any]
    allows: Callable[[Any], bool]


def _count(words: str, is_within: Callable[[int], bool]) -> _Rule:
    return _Rule(f"a whole number {words}", int, lambda value: type(value) is int and is_within(value))


def _number(words: str, is_within: Callable[[float], bool]) -> _Rule:
    def allows(value: Any) -> bool:
        return isinstance(value, int | float) and type(value) is not bool and math.isfinite(value) and is_within(value)

    return _Rule(f"a number {words}", float, allows)


def _switch(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ValueError(text)
    return text.lower() == "true"


_FROM_1 = _count("from 1 on", lambda value: value >= 1)
_FROM_0 = _number("from 0 on", lambda value: value >= 0)
_ABOVE_0 = _number("above 0", lambda value: value > 0)
_SHARE = _number("from 0 to below 1", lambda value: 0 <= value < 1)
_SWITCH = _Rule("true or false", _switch, lambda value: type(value) is bool)
_LAYERS = re.compile("all|(last|stage):0*[1-9][0-9]*")
_RULES: Mapping[str, _Rule] = {
    "head": _Rule("one of its choices", str, lambda value: value in tuned_heads()),
    **{name: _Rule("one of its choices", str, known.__contains__) for name, known in CHOICES.items()},
    **dict.fromkeys(("epochs", "head_epochs", "patience", "views"), _FROM_1),
    **dict.fromkeys(("lr", "head_lr", "layer_decay"), _ABOVE_0),
    **dict.fromkeys(("weight_decay", "warmup_epochs"), _FROM_0),
    **dict.fromkeys(("ema", "label_smoothing"), _SHARE),
    **dict.fromkeys(("cached_prefix", "refit"), _SWITCH),
    "batch_size": _count("from 2 on, as BatchNorm has no statistics of a single image", lambda value: value >= 2),
    "seed": _count("from 0 to 4294967295", lambda value: 0 <= value < 2**32),
    "unfreeze": _Rule(
        "all, last:N or stage:K with a number from 1 on", str, lambda value: bool(_LAYERS.fullmatch(str(value)))
    ),
}


def check_name(name: str) -> None:
    """Raise UnknownNameError when there is no such setting."""
    if name not in _RULES:
        raise UnknownNameError(closest("setting", name, _RULES))


def check_value(name: str, value: Any) -> None:
    """Raise when a setting may not have this value.

    Raises
    ------
    OptionError
        No such choice; a value of another type or out of range.
    """
    if not _RULES[name].allows(value):
        raise _refusal(name, str(value))


def _refusal(name: str, found: str, option: str = "") -> TlcacheError:
    """Return the error for a value; `option` is what took it, where that has another name than the setting."""
    known = tuned_heads() if name == "head" else CHOICES.get(name)
    if known is not None:
        kind = name.replace("_", " ") + (f" in {option}" if option else "")
        return UnknownNameError(closest(kind, found, known))
    what = f"{option} " if option else "--"
    return OptionError(f"{what}{name.replace('_', '-')} takes {_RULES[name].takes}; found '{found}'.")


def parse_settings(texts: Sequence[str]) -> dict[str, Any]:
    """Return the settings that are written `NAME=VALUE`.

    >>> parse_settings(["lr=1e-3", "batch-norm=eval"])
    {'lr': 0.001, 'batch_norm': 'eval'}
    """
    given = _by_name(texts, "--setting", "NAME=VALUE like lr=1e-3")
    return {name: _read(name, text, "--setting") for name, text in given.items()}


def parse_sweep(texts: Sequence[str]) -> dict[str, list[Any]]:
    """Return the settings, each with the values to choose from, that are written `NAME=VALUE,VALUE`.

    >>> parse_sweep(["lr=1e-3,0.01", "optimizer=sgd,adamw"])
    {'lr': [0.001, 0.01], 'optimizer': ['sgd', 'adamw']}
    """
    given = _by_name(texts, "--sweep", "NAME=VALUE,VALUE like lr=1e-4,1e-3")
    return {name: [_read(name, each, "--sweep") for each in text.split(",")] for name, text in given.items()}


def _by_name(texts: Sequence[str], option: str, form: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for text in texts:
        name, equals, values = text.partition("=")
        if not equals:
            raise OptionError(f"{option} takes {form}; found '{text}'.")
        name = name.strip().removeprefix("--").replace("-", "_")
        check_name(name)
        if name in found:
            raise OptionError(f"{option} has {name} twice, as '{found[name]}' and as '{values}'. Give it once.")
        found[name] = values
    return found


def _read(name: str, text: str, option: str) -> Any:
    rule, value = _RULES[name], text.strip()
    with contextlib.suppress(ValueError):
        if rule.allows(found := rule.read(value)):
            return found
    raise _refusal(name, value, option)
