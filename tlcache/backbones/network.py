"""A network that embeds images: the one place where a network is run, and what happens when it fails."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from tlcache.errors import DataError, ModelError, first_line
from tlcache.images import BadImageError, Kernel, Preprocess, Resizing, Stored, prepare
from tlcache.threads import in_threads

__all__ = ["Embedded", "Encoded", "Network", "NotFiniteError", "embed_images"]

T = TypeVar("T")


class NotFiniteError(ModelError):
    """Embeddings that nobody should use.

    Attributes
    ----------
    rows
        float32 (n, dim): what the network gave for the batch.
    finite
        bool (n,): which of the rows can be used.
    reason
        What is to be said of an image whose row cannot.
    """

    def __init__(self, rows: NDArray[np.float32], finite: NDArray[np.bool_], precision: str) -> None:
        hint = "; try --precision fp32" if precision == "fp16" else ""
        self.reason = f"the network gives numbers that are not finite{hint}"
        self.rows, self.finite = rows, finite
        super().__init__(f"For {np.count_nonzero(~finite):,} of {len(finite):,} images {self.reason}.")


class Network(ABC):
    """A network that is ready to run, safe to call from many threads at once.

    On the CPU a call uses one core: whoever has many images makes one call per core at a time.

    Attributes
    ----------
    provider
        What runs the network: ONNX Runtime's execution provider, or OpenVINO and its precision.
    shape
        Height and width of its images.
    dim
        Length of an embedding.
    precision
        Of its arithmetic: `fp32`, `fp16`, `bf16` or `int8`.
    """

    provider: str
    shape: tuple[int, int]
    dim: int
    precision: str
    _batch: int | None = None  # the only number of images that `_run` takes; None: any

    @property
    def batch(self) -> int | None:
        """The only number of images that it takes at once, others being filled up; None: any."""
        return self._batch

    def embed(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the embeddings of a batch of images.

        Parameters
        ----------
        images
            uint8 (n, 3, H, W), as `tlcache.images.prepare` makes them.

        Returns
        -------
        rows
            float32 (n, dim), all of them finite.

        Raises
        ------
        NotFiniteError
            Some of them are not; the error has them all.
        ModelError
            The network failed, perhaps because memory ran out.
        """
        try:
            rows = self.rows(images)
        except Exception as error:  # ONNX Runtime's own have no base but this
            raise ModelError(
                f"The network failed on a batch of {len(images)} ({first_line(error)}). "
                "If memory ran out, try a smaller --batch-size, or --device cpu. Finished images are kept."
            ) from error
        finite = np.logical_and.reduce(np.isfinite(rows), axis=tuple(range(1, rows.ndim)))
        if not finite.all():
            raise NotFiniteError(rows, finite, self.precision)
        return rows

    @abstractmethod
    def _run(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Run the network once."""

    def rows(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return what `embed` does, whatever it is; anything may be raised."""
        size = self._batch
        if size is None or size == len(images):
            return self._run(images)
        rows = []
        for start in range(0, len(images), size):
            batch = np.zeros((size, *images.shape[1:]), np.uint8)
            part = images[start : start + size]
            batch[: len(part)] = part
            rows.append(self._run(batch)[: len(part)])
        return np.concatenate(rows)


class Encoded(NamedTuple):
    """The bytes of an image's file, and what to call it in a message."""

    name: str
    data: bytes


class Embedded(NamedTuple):
    """A batch of images.

    Parameters
    ----------
    rows
        Their embeddings, float32 (n, dim).
    stored, notes
        What the header of each file says, and what a user should know of each: words of `tlcache.images.notes`.
    decode_s, infer_s
        Seconds of one thread.
    """

    rows: NDArray[np.float32]
    stored: list[Stored]
    notes: list[set[str]]
    decode_s: float
    infer_s: float


def embed_images(
    network: Network,
    preprocess: Preprocess,
    batches: Iterable[T],
    read: Callable[[T], Sequence[Encoded]],
    images: int,
) -> Iterator[Embedded]:
    """Read, decode and embed batches of images, a thread for each CPU, and yield what each gives in their order.

    Parameters
    ----------
    network, preprocess
        What embeds, and how images are prepared for it.
    batches, read
        What stands for n images, and what returns these.
    images
        How many there are in all.

    Raises
    ------
    DataError
        An image that cannot be used; the message names it.
    ModelError
        As `Network.embed`.
    """

    def one(batch: T) -> Embedded:
        times, encoded = [time.perf_counter()], read(batch)
        pixels = np.empty((len(encoded), 3, *preprocess.size), np.uint8)
        notes = [set[str]() for _ in encoded]
        each = zip(encoded, pixels, notes, strict=True)
        stored = [_prepared(image, preprocess, out, words, kernel) for image, out, words in each]
        times.append(time.perf_counter())
        try:
            rows = network.embed(pixels) if encoded else np.empty((0, network.dim), np.float32)
        except NotFiniteError as error:
            raise _unusable(encoded[int(error.finite.argmin())], error.reason) from None
        times.append(time.perf_counter())
        return Embedded(rows, stored, notes, times[1] - times[0], times[2] - times[1])

    with Resizing(images) as kernel:
        yield from in_threads(one, batches)


def _prepared(
    image: Encoded, preprocess: Preprocess, out: NDArray[np.uint8], notes: set[str], kernel: Kernel
) -> Stored:
    try:
        return prepare(image.data, preprocess, out, notes, kernel)[1]
    except BadImageError as error:
        raise _unusable(image, str(error)) from None


def _unusable(image: Encoded, why: str) -> DataError:
    return DataError(f"'{image.name}' cannot be used: {why}. Leave it out.")
