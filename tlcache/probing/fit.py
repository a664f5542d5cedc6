"""Feature files -> fitted heads and their records: the frozen strategy as it is called."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from tlcache.arguments import (
    ChosenLayers,
    Columns,
    CrossValidated,
    Features,
    Force,
    Heads,
    Join,
    Memory,
    OnlyDatasets,
    Paths,
    Runs,
    Samples,
    Shots,
    Split,
    SplitSeed,
)
from tlcache.cache.find import find_labelled
from tlcache.datasets.tasks import task_of
from tlcache.errors import HeadError, OptionError
from tlcache.files import check_folder
from tlcache.heads.table import find_heads
from tlcache.kinds import listing
from tlcache.options import described, made
from tlcache.probing.protocol import SearchProtocol
from tlcache.progress import step_bar, warn

if TYPE_CHECKING:
    from tlcache.probing.columns import ColumnComparison
    from tlcache.probing.session import Session
    from tlcache.probing.shots import Curve
    from tlcache.runs.frozen import FrozenRun

__all__ = ["fit_columns", "fit_curves", "fit_heads"]

T = TypeVar("T")


@described(SearchProtocol)
def fit_heads(
    paths: Paths = None,
    heads: Heads = None,
    *,
    data: OnlyDatasets = None,
    layers: ChosenLayers = None,
    join: Join = None,
    features: Features = None,
    runs: Runs = None,
    split: Split = "given",
    split_seed: SplitSeed = 0,
    cv: CrossValidated = None,
    force: Force = False,
    memory: Memory = None,
    on_warning: Callable[[str], None] = warn,
    **protocol: Any,
) -> list[FrozenRun]:
    """Fit heads on cached features, choose their settings, and test each once.

    What is recorded is read, and only what is missing is fitted. With `layers`, those of a network are a choice, which
    each head makes on validation: it is tested on the best one, and beside it on the last.
    With `join`, each row is the embeddings of an image by several backbones, standardised and brought to the same mean
    length; images that one of the files lacks are left out, and said.

    Parameters
    ----------
    on_warning
        Called for each head that cannot be fitted; it is left out, and the others go on.

    Returns
    -------
    list of FrozenRun
        One per file and head, in that order; with `join`, of `JoinedRun`, one per join and head.

    Raises
    ------
    CacheError, DataError, HeadError, OptionError
        No features, features that are not finite, an empty split, an unknown head, no place for records; no head could
        be fitted.

    Examples
    --------
    >>> runs = fit_heads([feature_file], heads=["ridge", "knn"], runs=folder)
    >>> [run.head for run in runs]
    ['ridge', 'knn']
    >>> runs[0].test.n, runs[0].strategy
    (6, 'frozen')
    """
    how, rows = made(SearchProtocol, protocol), find_heads(heads)
    _check_nested(cv, protocol)
    if cv is not None and layers is not None:
        raise OptionError("--layers is a choice on one split, and --cv has several; leave one of them out.")
    if join is not None and layers is not None:
        raise OptionError("--layers chooses one layer, --join takes all that it names. Give one of them.")
    if layers is not None and how.budget_s is not None:
        raise OptionError("--budget is of heads on single files; leave it out with --layers, or name fewer heads.")
    files, asked = find_labelled(paths, features, data), heads is not None
    from tlcache.probing.nested import fit_file as cross_validate
    from tlcache.probing.run import able_rows, fit_file

    found = _found(files, join) if layers is None else _alternatives(files, layers)
    steps = len(found) * len(rows) * (1 if layers is None else 2)
    results: list[FrozenRun] = []
    with _session(steps, runs, how, split, split_seed, force, memory, on_warning) as session:
        for own in found:
            if layers is not None:
                from tlcache.probing.layers import fit_layers

                results += fit_layers(own, rows, session, asked)
                continue
            with session.opened(own, cv=cv) as file:
                able = able_rows(rows, task_of(file.attrs), asked, on_warning)
                session.advance(len(rows) - len(able))
                results += fit_file(file, able, session) if cv is None else cross_validate(file, able, session, cv)
    return _some(results)


def _check_nested(cv: str | None, protocol: Mapping[str, Any]) -> None:
    """Raise OptionError where an option is of a single test split."""
    flags = {"repeats": "--repeats", "budget_s": "--budget", "coverage": "--coverage"}
    for name, flag in flags.items():
        if cv is not None and protocol.get(name) is not None:
            raise OptionError(f"{flag} is of heads that are tested on one split, --cv tests in folds; leave one out.")


@described(SearchProtocol)
def fit_curves(
    paths: Paths,
    shots: Shots,
    heads: Heads = None,
    *,
    samples: Samples = 5,
    data: OnlyDatasets = None,
    join: Join = None,
    features: Features = None,
    runs: Runs = None,
    split: Split = "given",
    split_seed: SplitSeed = 0,
    force: Force = False,
    memory: Memory = None,
    on_warning: Callable[[str], None] = warn,
    **protocol: Any,
) -> list[Curve]:
    """Fit heads on random samples of so many images per class, and test each on the whole test split.

    A sample knows no other labels than its own: settings are chosen by cross-validation within it, whatever `folds`
    says. With a single image per class there is nothing to choose by, and heads keep their defaults. What is recorded
    is read, and only what is missing is fitted.

    Parameters
    ----------
    on_warning
        As for `fit_heads`.

    Returns
    -------
    list of Curve
        One per file and head, in that order.

    Raises
    ------
    CacheError, DataError, HeadError, OptionError
        As `fit_heads`.

    Examples
    --------
    >>> (curve,) = fit_curves([feature_file], [1, 4, None], ["ridge"], runs=folder)
    >>> [point.shots for point in curve.points]
    [1, 4, None]
    """
    how, rows = made(SearchProtocol, protocol), find_heads(heads)
    if "repeats" in protocol:
        raise OptionError(
            "--repeats is how often the last fit is repeated; a curve takes --samples for each of --shots."
        )
    for flag, given in (("--coverage", how.coverage), ("--per", how.per)):
        if given is not None:
            raise OptionError(f"{flag} is of the heads that are kept, and --shots keeps none; leave one of them out.")
    how = replace(how, repeats=samples)  # as records have always called it
    wanted = sorted(set(shots), key=lambda count: (count is None, count))
    found = _found(find_labelled(paths, features, data), join)
    from tlcache.probing.shots import fit_file

    curves: list[Curve] = []
    steps = len(found) * len(rows) * len(wanted)
    with _session(steps, runs, how, split, split_seed, force, memory, on_warning) as session:
        for own in found:
            with session.opened(own, shots=shots) as file:
                curves += fit_file(file, rows, session, wanted)
    return _some(curves)


@described(SearchProtocol)
def fit_columns(
    paths: Paths,
    columns: Columns,
    heads: Heads = None,
    *,
    data: OnlyDatasets = None,
    join: Join = None,
    features: Features = None,
    runs: Runs = None,
    split: Split = "given",
    split_seed: SplitSeed = 0,
    force: Force = False,
    memory: Memory = None,
    on_warning: Callable[[str], None] = warn,
    **protocol: Any,
) -> list[ColumnComparison]:
    """Fit heads on columns of the table that lists the images, and on these and the embeddings, and compare.

    A column that tells the labels as well as the images do may be what a network has learnt from these: a shortcut.
    Runs on the images alone are those of `fit_heads`, and made where they are missing; of the others no head is kept.
    Columns are measured on the images that a head is fitted on: categories that are seen twice there, the 200 most
    frequent, and mean and deviation of numbers. Boosted trees take them as they are, other heads one-hot and
    standardised.

    Parameters
    ----------
    on_warning
        As for `fit_heads`.

    Returns
    -------
    list of ColumnComparison
        One per file and head, in that order.

    Raises
    ------
    CacheError, DataError, HeadError, OptionError, UnknownNameError
        As `fit_heads`; a feature file without such a column.

    Examples
    --------
    >>> lines = [f"{path},{path.parent.name},{path.parent.name[0]}" for path in sorted(photos.glob("*/*"))]
    >>> table = folder.parent / "scans.csv"
    >>> _ = table.write_text(chr(10).join(["path,label,site", *lines]))
    >>> scans = extract(table, tiny_model, features=folder)
    >>> (found,) = fit_columns([scans.path], "site", ["ridge"], runs=folder)
    >>> found.alone.accuracy, found.over_baseline["site"].difference > 0.5
    (1.0, True)
    """
    how, rows, names = made(SearchProtocol, protocol), find_heads(heads), listing(columns)
    found = _found(find_labelled(paths, features, data), join)
    from tlcache.probing.columns import compare_columns

    results: list[ColumnComparison] = []
    steps = 2 * len(found) * len(rows)
    with _session(steps, runs, how, split, split_seed, force, memory, on_warning) as session:
        for own in found:
            with session.opened(own, columns=columns) as file:
                results += compare_columns(file, rows, session, own[0], names)
    return _some(results)


@contextmanager
def _session(
    steps: int,
    runs: str | Path | None,
    protocol: SearchProtocol,
    split: str,
    split_seed: int,
    force: bool,
    memory: int | None,
    on_warning: Callable[[str], None],
) -> Iterator[Session]:
    """Show so many fits, which take no more memory for embeddings than that."""
    from tlcache.heads.large import within
    from tlcache.probing.session import Session
    from tlcache.runs.folder import runs_folder

    folder = check_folder(runs_folder(runs), "--runs")
    with within(memory), step_bar("fitting heads", steps) as advance:
        yield Session(folder, protocol, split, split_seed, force, advance, on_warning)


def _found(files: list[Path], join: str | Sequence[str] | None) -> Sequence[Sequence[Path]]:
    """Return what heads are fitted on: each feature file, or those of each join."""
    from tlcache.cache.joins import find_joins

    return [(file,) for file in files] if join is None else find_joins(files, join)


def _alternatives(files: list[Path], layers: str | Sequence[str]) -> Sequence[Sequence[Path]]:
    """Return the feature files that layers are chosen among, those of each network together."""
    from tlcache.probing.layers import alternatives  # all sources of backbones, which take a while to load

    return alternatives(files, listing(layers))


def _some(results: list[T]) -> list[T]:
    if not results:
        raise HeadError("None of the heads could be fitted.")
    return results
