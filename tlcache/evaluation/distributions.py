"""Student's t and fair coins, by the incomplete beta function: importing SciPy would take longer than a command."""

from __future__ import annotations

from functools import lru_cache
from math import exp, inf, lgamma, log, log1p, pi
from statistics import NormalDist

__all__ = ["fair_coin_below", "t_below", "t_quantile"]

_TINY, _CLOSE, _MOST = 1e-300, 1e-15, 100_000
_FAR_LOG = 300.0  # of what has a square


def t_below(freedom: float, t: float) -> float:
    """Return how often Student's t is below `t`.

    >>> round(t_below(4, -2.0), 4)
    0.0581
    """
    square = t * t
    tail = _beta(freedom / 2, 0.5, freedom / (freedom + square), square / (freedom + square)) / 2
    return tail if t < 0 else 1 - tail


@lru_cache(1024)
def t_quantile(freedom: float, share: float) -> float:
    """Return what Student's t is below as often as `share`, which is above 0.5.

    Newton's method on logarithms, of which tails are straight lines.

    >>> round(t_quantile(4, 0.975), 3)
    2.776
    """
    at, scale = log(NormalDist().inv_cdf(share)), _log_beta(freedom / 2, 0.5) + log(freedom) / 2
    for _ in range(100):
        tail = t_below(freedom, -exp(at))
        density = exp(-scale - (freedom + 1) / 2 * log1p(exp(2 * at) / freedom))
        step = log(tail / (1 - share)) * tail / (density * exp(at))
        at += step
        if at > _FAR_LOG:
            return inf
        if abs(step) < 1e-13:
            break
    return exp(at)


def fair_coin_below(heads: int, throws: int) -> float:
    """Return how often a fair coin shows no more than `heads` in so many throws.

    >>> fair_coin_below(1, 3)
    0.5
    """
    return 1.0 if heads >= throws else _beta(throws - heads, heads + 1, 0.5, 0.5)


def _log_beta(a: float, b: float) -> float:
    if a == 0.5 == b:
        return log(pi)
    return lgamma(a) + lgamma(b) - lgamma(a + b)


def _beta(a: float, b: float, x: float, rest: float) -> float:
    """Return the regularised incomplete beta function of x, by a continued fraction (DLMF 8.17); `rest` is 1 - x."""
    if not x or not rest:
        return float(x > 0)
    if x > (a + 1) / (a + b + 2):  # where it converges slowly
        return 1 - _beta(b, a, rest, x)
    c, d = 1.0, 1 / _far(1 - (a + b) * x / (a + 1))
    found = d
    for m in range(1, _MOST):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        for term in (even, odd):
            d, c = 1 / _far(1 + term * d), _far(1 + term / c)
            found *= c * d
        if abs(c * d - 1) < _CLOSE:
            break
    return found * exp(a * log(x) + b * log(rest) - _log_beta(a, b)) / a


def _far(value: float) -> float:
    """Return the value, or what can be divided by in its place."""
    return value if abs(value) > _TINY else _TINY
