"""Images of any kind to their embeddings, a block at a time: what is cached is taken, the rest is embedded.

A block goes to the process that asked for it as a file of its rows, and is forgotten here, so that memory does not grow
with the number of images; rows of images that are made worse are kept, beside those of `ImageEmbedder`. Blocks grow:
the first answer comes soon, and later ones waste no time between them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from tlcache.backbones.engines import default_batch, find_device
from tlcache.backbones.load import load_again
from tlcache.backbones.model import Model
from tlcache.cache.find import MADE_WORSE, kept_folder
from tlcache.cache.index import Index
from tlcache.cache.publish import read_rows
from tlcache.cache.shards import Rejected, find_shards
from tlcache.datasets.anywhere import open_anywhere
from tlcache.datasets.dataset import reopen
from tlcache.datasets.source import ImageList
from tlcache.errors import ModelError
from tlcache.extraction.forks import can_fork
from tlcache.extraction.inflight import InFlight
from tlcache.extraction.job import EmbedResult, Job, Sink
from tlcache.extraction.local import run_workers
from tlcache.files import writing_to
from tlcache.progress import image_bar

__all__ = ["embed_here"]

_FIRST, _MOST = 256, 16_384  # images in a block
_VANISHED = Rejected("unreadable", "its embedding vanished from the cache; has something removed its files?")


def embed_here(
    *,
    listed: str,
    key: str | None,
    features: str,
    device: str,
    batch_size: int | None,
    workspace: str,
    tell: Callable[[Mapping[str, Any]], None],
    done: int = 0,
    source: str | None = None,
    corruptions: Sequence[str] = (),
    rejected: Mapping[str, Sequence[str]] | None = None,
    in_flight: InFlight | None = None,
    **request: Any,
) -> dict[str, Any]:
    """Do what `tlcache.extraction.embed.embed` says, in this process.

    Parameters
    ----------
    listed
        A file of absolute paths, which may go on in an archive, or addresses, each ended by a zero byte; or of paths
        in `source`.
    key
        The model key that the network has to have; None: any.
    workspace
        Folder for parts and for the files of blocks.
    tell
        Called with each block: `start` and `stop` of its images, `rows` (a `.npy` file of those that can be used, in
        their order), `bad` (number in the block, code and message of the others), `embedded`, and `provider`.
    done
        So many images were told of already.
    source, corruptions
        As for `tlcache.extraction.embed.embed`.
    rejected, in_flight
        As for `tlcache.extraction.steps.extract_here`.
    features, device, batch_size, **request
        As for `tlcache.extraction.extract.extract`.
    """
    paths = [os.fsdecode(path) for path in Path(listed).read_bytes().split(b"\0")[:-1]]
    images = ImageList("images", reopen(source) if source else open_anywhere(paths), paths)
    found = find_device(device, request["engine"], request["precision"])
    network = load_again(request)
    _check_key(network, key)
    place, whole = Path(workspace), len(images) * max(1, len(corruptions))
    kept = _put_aside(place)
    job = Job(
        dataset=images,
        sinks=(),
        device=device,
        engine=request["engine"],
        batch_size=batch_size or default_batch(request["engine"], found, network.preprocess.crop),
        max_bad=1.0,
        in_flight=in_flight,
        may_fork=in_flight is not None and can_fork() and found == "cpu",
    )
    with image_bar(network.name, whole) as advance:
        advance(done)
        for start, model in zip(range(0, whole, len(images)), _models(network, corruptions), strict=True):
            parts = place
            if corruptions:
                parts = _made(kept_folder(Path(features)) / model.file_stem)
                with suppress(OSError):  # a note for people; where all is kept already, nothing has to be writable
                    (parts / MADE_WORSE).write_text(model.preprocess.corruption or "")
            cached = _cached(model, Path(features), kept, rejected or {})
            sinks = (Sink(model, cached.rows, cached.bad, parts, cached.outdated),)
            for block in _blocks(max(0, done - start), len(images)):
                part = replace(job, dataset=replace(images, paths=paths[block.start : block.stop]), sinks=sinks)
                try:
                    (result,) = run_workers(part, advance)
                except KeyboardInterrupt:  # which counts in the block
                    raise KeyboardInterrupt(f"stopped after {start + block.start:,} of {whole:,} images") from None
                fresh = cached if corruptions else Index(model.key)
                fresh.add_shards(parts)
                told = _told(result, cached, fresh, place / f"{start + block.start}.npy")
                tell({**told, "start": start + block.start, "stop": start + block.stop})
                for each in find_shards(place):
                    each.unlink()
    return {}


def _cached(model: Model, features: Path, kept: Path, rejected: Mapping[str, Sequence[str]]) -> Index:
    found = Index(model.key)
    found.bad |= {sha256: Rejected(*reason) for sha256, reason in rejected.items()}
    found.add_others(features, model.file_stem)
    found.add_shards(kept)
    return found


def _models(network: Model, corruptions: Sequence[str]) -> list[Model]:
    """Return a network for images as they are, or once for each way in which they are made worse."""
    return [network.corrupted(each) for each in corruptions] or [network]


def _made(folder: Path) -> Path:
    with writing_to(folder, "Give another folder with --features."):
        folder.mkdir(parents=True, exist_ok=True)
    return folder


def _put_aside(workspace: Path) -> Path:
    """Return where the parts are put that an earlier process of this work left, to be used by all blocks."""
    kept = workspace / "kept"
    kept.mkdir(exist_ok=True)
    for part in find_shards(workspace):
        part.replace(kept / part.name)
    return kept


def _check_key(network: Model, key: str | None) -> None:
    if key not in (None, network.key):
        raise ModelError(
            f"The network is another one than the run's, whose key is {str(key)[:12]}: {network.name} with weights "
            f"{network.weights} now has {network.key[:12]}. Bring the weights or the file back that it was, or extract "
            "and fit again."
        )


def _blocks(start: int, total: int) -> Iterator[range]:
    size = _FIRST
    while start < total:
        yield range(start, min(start + size, total))
        start, size = start + size, min(2 * size, _MOST)


def _told(result: EmbedResult, cached: Index, fresh: Index, rows: Path) -> dict[str, Any]:
    """Write the rows of a block, and return what is to be told of it; `fresh` may be `cached`, which has them then."""
    sources = cached.sources if fresh is cached else [*cached.sources, *fresh.sources]
    first = len(sources) - len(fresh.sources)
    places, bad = list[tuple[int, int]](), list[tuple[int, str, str]]()
    for number, sha256 in enumerate(result.sha256):
        if sha256 in result.bad or not sha256:
            why = result.bad[sha256] if sha256 else result.unreadable[number]
            bad.append((number, why.code, why.message))
        elif sha256 in fresh.rows:
            source, row = fresh.rows[sha256]
            places.append((first + source, row))
        elif sha256 in cached.rows:
            places.append(cached.rows[sha256])
        else:
            bad.append((number, _VANISHED.code, _VANISHED.message))
    np.save(rows, read_rows(sources, places))
    provider = fresh.provider or cached.provider
    return {"rows": str(rows), "bad": bad, "embedded": result.embedded, "provider": provider}
