"""Shards that many processes did -> the feature file, where the last of them did not get to it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tlcache.arguments import Features
from tlcache.cache.find import features_folder
from tlcache.errors import CacheError, TlcacheError
from tlcache.keys import native
from tlcache.options import described
from tlcache.progress import say

if TYPE_CHECKING:
    from tlcache.extraction.job import Extraction

__all__ = ["merge"]


@described()
def merge(features: Features = None) -> list[Extraction]:
    """Publish what jobs of `extract --shard` have finished, and say how far the others are; no image is read.

    Returns
    -------
    list of Extraction
        One for every network and dataset with shards; those with `shards` are not whole yet, and have no file. None
        where all that was in shards is published.

    Raises
    ------
    CacheError
        Nothing was ever extracted there, or what `extract` would raise of one of them; the others are published then.

    Examples
    --------
    >>> extract(photos, tiny_model, features=folder, shard="1/2").shards
    (2, 3)
    >>> [done.shards for done in merge(folder)]
    [(2, 3)]
    """
    from tlcache.extraction import extract
    from tlcache.extraction.job import Extraction

    root = features_folder(features)
    found = list(_begun(root))
    if not found and not any(root.glob("*/*.h5")):
        raise CacheError(f"Nothing under '{root}' is in shards. Begin with: tlcache extract --shard 1/2")
    request = {"features": str(root)}
    done, failed = [], []
    for folder, each in found:
        try:
            done.append(Extraction.from_json(extract.run_apart({**each, **request}, "merge")))
        except TlcacheError as error:  # it is no reason to leave the others
            failed.append(f"The shards in '{folder}' cannot be published: {error}")
    if failed:
        for one in done:
            say(f"{one.path}: {'shards are missing' if one.shards else 'published'}")
        raise CacheError("\n".join(failed))
    return done


def _begun(root: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Yield the folder and the arguments of every extraction that has a shard done."""
    from tlcache.extraction.ledgers import has_ledgers

    for run in sorted(root.glob("*/.*.parts/run.json")):
        if has_ledgers(run.parent):
            yield run.parent, native(json.loads(run.read_bytes()))["arguments"]
