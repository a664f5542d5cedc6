"""Which weights each of several backbones takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from tlcache.backbones.sources import lookup
from tlcache.errors import OptionError, UnknownNameError, closest
from tlcache.kinds import listing

__all__ = ["weights_of"]


def weights_of(weights: str | Sequence[str] | Mapping[str, str] | None, models: Sequence[str]) -> dict[str, str | None]:
    """Return each backbone's weights, None for the first that it has.

    Parameters
    ----------
    weights
        Of all backbones; or backbone -> weights, or `BACKBONE=WEIGHTS` for each of some.
    models
        The backbones.

    Raises
    ------
    OptionError
        Both at once, one file for several backbones, or weights of a backbone that is not among these.
    """
    common, own = _read(weights)
    known = {_name(model): model for model in models}
    for name in own:
        if _name(name) not in known:
            raise UnknownNameError(closest("backbone in --weights", name, models))
    if common and len(known) > 1 and Path(common).expanduser().is_file():
        raise OptionError(
            f"--weights takes one file for one backbone; found '{common}' for {', '.join(models)}. Say whose it is, "
            f"--weights {models[0]}={common}, and give others their own."
        )
    chosen = {known[_name(name)]: each for name, each in own.items()}
    return {model: chosen.get(model, common) for model in models}


def _read(weights: str | Sequence[str] | Mapping[str, str] | None) -> tuple[str | None, Mapping[str, str]]:
    if weights is None or isinstance(weights, Mapping):
        return None, weights or {}
    given = [str(each) for each in listing(weights)]
    pairs = [each for each in given if "=" in each and not Path(each).exists()]
    common = [each for each in given if each not in pairs]
    if len(common) + bool(pairs) > 1:
        raise OptionError(
            f"--weights takes one for all backbones, or BACKBONE=FILE for each of some; found '{', '.join(given)}'."
        )
    return next(iter(common), None), dict(each.split("=", 1) for each in pairs)


def _name(model: str) -> str:
    """Return what the table calls a backbone; a file is called by its path."""
    found = lookup(model)
    return found.name if found else model
