"""Dataset + backbone -> feature file: what is there is reused, what is missing is embedded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

from tlcache.arguments import (
    DATA,
    NETWORK,
    OUTPUT,
    SPEED,
    BackboneWeights,
    BatchSize,
    Crop,
    CropBorders,
    Device,
    Features,
    JpegSize,
    Layers,
    MaxPixels,
    Model,
    Models,
    Name,
    OneDataset,
    Pool,
    Pools,
    Resize,
    SplitSeed,
    Weights,
    Window,
)
from tlcache.cache.find import features_folder, find_dataset
from tlcache.datasets.layout import Layout
from tlcache.errors import OptionError
from tlcache.files import check_folder
from tlcache.kinds import LARGEST, SHARE, SWITCH, choice, listing, number, numbers, text, whole
from tlcache.options import Option, check_names, described, parameters

if TYPE_CHECKING:
    from tlcache.extraction.job import Extraction

__all__ = ["extract", "extract_layers"]

_ENGINES, _PRECISIONS = choice(("auto", "onnxruntime", "openvino")), choice(("fp32", "fp16", "bf16", "int8"))
_DTYPES = choice(("float32", "float16"))
_RGB = numbers(3, "0.485,0.456,0.406")


def run_apart(arguments: Mapping[str, Any], work: str) -> dict[str, Any]:
    """Do it in a process of its own, whose side of things is not loaded for a command line's help."""
    from tlcache.extraction import sandbox

    return sandbox.run_apart(arguments, work)


@described(Layout)
def extract(
    data: OneDataset = "digits",
    model: Model = "mobilenetv3_large",
    weights: Weights = None,
    *,
    pool: Pool = None,
    output: Annotated[
        str | None,
        Option("Layer to take, as tlcache layers lists them", text("LAYER"), NETWORK, default="last"),
    ] = None,
    crop_borders: CropBorders = False,
    window: Window = None,
    jpeg_size: JpegSize = None,
    resize: Resize = None,
    crop: Crop = None,
    mean: Annotated[
        tuple[float, float, float] | None, Option("Of an .onnx file that does not say", _RGB, NETWORK)
    ] = None,
    std: Annotated[
        tuple[float, float, float] | None, Option("Of an .onnx file that does not say", _RGB, NETWORK)
    ] = None,
    channels: Annotated[
        str | None,
        Option("rgb, or bgr for an .onnx file", choice(("rgb", "bgr")), NETWORK),
    ] = None,
    range: Annotated[  # noqa: A002
        int | None, Option("White for an .onnx file: 1, or 255", whole(1), NETWORK)
    ] = None,
    device: Device = "auto",
    engine: Annotated[str, Option("onnxruntime, openvino, or auto: the faster", _ENGINES, SPEED)] = "onnxruntime",
    precision: Annotated[
        str,
        Option(
            "fp32, fp16 (GPU), bf16 (openvino) or int8 (CPU)",
            _PRECISIONS,
            SPEED,
            more="It decides the embeddings, so that those of each precision are kept apart (docs/speed.md)",
        ),
    ] = "fp32",
    dtype: Annotated[
        str,
        Option(
            "float32 or float16",
            _DTYPES,
            SPEED,
            more="Of the numbers that are kept: float16 takes half the room. Files of each are kept (docs/cache.md)",
        ),
    ] = "float32",
    file_size: Annotated[
        int,
        Option(
            "Largest file",
            LARGEST,
            OUTPUT,
            default="32GB",
            more="A feature file beyond it has its rows in several files in a folder beside it (docs/cache.md)",
        ),
    ] = 32 * 10**9,
    features: Features = None,
    name: Name = None,
    split_seed: SplitSeed = 0,
    batch_size: BatchSize = None,
    max_bad: Annotated[float, Option("Largest share of unusable images to go on with", number(0, 1), DATA)] = 0.05,
    max_pixels: MaxPixels = None,
    wait: Annotated[bool, Option("Wait for another that does the same", SWITCH, SPEED)] = True,
    shard: Annotated[
        str | None,
        Option(
            "Do one share of many, like 3/16",
            SHARE,
            SPEED,
            more="For jobs that share a folder: whoever is last publishes the file (docs/cluster.md)",
        ),
    ] = None,
    claim: Annotated[
        bool,
        Option(
            "Do what others have not begun",
            SWITCH,
            SPEED,
            more="After its own share, or alone: shards that are not done and that nobody works on",
        ),
    ] = False,
    ray: Annotated[
        str | None,
        Option(
            "On a Ray cluster: its address, or local",
            text("ADDR"),
            SPEED,
            more="local: one of this machine alone. Its nodes see the same folders (docs/cluster.md)",
        ),
    ] = None,
    labelled: bool = False,
    **layout: Any,
) -> Extraction:
    """Run a backbone once over a dataset and keep the embeddings in a feature file.

    Images whose embeddings are there already, under whatever name or folder, are not embedded again. A run that is
    stopped or killed continues where it was. The work is done in a process of its own, which an image that kills or
    hangs its decoder may take down: that image is listed as unusable and the run goes on.

    Parameters
    ----------
    labelled
        Raise DataError where the images have no labels, before any is embedded.

    Raises
    ------
    TlcacheError
        One of its kinds, for everything that the caller can mend.

    Examples
    --------
    >>> done = extract(photos, tiny_model, features=folder)
    >>> done.rows, done.embedded, done.quarantined
    (24, 24, 0)
    >>> extract(photos, tiny_model, features=folder).up_to_date
    True
    """
    from tlcache.extraction.job import Extraction

    given = {
        "data": data,
        "model": model,
        "weights": weights,
        "pool": pool,
        "output": output,
        "crop_borders": crop_borders,
        "window": window,
        "jpeg_size": jpeg_size,
        "resize": resize,
        "crop": crop,
        "mean": mean,
        "std": std,
        "channels": channels,
        "range": range,
        "device": device,
        "engine": engine,
        "precision": precision,
        "dtype": dtype,
        "file_size": file_size,
        "features": features,
        "name": name,
        "split_seed": split_seed,
        "batch_size": batch_size,
        "max_bad": max_bad,
        "max_pixels": max_pixels,
        "wait": wait,
        "shard": shard,
        "claim": claim,
        "ray": ray,
        "labelled": labelled,
    }
    return Extraction.from_json(run_apart(_request(given, layout), "extract"))


@described()
def extract_layers(
    data: OneDataset = "digits",
    model: Models = "mobilenetv3_large",
    layers: Layers = None,
    pool: Pools = None,
    *,
    weights: BackboneWeights = None,
    **options: Any,
) -> list[Extraction]:
    """Keep the embeddings of several layers of backbones, all of which run over a dataset together.

    Each has a feature file, which is the one that `extract` makes of it alone; those that are there are not made again.
    Images are read and decoded once for all backbones that take them in one size and crop.

    Parameters
    ----------
    **options
        As for `extract`.

    Returns
    -------
    list of Extraction
        One for every backbone, layer, and pooling that this has, in that order.

    Raises
    ------
    TlcacheError
        As `extract`; no such layer, or a pooling that none of them has.

    Examples
    --------
    >>> done = extract_layers(photos, "resnet20_cifar", ["stage:1", "last"], ["avg", "max"], features=folder)
    >>> [(each.output, each.pool, each.rows) for each in done]
    [('stage:1', 'avg', 24), ('stage:1', 'max', 24), (None, 'avg', 24), (None, 'max', 24)]
    """
    from tlcache.backbones.groups import ungrouped
    from tlcache.backbones.own_weights import weights_of
    from tlcache.extraction.job import Extraction

    known, of_layout = parameters(extract), parameters(Layout)
    check_names(extract, options)
    for name, value in options.items():
        known[name].check(value)
    given = {name: each.default for name, each in known.items() if name not in of_layout}
    given |= {name: value for name, value in options.items() if name not in of_layout}
    layout = {name: value for name, value in options.items() if name in of_layout}
    models = ungrouped(map(str, listing(model)))
    networks = [{"model": name, "weights": own} for name, own in weights_of(weights, models).items()]
    request = _request({**given, "data": data, "model": models[0], "pool": None, "labelled": False}, layout)
    wanted = {"networks": networks, "layers": _listed(layers), "pools": _listed(pool)}
    return [Extraction.from_json(each) for each in run_apart({**request, **wanted}, "layers")["files"]]


def _listed(names: str | Sequence[str] | None) -> list[str | None]:
    return [None] if names is None else listing(names)


def _request(given: Mapping[str, Any], layout: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of an extraction as the process that does it takes them; raises OptionError."""
    if given["ray"] and (given["shard"] or given["claim"]):
        raise OptionError("--ray deals out all shards itself; leave --shard and --claim out.")
    place, name, understood = find_dataset(given["data"], given["name"], layout, given["features"])
    folder = str(check_folder(features_folder(given["features"]), "--features"))
    own = {**given, "data": place, "name": name, "model": str(given["model"]), "features": folder}
    return {"seed": own.pop("split_seed"), **own, **understood.arguments}
