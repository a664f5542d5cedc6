"""One process's share of an extraction: shards that it was given, or that nobody works on, each by one worker."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from pathlib import Path

from tlcache.cache.index import Index
from tlcache.datasets.source import ImageList
from tlcache.extraction.board import Section
from tlcache.extraction.claims import Claimant
from tlcache.extraction.job import EmbedResult, Job, Known, Sink
from tlcache.extraction.ledgers import Ledger, Ledgers, write_ledger
from tlcache.extraction.local import side_by_side
from tlcache.extraction.worker import Pass, Worker

__all__ = ["Share", "do_shard", "do_share"]


@dataclass(frozen=True)
class Share:
    """Which shards a process does.

    Parameters
    ----------
    given
        Such as `3/16`: every sixteenth shard, from the third on; None: none.
    claim
        Then those of others that nobody works on.
    """

    given: str | None
    claim: bool

    @property
    def claimant(self) -> Claimant:
        """Who does them: this process."""
        return Claimant(self.given or "")

    @property
    def place(self) -> tuple[int, int]:
        """Its number and how many shares there are; 1 and 0 where none was given."""
        number, count = map(int, self.given.split("/")) if self.given else (1, 0)
        return number, count

    def of(self, missing: Sequence[int], under_way: bool = True) -> list[int]:
        """Return which of the missing shards to do, in order: those of others from the end, where they come last.

        Where nothing is `under_way`, a share comes after all the others have published, and leaves theirs alone.
        """
        number, count = self.place
        own = [shard for shard in missing if count and shard % count == number - 1]
        takes_others = self.claim and (under_way or not self.given)
        others = sorted({*missing}.difference(own), reverse=True) if takes_others else ()
        return [*own, *others]


def do_share(job: Job, books: Sequence[Ledgers], shards: Sequence[int], me: Claimant) -> list[EmbedResult]:
    """Do shards of the images of a job, but for those that somebody else is at; return what each sink got.

    Parameters
    ----------
    job
        Of all images.
    books
        The ledgers of each of its sinks.
    shards
        Numbers of shards.
    me
        Who does them.
    """
    images = job.dataset
    stretches = [books[0].shards[shard] for shard in shards]
    paths = [images.paths[number] for stretch in stretches for number in stretch]
    part = replace(job, dataset=ImageList(images.name, images.images, paths), part_of=len(images))
    starts = accumulate(map(len, stretches), initial=0)
    places = [range(start, stop) for start, stop in pairwise(starts)]

    def work(run: Pass, slot: int) -> list[EmbedResult]:
        totals = [EmbedResult() for _ in books]
        for shard, place in zip(shards, places, strict=True):
            if run.board.stopped:
                break
            with ExitStack() as claims:
                ours = all(claims.enter_context(book.claimed(shard, me)) for book in books)
                if ours and not all(book.has(shard) for book in books):
                    done = do_shard(run, slot, [book.path(shard) for book in books], place)
                    for total, found in zip(totals, done, strict=True):
                        total.add(found)
        return totals

    results = side_by_side(part, work)
    images.images.remember(paths, results[0].sha256)
    return results


def do_shard(run: Pass, slot: int, ledgers: Sequence[Path], place: range) -> list[EmbedResult]:
    """Embed the images of a shard by one worker, and write its ledgers unless that was stopped.

    Parameters
    ----------
    run, slot
        A pass that its images are in, and the number of the worker.
    ledgers
        For each sink, the ledger to write; parts are written beside it.
    place
        Which images of the pass are its.
    """
    own = run.into(tuple(_resumed(sink, path.parent) for sink, path in zip(run.job.sinks, ledgers, strict=True)))
    own.expect(place)
    found = Worker(own, slot, Section(run.board, place)).work()
    if not run.board.stopped:
        hashes = [run.board.hash_of(number) for number in place]
        for result, path in zip(found, ledgers, strict=True):
            unreadable = {number - place.start: why for number, why in result.unreadable.items()}
            seconds = result.seconds.tolist()
            write_ledger(path, Ledger(hashes, result.bad, unreadable, result.embedded, seconds))
    return found


def _resumed(sink: Sink, folder: Path) -> Sink:
    """Return a sink into a shard's folder, which knows what is there of it already."""
    index = Index(sink.model.key)
    index.add_shards(folder)
    if not (index.rows or index.bad):
        return replace(sink, workspace=folder)
    return replace(
        sink,
        known=Known(index.rows, sink.known),
        known_bad={**index.bad, **sink.known_bad},
        outdated={*sink.outdated} - index.rows.keys() | index.outdated,
        workspace=folder,
    )
