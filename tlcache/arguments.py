"""The options that several commands have: one meaning and one description each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

from tlcache.kinds import PATH, SECONDS, SWITCH, choice, chosen_from, several, text, whole
from tlcache.options import Option

__all__ = [
    "CHOOSING",
    "DATA",
    "NETWORK",
    "OUTPUT",
    "SPEED",
    "TRAINING",
    "BackboneWeights",
    "Budget",
    "ClassWeight",
    "Crop",
    "CropBorders",
    "Datasets",
    "Device",
    "Features",
    "Force",
    "Heads",
    "Model",
    "Models",
    "Name",
    "OneDataset",
    "OnlyDatasets",
    "Paths",
    "Pool",
    "Resize",
    "Runs",
    "Seed",
    "Split",
    "SplitSeed",
    "Weights",
]

# The panels of --help, in this order.
DATA, NETWORK, CHOOSING, TRAINING, SPEED, OUTPUT = "Data", "Network", "Choosing", "Training", "Speed", "Output"

_DATA = "a name of what is cached, a folder, a manifest, or a built-in name"
_DATASET, _BACKBONE = text("DATA"), text("NAME")
_WEIGHTS = "imagenet, imagenet_v2, embedded, random, or a FILE with a state dict"

OneDataset = Annotated[
    str | Path, Option(f"Dataset: {_DATA}", PATH, DATA, "--data", "-d", more="See: tlcache datasets")
]
Datasets = Annotated[
    str | Path | Sequence[str | Path],
    Option(f"Datasets: {_DATA}", several(PATH), DATA, "--data", "-d", more="See: tlcache datasets"),
]
OnlyDatasets = Annotated[
    str | Path | Sequence[str | Path] | None,
    Option("Of these datasets alone, by name, folder or manifest", several(PATH), DATA, "--data", "-d", default="all"),
]
Name = Annotated[
    str | None, Option("What the dataset is called in files and tables", text("NAME"), DATA, default="the folder's")
]
Paths = Annotated[
    str | Path | Sequence[str | Path] | None,
    Option("Feature files, or folders of them", several(PATH), DATA, default="all under --features"),
]
Split = Annotated[
    str,
    Option(
        "given, or group: drawn anew so that no group of tlcache audit is torn apart",
        choice(("given", "group")),
        DATA,
    ),
]
SplitSeed = Annotated[int, Option("Of splits that are drawn; give every command the same", whole(), DATA)]

Model = Annotated[
    str, Option("Backbone, or an .onnx file. See: tlcache models", text("NAME"), NETWORK, "--model", "-m")
]
Models = Annotated[
    str | Sequence[str],
    Option("Backbones, or .onnx files. See: tlcache models", several(text("NAME")), NETWORK, "--model", "-m"),
]
Weights = Annotated[
    str | None, Option(_WEIGHTS, text("FILE"), NETWORK, "--weights", "-w", default="the first that the backbone has")
]
BackboneWeights = Annotated[
    str | Sequence[str] | Mapping[str, str] | None,
    Option(
        f"{_WEIGHTS}; BACKBONE=FILE for each of several",
        several(text("FILE")),
        NETWORK,
        "--weights",
        "-w",
        default="the first that each has",
    ),
]
Pool = Annotated[
    str | None,
    Option("avg, max, flatten; cls for transformers; quarters", text("NAME"), NETWORK, default="the backbone's own"),
]
CropBorders = Annotated[bool, Option("Cut dark borders of scans away first", SWITCH, NETWORK)]
Resize = Annotated[int | None, Option("Short side in pixels", whole(1), NETWORK, default="the backbone's own")]
Crop = Annotated[
    int | None, Option("Side of the centre crop in pixels", whole(1), NETWORK, default="the backbone's own")
]
Heads = Annotated[
    str | Sequence[str] | None,
    Option("Heads. See: tlcache heads", several(chosen_from("tlcache.heads.table:HEADS")), NETWORK, default="all"),
]

ClassWeight = Annotated[
    str | None,
    Option("balanced: every class counts the same", choice(("balanced",)), TRAINING, default="every image does"),
]
Seed = Annotated[
    int,
    Option("Of everything random in training: order, folds, augmentation", whole(0, 2**32 - 1), TRAINING),
]
Budget = Annotated[float | None, Option("Time, like 90s, 30m or 2h", SECONDS, SPEED, "--budget", default="none")]
Device = Annotated[str, Option("auto, cpu or cuda", choice(("auto", "cpu", "cuda")), SPEED)]

Features = Annotated[
    str | Path | None, Option("Folder of feature files", PATH, OUTPUT, default="TLCACHE_FEATURES, or features")
]
Runs = Annotated[str | Path | None, Option("Folder of run records", PATH, OUTPUT, default="TLCACHE_RUNS, or runs")]
Force = Annotated[bool, Option("Do it even if this very run is recorded", SWITCH, OUTPUT)]
