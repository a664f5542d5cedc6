"""The options that several commands have: one meaning and one description each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

from tlcache.errors import OptionError
from tlcache.kinds import (
    PATH,
    RATE,
    SECONDS,
    SIZE,
    SWITCH,
    Kind,
    choice,
    chosen_from,
    listing,
    number,
    numbers,
    pattern,
    several,
    text,
    whole,
)
from tlcache.options import Option
from tlcache.tasks import CLASSIFY, MULTILABEL, REGRESSION

__all__ = [
    "Against",
    "AskedRun",
    "CHOOSING",
    "DATA",
    "DATASET",
    "FIGURE",
    "GIVEN",
    "NETWORK",
    "OUTPUT",
    "PANELS",
    "SPEED",
    "TRAINING",
    "BackboneWeights",
    "BatchSize",
    "Best",
    "BestOf",
    "By",
    "Budget",
    "CardsPage",
    "ChosenLayers",
    "ClassWeight",
    "Columns",
    "ComparedBy",
    "Coverage",
    "Crop",
    "CrossValidated",
    "CropBorders",
    "Datasets",
    "Device",
    "Drop",
    "Features",
    "Force",
    "GroupBy",
    "GroupRegex",
    "Heads",
    "Join",
    "JpegSize",
    "Joins",
    "JudgedModels",
    "Layers",
    "LoneModel",
    "LookedAtBy",
    "MapRun",
    "MaxPixels",
    "Memory",
    "MaybeModel",
    "MaybeRun",
    "MaybeColumns",
    "MaybeShots",
    "Model",
    "Models",
    "Name",
    "OneDataset",
    "OneRun",
    "OnlyDatasets",
    "OnnxFile",
    "Overwrite",
    "Page",
    "Paths",
    "PerClass",
    "Pool",
    "Pools",
    "Regroup",
    "Repair",
    "Resize",
    "Runs",
    "Samples",
    "Seed",
    "Shots",
    "Split",
    "Thumbnail",
    "SplitSeed",
    "Weights",
    "Window",
    "check_coverage",
    "check_task",
]

PANELS = DATA, NETWORK, CHOOSING, TRAINING, SPEED, OUTPUT = (  # of --help, in this order
    "Data",
    "Network",
    "Choosing",
    "Training",
    "Speed",
    "Output",
)

FIGURE = replace(
    chosen_from("tlcache.evaluation.task:figure_names"),
    read=lambda word: {"ap": "average_precision"}.get(word, word),
)


def _models() -> Iterable[str]:
    import tlcache

    return [row.name for row in tlcache.list_models()]


def _datasets() -> Iterable[str]:
    import tlcache

    return sorted({entry.dataset for entry in tlcache.list_cache()})


GIVEN = Kind("paths", "PATH", "paths", str, lambda value: bool(listing(value)), gather=list)
DATASET = Kind("a name or a path", "DATA", "str or Path", str, PATH.allows)
_MODEL = Kind("a name or a path", "NAME", "str or Path", str, PATH.allows)
_RUN = Kind("a name or a path", "RUN", "str or Path", str, PATH.allows)
_ANY_DATA = "A name of what is cached, a folder, a manifest, or a built-in name"
_LIST, _FORMS, _OWN = "See: tlcache models", "See: tlcache datasets", "the backbone's own"
_WEIGHTS = "imagenet, imagenet_v2, embedded, random, a tag of timm, or a FILE of weights"


def _dataset(help: str, kind: Kind = DATASET, default: str = "", more: str = "") -> Option:
    return Option(help, kind, DATA, "--data", "-d", default, more, _datasets)


def _model(help: str, kind: Kind = _MODEL, default: str = "", more: str = "") -> Option:
    return Option(help, kind, NETWORK, "--model", "-m", default, more, _models)


def _run(help: str, flag: str = "--run", default: str = "") -> Option:
    return Option(help, _RUN, DATA, flag, default=default, more="See: tlcache runs")


OneDataset = Annotated[str | Path, _dataset(_ANY_DATA, more=_FORMS)]
Datasets = Annotated[str | Path | Sequence[str | Path], _dataset(_ANY_DATA, several(DATASET), more=_FORMS)]
OnlyDatasets = Annotated[
    str | Path | Sequence[str | Path] | None,
    _dataset("Of these datasets alone, by name, folder or manifest", several(DATASET), "all"),
]
Best = Annotated[bool, Option("Take the best run of --data, which compare has first", SWITCH, DATA)]
BestOf = Annotated[str | Path | None, _dataset("With --best: of this dataset", default="the only one with runs")]
Paths = Annotated[
    str | Path | Sequence[str | Path] | None,
    Option("Feature files, or folders of them", several(PATH), DATA, "PATHS", default="all under --features"),
]
Name = Annotated[
    str | None,
    Option(
        "Name in files and tables",
        text("NAME"),
        DATA,
        default="as its folder, or labels of labels.csv",
    ),
]
Split = Annotated[
    str,
    Option("given, or group: drawn anew, no group of tlcache audit torn apart", choice(("given", "group")), DATA),
]
SplitSeed = Annotated[int, Option("Of splits that are drawn", whole(), DATA, more="Give every command the same")]

Model = Annotated[str | Path, _model("Backbone, or an .onnx file", more=_LIST)]
Models = Annotated[
    str | Path | Sequence[str | Path],
    _model("Backbones, .onnx files, or a group: study, modern", several(_MODEL), more=_LIST),
]
ComparedBy = Annotated[str | None, _model("Backbone to compare images by", default="which tells copies best")]
MaybeModel = Annotated[str | None, _model("Backbone to compare images by", default="the run's, or the first")]
LookedAtBy = Annotated[
    str | None,
    _model(
        "Backbone whose embeddings are taken",
        default="the first",
        more="Where it has several feature files, the name of one without .h5",
    ),
]
JudgedModels = Annotated[
    str | Sequence[str] | None, _model("Runs on these backbones alone", several(_MODEL), default="all")
]
LoneModel = Annotated[str | Path | None, _model("A network alone, without a head: a backbone", more=_LIST)]
_ONE_RUN = _run("A run: its record (.json), what is beside it (.safetensors), or their name", "RUN")
OneRun = Annotated[str | Path, _ONE_RUN]
MaybeRun = Annotated[str | Path | None, _ONE_RUN]
AskedRun = Annotated[str | Path | None, _run("A run of fit-heads, to ask what it is unsure of")]
MapRun = Annotated[str | Path | None, _run("A run, to show what it predicts", default="the best of the dataset")]
Against = Annotated[
    str | Path | Sequence[str | Path] | None,
    Option("Datasets that it does not know, embedded by the same network", several(DATASET), DATA, hints=_datasets),
]
Weights = Annotated[str | None, Option(_WEIGHTS, text("FILE"), NETWORK, "--weights", "-w", default="the first it has")]
BackboneWeights = Annotated[
    str | Sequence[str] | Mapping[str, str] | None,
    Option(
        f"{_WEIGHTS}; BACKBONE=FILE for each of several",
        several(text("FILE")),
        NETWORK,
        "--weights",
        "-w",
        default="each one's first",
    ),
]
_POOLS, _WHICH = "avg, max, gem, flatten; cls, cls+avg", "Which of them a layer has, tlcache layers says"
Pool = Annotated[str | None, Option(_POOLS, text("NAME"), NETWORK, default=_OWN, more=_WHICH)]
Pools = Annotated[
    str | Sequence[str] | None, Option(_POOLS, several(text("NAME")), NETWORK, "--pool", default=_OWN, more=_WHICH)
]
Layers = Annotated[
    str | Sequence[str] | None,
    Option(
        "Layers to take, as tlcache layers lists them",
        several(text("NAME")),
        NETWORK,
        short="--output",
        default="last",
        more="Of an .onnx file any tensors",
    ),
]
ChosenLayers = Annotated[
    str | Sequence[str] | None,
    Option(
        "Choose among these cached layers of a network on validation; all: every layer and pooling",
        several(text("NAME")),
        CHOOSING,
        "--layers",
        default="each file by itself",
    ),
]
CropBorders = Annotated[bool, Option("Cut dark borders of scans away first", SWITCH, NETWORK)]
Window = Annotated[
    tuple[float, float] | None,
    Option(
        "Grey values for black and white",
        numbers(2, "-160,240"),
        NETWORK,
        default="by its own bits",
        more="In images of more than 8 bits: CT in Hounsfield units, thermal and other measured values",
    ),
]
MaxPixels = Annotated[
    int | None,
    Option(
        "Largest image to read, in pixels",
        whole(1),
        DATA,
        default="89,478,485",
        more="JPEGs take little memory whatever their size, others 4 bytes a pixel and more",
    ),
]
Resize = Annotated[int | None, Option("Short side in pixels", whole(1), NETWORK, default=_OWN)]
Crop = Annotated[int | None, Option("Side of the centre crop in pixels", whole(1), NETWORK, default=_OWN)]
JpegSize = Annotated[
    str | None,
    Option(
        "full, twice or nearest size of JPEGs",
        choice(("full", "twice", "nearest")),
        NETWORK,
        more=(
            "Large ones are decoded at a half, a quarter or an eighth, not below twice the size needed, as by default, "
            "or not below that size. It decides the embeddings, so that those of each are kept apart (docs/images.md)"
        ),
    ),
]
Heads = Annotated[
    str | Sequence[str] | None,
    Option(
        "Which heads to fit",
        several(chosen_from("tlcache.heads.table:HEADS")),
        NETWORK,
        "--heads",
        default="all",
        more="See: tlcache heads",
    ),
]

Join = Annotated[
    str | Sequence[str] | None,
    Option(
        "Fit on joined embeddings of several backbones alone, like resnet50+mobilenetv2",
        several(text("A+B")),
        NETWORK,
        more="Of a backbone with several feature files, the name of one of these without .h5",
    ),
]

Joins = Annotated[
    str | Sequence[str] | None,
    Option(
        "Fit heads on these backbones together, too, like resnet50+mobilenetv2",
        several(text("A+B")),
        NETWORK,
        "--join",
    ),
]

GroupBy = Annotated[
    str | None,
    Option("near-duplicates, regex or column", text("NAME"), CHOOSING, default="the manifest's column, else the first"),
]
GroupRegex = Annotated[
    str | None,
    Option("Group by what the first bracket finds in a path, as in '/(p[0-9]+)_'", text("REGEX"), CHOOSING),
]
Drop = Annotated[
    str | Sequence[str],
    Option(
        "With --write: what to leave out",
        several(chosen_from("tlcache.auditing.dropping:DROPS")),
        CHOOSING,
        more="Of a leak the image that is not in test; of duplicates all but one",
    ),
]
Regroup = Annotated[
    bool,
    Option(
        "With --write: draw the splits anew, no group torn apart",
        SWITCH,
        CHOOSING,
        more="As fit-heads --split group does",
    ),
]
Overwrite = Annotated[bool, Option("With --write: replace what is there", SWITCH, OUTPUT)]


def _shots(word: str) -> int | None:
    return None if word == "all" else int(word)


def _is_shots(value: object) -> bool:
    return value is None or (type(value) is int and value > 0)


_SHOTS = Option(
    "Labelled images per class, like 1,2,4,8,all: how many are enough?",
    several(Kind("numbers of images per class from 1 on, or all", "N", "int or None", _shots, _is_shots)),
    CHOOSING,
    more="Drawn from train and val together; in Python None is all",
)
Shots = Annotated[Sequence[int | None], _SHOTS]
MaybeShots = Annotated[Sequence[int | None] | None, _SHOTS]
Samples = Annotated[
    int,
    Option(
        "Random samples for each number of --shots",
        whole(1),
        CHOOSING,
        more="Their seeds begin with --seed; those of one seed are nested",
    ),
]

_COLUMNS = Option(
    "Compare images with other columns of their table, like site,age",
    several(text("NAME")),
    CHOOSING,
    more="Heads are fitted on images alone, on these alone, and on both",
)
Columns = Annotated[str | Sequence[str], _COLUMNS]
MaybeColumns = Annotated[str | Sequence[str] | None, _COLUMNS]

ClassWeight = Annotated[
    str | None,
    Option("balanced: every class counts the same", choice(("balanced",)), TRAINING, default="none"),
]
Seed = Annotated[int, Option("Of all that is random in training: order, folds, layers", whole(0, 2**32 - 1), TRAINING)]

Budget = Annotated[
    float | None,
    Option(
        "Time to stay within, like 90s, 30m or 2h",
        SECONDS,
        SPEED,
        "--budget",
        default="none",
        more="A number alone is seconds",
    ),
]
By = Annotated[
    str,
    Option(
        "Figure of the test images to compare by",
        FIGURE,
        CHOOSING,
        more="See docs/statistics.md; ap: average_precision",
    ),
]
Positive = Annotated[
    str | None, Option("With --at: the class to be found, all others being the rest", text("CLASS"), CHOOSING)
]
At = Annotated[
    tuple[str, float] | None,
    Option("With --positive: hold specificity=0.9 or sensitivity=0.9, by a threshold from validation", RATE, CHOOSING),
]
Margin = Annotated[
    float | None,
    Option(
        "Also say which runs are as good as the picked one, up to so many points",
        number(above=0, most=100),
        CHOOSING,
        default="only differences are tested",
        more="Points are hundredths of the figure that is compared by. See docs/statistics.md",
    ),
]
CrossValidated = Annotated[
    str | None,
    Option(
        "Test by cross-validation: folds, or folds x repetitions, like 5x2",
        pattern(r"([2-9]|[1-9][0-9]+)(x[1-9][0-9]*)?", "KxR", "folds, from 2 on, or folds x repetitions, like 5x2"),
        CHOOSING,
        default="the test split",
        more=(
            "Settings are chosen inside each fold, groups and byte-identical images stay together; of all images, or "
            "where the dataset itself sets test images apart, of the others"
        ),
    ),
]
Coverage = Annotated[
    float | None,
    Option(
        "Keep what sets of classes need that hold the right one this often, like 0.9",
        number(above=0, below=1),
        CHOOSING,
        default="none",
        more="Also what abstaining and calling images unusual need (docs/uncertainty.md)",
    ),
]
PerClass = Annotated[bool, Option("With --coverage: hold it in every class, not only over all", SWITCH, CHOOSING)]


def check_coverage(coverage: float | None, per_class: bool) -> None:
    """Raise OptionError where there is nothing that is to hold in every class."""
    if per_class and coverage is None:
        raise OptionError("--per-class is of the sets of --coverage; give both.")


_LEARNED = {CLASSIFY: "classes", MULTILABEL: "several labels", REGRESSION: "numbers"}
_OF_TASKS = {"coverage": (CLASSIFY, REGRESSION)}  # all others that are checked are of classes alone


def folds_of(cv: str) -> tuple[int, int]:
    """Return folds and repetitions, of which there is one where nothing else is said.

    >>> folds_of("5x2"), folds_of("5")
    ((5, 2), (5, 1))
    """
    folds, _, repeats = cv.partition("x")
    return int(folds), int(repeats or 1)


def spelled(cv: str) -> str:
    """Return folds and repetitions as records have them.

    >>> spelled("5")
    '5x1'
    """
    return "{}x{}".format(*folds_of(cv))


def check_task(task: str, **given: object) -> None:
    """Raise OptionError where an option is given, by its name, that means nothing with what is learned."""
    for name in (name for name, value in given.items() if value):
        tasks = _OF_TASKS.get(name, (CLASSIFY,))
        if task not in tasks:
            flag, of = f"--{name.replace('_', '-')}", " and of ".join(_LEARNED[each] for each in tasks)
            raise OptionError(f"{flag} is of {of}, and the labels are of --task {task}; leave it out.")


Memory = Annotated[
    int | None,
    Option(
        "Memory for embeddings; what is more lies on disk",
        SIZE,
        SPEED,
        default="half of what is free",
        more="Like 4GB. Figures are the same; the disk is that of TLCACHE_CACHE (docs/cluster.md)",
    ),
]
BatchSize = Annotated[
    int | None,
    Option(
        "Images at a time", whole(1), SPEED, default="by device", more="Per call of the network; fewer of large ones"
    ),
]
Device = Annotated[str, Option("auto, cpu or cuda", choice(("auto", "cpu", "cuda")), SPEED)]

OnnxFile = Annotated[str | Path, Option("The .onnx file to write", PATH, OUTPUT, "--out", "-o")]
Thumbnail = Annotated[
    int, Option("How much of the page small pictures may take", SIZE, OUTPUT, "--thumbnails", default="20MB")
]
CardsPage = Annotated[Path | None, Option("Write it as a page with pictures, .html", PATH, OUTPUT, "--page")]
Page = Annotated[str | Path, Option("The report; .md and .csv are written beside it", PATH, OUTPUT, "--out", "-o")]
Repair = Annotated[
    bool,
    Option(
        "Extract again: damaged and new images are computed",
        SWITCH,
        OUTPUT,
        more="The dataset and the weights have to be where they were; rows that are intact are kept",
    ),
]
Features = Annotated[
    str | Path | None, Option("Folder of feature files", PATH, OUTPUT, default="TLCACHE_FEATURES, else features")
]
Runs = Annotated[str | Path | None, Option("Folder of run records", PATH, OUTPUT, default="TLCACHE_RUNS, else runs")]
Force = Annotated[bool, Option("Do it even if this very run is recorded", SWITCH, OUTPUT)]
