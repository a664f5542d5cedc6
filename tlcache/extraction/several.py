"""Images -> their embeddings by several networks side by side: one network after the other over all images."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tlcache.extraction.embed import Block, Embedded, embed
from tlcache.progress import say

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Network", "embed_several"]

Network = tuple[Mapping[str, Any], str | None]  # request and key, as `embed` takes them


def embed_several(
    paths: Sequence[str], networks: Sequence[Network], take: Callable[[Block], None], **how: Any
) -> Embedded:
    """Embed images with each network and hand their joined embeddings on, a block at a time, in order.

    Images are decoded once for each network. The rows of all networks but the last are kept in a temporary file
    meanwhile. An image that one of them cannot use is bad. Of one network this is `embed`.

    Parameters
    ----------
    paths
        Of the images' files.
    networks
        In the order of their embeddings in a row.
    take
        Called with each block.
    **how
        `features`, `device` and others, as for `embed`, whose errors these are.

    Returns
    -------
    Embedded
        The counts of the network that had to embed the most; the seconds of all of them.
    """
    *earlier, last = networks
    if earlier:
        say(f"{len(networks)} networks are to see the images, one after the other.")
    with tempfile.TemporaryDirectory(prefix="tlcache-") as folder, ExitStack() as opened:
        images = len(paths) * max(1, len(how.get("corruptions", ())))
        kept = [_Kept(Path(folder) / f"{number}.npy", images) for number in range(len(earlier))]
        for each in kept:
            opened.callback(each.close)
        bad = list[int]()

        def beside(block: Block) -> None:
            joined = _beside(kept, block)
            bad.extend(joined.bad)
            take(joined)

        done = [embed(paths, *network, each.take, **how) for network, each in zip(earlier, kept, strict=True)]
        done.append(embed(paths, *last, beside, **how))
    most = max(done, key=lambda each: each.embedded)
    return Embedded(most.embedded, most.reused, len(bad), sum(each.seconds for each in done), most.provider)


class _Kept:
    """The rows of a network on disk: a number for each image, and why some have none."""

    def __init__(self, path: Path, images: int) -> None:
        self.bad: dict[int, str] = {}
        self._path, self._images = path, images
        self._rows: NDArray[np.float32] | None = None

    def take(self, block: Block) -> None:
        """Keep the rows of a block."""
        import numpy as np

        self.bad |= block.bad
        if self._rows is None and len(block.rows):
            shape = self._images, block.rows.shape[1]
            self._rows = np.lib.format.open_memmap(self._path, "w+", np.float32, shape)
        if self._rows is not None:
            self._rows[block.good] = block.rows

    def rows(self, numbers: Sequence[int]) -> NDArray[np.float32]:
        """Return the rows of some images, float32 (n, dim)."""
        import numpy as np

        return np.empty((0, 0), np.float32) if self._rows is None else np.array(self._rows[list(numbers)])

    def close(self) -> None:
        """Let the file go."""
        self._rows = None


def _beside(kept: Sequence[_Kept], block: Block) -> Block:
    """Return a block with the rows of other networks before its own, of the images that all of them can use."""
    import numpy as np

    bad = dict(block.bad)
    for each in kept:
        bad |= {number: each.bad[number] for number in block.good if number in each.bad}
    use = [place for place, number in enumerate(block.good) if number not in bad]
    numbers = [block.good[place] for place in use]
    rows = np.concatenate([*(each.rows(numbers) for each in kept), block.rows[use]], axis=1) if use else block.rows[:0]
    return Block(block.start, block.stop, rows, bad)
