"""Under which licences the weights are that a run builds on."""

from __future__ import annotations

from tlcache.backbones.model import UNKNOWN
from tlcache.backbones.sources import lookup
from tlcache.runs.joined import JoinedPart, JoinedRun
from tlcache.runs.record import Run

__all__ = ["licence_of", "licences"]


def licences(run: Run) -> list[str]:
    """Return the licence of each network's weights and what these were trained on, as far as known, each once."""
    return list(dict.fromkeys(map(licence_of, run.parts if isinstance(run, JoinedRun) else (run,))))


def licence_of(part: Run | JoinedPart) -> str:
    """Return what the record says, or for one that was made before records said it, what is known of the backbone."""
    if part.licence is not None:
        return part.licence
    found = lookup(str(part.extract_arguments.get("model", "")))
    return found.licence(part.weights) if found else UNKNOWN
