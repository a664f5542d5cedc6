"""The run to use where none is named: by what is recorded, and by nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from glob import escape
from os import PathLike
from pathlib import Path

from tlcache.backbones.onnx_file import ONNX_FILE
from tlcache.errors import OptionError
from tlcache.evaluation.compare import compare
from tlcache.evaluation.comparison import Comparison, Entry
from tlcache.keys import some
from tlcache.kinds import listing
from tlcache.progress import say, warn
from tlcache.runs.folder import NAMED_BY, runs_folder
from tlcache.text import figure_text

__all__ = ["best_of", "best_run", "refuse_runs", "say_best"]


def best_run(
    data: str | Path | None = None, runs: str | Path | None = None, on_warning: Callable[[str], None] = warn
) -> tuple[Entry, str]:
    """Return the run that `tlcache.compare` picks, and why in a sentence.

    It is picked on validation, not by the test images: what it reaches on these is what can be expected of it. Of
    several that are equal in that it is the cheapest to use: that with the most images a second, as extraction recorded
    them, and of these the quickest to fit. Of a dataset with several splits it is one on the split that was used last.

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
    >>> best_run("photos", folder)[0].val_score == max(run.validated["accuracy"] for run in runs)
    True
    """
    found = compare(runs, data, on_warning=on_warning)
    names = sorted({each.dataset for each in found})
    if len(names) > 1:
        raise OptionError(f"There are runs of {some(names)}. Say which the best one is to be of, with --data.")
    chosen = best_of(found[0])
    return chosen, _why(chosen, found[0], len(_equal(found[0])))


def say_best(data: str | Path | None = None, runs: str | Path | None = None) -> Path:
    """Return the record of the run that `best_run` chooses, and say which it is and why."""
    best, why = best_run(data, runs)
    say(f"{best.run.path.stem}, {why}")
    return best.run.path


def refuse_runs(images: str | PathLike[str] | Iterable[str | PathLike[str]], runs: str | Path | None = None) -> None:
    """Raise OptionError where a run is among the images that the best one is to classify: it would be two."""
    for each in map(Path, listing(images)):
        named = not each.exists() and any(runs_folder(runs).glob(f"*/{escape(each.name)}.json"))
        if named or each.suffix.lower() in NAMED_BY or ONNX_FILE.find(str(each)):
            raise OptionError(f"--best chooses the run, and '{each}' is one, too. Leave one of them out.")


def best_of(found: Comparison) -> Entry:
    """Return the run that was picked, and of several that are equal in that the cheapest, as `best_run` says."""
    return min(_equal(found), key=lambda entry: (-entry.images_per_s, entry.train_s))


def _equal(found: Comparison) -> list[Entry]:
    """Return the runs that reach as much as the first one, on validation, or on test where they were picked there.

    A network that was tested in folds is not kept, and cannot be used.
    """
    untuned = found.picked[0].run.untuned  # where there are heads, no fine-tuning in vain is as good as the first
    usable = [each for each in found.picked if each.run.kept and each.run.untuned == untuned] or [*found.picked]
    if found.without_test:
        return [entry for entry in usable if entry.run.validated == usable[0].run.validated]
    return [entry for entry in usable if entry.figure(found.by) == usable[0].figure(found.by)]


def _why(chosen: Entry, found: Comparison, equal: int) -> str:
    value, low, high = (figure_text(each, found.by) for each in chosen.figure(found.by))
    figure = "" if found.by == "accuracy" else f"{found.by} "
    reached = f"{figure}{value} ({low}-{high}) on {chosen.run.test.n:,} test images"
    best = "most accurate" if found.by == "accuracy" else "best"
    how = "picked on validation" if found.without_test else f"the {best} on the test images"
    rank = f"{how}, of {len(found.entries)} recorded" if len(found.entries) > 1 else "the only one recorded"
    if equal > 1:
        rank = f"of {equal} that are {how} of {len(found.entries)} recorded, the cheapest to use"
    return f"{chosen.name}: {reached} of {found.dataset}; {rank}."
