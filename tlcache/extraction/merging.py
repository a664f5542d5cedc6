"""What many processes did of a feature file -> the file, where all its shards are done."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

from tlcache.cache.shards import find_shards
from tlcache.datasets.overview import Overview
from tlcache.errors import CacheError
from tlcache.extraction.job import EmbedResult, Extraction
from tlcache.extraction.ledgers import Progress
from tlcache.extraction.rows import unusable_lines
from tlcache.extraction.target import Target, named_seconds
from tlcache.keys import few
from tlcache.machine import peak_rss_bytes
from tlcache.text import counted

__all__ = ["merged"]


def merged(
    target: Target,
    own: EmbedResult,
    shards: Sequence[int],
    overview: Overview,
    wait: bool,
    seed: int,
    max_bad: float,
    started: float,
) -> Extraction:
    """Publish what the ledgers of all shards say, as `Target.published` does; no image is read.

    Parameters
    ----------
    target
        The file.
    own
        What this process did of it; only that is counted as embedded now.
    shards
        Numbers of those that it was asked for: of these it is said which images cannot be used.
    overview
        What the dataset is expected to be.
    wait, seed, max_bad, started
        As for `Target.claimed` and `Target.published`.

    Returns
    -------
    Extraction
        Of the file; where some shards are not done, one with `shards`, and there is no file.

    Raises
    ------
    CacheError
        Rows are gone that a ledger promises; their shards are to be done again.
    """
    ledgers = target.ledgers
    if (result := ledgers.result()) is None:
        return _unfinished(target, own, shards, overview, started)
    with target.claimed(wait):
        if not find_shards(target.workspace):  # somebody else has published them meanwhile
            result.embedded = 0
        target.look_around({})
        if lost := ledgers.broken(result, target.index.rows):
            ledgers.drop(lost)
            raise CacheError(
                f"Parts of {counted(len(lost), 'shard')} were damaged or removed. Run the same with --claim: "
                "what is missing is embedded again."
            )
        done = target.published(result, seed, max_bad, started, peak_rss_bytes() + own.forked_bytes)
    return replace(
        done,
        embedded=own.embedded,
        reused=max(0, done.rows - own.embedded),
        seconds=named_seconds(own, done.seconds["wall_s"]),
        images_per_s=own.embedded / done.seconds["wall_s"],
    )


def _unfinished(
    target: Target, own: EmbedResult, shards: Sequence[int], overview: Overview, started: float
) -> Extraction:
    target.ledgers.update_list()
    progress = target.ledgers.progress()
    seconds, dataset = named_seconds(own, time.perf_counter() - started), target.dataset
    unusable = [(dataset.paths[row], why.code) for row, why in target.ledgers.unusable(shards).items()]
    return Extraction(
        path=target.path,
        dataset=dataset.name,
        backbone=target.network.name,
        rows=0,
        embedded=own.embedded,
        reused=0,
        quarantined=len(unusable),
        up_to_date=False,
        seconds=seconds,
        images_per_s=own.embedded / seconds["wall_s"],
        peak_rss_bytes=peak_rss_bytes() + own.forked_bytes,
        provider="",
        overview=overview,
        warnings=(*unusable_lines(unusable, len(dataset)), *_on_changed(progress)),
        output=target.note["arguments"]["output"],
        pool=target.note["arguments"]["pool"],
        shards=(progress.done, progress.total),
        missing_shares=progress.shares_of(progress.free),
    )


def _on_changed(progress: Progress) -> list[str]:
    """Return a sentence on shards whose images are others since they were done."""
    if not progress.changed:
        return []
    shares = progress.shares_of(progress.changed)
    what = f"these shares were done: {few(shares, 10)}" if shares else f"{len(progress.changed):,} shards were done"
    again = "their commands" if shares else "the command with --claim"
    return [f"The images have changed since {what}. Give {again} again: only images that are new are embedded."]
