"""How the learning rate goes over the epochs, by name."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

__all__ = ["SCHEDULES", "learning_rate_factor"]

# The share of the steps that are done -> what the learning rate is multiplied by.
SCHEDULES: Mapping[str, Callable[[float], float]] = {
    "constant": lambda _: 1.0,
    "cosine": lambda done: 0.5 * (1 + math.cos(math.pi * done)),
    "step": lambda done: 0.1 ** ((done >= 0.6) + (done >= 0.85)),
}


def learning_rate_factor(schedule: str, step: int, steps: int, warmup: int) -> float:
    """Return what the learning rate is multiplied by in step 0 ... steps - 1, the first `warmup` of which rise to 1."""
    if step < warmup:
        return (step + 1) / (warmup + 1)
    return SCHEDULES[schedule]((step - warmup) / max(1, steps - warmup))
