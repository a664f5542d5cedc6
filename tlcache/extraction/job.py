"""What an extraction is asked for and what it gives back."""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlcache.backbones.model import Model, Onnx
from tlcache.backbones.several import Several
from tlcache.cache.feature_file import stage_seconds
from tlcache.cache.shards import Rejected
from tlcache.datasets.overview import Overview
from tlcache.datasets.source import ImageList
from tlcache.errors import DataError
from tlcache.extraction.inflight import InFlight
from tlcache.images import Preprocess, changed
from tlcache.records import as_json, from_json

__all__ = ["Extraction", "EmbedResult", "Job", "Known", "Opened", "Sink", "check_rejected"]


@dataclass
class Opened:
    """The networks of a process, for all its threads, by the numbers of the sinks that they are for.

    `onnx` are ONNX files by the number of their sink, before they are opened.
    """

    onnx: dict[int, Onnx] = field(default_factory=dict)
    networks: dict[tuple[int, ...], Several] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)


class Known(Collection[str]):
    """Hashes of images, of which one collection has some and one has others."""

    def __init__(self, *parts: Collection[str]) -> None:
        self._parts = parts

    def __contains__(self, sha256: object) -> bool:
        return any(sha256 in part for part in self._parts)

    def __iter__(self) -> Iterator[str]:
        return chain.from_iterable(self._parts)

    def __len__(self) -> int:
        return sum(map(len, self._parts))


@dataclass(frozen=True)
class Sink:
    """What is made of the images of a pass: the embeddings of one network, in parts.

    Parameters
    ----------
    model
        The network.
    known
        Hashes of images whose embeddings are there.
    known_bad
        Hashes of images that are known to be unusable, and why.
    workspace
        Folder for the parts.
    outdated
        Those of `known` that an earlier revision of the decoder made, which read some kinds of images otherwise.
    """

    model: Model
    known: Collection[str]
    known_bad: Mapping[str, Rejected]
    workspace: Path
    outdated: Collection[str] = frozenset()

    def has(self, sha256: str) -> bool:
        """Return whether an image need not be looked at again, by its hash."""
        return (sha256 in self.known and sha256 not in self.outdated) or sha256 in self.known_bad

    def wants(self, sha256: str, data: bytes) -> bool:
        """Return whether an image is to be embedded, by its hash and its bytes."""
        is_known = sha256 in self.known and not (sha256 in self.outdated and changed(data))
        return not is_known and sha256 not in self.known_bad


@dataclass(frozen=True)
class Job:
    """What to embed, and what is there already.

    Parameters
    ----------
    dataset
        The images.
    sinks
        One for each network; all of them take images that are prepared in the same way, and each is decoded once.
    device, engine, batch_size
        As for `tlcache.backbones.engines.open_network`; images per call of the network.
    max_bad
        Largest share of unusable images to go on with.
    in_flight
        Where to note what is being decoded, so that a decoder that dies or hangs is found; None: nowhere.
    may_fork
        Whether nothing in this process forbids child processes that share its memory: threads, or a GPU in use.
    opened
        Where the networks are once they are opened; jobs that share it follow each other and open them once.
    part_of
        How many images there are in all, where these are not all of them.
    threads
        How many workers there are; 0: one for each CPU.
    """

    dataset: ImageList
    sinks: tuple[Sink, ...]
    device: str
    engine: str
    batch_size: int
    max_bad: float
    in_flight: InFlight | None = None
    may_fork: bool = False
    opened: Opened = field(default_factory=Opened)
    part_of: int = 0
    threads: int = 0

    @property
    def total(self) -> int:
        """How many images there are, of which the share `max_bad` may be unusable."""
        return self.part_of or len(self.dataset)

    @property
    def preprocess(self) -> Preprocess:
        """How images are prepared."""
        return self.sinks[0].model.preprocess

    @property
    def title(self) -> str:
        """What to call it above a bar."""
        names, count = list(dict.fromkeys(sink.model.name for sink in self.sinks)), len(self.sinks)
        network = names[0] if len(names) == 1 else f"{len(names)} networks"
        several = f" ({count} layers or poolings)" if count > len(names) else ""
        return f"{self.dataset.name}: {network}{several}"


@dataclass
class EmbedResult:
    """What one pass over a dataset found for one of its sinks.

    Parameters
    ----------
    sha256
        Per image: hash of the bytes that were read; empty when they could not be read.
    bad
        Unusable images by their hash.
    unreadable
        Files that could not be read, by their number in the dataset.
    embedded
        Images that went through the network in this pass.
    seconds
        float64 (4,), as in `tlcache.cache.shards.Shard`: decoding, network and writing in thread seconds, and wall
        time; of a pass with several sinks, decoding and the sink's own network, with all that is wanted of that. Parts
        are written beside the rest; what the last one cost, no part can say.
    forked_bytes
        Memory of child processes, without what they share with this one.
    """

    sha256: Sequence[str] = ()
    bad: dict[str, Rejected] = field(default_factory=dict)
    unreadable: dict[int, Rejected] = field(default_factory=dict)
    embedded: int = 0
    seconds: NDArray[np.float64] = field(default_factory=stage_seconds)
    forked_bytes: int = 0

    def add(self, other: EmbedResult) -> None:
        """Take what another worker found, but for the hashes, which all share."""
        self.bad |= other.bad
        self.unreadable |= other.unreadable
        self.embedded += other.embedded
        self.seconds += other.seconds
        self.forked_bytes += other.forked_bytes


@dataclass(frozen=True)
class Extraction:
    """What `extract` did; `as_json` gives the contract of `--json`.

    Parameters
    ----------
    path
        The feature file.
    dataset, backbone, rows
        What it holds.
    output, pool
        Layer and pooling that were asked for; None: the network's own.
    embedded, reused, quarantined
        Images that went through the network now, whose embedding was there, and that could not be used.
    up_to_date
        Nothing had to be written.
    seconds
        `decode_s`, `infer_s`, `write_s` summed over threads, and `wall_s`.
    images_per_s
        Embedded images per second of wall time; 0 when there were none.
    peak_rss_bytes
        Largest memory of the processes that did it, at one time; what they share counts once.
    provider
        What computed the newest rows: ONNX Runtime's execution provider, or OpenVINO and its precision.
    overview
        What the dataset was understood to be: splits, which of them were drawn, classes, what was passed over.
    warnings
        What a user should know: leaks between splits, unusable images, empty classes.
    shards
        How many shards are done, and how many there are, where others do the rest and this is not published yet.
    missing_shares
        Then the shares with shards that are not done and that nobody is at, like `3/16`; None where there are none, as
        only `--claim` was given.
    """

    path: Path
    dataset: str
    backbone: str
    rows: int
    embedded: int
    reused: int
    quarantined: int
    up_to_date: bool
    seconds: Mapping[str, float]
    images_per_s: float
    peak_rss_bytes: int
    provider: str
    overview: Overview
    warnings: tuple[str, ...] = ()
    output: str | None = None
    pool: str | None = None
    shards: tuple[int, int] | None = None
    missing_shares: tuple[str, ...] | None = None

    def as_json(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return dict(as_json(self))

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Extraction:
        """Return what `as_json` described."""
        return from_json(cls, fields)


def check_rejected(count: int, total: int, max_bad: float, example: str) -> None:
    """Raise DataError when more than the share `max_bad` of `total` images is unusable."""
    if count > max_bad * total:
        raise DataError(
            f"At least {count:,} of {total:,} images are unusable, more than --max-bad {max_bad:g} allows; "
            f"the last one: {example}. Check the data, or allow more with --max-bad of tlcache extract."
        )
