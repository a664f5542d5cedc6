"""Test images, made worse -> which of them each run classifies rightly: embedded once for all runs of a network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlcache.deploying.answers import Answers
from tlcache.extraction.embed import Block
from tlcache.extraction.several import embed_several

__all__ = ["UNUSABLE", "TestImages", "judge"]

UNUSABLE = -1
Right = NDArray[np.int8]


@dataclass(frozen=True)
class TestImages:
    """The images that runs were tested on.

    Parameters
    ----------
    source
        Where they are, as run records say it.
    paths, labels
        (n,) in `source`, and int64 indices into the classes of the runs.
    """

    __test__ = False  # no test of pytest's

    source: str
    paths: Sequence[str]
    labels: NDArray[np.int64]


@dataclass
class _Judging:
    """Takes blocks of embeddings in their order; a corruption is judged when all its images are there."""

    images: TestImages
    answers: Sequence[Answers]
    right: list[Right]
    _numbers: list[int] = field(default_factory=list)
    _rows: list[NDArray[np.float32]] = field(default_factory=list)

    def take(self, block: Block) -> None:
        self._numbers += block.good
        self._rows.append(block.rows)
        corruption, left = divmod(block.stop, len(self.images.paths))
        if left == 0:
            self._judge(corruption - 1)

    def _judge(self, corruption: int) -> None:
        good = np.array(self._numbers, np.int64) - corruption * len(self.images.paths)
        rows = [each for each in self._rows if len(each)]
        self._numbers, self._rows = [], []
        if not rows:
            return
        together = np.concatenate(rows)
        for each, right in zip(self.answers, self.right, strict=True):
            probabilities, _ = each.answer(together)
            right[corruption, good] = probabilities.argmax(axis=1) == self.images.labels[good]


def judge(
    images: TestImages, answers: Sequence[Answers], corruptions: Sequence[str], **how: Any
) -> tuple[list[Right], int]:
    """Judge runs that take the same embeddings on images that are made worse.

    Embeddings are kept under the key of the network with the corruption, and taken from there the next time.

    Parameters
    ----------
    answers
        What the runs answer with; all have the networks of the first.
    corruptions
        Kinds and severities, like `blur:3`.
    **how
        `features`, `device` and `batch_size`, as for `tlcache.extraction.embed.embed`, whose errors these are.

    Returns
    -------
    right
        int8 (corruptions, n) for each run: 1 where an image is classified rightly, 0 where not, -1 where it cannot be
        used.
    embedded
        How many images went through the network.
    """
    shape = len(corruptions), len(images.paths)
    judging = _Judging(images, answers, [np.full(shape, UNUSABLE, np.int8) for _ in answers])
    done = embed_several(
        images.paths, answers[0].networks, judging.take, source=images.source, corruptions=corruptions, **how
    )
    return judging.right, done.embedded
