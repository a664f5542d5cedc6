"""Datasets x backbones -> everything that tlcache can do with them, and the report: a study as it is called."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

from tlcache.arguments import (
    NETWORK,
    OUTPUT,
    TRAINING,
    BackboneWeights,
    Budget,
    CrossValidated,
    Datasets,
    Device,
    Features,
    Heads,
    Joins,
    Models,
    Page,
    Runs,
    check_task,
)
from tlcache.backbones.groups import GROUPS, ungrouped
from tlcache.cache.find import features_folder
from tlcache.datasets.layout import Layout
from tlcache.errors import OptionError
from tlcache.files import check_folder
from tlcache.finetuning.recipe import Recipe, check_nested, resolved
from tlcache.heads.table import find_heads
from tlcache.kinds import SWITCH, listing, whole
from tlcache.options import Option, dealt, described
from tlcache.probing.protocol import SearchProtocol
from tlcache.progress import say
from tlcache.tasks import CLASSIFY

if TYPE_CHECKING:
    from tlcache.studying.steps import Step

__all__ = ["MODELS", "study"]

MODELS = GROUPS["study"]


@described(Recipe, Layout)
def study(
    data: Datasets,
    models: Models = MODELS,
    weights: BackboneWeights = None,
    *,
    heads: Heads = None,
    joins: Joins = None,
    finetune: Annotated[
        bool, Option("Train every backbone itself, too: most time goes there", SWITCH, TRAINING)
    ] = True,
    plan: Annotated[
        bool, Option("Only tell what would be done, and about how long it takes on this machine", SWITCH, OUTPUT)
    ] = False,
    screen: Annotated[
        int | None,
        Option(
            "Go on with so many backbones, those that do best on a sample of the images",
            whole(1),
            NETWORK,
            default="all",
            more="Ranked by the ridge head out of fold on about 800 images that are not for testing",
        ),
    ] = None,
    seeds: Annotated[
        int,
        Option(
            "Do it so often, with other seeds",
            whole(1),
            TRAINING,
            more="Splits that are drawn, heads and fine-tunings; the spread is told beside the interval of one split",
        ),
    ] = 1,
    cv: CrossValidated = None,
    budget_s: Budget = None,
    out: Page = "report.html",
    features: Features = None,
    runs: Runs = None,
    device: Device = "auto",
    **settings: Any,
) -> list[Step]:
    """Extract, fit heads, fine-tune and report, for every dataset and backbone; what is recorded is not done again.

    The order is that of worth: the networks from the smallest up, each with its heads at once, on all datasets; then
    heads on several of them together, where `joins` says so; then the fine-tunings, on each dataset first of the
    backbone whose heads are best on validation. A study that is stopped has then answered most of the question, and a
    budget is kept by going down the list: it is of the steps, without the measuring before them and the report after
    them. A step is left out that would not fit any more; none is stopped. A step that fails is told, and the others go
    on.

    With `screen`, all backbones embed a sample of the images first, and those are gone on with whose ridge head does
    best on it, out of fold; how sure that is, is said and recorded.

    With `seeds`, all of it is done so often, with other draws of the splits that are drawn, and other seeds of heads
    and fine-tunings; feature files have the splits of the first at the end.

    With `cv`, heads and fine-tunings are tested in the same folds, so that it takes as many trainings; backbones are
    then not screened, which would be done on images that they are tested by.

    The settings of the fine-tunings are those of `tlcache.finetune`, but that `refit` is on, so that networks are
    fitted to what heads are; `coverage` and `per_class` are of the heads as well. Networks that cannot be trained, such
    as ONNX files, are refused.

    Returns
    -------
    list of Step
        In the order in which they were, or would be, taken.

    Raises
    ------
    TlcacheError
        One of its kinds, for what is known before the first step: a name, a dataset, a setting.

    Examples
    --------
    >>> steps = study([photos], ["squeezenet1_1"], "random", heads=["ridge"], finetune=False, features=folder,
    ...     runs=folder, out=folder / "report.html")
    >>> [(step.kind, step.state) for step in steps]
    [('extract', 'done'), ('fit-heads', 'done'), ('report', 'done')]
    """
    asked = find_heads(heads)
    layout, recipe = dealt(resolved({"refit": True, **settings}), Layout, Recipe)
    task = layout.task or CLASSIFY
    check_task(task, screen=screen)
    recipe = replace(recipe, task=task)
    check_nested(cv, recipe)
    for flag, given in (("--seeds", seeds > 1), ("--screen", screen is not None)):
        if cv is not None and given:
            raise OptionError(f"{flag} is of a study on one split, --cv tests in folds; leave one of them out.")
    from tlcache.datasets.overview import Overview
    from tlcache.probing.run import able_rows
    from tlcache.report.page import check_page
    from tlcache.runs.folder import runs_folder
    from tlcache.studying.screen import screened
    from tlcache.studying.seeds import run_seeds
    from tlcache.studying.steps import StudyPlan, find_cells, find_joined

    place = check_folder(features_folder(features), "--features")
    records = check_folder(runs_folder(runs), "--runs")
    cells = find_cells(listing(data), ungrouped(map(str, listing(models))), weights, place, layout)
    for dataset in {cell.data: cell.dataset for cell in cells.values()}.values():
        say(f"{dataset.name}: {Overview.expected(dataset)}")
    joined = find_joined(cells, listing(joins or ()))
    if screen is not None and plan:
        say(f"The plan is of all backbones; --screen {screen} leaves {screen} of them for each dataset.")
    elif screen is not None:
        cells = screened(cells, screen, records, features=place, device=device)
    study_plan = StudyPlan(
        cells=cells,
        heads=tuple(able_rows(asked, task, heads is not None)),
        recipe=recipe if finetune else None,
        protocol=SearchProtocol(
            coverage=recipe.coverage, per_class=recipe.per_class, seed=recipe.seed if cv else SearchProtocol.seed
        ),
        cv=cv,
        layout=layout,
        features=place,
        runs=records,
        out=check_page(out),
        device=device,
        joins=joined,
    )
    return run_seeds(study_plan, plan, budget_s, seeds)
