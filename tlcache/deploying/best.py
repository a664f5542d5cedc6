"""The run to use where none is named: by what is recorded, and by nothing else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tlcache.errors import OptionError
from tlcache.evaluation.compare import compare
from tlcache.evaluation.comparison import Comparison, Entry
from tlcache.keys import some
from tlcache.progress import warn

__all__ = ["best_of", "best_run"]


def best_run(
    data: str | Path | None = None, runs: str | Path | None = None, on_warning: Callable[[str], None] = warn
) -> tuple[Entry, str]:
    """Return the run that `tlcache.compare` has first, and why in a sentence.

    Of several with the same accuracy on the test images it is the cheapest to use: that with the most images a second,
    as extraction recorded them, and of these the quickest to fit. Of a dataset with several splits it is one on the
    split that was used last.

    Parameters
    ----------
    data
        Name, folder or manifest of a dataset; not needed where all runs are of one.
    runs
        Folder of run records.
    on_warning
        Called with a sentence for each record that cannot be read.

    Raises
    ------
    OptionError, CacheError
        There are runs of several datasets, or none.

    Examples
    --------
    >>> runs = fit_heads([feature_file], heads=["ridge", "knn"], runs=folder)
    >>> best_run("photos", folder)[0].accuracy == max(run.test.accuracy for run in runs)
    True
    """
    found = compare(runs, data, on_warning)
    names = sorted({each.dataset for each in found})
    if len(names) > 1:
        raise OptionError(f"There are runs of {some(names)}. Say which the best one is to be of, with --data.")
    chosen = best_of(found[0])
    return chosen, _why(chosen, found[0], len(_equal(found[0])))


def best_of(found: Comparison) -> Entry:
    """Return the most accurate run, and of several that are that the cheapest to use, as `best_run` says."""
    return min(_equal(found), key=lambda entry: (-entry.images_per_s, entry.train_s))


def _equal(found: Comparison) -> list[Entry]:
    """Return the runs that are as accurate as the first one."""
    return [entry for entry in found.entries if entry.accuracy == found.entries[0].accuracy]


def _why(chosen: Entry, found: Comparison, equal: int) -> str:
    reached = f"{chosen.accuracy:.3f} ({chosen.low:.3f}-{chosen.high:.3f}) on {len(chosen.top.label):,} test images"
    rank = f"the most accurate of {len(found.entries)} recorded" if len(found.entries) > 1 else "the only one recorded"
    if equal > 1:
        rank = f"of {equal} that are the most accurate of {len(found.entries)} recorded, the cheapest to use"
    return f"{chosen.name}: {reached} of {found.dataset}; {rank}."
