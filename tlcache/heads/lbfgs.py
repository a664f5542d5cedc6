"""L-BFGS for many smooth convex problems side by side, each with steps and an end of its own."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

__all__ = ["Doubles", "Objective", "minimise"]

Array = NDArray[np.float32]
Doubles = NDArray[np.float64]
Objective = Callable[[Array, NDArray[np.int64]], tuple[Doubles, Array]]

# Measured on real embeddings for C from 1e-4 to 10: objectives end within 1e-4 of the optimum, most within 1e-5.
GAP = 1e-7  # |slope|^2 / 2, which is the distance to the optimum where the Hessian is 1, relative to the objective
PROGRESS = 1e-7  # of two steps in a row, relative to the objective: float32 slopes carry no further
MAX_ITERATIONS = 1000
_PAIRS = 10
_ARMIJO = 1e-4
_SMALLEST_STEP = 1e-4


@np.errstate(divide="ignore", over="ignore", invalid="ignore")  # of steps that are much too long, which are tried again
def minimise(objective: Objective, x: Array) -> Array:
    """Minimise B problems, whose unknowns are scaled so that their Hessians are near 1.

    Parameters
    ----------
    objective
        Takes unknowns float32 (b, P) and the numbers (b,) of the problems they belong to; returns float64 values (b,)
        and float32 slopes (b, P). All problems that are not done are evaluated together.
    x
        float32 (B, P): where to start.

    Returns
    -------
    array
        float32 (B, P).
    """
    found, some = x.copy(), np.arange(len(x))
    value, slope = objective(x, some)
    step, stalled = np.ones_like(value), np.zeros_like(some)
    direction, history = -slope, _History.empty(x)
    for _ in range(MAX_ITERATIONS):
        expected = step * np.vecdot(slope, direction)
        moved = step.astype(np.float32)[:, None] * direction
        next_value, next_slope = objective(x + moved, some)
        lower = next_value <= value + _ARMIJO * expected
        history.add(moved, next_slope - slope, lower)
        stalled = np.where(lower & (value - next_value <= PROGRESS * value), stalled + 1, 0)
        step = np.where(lower, 1.0, step * _shorter(next_value - value, expected))
        x[lower] += moved[lower]
        slope[lower], value[lower] = next_slope[lower], next_value[lower]
        done = (np.vecdot(slope, slope) / 2 <= GAP * value) | (stalled > 1) | (step < _SMALLEST_STEP)
        if done.any():
            found[some[done]] = x[done]
            if done.all():
                return found
            left = ~done
            some, value, slope, step, stalled, x = (part[left] for part in (some, value, slope, step, stalled, x))
            direction, lower, history = direction[left], lower[left], history.of(left)
        direction[lower] = history.direction(slope)[lower]
    found[some] = x
    return found


def _shorter(rise: Doubles, expected: Doubles) -> Doubles:
    """Return the share of a step that was too long to try next: the lowest point of a parabola, from 0.1 to 0.5."""
    share = -expected / (2 * (rise - expected))
    return np.clip(np.nan_to_num(share, nan=0.1), 0.1, 0.5)


class _History:
    """The last steps and changes of slope, and the products of the compact form (Byrd, Nocedal, Schnabel, 1994).

    `S`, `Y`: (b, m, P), the newest in row `newest`, older ones before it, around the end. `SY`, `YY`: (b, m, m),
    products of their rows. A pair that is not to be used is zero, with 1 on the diagonal of `SY`.
    """

    def __init__(self, S: Array, Y: Array, SY: Doubles, YY: Doubles, scale: Doubles, newest: int) -> None:
        self.S, self.Y, self.SY, self.YY, self.scale, self.newest = S, Y, SY, YY, scale, newest

    @classmethod
    def empty(cls, x: Array) -> _History:
        S = np.zeros((len(x), _PAIRS, x.shape[1]), np.float32)
        SY = np.tile(np.eye(_PAIRS), (len(x), 1, 1))
        return cls(S, np.zeros_like(S), SY, np.zeros_like(SY), np.ones(len(x)), 0)

    def of(self, some: NDArray[np.bool_]) -> _History:
        """Return the history of some of the problems."""
        return _History(self.S[some], self.Y[some], self.SY[some], self.YY[some], self.scale[some], self.newest)

    def add(self, step: Array, change: Array, used: NDArray[np.bool_]) -> None:
        """Put a pair (b, P), for every problem that used its step, in the place of the oldest."""
        product = np.vecdot(step, change)
        used = used & (product > 0)
        self.newest = at = (self.newest + 1) % _PAIRS
        self.S[:, at], self.Y[:, at] = (np.where(used[:, None], part, 0) for part in (step, change))
        newest = self.Y[:, at, :, None]
        self.SY[:, at] = 0
        self.SY[:, :, at] = (self.S @ newest)[..., 0]
        self.SY[:, at, at] = np.where(used, product, 1)
        self.YY[:, :, at] = self.YY[:, at] = (self.Y @ newest)[..., 0]
        self.scale[used] = product[used] / self.YY[used, at, at]

    def direction(self, slope: Array) -> Array:
        """Return minus the inverse Hessian that the pairs tell times `slope` (b, P)."""
        age = np.roll(np.arange(_PAIRS), -self.newest - 1)  # the oldest first
        along_s, along_y = (self.S @ slope[:, :, None])[:, age], (self.Y @ slope[:, :, None])[:, age]
        upper, squares = np.triu(self.SY[:, age][:, :, age]), self.YY[:, age][:, :, age]
        diagonal, scale = np.diagonal(upper, axis1=1, axis2=2)[:, :, None], self.scale[:, None, None]
        u = np.linalg.solve(upper, along_s)
        v = np.linalg.solve(upper.mT, diagonal * u + scale * (squares @ u - along_y))
        back = np.argsort(age)
        along_s, along_y = (part[:, back].mT.astype(np.float32) for part in (v, -scale * u))
        along: Array = scale.astype(np.float32) * slope[:, None] + along_s @ self.S + along_y @ self.Y
        return -along[:, 0]
