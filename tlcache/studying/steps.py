"""What a study is asked for, as a list of steps, and which of them are recorded."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tlcache.backbones.backbone import Backbone
from tlcache.backbones.load import load_model
from tlcache.backbones.own_weights import weights_of
from tlcache.backbones.sources import find_trainable, lookup
from tlcache.backbones.weights import is_here, resolve
from tlcache.cache.feature_file import FeatureFile
from tlcache.cache.find import find_dataset
from tlcache.cache.joined import open_joined
from tlcache.datasets.dataset import Dataset, load_dataset
from tlcache.datasets.layout import Layout
from tlcache.datasets.splits import SPLITS
from tlcache.errors import CacheError, DataError, OptionError, UnknownNameError, closest
from tlcache.extraction.job import Extraction
from tlcache.finetuning.recipe import Recipe, arguments_of
from tlcache.heads.table import HeadRow
from tlcache.images import Preprocess
from tlcache.probing.nested import nested_identity
from tlcache.probing.outer import in_folds
from tlcache.probing.protocol import SearchProtocol
from tlcache.probing.run import frozen_identity
from tlcache.records import as_json
from tlcache.runs.base import Identity
from tlcache.runs.folder import recorded
from tlcache.runs.record import Run
from tlcache.tasks import SMALLER, USUAL

__all__ = ["StudyPlan", "Cell", "OnePass", "Step", "find_cells", "find_joined"]

EXTRACT, FIT, FINETUNE, REPORT = "extract", "fit-heads", "finetune", "report"  # called as the commands are
JOIN = "join"  # fit-heads --join
TO_DO, RECORDED, DONE, LEFT_OUT, FAILED = "to do", "recorded", "done", "left out", "failed"


@dataclass(frozen=True)
class Step:
    """One thing that a study does.

    Parameters
    ----------
    kind
        `extract`, `fit-heads`, `finetune` or `report`: the command that does the same; `join` is fit-heads --join.
    data, dataset, model
        What it is done with: the dataset as it was given, its name, the backbone, or several with `+` between them.
        Empty for the report.
    state
        `to do`, `recorded` (there already), `done`, `left out` or `failed`.
    seconds
        What it took; while it is to do or left out, about what it would take, or 0 where that was not estimated.
    note
        Why it is left out or failed, what of it is recorded or trained, what is downloaded for it.
    records
        Paths of the run records that are its results, as far as they are there.
    seed
        Which of the seeds of a study that is done with several, from 0 on.
    """

    kind: str
    data: str = ""
    dataset: str = ""
    model: str = ""
    state: str = TO_DO
    seconds: float = 0.0
    note: str = ""
    records: tuple[str, ...] = ()
    seed: int = 0

    @property
    def models(self) -> tuple[str, ...]:
        """The backbones; none for the report."""
        return tuple(self.model.split("+")) if self.model else ()

    def as_json(self) -> dict[str, Any]:
        """Return what `--json` promises."""
        return dict(as_json(self))


@dataclass(frozen=True)
class Cell:
    """A dataset and a network."""

    data: str
    dataset: Dataset
    backbone: Backbone
    weights: str | None

    @property
    def preprocess(self) -> Preprocess:
        """How images are prepared, whether the weights are here or not."""
        return self.backbone.preprocess(self.weights)

    @property
    def download(self) -> str:
        """What there is to say of weights that are not here."""
        if is_here(self.backbone, self.weights):
            return ""
        return f"about {4 * self.backbone.parameters / 1e6:.0f} MB of weights will be downloaded first"


def find_cells(
    data: Sequence[str | Path],
    models: Sequence[str],
    weights: str | Sequence[str] | Mapping[str, str] | None,
    features: Path,
    layout: Layout,
) -> dict[tuple[str, str], Cell]:
    """Return every backbone with every dataset, the smallest backbone first; nothing is downloaded but built-in images.

    Raises
    ------
    DataError, ModelError, UnknownNameError, WeightsError
        Two datasets of one name or none at all, an ONNX file, no such backbone or weights.
    """
    sets = _distinct(map(str, data), features, layout)
    names = [dataset.name for dataset in sets.values()]
    if twice := next((name for name in names if names.count(name) > 1), ""):
        raise DataError(f"Two of the datasets are called '{twice}'. Rename one of the folders or manifests.")
    rows = sorted({name: find_trainable(name) for name in models}.values(), key=lambda row: row.parameters)
    own = weights_of(weights, [row.name for row in rows])
    found: dict[tuple[str, str], Cell] = {}
    for row in rows:
        chosen = own[row.name]
        if is_here(row, chosen):
            resolve(row, chosen)
        found |= {(given, row.name): Cell(given, dataset, row, chosen) for given, dataset in sets.items()}
    return found


def find_joined(cells: Mapping[tuple[str, str], Cell], joins: Iterable[str]) -> tuple[str, ...]:
    """Return joins by the names of backbones of the study, each once.

    Raises
    ------
    OptionError, UnknownNameError
        One of less than two backbones, or of one that is not in the study.
    """
    known = {cell.backbone.name for cell in cells.values()}
    return tuple(dict.fromkeys(_named(known, join) for join in joins))


def _named(known: set[str], join: str) -> str:
    names = [row.name if (row := lookup(part)) else part for part in map(str.strip, join.split("+"))]
    if wrong := [name for name in names if name not in known]:
        raise UnknownNameError(f"--join {join}: {closest('backbone of this study', wrong[0], sorted(known))}")
    if len(set(names)) < max(2, len(names)):
        raise OptionError(f"--join takes two or more backbones with + between them, each once; found '{join}'.")
    return "+".join(sorted(names))


def _distinct(data: Iterable[str], features: Path, layout: Layout) -> dict[str, Dataset]:
    """Return the datasets as they were given, each once: one may be given by several spellings."""
    found: dict[str, tuple[str, Dataset]] = {}
    for given in data:
        dataset = load_dataset(*find_dataset(given, None, layout.arguments, features))
        dataset.check_labelled()
        place = os.path.realpath(dataset.data) if os.path.isabs(dataset.data) else dataset.data  # noqa: PTH117
        found.setdefault(place, (given, dataset))
    return dict(found.values())


@dataclass(frozen=True)
class OnePass:
    """One pass over a dataset for several backbones: which of them began it, and what is made of each."""

    first: str
    done: dict[str, Extraction] = field(default_factory=dict)


@dataclass(frozen=True)
class StudyPlan:
    """What a study is to do: on every cell all `heads` by `protocol`, and a fine-tuning by `recipe` unless None.

    With `cv`, heads and networks are tested in folds. `joins` are backbones that heads are fitted on together, too, as
    `find_joined` returns them; those of which a dataset lacks a backbone are not among its steps. With `one_pass` a
    dataset is embedded by all backbones together.
    """

    cells: Mapping[tuple[str, str], Cell]
    heads: tuple[HeadRow, ...]
    recipe: Recipe | None
    protocol: SearchProtocol
    layout: Layout
    features: Path
    runs: Path
    out: Path
    device: str
    joins: tuple[str, ...] = ()
    cv: str | None = None
    split_seed: int = 0
    reports: bool = True
    one_pass: bool = True
    passes: dict[str, OnePass] = field(default_factory=dict)  # of datasets that were embedded
    warned: set[tuple[str, str]] = field(default_factory=set)  # datasets and what was said of them
    _places: dict[tuple[str, str], Path] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.recipe is None or (self.recipe.unfrozen, self.recipe.method) == ("all", "full"):
            return
        from tlcache.backbones.torch_network import untrained
        from tlcache.finetuning.methods import layers_to_train

        for row in {cell.backbone.name: cell.backbone for cell in self.cells.values()}.values():  # not all have as many
            layers_to_train(self.recipe, row, untrained(row, seed=0))

    def again(self, number: int) -> StudyPlan:
        """Return the same with other seeds, so many further on: of splits that are drawn, heads and fine-tunings."""
        recipe = self.recipe and replace(self.recipe, seed=self.recipe.seed + number)
        protocol = replace(self.protocol, seed=self.protocol.seed + number)
        return replace(self, split_seed=self.split_seed + number, recipe=recipe, protocol=protocol, passes={})

    def steps(self) -> list[Step]:
        """Return all steps with their states: each network and its heads, then joins, fine-tunings, and the report."""
        kinds = [(kind, cell) for cell in self.cells.values() for kind in (EXTRACT, FIT)]
        steps = [Step(kind, cell.data, cell.dataset.name, cell.backbone.name) for kind, cell in kinds]
        sets = {cell.data: cell.dataset.name for cell in self.cells.values()}
        joins = [Step(JOIN, data, name, join) for data, name in sets.items() for join in self.joins]
        steps += [step for step in joins if all((step.data, model) in self.cells for model in step.models)]
        tuned = self.cells.values() if self.recipe else ()
        steps += [Step(FINETUNE, cell.data, cell.dataset.name, cell.backbone.name) for cell in tuned]
        return [*map(self._with_state, steps), *([Step(REPORT)] if self.reports else [])]

    def _with_state(self, step: Step) -> Step:
        if self.is_recorded(step):
            return replace(step, state=RECORDED)
        known = len(self.heads) - len(self.missing_heads(step)) if step.kind in (FIT, JOIN) else 0
        note = f"{known} of {len(self.heads)} heads are recorded" if known else ""
        return replace(step, note=self.cell(step).download if step.kind == EXTRACT else note)

    def cell(self, step: Step) -> Cell:
        """Return what a step is done with."""
        return self.cells[step.data, step.model]

    def place(self, step: Step) -> Path:
        """Return where the feature file is or will be; the weights have to be here."""
        cell, key = self.cell(step), (step.data, step.model)
        if key not in self._places:  # hashing large weights takes a while
            stem = load_model(cell.backbone.name, cell.weights).file_stem
            self._places[key] = self.features / cell.dataset.name / f"{stem}.h5"
        return self._places[key]

    def parts(self, step: Step) -> list[Step]:
        """Return a step of the same kind for each of its backbones."""
        return [replace(step, model=model) for model in step.models]

    def attributes(self, step: Step) -> dict[str, Any] | None:
        """Return what the feature file, or several as one, says of itself.

        None when one is missing, damaged, or not of all the images.
        """
        if step.kind == JOIN:
            if any(self.attributes(replace(part, kind=FIT)) is None for part in self.parts(step)):
                return None
            with suppress(CacheError, DataError), open_joined(self.places(step)) as joined:
                return joined.attrs
            return None
        cell = self.cell(step)
        if is_here(cell.backbone, cell.weights) and (path := self.place(step)).exists():
            with suppress(CacheError), FeatureFile(path) as file:
                rows = sum(file.attrs[f"{name}_rows"] for name in SPLITS) + len(file.quarantine)
                if rows == len(cell.dataset) and file.attrs["source"] == cell.dataset.source:
                    return file.attrs
        return None

    def places(self, step: Step) -> list[Path]:
        """Return where the feature files of a step are, in the order of their embeddings."""
        return [self.place(part) for part in self.parts(step)]

    def identities(self, step: Step) -> list[Identity]:
        """Return what tells the runs of a step from all others; nothing while there are no features to train on."""
        attrs = self.attributes(step) if step.kind in (FIT, JOIN, FINETUNE) else None
        if attrs is None:
            return []
        attrs = in_folds(attrs, self.cv, self.protocol.seed) if self.cv else attrs
        if step.kind == FINETUNE:
            assert self.recipe is not None
            return [Identity.of(attrs, "finetune", self.recipe.head, arguments_of(self.recipe, cv=self.cv))]
        if self.cv:
            return [nested_identity(attrs, row, self.protocol, self.cv) for row in self.heads]
        return [frozen_identity(attrs, row, self.protocol) for row in self.heads]

    def runs_of(self, step: Step) -> list[Run]:
        """Return the runs of a step that are recorded."""
        found = (recorded(self.runs, identity) for identity in self.identities(step))
        return [run for run in found if run]

    def is_recorded(self, step: Step) -> bool:
        """Return whether a step's result is there; of images that were exchanged only `extract` itself knows."""
        if step.kind == EXTRACT:
            return self.attributes(step) is not None
        wanted = self.identities(step)
        return bool(wanted) and all(recorded(self.runs, identity) for identity in wanted)

    def missing_heads(self, step: Step) -> list[str]:
        """Return the names of the heads that are not recorded."""
        found = {run.head for run in self.runs_of(step)}
        return [row.name for row in self.heads if row.name not in found]

    def best_validation(self, step: Step) -> float:
        """Return the best usual figure of the backbone's heads on validation, negative where less of it is better.

        Of heads that were tested in folds it is that of these, as nothing but the order of work follows from it.
        """
        runs = self.runs_of(replace(step, kind=FIT))
        if self.cv:
            return max((run.test.accuracy for run in runs), default=-math.inf)
        tried = [(name := USUAL[run.task], each.scores[f"val_{name}"]) for run in runs for each in run.candidates]
        return max((-value if name in SMALLER else value for name, value in tried), default=-math.inf)
