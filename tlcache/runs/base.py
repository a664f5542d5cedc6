"""What every run's record holds, as it is on disk; README.md is the page of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isnan
from pathlib import Path
from typing import Any, ClassVar, Self

from msgspec import Struct

from tlcache.cache.attributes import extract_arguments, identity_of
from tlcache.cache.feature_file import STAGES
from tlcache.cache.resplit import GIVEN, split_fields
from tlcache.datasets.overview import drawn_splits
from tlcache.datasets.tasks import task_of
from tlcache.heads.answering import Answering
from tlcache.keys import hash_json
from tlcache.records import as_json
from tlcache.runs.classes import ClassFigures
from tlcache.runs.folds import CrossValidation
from tlcache.runs.predictions import Predictions, read_held_out, read_predictions
from tlcache.runs.uncertainty import UncertaintyFigures
from tlcache.tasks import CLASSIFY

__all__ = [
    "ExtractSeconds",
    "Figures",
    "GroupedBy",
    "Hardware",
    "Identity",
    "NumberInterval",
    "RunRecord",
    "SplitSizes",
    "apart",
    "beside",
    "fields_of_features",
]

_ASKED = "asked_"  # before a setting that has the name of a field


class Identity(Struct, frozen=True, kw_only=True):
    """What tells a run from all others: images and splits, network, and everything that was asked for.

    Parameters
    ----------
    dataset, dataset_digest, backbone, key
        Those of the feature file.
    strategy
        `frozen`, `joined` or `finetune`.
    head
        Its name; of a sweep over heads, the one that was asked for beside it.
    arguments
        All settings.
    """

    dataset: str
    dataset_digest: str
    backbone: str
    key: str
    strategy: str
    head: str
    arguments: Mapping[str, Any]

    @classmethod
    def of(cls, attrs: Mapping[str, Any], strategy: str, head: str, arguments: Mapping[str, Any]) -> Identity:
        """Return the identity of a run on a feature file, given by its attributes."""
        place = {name: attrs[name] for name in ("dataset", "dataset_digest", "backbone", "key")}
        return cls(**place, strategy=strategy, head=head, arguments=dict(arguments))

    @property
    def digest(self) -> str:
        """Twelve hexadecimal digits for the names of its files."""
        return hash_json(as_json(self))[:12]


class Figures(Struct, frozen=True, kw_only=True):
    """What a run reaches on the test images; nan, and not in its record, what its task has no figure of.

    The interval is the 95 % one, by group where there are groups; `others` are all other figures of
    `tlcache.evaluation.metrics.evaluate`, which records of earlier versions do not have.
    """

    n: int
    accuracy: float
    accuracy_low: float
    accuracy_high: float
    macro_f1: float
    log_loss: float
    ece: float
    others: Mapping[str, float] = {}

    @classmethod
    def of(cls, figures: Mapping[str, Any]) -> Figures:
        """Return figures that are given by their names."""
        return cls(**apart(figures, cls, "others"))

    def as_json(self) -> dict[str, Any]:
        """Return the figures by their names, `others` among them."""
        return {name: value for name, value in beside(as_json(self), "others").items() if not isnan(value)}


class NumberInterval(Struct, frozen=True, kw_only=True):
    """What is promised of predicted numbers: the truth is no further than `margin` from that many.

    Parameters
    ----------
    coverage, margin
        How often that is to hold, and how far, in the units of the labels.
    test_coverage, test_low, test_high
        How often it holds on the test images, with the 95 % interval of that.
    """

    coverage: float
    margin: float
    test_coverage: float
    test_low: float
    test_high: float


class SplitSizes(Struct, frozen=True, kw_only=True):
    """How many images each split has."""

    train: int
    val: int
    test: int

    @classmethod
    def of(cls, attrs: Mapping[str, Any]) -> Self:
        """Return what the attributes of a feature file say."""
        return cls(**{name: int(attrs[f"{name}_rows"]) for name in cls.__struct_fields__})

    @property
    def total(self) -> int:
        """All of them."""
        return self.train + self.val + self.test


class GroupedBy(Struct, frozen=True, kw_only=True):
    """By what groups a split was drawn: a name of `tlcache.auditing.groups.GROUP_BY`, and what they came from."""

    by: str
    source: str


class ExtractSeconds(Struct, frozen=True, kw_only=True):
    """What embedding all images took: thread seconds, and `wall_s` on the clock."""

    decode_s: float
    infer_s: float
    write_s: float
    wall_s: float


class Hardware(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a run was made on; `device` and `threads` are torch's, of a fine-tuning."""

    cpu: str
    cpus: int
    system: str
    device: str | None = None
    threads: int | None = None


class RunRecord(Struct, frozen=True, kw_only=True, tag_field="strategy"):
    """What both kinds of runs have; the page with every field is README.md."""

    strategy: ClassVar[str]

    dataset: str
    dataset_digest: str
    source: str
    classes: tuple[str, ...]
    split: str = GIVEN
    grouping: GroupedBy | None = None
    split_seed: int | None = None
    given_digest: str | None = None
    drawn: tuple[str, ...] | None = None
    rows: SplitSizes

    backbone: str
    key: str
    weights: str
    licence: str | None = None
    pool: str | None
    precision: str
    preprocess: Mapping[str, Any]
    extract: ExtractSeconds
    extract_arguments: Mapping[str, Any] = {}

    head: str
    arguments: Mapping[str, Any]
    test: Figures
    per_class: tuple[ClassFigures, ...] = ()
    uncertainty: UncertaintyFigures | None = None
    task: str = CLASSIFY
    thresholds: tuple[float, ...] = ()
    interval: NumberInterval | None = None
    cross_validation: CrossValidation | None = None

    versions: Mapping[str, str]
    hardware: Hardware
    created: str
    record: str

    @property
    def path(self) -> Path:
        """The JSON record; beside it, with other endings, lies what else there is of a run."""
        return Path(self.record)

    @property
    def head_path(self) -> Path:
        """The fitted head, for `tlcache.load_head`; of a fine-tuning the network and its head, for `--weights`."""
        return self.path.with_suffix(".safetensors")

    @property
    def kept(self) -> bool:
        """Whether what it fitted is kept, to be used."""
        return True

    @property
    def predictions_path(self) -> Path:
        """What it said of the test images, for `predictions`; the same for people in a `.csv`."""
        return self.path.with_suffix(".npz")

    def predictions(self) -> Predictions:
        """Read what it said of every test image.

        Raises
        ------
        CacheError
            The file is missing or damaged.
        """
        return read_predictions(self.predictions_path)

    def held_out(self) -> Predictions | None:
        """Read what it said of images that were held out of training, on which thresholds can be chosen.

        They are of validation or of all folds, before the last fit; None in records of earlier versions.

        Raises
        ------
        CacheError
            The file is missing or damaged.
        """
        return read_held_out(self.predictions_path)

    @property
    def answering(self) -> Answering | None:
        """How what it predicted is read, where it is not of classes."""
        return None if self.task == CLASSIFY else Answering(self.task, self.classes, self.thresholds)

    @property
    def backbones(self) -> tuple[str, ...]:
        """The names of the networks that an image goes through."""
        return (self.backbone,)

    @property
    def keys(self) -> tuple[str, ...]:
        """The model keys of these networks."""
        return (self.key,)

    @property
    def test_split(self) -> str:
        """How the test images were chosen: `given`, `drawn` from train, by `group`, or all of them in turn."""
        if self.cross_validation:
            return str(self.cross_validation)
        return "drawn" if self.split == GIVEN and "test" in (self.drawn or ()) else self.split

    @property
    def drawn_by(self) -> int:
        """The seed of a group split; records older than its name have it where the strategy took it from."""
        old = self.extract_arguments.get("seed", 0) if self.strategy == "finetune" else self.arguments["seed"]
        return int(old if self.split_seed is None else self.split_seed)

    @property
    def settings(self) -> dict[str, Any]:
        """The options that were in force: those that were asked for, and of a sweep what it chose."""
        return dict(self.arguments)

    @property
    def embedded(self) -> dict[str, Any]:
        """What decided the embeddings: the key, and of what is behind it that which can be told to people."""
        said = {name: getattr(self, name) for name in ("key", "weights", "pool", "precision", "preprocess")}
        return {**said, **{name: self.extract_arguments.get(name) for name in ("output", "dtype")}}

    def as_json(self) -> dict[str, Any]:
        """Return the record as it is on disk, which is what `--json` holds."""
        fields: dict[str, Any] = as_json(self)
        absent = ("licence", "uncertainty", "interval", "cross_validation")
        usual = {**dict.fromkeys(absent), "task": CLASSIFY, "thresholds": ()}
        for name in (name for name, value in usual.items() if getattr(self, name) == value):
            del fields[name]
        shared = ("strategy", *RunRecord.__struct_fields__)
        first = {name: fields[name] for name in shared if name in fields}  # for people's eyes
        candidates = [beside(each, "setting", "scores") for each in fields["candidates"]]
        return {**first, **fields, "test": self.test.as_json(), "candidates": candidates}


def fields_of_features(attrs: Mapping[str, Any], classes: Sequence[str]) -> dict[str, Any]:
    """Return the fields of a run that the feature file says: images, splits, network, and what embedding took."""
    embedded, split = identity_of(attrs), split_fields(attrs)
    same = ("dataset", "dataset_digest", "source", "backbone", "key", "weights")
    return {
        **{name: attrs[name] for name in same},
        "licence": attrs.get("licence"),
        **split,
        "task": task_of(attrs),
        "drawn": drawn_splits(attrs),
        "grouping": split["grouping"] and GroupedBy(**split["grouping"]),
        "classes": tuple(classes),
        **{name: embedded[name] for name in ("pool", "precision", "preprocess")},
        "extract": ExtractSeconds(**{stage: attrs[stage] for stage in STAGES}),
        "extract_arguments": extract_arguments(attrs),
    }


def apart(fields: Any, kind: type[Struct], rest: str) -> Any:
    """Return a JSON object with those of its fields that a struct does not have in one of their own, `rest`."""
    if not isinstance(fields, Mapping):
        return fields  # to be refused by whoever takes it for one
    known = {name: fields[name] for name in kind.__struct_fields__ if name in fields}
    own = {_ASKED + name: name for name in kind.__struct_fields__}
    return {**known, rest: {own.get(name, name): value for name, value in fields.items() if name not in known}}


def beside(fields: Mapping[str, Any], *inner: str) -> dict[str, Any]:
    """Return a JSON object with the fields of some objects in it in their place: the reverse of `apart`.

    A setting that is called as a field is, such as `epochs`, becomes `asked_epochs`.
    """
    outer = {name: value for name, value in fields.items() if name not in inner}
    pairs = ((name, value) for each in inner for name, value in fields.get(each, {}).items())
    return {**{_ASKED + name if name in outer else name: value for name, value in pairs}, **outer}
