"""A feature file -> its embeddings and all that is known of its rows, in a file that other programs read."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tlcache.arguments import DATA, OUTPUT
from tlcache.cache.attributes import identity_of
from tlcache.errors import OptionError
from tlcache.files import naming, whole
from tlcache.kinds import PATH
from tlcache.options import Option, described

if TYPE_CHECKING:
    from tlcache.cache.feature_file import FeatureFile

__all__ = ["dump"]

_SAID = ("dataset", "dataset_digest", "source", "backbone", "weights", "key", "drawn")


@described()
def dump(
    file: Annotated[str | Path, Option("A feature file", PATH, DATA, "FILE", more="See: tlcache ls")],
    to: Annotated[
        str | Path,
        Option("The .parquet, .npz or .csv file to write", PATH, OUTPUT, "--to", more="See docs/embeddings.md"),
    ],
) -> Path:
    """Write the embeddings of a feature file, with paths, hashes, labels, splits and groups, for other programs.

    Rows are read and written a block at a time, and checked; `tlcache.adopt` takes the file back bit for bit.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    CacheError, OptionError
        The feature file is damaged; another ending; pyarrow is missing.

    Examples
    --------
    >>> dump(feature_file, folder / "photos.npz").name
    'photos.npz'
    """
    from tlcache.cache.feature_file import FeatureFile
    from tlcache.datasets.splits import SPLITS
    from tlcache.exchange.writers import WRITERS

    target = Path(to).expanduser()
    if target.suffix.lower() not in WRITERS:
        raise OptionError(f"--to '{to}' is of no kind known here. Known: {', '.join(WRITERS)}.")
    writer = WRITERS[target.suffix.lower()]
    with FeatureFile(file) as opened, ExitStack() as made:
        unfinished = made.enter_context(whole(target))
        made.enter_context(naming(target))
        write = made.enter_context(writer(unfinished, opened.dim, _said(opened)))
        for block in opened.blocks():
            write({**block, "label": _names(opened, block["label"]), "split": [SPLITS[n] for n in block["split"]]})
    return target


def _said(file: FeatureFile) -> dict[str, Any]:
    """Return what the file says of itself that says what the embeddings are."""
    said = {name: file.attrs[name] for name in _SAID if name in file.attrs}
    identity = identity_of(file.attrs)
    nested = {"key_json": identity, "preprocess": identity["preprocess"]}
    return {**said, **nested, "classes": list(file.classes), "rows": len(file)}


def _names(file: FeatureFile, labels: Any) -> list[str]:
    return [file.classes[label] if file.classes else "" for label in labels.tolist()]
