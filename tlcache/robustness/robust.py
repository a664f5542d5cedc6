"""Runs -> what they reach on test images that are made worse, all on the same ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated

from tlcache.arguments import CHOOSING, BatchSize, Device, Features, JudgedModels, OnlyDatasets, Runs
from tlcache.errors import CacheError, OptionError
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
        There is no run that could be judged.
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
    for comparison in compare_runs(list_runs(runs, data, on_warning), on_warning):
        if entries := _judged(comparison, model, on_warning):
            images = counted(entries[0].run.test.n, "test image")
            say(f"{comparison.dataset}: {images}, made worse in {counted(len(corruptions), 'way')}")
            how = {"features": features, "device": device, "batch_size": batch_size}
            found.append(judged(comparison, entries, corruptions, runs_folder(runs), **how))
    if not found:
        raise CacheError("There is no run that could be judged. See: tlcache runs; make some with: tlcache fit-heads")
    return found


def _judged(found: Comparison, model: str | Sequence[str] | None, on_warning: Callable[[str], None]) -> list[Entry]:
    """Return the runs of a comparison that can be judged, those that were picked first first."""
    from tlcache.backbones.sources import lookup

    wanted = (
        None if model is None else [row.name if (row := lookup(str(each))) else str(each) for each in listing(model)]
    )
    own = [entry for entry in found.picked if wanted is None or entry.run.backbone in wanted]
    left_out = {entry.name: why for entry in own if (why := _why_not(entry))}
    for name, why in left_out.items():
        on_warning(f"{name} is left out: {why}.")
    return [entry for entry in own if entry.name not in left_out]


def _why_not(entry: Entry) -> str:
    from tlcache.runs.frozen import FrozenRun
    from tlcache.tasks import CLASSIFY

    run = entry.run
    if run.task != CLASSIFY:
        return f"it is of --task {run.task}, and this is of classes"
    if isinstance(run, FrozenRun) and run.cross_validation:
        return "a cross-validation leaves no head that has not seen the images"
    if "embeddings" in run.extract_arguments:
        return "its embeddings were adopted, without a network"
    return ""
