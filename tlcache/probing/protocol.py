"""How a head's settings are chosen: what a run's record says of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Any

from tlcache.arguments import (
    CHOOSING,
    FIGURE,
    Budget,
    ClassWeight,
    Coverage,
    PerClass,
    Seed,
    check_coverage,
    check_task,
)
from tlcache.errors import OptionError
from tlcache.heads.table import HeadRow
from tlcache.kinds import SWITCH, Kind, choice, whole
from tlcache.options import Option, asked, check_fields, described

__all__ = ["FEW", "FOLDS", "SearchProtocol"]

FEW = 200  # validation images; fewer tell hardly one setting, or one run, from another
FOLDS = 5
_FOLDS = Kind(
    "0, or a whole number from 2 on", "N", "int", int, lambda value: type(value) is int and (value == 0 or value > 1)
)
_METRIC_MORE = (
    "accuracy, macro_f1, log_loss, auroc, average_precision (ap), balanced_accuracy, mcc, kappa, top5 or brier: "
    "docs/statistics.md; of several labels mean_average_precision, micro_f1, macro_f1, subset_accuracy or hamming, of "
    "numbers mae, rmse, r2 or spearman: docs/tasks.md"
)
_FOLDS_MORE = "Folds are stratified; groups and byte-identical images stay together"


@described()
@dataclass(frozen=True)
class SearchProtocol:
    """How settings are chosen; a run's record holds it.

    Parameters
    ----------
    layers
        The `tlcache.runs.frozen.LayerScore`s that a layer was chosen by, which is no option; empty where none was.
    """

    search: Annotated[str, Option("How many settings to try: quick or full", choice(("quick", "full")), CHOOSING)] = (
        "quick"
    )
    folds: Annotated[
        int | None,
        Option(
            "Choose by cross-validation over train and val; 0: on the validation split",
            _FOLDS,
            CHOOSING,
            default=f"0, or {FOLDS} where val has fewer than {FEW} images",
            more=_FOLDS_MORE,
        ),
    ] = None
    metric: Annotated[str, Option("Choose by this figure", FIGURE, CHOOSING, more=_METRIC_MORE)] = "accuracy"
    one_se: Annotated[
        bool, Option("Choose the simplest setting within one standard error of the best", SWITCH, CHOOSING)
    ] = False
    class_weight: ClassWeight = None
    repeats: Annotated[
        int, Option("Seeds to fit the chosen setting with; the record has all figures", whole(1), CHOOSING)
    ] = 1
    seed: Seed = 0
    budget_s: Budget = None
    coverage: Coverage = None
    per_class: PerClass = False
    per: Annotated[
        str | None,
        Option(
            "group: also one answer for each group of images, like those of a patient",
            choice(("group",)),
            CHOOSING,
            default="each image alone",
            more="Probabilities are joined by mean, maximum or vote, whichever is best on validation",
        ),
    ] = None
    layers: tuple[Any, ...] = ()

    def __post_init__(self) -> None:
        check_fields(self)
        check_coverage(self.coverage, self.per_class)

    def arguments(self, val_rows: int = FEW) -> dict[str, Any]:
        """Return the settings as records hold them, on so many validation images."""
        among = {"layers": {each.name: each.key for each in self.layers}} if self.layers else {}
        return {**asked(self, "coverage", "per_class", "per"), "folds": self.folds_for(val_rows), **among}

    def folds_for(self, val_rows: int) -> int:
        """Return the folds that settings are chosen by, 0: on the validation split, where this has so many images.

        Without any there is nothing else than folds; that has always been called 0.
        """
        return self.folds if self.folds is not None else FOLDS if 0 < val_rows < FEW else 0

    def of_task(self, name: str) -> SearchProtocol:
        """Return the same for a task, whose usual figure stands for that of classes, where that was not asked for.

        Raises
        ------
        OptionError
            An option that is of classes alone, or a figure that the task does not have.
        """
        from tlcache.evaluation.task import TASKS, figure_of  # which a command line's help does without

        metrics, how = TASKS[name], replace(self, metric=figure_of(name, self.metric))
        several, said = self.repeats > 1, {"class_weight": self.class_weight, "per_class": self.per_class}
        check_task(name, **said, repeats=several, per=self.per, coverage=self.coverage)
        if how.metric not in metrics:
            raise OptionError(f"--metric {how.metric} is not of --task {name}, which has {', '.join(metrics)}.")
        return how

    def settings(self, row: HeadRow) -> list[dict[str, Any]]:
        """Return complete parameters for every candidate of a head."""
        common = self.common(row)
        return [{**common, **each} for each in row.settings(self.search)]

    def common(self, row: HeadRow) -> dict[str, Any]:
        """Return the parameters of a head that are the same for every candidate."""
        given, known = {"class_weight": self.class_weight, "seed": self.seed}, row.defaults()
        return {name: value for name, value in given.items() if name in known}
