"""Which figures tables have of a run, by what it learned."""

from __future__ import annotations

from collections.abc import Mapping
from math import nan
from typing import TYPE_CHECKING, NamedTuple

from tlcache.tasks import CLASSIFY, MULTILABEL, REGRESSION
from tlcache.text import figure_text

if TYPE_CHECKING:
    from tlcache.evaluation.comparison import Entry

__all__ = ["COLUMNS", "Column"]


class Column(NamedTuple):
    """A figure: its title in tables, and its name in records."""

    title: str
    name: str

    def cell(self, entry: Entry) -> str:
        """Return the figure of a run, without its interval."""
        value = entry.figures.get(self.name, getattr(entry, self.name, nan))
        return "-" if value is None or value != value else figure_text(value, self.name)


COLUMNS: Mapping[str, tuple[Column, ...]] = {  # the first is what runs are compared by
    CLASSIFY: (Column("Accuracy", "accuracy"), Column("F1", "macro_f1"), Column("Loss", "log_loss")),
    MULTILABEL: (
        Column("mAP", "mean_average_precision"),
        Column("F1", "macro_f1"),
        Column("Micro F1", "micro_f1"),
        Column("Loss", "log_loss"),
    ),
    REGRESSION: (Column("MAE", "mae"), Column("RMSE", "rmse"), Column("R2", "r2"), Column("Spearman", "spearman")),
}
