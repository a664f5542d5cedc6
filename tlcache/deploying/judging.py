"""What is said beyond the likeliest class: sets of classes, and which images are better not answered.

Needs numpy and nothing else: a deployed model says the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tlcache.errors import OptionError
from tlcache.heads.uncertainty import Uncertainty

__all__ = ["UNKNOWN", "UNSURE", "Judge", "Judged", "ranked"]

UNSURE, UNKNOWN = "unsure", "unknown"  # labels of images that are not answered

Rows = NDArray[np.float32]


@dataclass(frozen=True)
class Judged:
    """What is said of some images.

    Parameters
    ----------
    withheld
        (n,) `unsure` or `unknown` in place of the class; empty where that is said.
    sets
        (n,) indices of the classes that may be right; None where that is not asked for.
    unusual
        (n,) p-values; None where the model does not know.
    """

    withheld: Sequence[str]
    sets: Sequence[Sequence[int]] | None
    unusual: Sequence[float] | None


class Judge:
    """Says of probabilities and distances what was asked for.

    Parameters
    ----------
    uncertainty
        What the model keeps; None where it keeps nothing.
    sets
        Whether to give sets of classes.
    right
        Answer only where this share of the answers is right.
    reject
        Call images unknown whose p-value is below this: so many usual ones are, too.
    advice
        What to do where the model keeps nothing, for an error.

    Raises
    ------
    OptionError
        The model keeps nothing that this needs.
    """

    def __init__(
        self,
        uncertainty: Uncertainty | None,
        *,
        sets: bool = False,
        right: float | None = None,
        reject: float | None = None,
        advice: str = "",
    ) -> None:
        self.uncertainty, self.sets, self.reject = uncertainty, sets, reject
        asked = [("--sets", sets), ("--right", right is not None), ("--reject", reject is not None)]
        for option, wanted in asked:
            if wanted and uncertainty is None:
                raise OptionError(
                    f"{option} needs to know how sure answers are, which this model does not keep. {advice}"
                )
        if reject is not None and not self.knows_distances:
            raise OptionError(
                "--reject needs the distances of embeddings to those of training. A network that was fine-tuned has "
                "none: of its own training images they say little. Take --right, or a head of tlcache fit-heads."
            )
        self._words = {UNSURE} if right is not None else set()
        self._words |= {UNKNOWN} if reject is not None else set()
        self._least = -np.inf if right is None or uncertainty is None else uncertainty.threshold(right)

    @property
    def knows_distances(self) -> bool:
        """Whether it can tell how unusual an image is."""
        return self.uncertainty is not None and self.uncertainty.far is not None

    @property
    def answers_nothing(self) -> bool:
        """Whether no confidence is enough for the share of right answers that is asked for."""
        return bool(np.isnan(self._least))

    @property
    def least_unusual(self) -> float:
        """The smallest p-value there can be where that is not below `reject`, so that nothing is rejected; else 0."""
        if self.reject is None or self.uncertainty is None:
            return 0.0
        least = float(self.uncertainty.unusual(np.array([np.inf], np.float32))[0])
        return least if least >= self.reject else 0.0

    def ambiguous(self, classes: Sequence[str]) -> list[str]:
        """Return the classes that are called as images are which it does not answer."""
        return sorted(self._words & {*classes})

    def judge(self, probabilities: Rows, distances: Rows | None = None) -> Judged:
        """Return what is said of images, from calibrated probabilities (n, C) and, where known, `distances` (n,)."""
        words = np.full(len(probabilities), "", object)
        words[~(probabilities.max(axis=1) >= self._least)] = UNSURE
        unusual = sets = None
        if self.uncertainty is not None and distances is not None:
            unusual = self.uncertainty.unusual(distances)
            if self.reject is not None:
                words[unusual < self.reject] = UNKNOWN
        if self.uncertainty is not None and self.sets:
            sets = list(map(_inside, self.uncertainty.sets(probabilities), probabilities))
        return Judged(words.tolist(), sets, None if unusual is None else unusual.tolist())


def ranked(probabilities: Rows, top: int) -> NDArray[np.int64]:
    """Return the likeliest classes of each row (n, top); of equal ones the first, as everywhere."""
    if top == 1:
        best: NDArray[np.int64] = probabilities.argmax(axis=1)[:, None]
        return best
    return np.argsort(-probabilities, axis=1, kind="stable")[:, :top]


def _inside(flags: NDArray[np.bool_], probabilities: Rows) -> list[int]:
    """Return the classes of a set, the likeliest first."""
    inside = np.flatnonzero(flags)
    order: list[int] = inside[np.argsort(-probabilities[inside], kind="stable")].tolist()
    return order
