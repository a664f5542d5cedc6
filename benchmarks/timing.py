"""Rates that can be compared: contenders take turns, ratios are formed within a round, and noise is shown."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from statistics import median
from typing import Any

from tlcache.extraction.forks import can_fork, forked

__all__ = ["Rates", "Ratios", "cpu_seconds", "in_processes", "in_sequence", "in_threads", "in_turn", "ratio"]

NOISY = 1.10  # fastest over slowest round
UNTOLD = 1.15  # where the rounds of a ratio differ by more, it says nothing


@dataclass(frozen=True)
class Rates:
    """What one contender did in each round, in images (or whatever is counted) per second, and the CPU seconds."""

    rounds: tuple[float, ...]
    cpu_s: tuple[float, ...] = field(default=(), kw_only=True)

    @property
    def median(self) -> float:
        """The figure to quote."""
        return median(self.rounds)

    @property
    def noisy(self) -> bool:
        """Whether the rounds differ by more than 10 %."""
        return max(self.rounds) / min(self.rounds) > NOISY

    def as_json(self, unit: str = "images_per_s") -> dict[str, Any]:
        """Return median, extremes and rounds, with the unit in the keys."""
        return {
            unit: self.median,
            f"{unit}_low": min(self.rounds),
            f"{unit}_high": max(self.rounds),
            "rounds": list(self.rounds),
            "noisy": self.noisy,
            **({"cpu_s": list(self.cpu_s)} if self.cpu_s else {}),
        }


class Ratios(Rates):
    """A ratio in each round; where the rounds disagree, there is none to quote."""

    @property
    def agrees(self) -> bool:
        """Whether the rounds differ by 15 % at most."""
        return max(self.rounds) / min(self.rounds) <= UNTOLD

    def as_json(self, unit: str = "ratio") -> dict[str, Any]:
        """Return the same; the ratio itself is None where the rounds disagree."""
        return {**super().as_json(unit), **({} if self.agrees else {unit: None})}


def in_turn(
    contenders: Mapping[str, Callable[[], float]], rounds: int, advance: Callable[[int], None]
) -> dict[str, Rates]:
    """Let every contender measure its rate once a round, in an order that turns round from one to the next."""
    found: dict[str, list[float]] = {name: [] for name in contenders}
    spent: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(rounds):
        for name in list(contenders)[:: -1 if number % 2 else 1]:
            began = cpu_seconds()
            found[name].append(contenders[name]())
            spent[name].append(cpu_seconds() - began)
            advance(1)
    return {name: Rates(tuple(values), cpu_s=tuple(spent[name])) for name, values in found.items()}


def cpu_seconds() -> float:
    """Return the CPU seconds that this process and those of its children that have ended have used."""
    return sum(os.times()[:4])


def ratio(first: Rates, second: Rates) -> Ratios:
    """Return first / second, round by round: what slows the machine for a while slows both."""
    return Ratios(tuple(a / b for a, b in zip(first.rounds, second.rounds, strict=True)))


def in_sequence(first: Rates, second: Rates, items: int = 1) -> Rates:
    """Return the rate of doing one of each after the other, round by round, where the two count as `items`."""
    return Rates(tuple(items / (1 / a + 1 / b) for a, b in zip(first.rounds, second.rounds, strict=True)))


def in_threads(work: Callable[[Any], object], items: Iterable[Any], threads: int) -> float:
    """Return the seconds that `threads` threads need for all items."""
    with ThreadPoolExecutor(threads) as pool:
        began = time.perf_counter()
        for _ in pool.map(work, items):
            pass
        return time.perf_counter() - began


def in_processes(work: Callable[[Any], object], items: Sequence[Any], processes: int) -> float:
    """Return how many items per second as many forked processes get done between them; threads, where none can fork."""
    if not can_fork():
        return len(items) / in_threads(work, items, processes)
    shares = [items[slot::processes] for slot in range(processes)]
    running = [forked(partial(in_threads, work, share, 1)) for share in shares]
    return sum(len(share) / seconds() for share, seconds in zip(shares, running, strict=True))
