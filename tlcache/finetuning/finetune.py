"""Dataset + backbone -> fine-tuned network and its record: the tuned strategy as it is called."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

from tlcache.arguments import (
    CHOOSING,
    Budget,
    Crop,
    CropBorders,
    CrossValidated,
    Device,
    Features,
    Force,
    JpegSize,
    MaxPixels,
    Model,
    Name,
    OneDataset,
    Resize,
    Runs,
    Split,
    SplitSeed,
    Weights,
    Window,
)
from tlcache.datasets.layout import Layout
from tlcache.extraction.extract import extract
from tlcache.files import check_folder
from tlcache.finetuning.live import Live, OnEpoch
from tlcache.finetuning.recipe import Recipe, arguments_of, check_nested, resolved, variants
from tlcache.finetuning.typed import SWEEP
from tlcache.options import Option, dealt, described
from tlcache.progress import warn
from tlcache.tasks import CLASSIFY, TASKS

if TYPE_CHECKING:
    from tlcache.finetuning.teacher import Teacher
    from tlcache.runs.finetuned import FinetunedRun

__all__ = ["finetune"]

_SWEEP = "Values to choose from on validation, like lr=1e-3,1e-2; may be repeated"
_SWEEP_MORE = "All combinations are trained, one is tested"


@described(Recipe, Layout)
def finetune(
    data: OneDataset,
    model: Model,
    weights: Weights = None,
    *,
    crop_borders: CropBorders = False,
    window: Window = None,
    jpeg_size: JpegSize = None,
    resize: Resize = None,
    crop: Crop = None,
    name: Name = None,
    split: Split = "given",
    split_seed: SplitSeed = 0,
    device: Device = "auto",
    max_pixels: MaxPixels = None,
    features: Features = None,
    runs: Runs = None,
    force: Force = False,
    sweep: Annotated[Mapping[str, Sequence[Any]] | None, Option(_SWEEP, SWEEP, CHOOSING, more=_SWEEP_MORE)] = None,
    cv: CrossValidated = None,
    budget_s: Budget = None,
    on_epoch: OnEpoch | None = None,
    **settings: Any,
) -> FinetunedRun:
    """Train a backbone and its head on a dataset's images, choose the epoch on validation, and test once.

    Rows, splits and labels are those of the feature file that `tlcache.extract` makes of the same arguments, so that
    any head on frozen features can be compared image by image; it is made first when it is missing. A run that was
    stopped or killed goes on after its last finished epoch; one that is recorded already is not done again.

    Where none of the settings is given that decide the training, several recipes are raced, and the best is trained
    (`tlcache.finetuning.race`). The budget is for all of that; of a sweep it is for the training: a combination is not
    begun that would probably not fit in; the first always is.

    With `cv`, every image is tested by a network that was trained without it, in the folds of `tlcache.fit_heads`: all
    is chosen, and the head fitted that training begins with, inside each fold, on a part of the images to train on. The
    budget is shared by the folds, and no network is kept.

    Parameters
    ----------
    on_epoch
        Called with a `tlcache.finetuning.live.LiveEpoch` after each epoch of each training; not for what a run that
        goes on did before.

    Returns
    -------
    FinetunedRun
        Its record; beside it the test predictions, and the weights for `--weights` (`run.head_path`).

    Raises
    ------
    TlcacheError
        One of its kinds, for everything that the caller can mend.

    Examples
    --------
    >>> run = finetune(photos, "squeezenet1_1", "random", resize=32, crop=32, epochs=1, features=folder, runs=folder)
    >>> run.strategy, [epoch.epoch for epoch in run.history]
    ('finetune', [0, 1])
    """
    layout, asked = dealt(resolved(settings, sweep), Layout, Recipe)
    base = replace(asked, task=layout.task or CLASSIFY)
    wanted = variants(base, sweep or {})
    check_nested(cv, base, *(each for _, each in wanted))
    from tlcache.backbones.sources import find_trainable
    from tlcache.cache.feature_file import FeatureFile
    from tlcache.cache.resplit import apply_split
    from tlcache.datasets.dataset import names_of
    from tlcache.finetuning.data import TuningData
    from tlcache.finetuning.nested import cross_validate
    from tlcache.finetuning.run import claimed, train_and_test
    from tlcache.finetuning.speed import find_torch_device
    from tlcache.finetuning.teacher import find_teacher
    from tlcache.probing.outer import images_in_turn, in_folds
    from tlcache.runs.base import Identity
    from tlcache.runs.finetuned import FinetunedRun
    from tlcache.runs.folder import path_of, recorded, runs_folder

    folder, found_device = check_folder(runs_folder(runs), "--runs"), find_torch_device(device)
    names = {each.distill for each in (base, *(each for _, each in wanted)) if each.distill}
    teachers = {each: find_teacher(each, folder, (name,) if name else names_of(str(data))) for each in names}
    found = extract(
        *(data, find_trainable(str(model)).name, weights),
        crop_borders=crop_borders,
        window=window,
        jpeg_size=jpeg_size,
        resize=resize,
        crop=crop,
        device=device,
        max_pixels=max_pixels,
        features=features,
        name=name,
        split_seed=split_seed,
        labelled=True,
        **layout.arguments,
    )
    for line in () if found.up_to_date else found.warnings:
        warn(line)
    with FeatureFile(found.path) as file:
        rows = apply_split(file, split, folder, split_seed, TASKS)
        tuning = TuningData.of(rows, weights, found_device)
        images = images_in_turn(rows) if cv else None
    attrs = in_folds(tuning.attrs, cv, base.seed) if cv else tuning.attrs
    tuning = replace(tuning, attrs=attrs, teachers={each.run.path.stem: each for each in teachers.values()})
    base, wanted = _taught(base, teachers), [(setting, _taught(each, teachers)) for setting, each in wanted]
    identity = Identity.of(tuning.attrs, "finetune", base.head, arguments_of(base, sweep, budget_s, cv))
    if not force and isinstance(run := recorded(folder, identity), FinetunedRun):
        return run
    path = path_of(folder, identity)
    tuning = replace(tuning, live=Live(on_epoch, path.stem, tuning.attrs["dataset"]))
    with claimed(found_device, path):
        if cv and images:
            return cross_validate(tuning, images, wanted, budget_s, identity, path, cv, base.seed)
        return train_and_test(tuning, wanted, budget_s, identity, path)


def _taught(recipe: Recipe, teachers: Mapping[str, Teacher]) -> Recipe:
    """Return a recipe with its teacher called as its files are, wherever these lie."""
    return replace(recipe, distill=teachers[recipe.distill].run.path.stem) if recipe.distill else recipe
