"""What runs are called beside each other: as short as tells them apart."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from operator import attrgetter
from pathlib import Path
from typing import Any

from tlcache.errors import UnknownNameError, closest
from tlcache.runs.finetuned import FinetunedRun
from tlcache.runs.record import Run

__all__ = ["backbone_label", "head_label", "named_runs", "set_apart"]

_DIGITS = 6  # of a key, in a name
_BY_VALUE = {"recipe", "unfreeze", "method", "output", "pool"}  # which say what they are
_TELLING = (
    "sweep",
    "method",
    "unfreeze",
    "lr",
    "epochs",
)  # are named rather than others, the first of these most of all
_UNSAID = {"layers", "space", "budget_s", "budget"}  # follow from others, or change nothing but the time


def set_apart(name: str, embedded: Mapping[str, Any], alike: Iterable[Mapping[str, Any]]) -> str:
    """Return a backbone's name, with what sets its embeddings apart from others of that name.

    Where nothing that is said does so, as of two files called `model.onnx`, that is the beginning of the key, as in the
    name of the feature file.

    Parameters
    ----------
    name
        The backbone's name.
    embedded, alike
        `key`, `weights` and `output`, the layer, of a feature file, and what is in the JSON of its key: `pool`,
        `precision`, `dtype` and `preprocess`.
    """
    mine, others = _settings(embedded), [(other["key"], other["weights"], _settings(other)) for other in alike]
    same = [key for key, *said in others if said == [embedded["weights"], mine]]
    told = [embedded["key"][:_DIGITS]] if len(set(same)) > 1 else []
    return " ".join([name, *_differing(mine, [settings for *_, settings in others]), *told])


def named_runs(runs: Sequence[Run], names: Iterable[str]) -> list[Run]:
    """Return the runs of these names, which are those of their files without an ending, or shell patterns of such.

    Raises
    ------
    UnknownNameError
        No run is called so.
    """
    found: dict[Path, Run] = {}
    for name in names:
        own = [run for run in runs if str(run.path) == name or fnmatchcase(run.path.stem, name.removesuffix(".json"))]
        if not own:
            raise UnknownNameError(closest("run", name, [run.path.stem for run in runs]))
        found |= {run.path: run for run in own}
    return list(found.values())


def backbone_label(run: Run, runs: Sequence[Run]) -> str:
    """Return a run's backbone as it is called among `runs`."""
    alike = [other for other in runs if other.backbone == run.backbone]
    several = len({other.weights for other in alike}) > 1
    name = f"{run.backbone} ({run.weights})" if several else run.backbone
    return set_apart(name, run.embedded, [other.embedded for other in alike])


def head_label(run: Run, runs: Sequence[Run]) -> str:
    """Return a run's head, or what was fine-tuned, as it is called among `runs`: "svm", "fine-tuned stage:5".

    Of the settings in which these differ it names no more than tell them apart.
    """
    head = run.head
    if isinstance(run, FinetunedRun):
        tuned = "fine-tuned (0 epochs kept)" if run.untuned else "fine-tuned"
        head = tuned if head == "linear" else f"{tuned} {head}"
    elif run.layers:
        head = f"{head}, best of {len(run.layers)}"
    same = attrgetter("strategy", "backbone", "head", "key")
    alike = [other for other in runs if same(other) == same(run)]
    recipes = _differing({"recipe": run.arguments.get("recipe")}, [other.arguments for other in alike])
    raced = [other for other in alike if other.arguments.get("recipe") == run.arguments.get("recipe")]
    told = _fewest([_arguments(other) for other in raced])
    settings = (_setting(name, _trained(run, name)) for name in told if _is_said(run.arguments.get(name)))
    return " ".join([head, *recipes, *settings])


def _fewest(settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return names of settings by which these are apart as far as they are, so few that none can be left out."""

    def values(names: Sequence[str]) -> list[tuple[Any, ...]]:
        return [tuple(each.get(name) for name in names) for each in settings]

    known = dict.fromkeys(name for each in settings for name in each)
    told = [name for name in dict.fromkeys((*_TELLING, *known)) if _number_apart(values([name])) > 1]
    for name in reversed(told):
        fewer = [other for other in told if other != name]
        if _number_apart(values(fewer)) == _number_apart(values(told)):
            told = fewer
    return told


def _number_apart(values: Sequence[tuple[Any, ...]]) -> int:
    return sum(each not in values[:number] for number, each in enumerate(values))


def _trained(run: Run, name: str) -> Any:
    """Return a setting, of epochs also how many of them were trained where these are fewer: "7/60"."""
    value = run.arguments[name]
    if name != "epochs" or not isinstance(run, FinetunedRun):
        return value
    trained = max((epoch.epoch for epoch in run.history if epoch.phase == "backbone"), default=value)
    return f"{trained}/{value}" if trained < value else value


def _differing(mine: Mapping[str, Any], others: Sequence[Mapping[str, Any]]) -> list[str]:
    apart = [name for name, value in mine.items() if any(value != other.get(name) for other in others)]
    return [_setting(name, mine[name]) for name in apart if _is_said(mine[name])]


def _is_said(value: Any) -> bool:
    return value not in (None, False, {}, [])


def _setting(name: str, value: Any) -> str:
    words = name.replace("_", "-")
    if value is True:
        return words
    if isinstance(value, Mapping):
        return f"{words} of {', '.join(value)}"
    value = ",".join(map(str, value)) if isinstance(value, list) else value
    return str(value) if name in _BY_VALUE else f"{words} {value}"


def _settings(embedded: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "output": embedded["output"],
        "pool": embedded["pool"],
        "precision": embedded["precision"],
        "dtype": None if embedded.get("dtype") == "float32" else embedded.get("dtype"),
        **embedded["preprocess"],
    }


def _arguments(run: Run) -> dict[str, Any]:
    unsaid = {*_UNSAID, *(run.arguments.get("sweep") or {})}  # a sweep chose others
    return {name: value for name, value in run.arguments.items() if name not in unsaid}
