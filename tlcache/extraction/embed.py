"""Images of any kind -> embeddings: at extraction's pace, by its workers, and nothing is kept."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tlcache.cache.find import features_folder
from tlcache.datasets.anywhere import absolute

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Block", "Embedded", "embed"]


@dataclass(frozen=True)
class Block:
    """Some images that follow each other.

    Parameters
    ----------
    start, stop
        Their numbers among all.
    rows
        float32 (n, dim), the embeddings of those that can be used, in their order.
    bad
        Number among all images -> why the image cannot be used.
    """

    start: int
    stop: int
    rows: NDArray[np.float32]
    bad: Mapping[int, str]

    @property
    def good(self) -> list[int]:
        """The numbers of the images that have a row."""
        return [number for number in range(self.start, self.stop) if number not in self.bad]


@dataclass
class Embedded:
    """How many images went through the network, how many were cached, and how many cannot be used; the time it took.

    `provider` is what ran the network, or computed the cached rows.
    """

    embedded: int = 0
    reused: int = 0
    bad: int = 0
    seconds: float = 0.0
    provider: str = ""


def run_apart(arguments: Mapping[str, Any], tell: Callable[[Mapping[str, Any]], None]) -> None:
    """Do it in a process of its own, which a decoder may take down."""
    from tlcache.extraction import sandbox

    sandbox.run_apart(arguments, "embed", tell)


def _block(part: Mapping[str, Any]) -> Block:
    """Return what a worker told of, whose file is not needed any longer then."""
    import numpy as np

    path = Path(part["rows"])
    rows = np.load(path)
    path.unlink()
    return Block(part["start"], part["stop"], rows, {part["start"] + number: why for number, _, why in part["bad"]})


def embed(
    paths: Iterable[str],
    request: Mapping[str, Any],
    key: str | None,
    take: Callable[[Block], None],
    *,
    features: str | Path | None = None,
    device: str = "auto",
    batch_size: int | None = None,
    source: str | None = None,
    corruptions: Sequence[str] = (),
) -> Embedded:
    """Embed images and hand their embeddings on, a block at a time, in order.

    Embeddings that are in the folder of features, of whatever dataset, are not computed again; nothing is added there,
    save of images that are made worse. An image that cannot be used is told with its block.

    Parameters
    ----------
    paths
        Of the images' files, or in `source`.
    request
        The arguments of an extraction, which say what network it is and how images are prepared for it.
    key
        The model key that this network had; None where there is no telling.
    take
        Called with each block, while the next one is being embedded.
    features
        Folder of feature files.
    device, batch_size
        As for `tlcache.extract`.
    source
        Where the images are, as a run record says it.
    corruptions
        Ways to make the images worse, like `blur:3`: all images go through the first, then through the second, and so
        on, and are numbered like that. None: they are as they are.

    Raises
    ------
    ModelError
        The network is another one than that of the key, or fails.
    WeightsError, DeviceError, CacheError
        The network cannot be had or cannot be run here; the process died.
    """
    began, total = time.perf_counter(), Embedded()

    def told(part: Mapping[str, Any]) -> None:
        block = _block(part)
        count = block.stop - block.start - len(block.bad)
        total.embedded += part["embedded"]
        total.reused += max(0, count - part["embedded"])
        total.bad += len(block.bad)
        total.provider = part["provider"] or total.provider
        take(block)

    with tempfile.TemporaryDirectory(prefix="tlcache-") as folder:
        workspace = Path(folder)
        listed = workspace / "images"
        places = paths if source else map(absolute, paths)
        listed.write_bytes(b"".join(os.fsencode(path) + b"\0" for path in places))
        run_apart(
            {
                **request,
                "listed": str(listed),
                "key": key,
                "features": str(features_folder(features).absolute()),
                "device": device,
                "batch_size": batch_size,
                "workspace": str(workspace),
                "source": source,
                "corruptions": list(corruptions),
            },
            told,
        )
    total.seconds = time.perf_counter() - began
    return total
