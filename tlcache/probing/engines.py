"""How fast each engine and precision runs a network here, and what each costs in accuracy on given images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tlcache.arguments import DATA, SPEED, Device, Features, Model, Name, Weights
from tlcache.kinds import PATH, Kind, number, whole
from tlcache.options import Option, described

if TYPE_CHECKING:
    from tlcache.probing.costs import EngineCost

__all__ = ["engines"]

_DATA = Kind("a name or a path", "DATA", "str or Path", str, PATH.allows)


@described()
def engines(
    model: Model = "mobilenetv3_large",
    weights: Weights = None,
    data: Annotated[
        str | Path | None, Option("Say what each costs in accuracy on these images, too", _DATA, DATA, "--data", "-d")
    ] = None,
    *,
    name: Name = None,
    sample: Annotated[int, Option("How many images of --data to take", whole(10), DATA)] = 600,
    device: Device = "auto",
    seconds: Annotated[float, Option("How long each runs", number(above=0), SPEED)] = 3.0,
    features: Features = None,
) -> list[EngineCost]:
    """Time the engines and precisions that are here on a network, and say what each costs in accuracy.

    With data, a sample of the images that are not for testing, drawn by a seed, is embedded in each way. Nothing of it
    is kept, save for networks that were exported or converted.

    Returns
    -------
    list of EngineCost
        The first that runs is the one that others are compared with: ONNX Runtime in fp32.

    Raises
    ------
    TlcacheError
        No such network or dataset, images that cannot be used, or too few of them.

    Examples
    --------
    >>> first, *others = engines(tiny_model, seconds=0.03, device="cpu")
    >>> first.engine, first.precision, first.times
    ('onnxruntime', 'fp32', 1.0)
    """
    from tlcache.cache.find import find_dataset
    from tlcache.datasets.dataset import load_dataset
    from tlcache.datasets.layout import Layout
    from tlcache.probing.costs import measure_engines

    dataset = None
    if data is not None:
        place, called, understood = find_dataset(data, name, {}, features)
        dataset = load_dataset(place, called, Layout.of(understood.arguments))
    return measure_engines(str(model), weights, dataset, sample, device=device, seconds=seconds)
