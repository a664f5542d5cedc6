"""Dataset + backbone -> feature file: what is there is reused, what is missing is embedded."""

from __future__ import annotations

from pathlib import Path

from tlcache.cache.find import features_folder
from tlcache.extraction.job import Extraction
from tlcache.extraction.sandbox import run_apart
from tlcache.files import check_folder

__all__ = ["extract"]


def extract(
    data: str | Path = "digits",
    model: str | Path = "mobilenetv3_large",
    weights: str | None = None,
    *,
    pool: str | None = None,
    output: str | None = None,
    crop_borders: bool = False,
    resize: int | None = None,
    crop: int | None = None,
    mean: tuple[float, float, float] | None = None,
    std: tuple[float, float, float] | None = None,
    device: str = "auto",
    engine: str = "onnxruntime",
    precision: str = "fp32",
    features: str | Path | None = None,
    name: str | None = None,
    split_seed: int = 0,
    batch_size: int | None = None,
    max_bad: float = 0.05,
    wait: bool = True,
) -> Extraction:
    """Run a backbone once over a dataset and keep the embeddings in a feature file.

    Images whose embeddings are there already, under whatever name or folder, are not embedded again. A run that is
    stopped or killed continues where it was. The work is done in a process of its own, which an image that kills or
    hangs its decoder may take down: that image is listed as unusable and the run goes on.

    Parameters
    ----------
    data, name
        A dataset as for `tlcache.datasets.dataset.load_dataset`, and a name for it.
    model, weights, pool, output, crop_borders, resize, crop, mean, std
        The backbone as for `tlcache.backbones.load.load_model`.
    device
        `auto`, `cpu` or `cuda`.
    engine
        What runs the network: `onnxruntime` or `openvino`.
    precision
        Of the network's arithmetic, part of the key: `fp32`, `fp16` (ONNX Runtime on a GPU) or `bf16` (OpenVINO).
    features
        Folder of feature files; default `TLCACHE_FEATURES` or `features`.
    split_seed
        Of the splits that have to be drawn.
    batch_size
        Images per call of the network; default: what is fast on the device.
    max_bad
        Largest share of unusable images to go on with.
    wait
        Wait for another process that extracts the same features; otherwise that is an error.

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
    arguments = {
        "data": str(data),
        "model": str(model),
        "weights": weights,
        "pool": pool,
        "output": output,
        "crop_borders": crop_borders,
        "resize": resize,
        "crop": crop,
        "mean": mean,
        "std": std,
        "device": device,
        "engine": engine,
        "precision": precision,
        "features": str(check_folder(features_folder(features), "--features")),
        "name": name,
        "seed": split_seed,
        "batch_size": batch_size,
        "max_bad": max_bad,
        "wait": wait,
    }
    return Extraction.from_json(run_apart(arguments))
