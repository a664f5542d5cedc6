"""What runs are called beside each other: as short as tells them apart; and counts with their nouns."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tlcache.runs.record import Run

__all__ = ["backbone_label", "head_label", "set_apart"]

_UNSAID = {"space", "budget_s", "budget"}  # follow from others, or change nothing but the time


def set_apart(name: str, fields: Mapping[str, Any], alike: Iterable[Mapping[str, Any]]) -> str:
    """Return a backbone's name, with what sets its embeddings apart from others of that name."""
    return " ".join([name, *_differing(_settings(fields), [_settings(other) for other in alike])])


def backbone_label(run: Run, runs: Sequence[Run]) -> str:
    """Return a run's backbone as it is called among `runs`."""
    alike = [other.fields for other in runs if other.fields["backbone"] == run.fields["backbone"]]
    weights = {fields["weights"] for fields in alike}
    name = run.fields["backbone"] if len(weights) == 1 else f"{run.fields['backbone']} ({run.fields['weights']})"
    return set_apart(name, run.fields, alike)


def head_label(run: Run, runs: Sequence[Run]) -> str:
    """Return a run's head, or what was fine-tuned, as it is called among `runs`: "svm", "fine-tuned stage:5"."""
    head = str(run.fields["head"])
    if run.fields["strategy"] == "finetune":
        tuned = "fine-tuned (0 epochs kept)" if run.untuned else "fine-tuned"
        head = tuned if head == "linear" else f"{tuned} {head}"
    same = ("strategy", "backbone", "head", "key")
    alike = [other for other in runs if all(other.fields[name] == run.fields[name] for name in same)]
    return " ".join([head, *_differing(_arguments(run), [_arguments(other) for other in alike])])


def _differing(mine: Mapping[str, Any], others: Sequence[Mapping[str, Any]]) -> list[str]:
    apart = [name for name, value in mine.items() if any(value != other.get(name) for other in others)]
    return [_setting(name, mine[name]) for name in apart if mine[name] not in (None, False, {}, [])]


def _setting(name: str, value: Any) -> str:
    words = name.replace("_", "-")
    if value is True:
        return words
    if isinstance(value, Mapping):
        return f"{words} of {', '.join(value)}"
    return str(value) if name == "unfreeze" else f"{words} {value}"


def _settings(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {"pool": fields["pool"], "precision": fields["precision"], **fields["preprocess"]}


def _arguments(run: Run) -> dict[str, Any]:
    return {name: value for name, value in run.fields["arguments"].items() if name not in _UNSAID}
