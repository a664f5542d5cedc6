"""Dataset + backbone -> feature file: what is there is reused, what is missing is embedded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

from tlcache.arguments import (
    DATA,
    NETWORK,
    SPEED,
    BatchSize,
    Crop,
    CropBorders,
    Device,
    Features,
    MaxPixels,
    Model,
    Name,
    OneDataset,
    Pool,
    Resize,
    SplitSeed,
    Weights,
    Window,
)
from tlcache.cache.find import features_folder, find_dataset
from tlcache.datasets.layout import Layout
from tlcache.files import check_folder
from tlcache.kinds import SWITCH, choice, number, numbers, text, whole
from tlcache.options import Option, described

if TYPE_CHECKING:
    from tlcache.extraction.job import Extraction

__all__ = ["extract"]

_ENGINES, _PRECISIONS = choice(("onnxruntime", "openvino")), choice(("fp32", "fp16", "bf16"))
_RGB = numbers(3, "0.485,0.456,0.406")


def run_apart(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Do it in a process of its own, whose side of things is not loaded for a command line's help."""
    from tlcache.extraction import sandbox

    return sandbox.run_apart(arguments)


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
    engine: Annotated[str, Option("What runs the network: onnxruntime or openvino", _ENGINES, SPEED)] = "onnxruntime",
    precision: Annotated[
        str,
        Option(
            "Of the network: fp32; fp16 (onnxruntime on a GPU); bf16 (openvino)",
            _PRECISIONS,
            SPEED,
            more="It decides the embeddings, so that those of each precision are kept apart",
        ),
    ] = "fp32",
    features: Features = None,
    name: Name = None,
    split_seed: SplitSeed = 0,
    batch_size: BatchSize = None,
    max_bad: Annotated[float, Option("Largest share of unusable images to go on with", number(0, 1), DATA)] = 0.05,
    max_pixels: MaxPixels = None,
    wait: Annotated[bool, Option("Wait when another process extracts the same", SWITCH, SPEED)] = True,
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

    place, name, understood = find_dataset(data, name, layout, features)
    arguments = {
        "data": place,
        "model": str(model),
        "weights": weights,
        "pool": pool,
        "output": output,
        "crop_borders": crop_borders,
        "window": window,
        "resize": resize,
        "crop": crop,
        "mean": mean,
        "std": std,
        "channels": channels,
        "range": range,
        "device": device,
        "engine": engine,
        "precision": precision,
        "features": str(check_folder(features_folder(features), "--features")),
        "name": name,
        "seed": split_seed,
        "batch_size": batch_size,
        "max_bad": max_bad,
        "max_pixels": max_pixels,
        "wait": wait,
        "labelled": labelled,
        **understood.arguments,
    }
    return Extraction.from_json(run_apart(arguments))
