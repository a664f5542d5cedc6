"""Errors that a user can act on: each says what was asked, what was found, and what to do next."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

__all__ = [
    "CacheError",
    "DamagedError",
    "DataError",
    "DeviceError",
    "HeadError",
    "ImageReadError",
    "ModelError",
    "OptionError",
    "OutdatedError",
    "TlcacheError",
    "UnknownNameError",
    "UnreachableError",
    "WeightsError",
    "closest",
    "first_line",
    "meant",
    "one_line",
    "root_line",
]


class TlcacheError(Exception):
    """Base of all errors that tlcache raises on purpose; the command line prints them without a traceback."""


class OptionError(TlcacheError):
    """A value that an option may not have, or options that do not go together; the command line ends with status 2."""


class UnknownNameError(OptionError):
    """A name that does not exist: of a backbone, of a head, of a choice."""


class DataError(TlcacheError):
    """A dataset that is missing, malformed, or too small for what was asked."""


class ImageReadError(DataError):
    """An image that is gone, cannot be read, or is not the one that was embedded; `reason` says which, in short."""

    def __init__(self, message: str, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason


class UnreachableError(ImageReadError):
    """A store that does not give what it has: no fault of the image, so that work ends and goes on another time."""


class WeightsError(TlcacheError):
    """Weights that cannot be found, downloaded, or read."""


class ModelError(TlcacheError):
    """A network that cannot be exported or run."""


class DeviceError(TlcacheError):
    """A device that was asked for and is not there."""


class CacheError(TlcacheError):
    """A feature file or part that is damaged, foreign, or cannot be written."""


class DamagedError(CacheError):
    """A feature file whose bytes are not those that were written."""


class OutdatedError(CacheError):
    """A feature file in a format of an earlier version."""


class HeadError(TlcacheError):
    """A head that cannot be fitted, saved, loaded, or used with the given features."""


_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_MANY, _NEAREST = 30, 5  # names: of more than so many known ones the nearest few are told


def closest(kind: str, name: str, known: Iterable[str]) -> str:
    """Return the message for an unknown `name`, with the nearest known one and the list, of a long one the nearest.

    >>> closest("backbone", "resnet51", ["resnet50", "vit_b_16"])
    "Unknown backbone 'resnet51'. Did you mean 'resnet50'? Known: resnet50, vit_b_16."
    """
    known = list(known)
    hint = meant(name, known)
    shown = known if len(known) <= _MANY else difflib.get_close_matches(name, known, n=_NEAREST, cutoff=0)
    shown = [f"'{each}'" if ", " in each else each for each in shown]
    rest = f" and {len(known) - len(shown):,} more" if len(known) > len(shown) else ""
    return f"Unknown {kind} '{name}'.{hint} Known: {', '.join(shown)}{rest}."


def meant(name: str, known: Iterable[str], before: str = "") -> str:
    """Return the question whether the nearest known name was meant, after a space; nothing where none is near.

    `before` is what comes before all names, like a folder: it is said, and counts for nothing.

    >>> meant("feature", ["features", "runs"])
    " Did you mean 'features'?"
    """
    known = list(known)
    near = difflib.get_close_matches(name, known, n=1) or [each for each in known if name[1:] and name in each]
    return f" Did you mean '{before}{near[0]}'?" if near else ""


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or its type when it says nothing."""
    return next(iter(str(error).splitlines()), type(error).__name__)


def root_line(error: BaseException) -> str:
    """Return the first line of what an error comes from, without the colours of a terminal."""
    while error.__cause__ or error.__context__:
        error = error.__cause__ or error.__context__  # type: ignore[assignment]
    return f"{type(error).__name__}: {_COLOUR.sub('', first_line(error))}"


def one_line(error: BaseException) -> str:
    """Return all of an error's message in one line."""
    return " ".join(str(error).split())
