"""Heads on cached embeddings, and what the cache saves: extract + fit against fit alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.images import write_manifest
from benchmarks.timing import in_turn
from tlcache.extraction import extract
from tlcache.fit import fit_heads
from tlcache.heads import HEADS

__all__ = ["measure_heads"]


def measure_heads(
    photos: Sequence[Path], name: str, folder: Path, rounds: int, advance: Callable[[int], None]
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Fit every head, its search included, some rounds in turn; return a row per head, and cold against warm."""
    done = extract(write_manifest(photos), name, "random", features=folder / "features", device="cpu")

    def fits_per_s(head: str) -> float:
        (run,) = fit_heads([done.path], [head], runs=folder / "runs")
        return 1 / float(run.fields["fit_s"])

    rates = in_turn({head: partial(fits_per_s, head) for head in HEADS}, rounds, advance)
    rows: list[dict[str, Any]] = [
        {
            "head": head,
            "fit_s": 1 / each.median,
            "fit_s_low": 1 / max(each.rounds),
            "fit_s_high": 1 / min(each.rounds),
            "noisy": each.noisy,
        }
        for head, each in rates.items()
    ]
    warm = sum(row["fit_s"] for row in rows)
    saved = {"backbone": name, "images": done.rows, "cold_s": done.seconds["wall_s"] + warm, "warm_s": warm}
    return rows, saved
