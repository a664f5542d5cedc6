"""L-BFGS for many smooth convex problems side by side, each with steps and an end of its own."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["Objective", "minimise"]

Objective = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]

# Measured on real embeddings for C from 1e-4 to 10: objectives end within 1e-4 of the optimum, most within 1e-5.
GAP = 1e-7  # |slope|^2 / 2, which is the distance to the optimum where the Hessian is 1, relative to the objective
PROGRESS = 1e-7  # of two steps in a row, relative to the objective: float32 slopes carry no further
MAX_ITERATIONS = 1000
_PAIRS = 10
_ARMIJO = 1e-4
_SMALLEST_STEP = 1e-4


def minimise(objective: Objective, x: Tensor) -> Tensor:
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
    Tensor
        float32 (B, P).
    """
    found, some = x.clone(), torch.arange(len(x), device=x.device)
    value, slope = objective(x, some)
    step, stalled = torch.ones_like(value), torch.zeros_like(some)
    direction, history = -slope, _History.empty(x)
    for _ in range(MAX_ITERATIONS):
        expected = step * torch.linalg.vecdot(slope, direction)
        moved = step[:, None].float() * direction
        next_value, next_slope = objective(x + moved, some)
        lower = next_value <= value + _ARMIJO * expected
        history.add(moved, next_slope - slope, lower)
        stalled = torch.where(lower & (value - next_value <= PROGRESS * value), stalled + 1, 0)
        step = torch.where(lower, 1.0, step * _shorter(next_value - value, expected))
        x = torch.where(lower[:, None], x + moved, x)
        slope = torch.where(lower[:, None], next_slope, slope)
        value = torch.where(lower, next_value, value)
        done = (slope.square().sum(1) / 2 <= GAP * value) | (stalled > 1) | (step < _SMALLEST_STEP)
        if done.any():
            found[some[done]] = x[done]
            if done.all():
                return found
            left = ~done
            some, value, slope, step, stalled, x = (part[left] for part in (some, value, slope, step, stalled, x))
            direction, lower, history = direction[left], lower[left], history.of(left)
        direction = torch.where(lower[:, None], history.direction(slope), direction)
    found[some] = x
    return found


def _shorter(rise: Tensor, expected: Tensor) -> Tensor:
    """Return the share of a step that was too long to try next: the lowest point of a parabola, from 0.1 to 0.5."""
    share: Tensor = -expected / (2 * (rise - expected))
    return share.nan_to_num(0.1).clamp(0.1, 0.5)


class _History:
    """The last steps and changes of slope, and the products of the compact form (Byrd, Nocedal, Schnabel, 1994).

    `S`, `Y`: (b, m, P), the newest in row `newest`, older ones before it, around the end. `SY`, `YY`: (b, m, m),
    products of their rows. A pair that is not to be used is zero, with 1 on the diagonal of `SY`.
    """

    def __init__(self, S: Tensor, Y: Tensor, SY: Tensor, YY: Tensor, scale: Tensor, newest: int) -> None:
        self.S, self.Y, self.SY, self.YY, self.scale, self.newest = S, Y, SY, YY, scale, newest

    @classmethod
    def empty(cls, x: Tensor) -> _History:
        S = x.new_zeros(len(x), _PAIRS, x.shape[1])
        SY = torch.eye(_PAIRS, device=x.device).repeat(len(x), 1, 1)
        return cls(S, torch.zeros_like(S), SY, torch.zeros_like(SY), x.new_ones(len(x)), 0)

    def of(self, some: Tensor) -> _History:
        """Return the history of some of the problems."""
        S, Y, SY, YY, scale = (part[some] for part in (self.S, self.Y, self.SY, self.YY, self.scale))
        return _History(S, Y, SY, YY, scale, self.newest)

    def add(self, step: Tensor, change: Tensor, used: Tensor) -> None:
        """Put a pair (b, P), for every problem that used its step, in the place of the oldest."""
        product = torch.linalg.vecdot(step, change)
        used = used & (product > 0)
        self.newest = at = (self.newest + 1) % _PAIRS
        self.S[:, at], self.Y[:, at] = (torch.where(used[:, None], part, 0) for part in (step, change))
        newest = self.Y[:, at, :, None]
        self.SY[:, at] = 0
        self.SY[:, :, at] = (self.S @ newest)[..., 0]
        self.SY[:, at, at] = torch.where(used, product, 1)
        self.YY[:, :, at] = self.YY[:, at] = (self.Y @ newest)[..., 0]
        self.scale = torch.where(used, product / self.YY[:, at, at], self.scale)

    def direction(self, slope: Tensor) -> Tensor:
        """Return minus the inverse Hessian that the pairs tell times `slope` (b, P)."""
        age = torch.arange(_PAIRS, device=slope.device).roll(-self.newest - 1)  # the oldest first
        along_s, along_y = (self.S @ slope[:, :, None])[:, age], (self.Y @ slope[:, :, None])[:, age]
        upper, squares = torch.triu(self.SY[:, age][:, :, age]), self.YY[:, age][:, :, age]
        diagonal, scale = torch.diagonal(upper, dim1=1, dim2=2)[:, :, None], self.scale[:, None, None]
        u = torch.linalg.solve_triangular(upper, along_s, upper=True)
        v = torch.linalg.solve_triangular(upper.mT, diagonal * u + scale * (squares @ u - along_y), upper=False)
        back = age.argsort()
        along: Tensor = scale * slope[:, None] + v[:, back].mT @ self.S - scale * (u[:, back].mT @ self.Y)
        return -along[:, 0]
