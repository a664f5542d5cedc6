"""Which commands make a run again, and which use it."""

from __future__ import annotations

import inspect
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from msgspec import structs

from tlcache.backbones.backbone import LAST
from tlcache.backbones.sources import GIVEN as GIVEN_NETWORK
from tlcache.cache.resplit import GIVEN
from tlcache.datasets.dataset import names_of
from tlcache.datasets.layout import Layout
from tlcache.extraction.extract import extract
from tlcache.files import relative
from tlcache.finetuning.recipe import Recipe, resolved, settings_of
from tlcache.finetuning.recipes import RACE
from tlcache.keys import slug
from tlcache.kinds import listing
from tlcache.options import parameters
from tlcache.probing.protocol import SearchProtocol
from tlcache.runs.base import GroupedBy
from tlcache.runs.frozen import FrozenRun
from tlcache.runs.joined import JoinedRun
from tlcache.runs.record import Run

__all__ = ["commands", "extraction", "map_of", "predicting", "uses"]

_ELSEWHERE = {"features", "space"}  # where results lie is the reader's own choice; a head's space follows from --search
_PLACED = ("data", "model", "weights")
_SHARED = (
    *_PLACED,
    "crop_borders",
    "window",
    "jpeg_size",
    "max_pixels",
    "resize",
    "crop",
    "name",
    "device",
    "split_seed",
    *parameters(Layout),
)  # finetune, too
_SPLIT = {"split": GIVEN, "split_seed": 0}
_NAMES = {"budget_s": "budget", "output": "layers"}


def map_of(run: Run, features: str) -> str:
    """Return the command line that makes a map of a dataset, by a feature file's name; a run that is kept is shown."""
    return _line("map", {"data": run.dataset, "model": features, **({"run": run.path.stem} if run.kept else {})})


def commands(run: Run) -> list[str]:
    """Return the command lines that make a run from its images, one after the other.

    The settings that are the defaults are left out; folders of features and runs are those of the reader. Paths are
    relative to the working folder.
    """
    arguments = run.arguments
    extractions = [part.extract_arguments for part in (run.parts if isinstance(run, JoinedRun) else (run,))]
    before = [extraction(each) for each in extractions]
    if isinstance(run, FrozenRun) and run.layers:
        layers = dict.fromkeys(each.output or LAST for each in run.layers)
        pools = dict.fromkeys(each.pool for each in run.layers if each.pool)
        before = [extraction({**run.extract_arguments, "output": [*layers], "pool": [*pools] or None})]
    split = {}
    if run.split != GIVEN:
        before.append(_line("audit", {"data": run.dataset, **_grouped(run.grouping)}))
        split = {"split": run.split, "split_seed": run.drawn_by}
    if isinstance(run, FrozenRun):
        defaults = {**{field.name: field.default for field in fields(SearchProtocol)}, "cv": None}
        defaults["folds"] = SearchProtocol().folds_for(run.rows.val)
        asked = {name: value for name, value in arguments.items() if name != "layers"}
        options = {"heads": run.head, **_given(split, _SPLIT), **_given(asked, defaults)}
        options |= {"layers": "all"} if run.layers else {}
        files = [_from_here(file) for file in ([each.features for each in run.layers] or run.feature_files)]
        join = {"join": "+".join(Path(each).stem for each in files)} if isinstance(run, JoinedRun) else {}
        return [*before, _line(" ".join(["fit-heads", *map(_quoted, files)]), {**join, **options})]
    defaults = {**{field.name: field.default for field in fields(Recipe)}, "sweep": {}, "budget_s": None, "cv": None}
    defaults["recipe"] = RACE
    made = _typed(extractions[0])
    shared = {name: made[name] for name in _SHARED if name in made}
    asked = _given(settings_of(arguments), defaults)
    if resolved({**asked, "recipe": None})["recipe"] is None:
        asked.pop("recipe", None)  # settings say it
    options = {**_given(shared, _defaults(extract)), **_given(split, _SPLIT), **asked}
    return [*(before if split else ()), _line("finetune", options)]


def extraction(arguments: Mapping[str, Any]) -> str:
    """Return the command line of an extraction with these arguments, as a feature file has them."""
    made = _typed(arguments)
    if "embeddings" in made:
        network = {"name": str(made["model"]).removeprefix(GIVEN_NETWORK)}
        data = {"data": made["data"]} if arguments["data"] != arguments["embeddings"] else {}
        return _line(f"adopt {_quoted(_from_here(made['embeddings']))}", network | data)
    return _line("extract", _given(made, _defaults(extract)))


def _typed(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of an extraction as they are typed here."""
    made = dict(arguments)
    made |= {name: _from_here(made[name]) for name in (*_PLACED, "images") if made.get(name)}
    made["split_seed"] = made.pop("seed", 0)
    return made


def uses(run: Run) -> list[str]:
    """Return the command lines that classify images with a run: as it is recorded, and as a file to deploy.

    `photos/` stands for the images; paths are relative to the working folder. Where the network is not kept, it is the
    line that trains one.
    """
    if not run.kept:
        own = {name: value for name, value in run.arguments.items() if name != "cv"}
        return commands(structs.replace(run, arguments=own))[-1:]
    place, model = _quoted(_from_here(str(run.path))), f"{slug(run.dataset)}.onnx"
    return [
        f"{predicting(run, 'photos/')} --out predictions.csv",
        f"tlcache export {place} --out {_quoted(model)}",
        f"python -m tlcache.bundle {_quoted(model)} photos/ --out predictions.csv",
    ]


def predicting(run: Run, images: str) -> str:
    """Return the command line that prints what a run says of images."""
    return f"tlcache predict {_quoted(_from_here(str(run.path)))} {_quoted(_from_here(images))}"


def _from_here(place: str) -> str:
    """Return a path as it is typed here, and a name as it is."""
    return relative(place, Path.cwd()) if Path(place).is_absolute() else place


def _grouped(grouping: GroupedBy | None) -> dict[str, str]:
    """Return the options of `audit` that group images as they were; none where the record is older than that."""
    if not grouping:
        return {}
    if grouping.by == "regex":
        return {"group_regex": grouping.source}
    by = {"group_by": grouping.by}
    return by if grouping.by == "column" else {**by, "model": grouping.source.partition(",")[0]}


def _defaults(function: Any) -> dict[str, Any]:
    return {name: each.default for name, each in inspect.signature(function).parameters.items()}


def _given(arguments: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is not the default, and always what says which images and which network."""
    return {
        name: value
        for name, value in arguments.items()
        if name in defaults and name not in _ELSEWHERE and value is not None
        if not (name == "name" and value in names_of(arguments["data"]))
        if name in _PLACED or value != defaults[name]
    }


def _line(command: str, options: Mapping[str, Any]) -> str:
    return " ".join(["tlcache", command, *(_quoted(part) for item in options.items() for part in _option(*item))])


def _quoted(part: str) -> str:
    """Return a word as a shell takes it; the home folder is for the shell to find."""
    return f"~/{shlex.quote(part[2:])}" if part.startswith("~/") else shlex.quote(part)


def _option(name: str, value: Any) -> Iterator[str]:
    flag = f"--{_NAMES.get(name, name).replace('_', '-')}"
    if isinstance(value, Mapping):
        for setting, values in value.items():
            yield from (flag, f"{setting}={','.join(map(str, listing(values)))}")
    elif value is True:
        yield flag
    elif value is False:
        yield f"--no-{flag[2:]}"
    elif isinstance(value, list | tuple):
        yield from (flag, ",".join(map(str, value)))
    else:
        yield from (flag, str(value))
