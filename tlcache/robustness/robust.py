"""Runs -> what they reach on test images that are made worse, all on the same ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated

from tlcache.arguments import CHOOSING, BatchSize, Device, Features, JudgedModels, OnlyDatasets, Runs
from tlcache.errors import CacheError, OptionError, UnknownNameError, closest
from tlcache.kinds import chosen_from, listing, several, whole
from tlcache.options import Option, described
from tlcache.progress import say, warn
from tlcache.text import counted

if TYPE_CHECKING:
    from tlcache.evaluation.comparison import Comparison, Entry
    from tlcache.robustness.records import Robustness

__all__ = ["robust"]

_KINDS = "blur, noise, jpeg, dark, rotate and others, as ImageNet-C has them (docs/robust.md)"


@described()
def robust(
    data: OnlyDatasets = None,
    kinds: Annotated[
        str | Sequence[str],
        Option(
            "How images are made worse",
            several(chosen_from("tlcache.images.corruptions:CORRUPTIONS")),
            CHOOSING,
            more=_KINDS,
        ),
    ] = ("blur", "noise", "jpeg", "dark", "rotate"),
    severity: Annotated[
        Sequence[int], Option("How much, from 1 to 5", several(whole(1, 5)), CHOOSING, "--severity")
    ] = (1, 3, 5),
    model: JudgedModels = None,
    *,
    features: Features = None,
    runs: Runs = None,
    device: Device = "auto",
    batch_size: BatchSize = None,
    on_warning: Callable[[str], None] = warn,
) -> list[Robustness]:
    """Judge recorded runs on test images that are made worse: by noise, blur, darkness and others.

    The images are embedded once for each kind and severity by every network, whatever the number of its heads; what is
    embedded is kept in the folder of features. The images are made worse as the network takes them, after they are
    resized and cut, and always alike.

    Parameters
    ----------
    on_warning
        Called with a sentence for each run that is left out.

    Returns
    -------
    list of Robustness
        One for each dataset and split; each is recorded beside the runs, for `write_report`.

    Raises
    ------
    CacheError, OptionError
        There is no run that could be judged, or no such backbone.
    ModelError, WeightsError, DeviceError
        A network cannot be had, is another by now, or cannot be run.

    Examples
    --------
    >>> runs = fit_heads([feature_file], heads=["ridge", "knn"], runs=folder)
    >>> found = robust("photos", ["dark"], [5], features=feature_file.parents[1], runs=folder)[0]
    >>> found.images, found.embedded, [each.corruption for each in found.runs[0].reached]
    (6, 6, ['dark:5'])
    """
    from tlcache.evaluation.compare import compare_runs
    from tlcache.robustness.judging import judged
    from tlcache.runs.folder import list_runs, runs_folder

    corruptions = list(dict.fromkeys(f"{kind}:{each}" for kind in listing(kinds) for each in severity))
    if not corruptions:
        raise OptionError("--kinds or --severity names nothing. Leave them out for the usual ones.")
    found: list[Robustness] = []
    known, left_out = list_runs(runs, data, on_warning), list[str]()
    wanted = _wanted(model, sorted({run.backbone for run in known}))
    for comparison in compare_runs(known, on_warning):
        skipped = list[str]()
        entries = _judged(comparison, wanted, skipped)
        for why in skipped:
            on_warning(why)
        left_out += skipped
        if entries:
            images = counted(entries[0].run.test.n, "test image")
            say(f"{comparison.dataset}: {images}, made worse in {counted(len(corruptions), 'way')}")
            how = {"features": features, "device": device, "batch_size": batch_size}
            found.append(judged(comparison, entries, corruptions, runs_folder(runs), **how))
    if not found:
        none = "There is no run that could be judged"
        if left_out:
            raise CacheError(
                f"{none}: {counted(len(left_out), 'run')} left out, of which it is said why. Judged are runs that "
                "learned classes on a split, without --cv, on embeddings that tlcache extract has made."
            )
        on = f" on {' or '.join(wanted)}" if wanted else ""
        raise CacheError(f"{none}{on}. See: tlcache runs; make some with: tlcache fit-heads")
    return found


def _wanted(model: str | Sequence[str] | None, known: Sequence[str]) -> list[str] | None:
    """Return the names of the backbones that are asked for; None: all.

    Raises
    ------
    UnknownNameError
        One is no backbone, and no run is on it.
    """
    from tlcache.backbones.sources import lookup

    if model is None:
        return None
    found = [row.name if (row := lookup(str(each))) else str(each) for each in listing(model)]
    for name in found:
        if known and name not in known and not lookup(name):
            raise UnknownNameError(closest("backbone of these runs", name, known))
    return found


def _judged(found: Comparison, wanted: Sequence[str] | None, left_out: list[str]) -> list[Entry]:
    """Return the runs of a comparison that can be judged, those that were picked first first; add why others not."""
    own = [entry for entry in found.picked if wanted is None or entry.run.backbone in wanted]
    reasons = [_why_not(entry) for entry in own]
    left_out += [f"{entry.name} is left out: {why}." for entry, why in zip(own, reasons, strict=True) if why]
    return [entry for entry, why in zip(own, reasons, strict=True) if not why]


def _why_not(entry: Entry) -> str:
    from tlcache.tasks import CLASSIFY

    run = entry.run
    if run.task != CLASSIFY:
        return f"it is of --task {run.task}, and this is of classes"
    if run.cross_validation:
        return "a cross-validation leaves nothing that has not seen the images"
    if "embeddings" in run.extract_arguments:
        return "its embeddings were adopted, without a network"
    return ""
