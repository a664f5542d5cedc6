"""Images, and a dataset that is embedded -> those of its images that are most similar to each."""

from __future__ import annotations

from collections.abc import Iterable
from os import PathLike
from typing import Annotated

from tlcache.arguments import CHOOSING, BatchSize, Device, Features, LookedAtBy, OneDataset
from tlcache.kinds import listing, whole
from tlcache.options import Option, described
from tlcache.pictures.found import Similar

__all__ = ["similar"]


@described()
def similar(
    images: str | PathLike[str] | Iterable[str | PathLike[str]],
    data: OneDataset,
    n: Annotated[int, Option("How many of each", whole(1), CHOOSING, "--number", "-n")] = 10,
    *,
    model: LookedAtBy = None,
    features: Features = None,
    device: Device = "auto",
    batch_size: BatchSize = None,
) -> Similar:
    """Find the images of a cached dataset that are most similar to others.

    Images that are not cached are embedded by the network of the dataset; nothing is added to the cache. All images of
    the dataset are compared, by the cosine of whitened embeddings, as `tlcache.audit` compares them.

    Parameters
    ----------
    images
        Files, folders, archives, tables of paths or patterns, as for `tlcache.predict`; or paths of the dataset's own
        images, which need not be there any more.

    Raises
    ------
    CacheError, DataError, OptionError
        The dataset is not embedded; there is no image at a place; no image is given.
    ModelError, WeightsError, DeviceError
        The network is another one by now, or cannot be had or run.

    Examples
    --------
    >>> found = similar(photos / "red" / "0.png", "photos", 2, features=feature_file.parents[1])
    >>> [(each.label, round(each.cosine, 3), each.same) for each in found.asked[0].similar][0]
    ('red', 1.0, True)
    """
    from tlcache.cache.feature_file import FeatureFile
    from tlcache.cache.find import find_file
    from tlcache.pictures.search import search

    with FeatureFile(find_file(data, model, features)) as file:
        how = {"features": features, "device": device, "batch_size": batch_size}
        return search(file, [str(each) for each in listing(images)], n, **how)
