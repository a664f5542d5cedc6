"""What a source of labelled images is, and the one place where the bytes of an image are read."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from tlcache.datasets.layout import Layout
from tlcache.datasets.splits import Row
from tlcache.errors import ImageReadError, UnreachableError

__all__ = ["Form", "ImageList", "Images", "Listing", "Source"]


@dataclass(frozen=True)
class Form:
    """One way to give a dataset: its name, an example of `--data`, and what it looks like."""

    name: str
    example: str
    looks_like: str


class Source(Protocol):
    """A kind of place where labelled images come from: one object, in `tlcache.datasets.dataset.SOURCES`.

    An extraction works in a process of its own, which is sent the objects from outside the package by pickle: their
    classes lie in a module, not in a script.
    """

    @property
    def forms(self) -> Sequence[Form]:
        """What `--data` looks like."""
        ...

    def takes(self, data: str) -> bool:
        """Return whether `--data` names something of this kind."""
        ...

    def find(self, data: str, layout: Layout) -> Listing:
        """Return what is there, understood as `layout` says; no image is opened.

        What `--ignore`, `--val` and `--test` ask for is done to the rows that are returned, whatever source they are
        from; a row is ignored by its path or label.

        Raises
        ------
        DataError
            Nothing of use is there.
        """
        ...

    def reopen(self, source: str) -> Images | None:
        """Return the images that a feature file names as its `source`; None where that is of another kind.

        Nothing is opened yet: whether the images are still there is found out when they are read. Sources whose
        feature files name the images of another source, as a manifest's name a folder, leave this out.
        """
        del source
        return None


class Listing(NamedTuple):
    """What a source finds.

    Parameters
    ----------
    name
        What the dataset is called when the user does not say.
    data
        What finds it again from any folder, where `--data` itself may be relative.
    images
        Where the images are read.
    rows
        Path, label, split and group of each image.
    passed_over, warnings
        As in `Dataset`.
    """

    name: str
    data: str
    images: Images
    rows: Sequence[Row]
    passed_over: Mapping[str, int] = {}
    warnings: tuple[str, ...] = ()


class Images:
    """The images of one place, read by their paths.

    Parameters
    ----------
    source
        What names the place in a feature file, so that it is found again: the absolute path of a folder, or a text that
        no path begins with, such as `zip:/data/photos.zip`.
    read
        Path -> the bytes of the image; raises OSError. Called by many threads at once, and by forked processes.
    exists
        Whether the place is there.

    Attributes
    ----------
    far
        The place is across a network: threads read it, and no forked processes, which its connections do not survive.
    """

    far = False

    def __init__(self, source: str, read: Callable[[str], bytes], exists: Callable[[], bool]) -> None:
        self.source, self.exists = source, exists
        self._read = read

    def read(self, path: str, sha256: str | None = None) -> bytes:
        """Return the bytes of an image, exactly those of that hash where one is given.

        Raises
        ------
        ImageReadError
            It is not there, cannot be read, or has changed.
        """
        try:
            data = self._read(path)
        except (OSError, ValueError) as error:  # ValueError: a path with a null byte
            reason = getattr(error, "strerror", None) or str(error)
            raise ImageReadError(
                f"Cannot read '{self.name(path)}': {reason}. Bring it back, or embed again without it.", reason
            ) from None
        if sha256 is not None and (found := hashlib.sha256(data).hexdigest()) != sha256:
            reason = f"its sha256 begins with {found[:8]}, which was {sha256[:8]}"
            raise ImageReadError(
                f"'{self.name(path)}' has changed since it was embedded: {reason}. "
                "Embed again: what is new is computed, and nothing else.",
                reason,
            )
        return data

    def read_several(self, paths: Sequence[str]) -> Iterator[bytes | ImageReadError]:
        """Yield the bytes of images, or why one of them cannot be read; a place may read some of them side by side."""
        return map(self._attempt, paths)

    def _attempt(self, path: str) -> bytes | ImageReadError:
        try:
            return self.read(path)
        except UnreachableError:
            raise
        except ImageReadError as error:
            return error

    def expect(self, paths: Iterable[str]) -> None:
        """Be told what will be read in about this order."""

    def told(self) -> Mapping[str, str]:
        """Return path -> sha256 of the images of which that is known without reading them."""
        return {}

    def remember(self, paths: Sequence[str], sha256: Sequence[str]) -> None:
        """Be told what images that were read hash to, which is empty where one could not be read."""

    def name(self, path: str) -> str:
        """Return what to call an image in a message."""
        return os.path.join(self.source, path)  # noqa: PTH118  a Path costs 10 times as much


@dataclass(frozen=True)
class ImageList:
    """Images in an order, of which nothing else need be known.

    Parameters
    ----------
    name
        What they are called together.
    images
        Where their bytes are read.
    paths
        (N,) what they are called there, with `/`.
    """

    name: str
    images: Images
    paths: Sequence[str]

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def source(self) -> str:
        """What their feature files say of where they are: see `tlcache.datasets.dataset.reopen`."""
        return self.images.source

    def read(self, row: int) -> bytes:
        """Return the bytes of an image.

        Raises
        ------
        ImageReadError
            It is not there, or cannot be read.
        """
        return self.images.read(self.paths[row])
