"""Whether the intervals of all figures hold the truth: `python -m benchmarks.intervals`, half a minute.

Made answers: a logit for every class, larger by a constant for the right one, with normal noise that images of a group
share half of. One line of JSON for each kind of test images: how often the 95 % interval of each figure holds what a
very large set of such images has.
"""

from __future__ import annotations

import json
import sys
from collections import Counter

import numpy as np
from numpy.typing import NDArray

from tlcache.evaluation.metrics import estimates
from tlcache.heads.logits import softmax

__all__ = ["simulate"]

_KINDS = ((150, 1, 3), (300, 3, 3), (600, 1, 8))  # images, of a group, classes


def simulate(images: int, group: int, classes: int, times: int, seed: int = 0) -> dict[str, float]:
    """Return the share of simulations in which each figure's interval holds the truth."""
    random, held = np.random.default_rng(seed), Counter[str]()
    truth = {name: each.value for name, each in estimates(*_draw(random, 300_000, group, classes)[:2]).items()}
    for _ in range(times):
        labels, said, units = _draw(random, images, group, classes)
        for name, each in estimates(labels, said).items():
            low, high = each.interval(units if group > 1 else None)
            held[name] += low <= truth[name] <= high
    shares = {name: round(held[name] / times, 4) for name in truth}
    return {"images": images, "of_a_group": group, "classes": classes, "simulations": times, **shares}


def _draw(
    random: np.random.Generator, images: int, group: int, classes: int
) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.int64]]:
    """Return labels, one for each group, probabilities, and the numbers of groups; the last class is the rarest."""
    units = np.arange(images) // group
    share = np.linspace(2, 1, classes)
    labels = random.choice(classes, units[-1] + 1, p=share / share.sum())[units]
    noise = random.standard_normal((images, classes))
    if group > 1:
        noise = (noise + random.standard_normal((units[-1] + 1, classes))[units]) / np.sqrt(2)
    return labels, softmax(noise + 1.5 * np.eye(classes)[labels]), units


if __name__ == "__main__":
    for kind in _KINDS:
        sys.stdout.write(json.dumps(simulate(*kind, times=2000)) + "\n")
