"""A run of any strategy, and its record on disk."""

from __future__ import annotations

from collections.abc import Mapping
from math import nan
from typing import Any

from tlcache.records import Form
from tlcache.runs.base import Figures, apart
from tlcache.runs.finetuned import FinetunedRun, TunedCandidate, TunedChoice
from tlcache.runs.frozen import FrozenRun, HeadCandidate
from tlcache.runs.joined import JoinedRun
from tlcache.runs.pergroup import PerGroup
from tlcache.tasks import REGRESSION

__all__ = ["RUNS", "Run"]

Run = FrozenRun | JoinedRun | FinetunedRun


def _nested(fields: dict[str, Any]) -> dict[str, Any]:
    """Return a record's fields as those of a `Run`: on disk, settings and what came of them lie beside each other."""
    tuned = fields.get("strategy") == FinetunedRun.strategy
    kind = TunedCandidate if tuned else HeadCandidate
    candidates = [_candidate(each, kind) for each in fields["candidates"]]
    chosen = apart(fields["chosen"], TunedChoice, "setting") if tuned else fields["chosen"]
    per_group = {"per_group": PerGroup.nested(fields.get("per_group"))}
    test = fields["test"]
    if fields.get("task") == REGRESSION:  # whose figures are others than those of classes
        test = {**dict.fromkeys(Figures.__struct_fields__, nan), **test}
        test.pop("others")
    test = apart(test, Figures, "others")
    return {**fields, "test": test, "candidates": candidates, "chosen": chosen, **per_group}


def _candidate(fields: Mapping[str, Any], kind: type[TunedCandidate | HeadCandidate]) -> dict[str, Any]:
    scores = {name: value for name, value in fields.items() if name.startswith("val_")}
    others = {name: value for name, value in fields.items() if name not in scores}
    return {**apart(others, kind, "setting"), "scores": scores}


_OF_FEATURES = ("features", *(f"extract_arguments.{name}" for name in ("data", "model", "weights", "images")))
_PLACES = ("source", *_OF_FEATURES, *(f"parts.{name}" for name in _OF_FEATURES))
RUNS: Form[Run] = Form("tlcache-run", 2, "a run record", Run, _nested, places=_PLACES)
