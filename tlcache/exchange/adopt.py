"""Embeddings that were made elsewhere -> a feature file, which all that works on embeddings takes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tlcache.arguments import DATA, DATASET, NETWORK, Features, SplitSeed
from tlcache.cache.find import features_folder
from tlcache.datasets.layout import Layout
from tlcache.errors import OptionError
from tlcache.files import check_folder
from tlcache.kinds import PATH, text
from tlcache.options import Option, dealt, described

if TYPE_CHECKING:
    from tlcache.exchange.publish import Adoption

__all__ = ["adopt"]


@described(Layout)
def adopt(
    embeddings: Annotated[
        str | Path, Option("A .parquet, .npz, .npy, .h5 or .csv file of embeddings", PATH, DATA, "EMBEDDINGS")
    ],
    name: Annotated[
        str | None,
        Option(
            "What the network that made them is called, in files and tables",
            text("NAME"),
            NETWORK,
            "--name",
            default="as a dumped file says",
        ),
    ] = None,
    data: Annotated[
        str | Path | None,
        Option(
            "Labels: a folder, a manifest, a dataset", DATASET, DATA, "--data", "-d", default="as the file itself says"
        ),
    ] = None,
    *,
    features_key: Annotated[
        str | None,
        Option("Which array or column has the embeddings", text("NAME"), DATA, default="the only one that can"),
    ] = None,
    features: Features = None,
    split_seed: SplitSeed = 0,
    **layout: Any,
) -> Adoption:
    """Turn embeddings that were made elsewhere into a feature file, with all the checks.

    Rows are matched to images by their ids: paths, names, or names without an ending. A bare `.npy` has none: then rows
    are in the order of the manifest's lines, or of the folder's paths, and there must be as many.

    Raises
    ------
    DataError, OptionError, CacheError
        Numbers that are not finite, ids that come twice or match nothing, another number of rows than images, several
        arrays that may be the embeddings; no name; a place that cannot be written.

    Examples
    --------
    >>> found = adopt(dump(feature_file, folder / "photos.npz"), "mine", features=folder / "features")
    >>> found.backbone, found.rows, found.dim
    ('mine', 24, 8)
    """
    (understood,) = dealt(layout, Layout)
    if not str(embeddings):
        raise OptionError("No file of embeddings is given.")
    from tlcache.exchange.publish import publish_given

    folder = check_folder(features_folder(features), "--features")
    return publish_given(Path(embeddings).expanduser(), name, data, features_key, folder, split_seed, understood)
