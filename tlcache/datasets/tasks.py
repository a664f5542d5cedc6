"""What a label says: a class, several labels, or a number. It is a text everywhere, and read here by its task."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import inf, isfinite
from typing import TYPE_CHECKING, Any

from tlcache.errors import DataError
from tlcache.keys import hash_rows
from tlcache.tasks import CLASSIFY, MULTILABEL, NONE, REGRESSION, joined_label
from tlcache.text import counted

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from tlcache.datasets.rows import Rows

__all__ = [
    "LIST",
    "Targets",
    "read_labels",
    "rows_digest",
    "separator_of",
    "task_of",
    "told_of",
]

_SEPARATORS = ";|,"  # the first that any label has
LIST = re.compile(r"\[.*\]|\{.*\}|\(.*,.*\)", re.DOTALL)  # as Python and JSON write several
_WRITTEN = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)  # numbers, as docs/tasks.md says
_BINS = 10  # of numbers, each of which has its share in every split


@dataclass(frozen=True)
class Targets:
    """What the labels of a dataset are to be learned as, where they are no classes.

    Parameters
    ----------
    task
        `multilabel` or `regression`.
    names
        (C,) of the columns: the labels, or `value`.
    values
        (V, C) what each of the V texts says: uint8 0 or 1, or float64.
    """

    task: str
    names: tuple[str, ...]
    values: NDArray[Any]

    @classmethod
    def of(cls, task: str, texts: Sequence[str]) -> Targets | None:
        """Return what the texts of labels (V,) say, as `read_labels` writes them; None of classes.

        >>> found = Targets.of("multilabel", [";", "cat", "cat;dog"])
        >>> found.names, found.values.tolist()
        (('cat', 'dog'), [[0, 0], [1, 0], [1, 1]])
        """
        if task == CLASSIFY or not texts:
            return None
        import numpy as np  # which a command line's help does without

        if task == REGRESSION:
            return cls(task, ("value",), np.array([[float(text)] for text in texts]))
        parts = [list(filter(None, text.split(NONE))) for text in texts]
        names = tuple(sorted({name for each in parts for name in each}))
        place = {name: number for number, name in enumerate(names)}
        values = np.zeros((len(texts), len(names)), np.uint8)
        for row, each in zip(values, parts, strict=True):
            row[[place[name] for name in each]] = 1
        return cls(task, names, values)

    def strata(self, labels: NDArray[np.int64]) -> NDArray[Any]:
        """Return what splits are to have alike: labels (N, C) of 0 and 1, or of numbers the bin of each (N,)."""
        import numpy as np

        found: NDArray[Any] = self.values[labels]
        if self.task == MULTILABEL:
            return found
        edges = np.quantile(found[:, 0], np.linspace(0, 1, min(_BINS, 1 + len(labels) // 10) + 1)[1:-1])
        return np.searchsorted(edges, found[:, 0], side="right")


def task_of(attrs: Mapping[str, Any]) -> str:
    """Return the task of a feature file, by its attributes; those of classes do not say it."""
    return str(attrs.get("task", CLASSIFY))


def told_of(task: str) -> dict[str, str]:
    """Return what feature files and records say of a task; of classes nothing, as those that knew of nothing else."""
    return {} if task == CLASSIFY else {"task": task}


def rows_digest(classes: Sequence[str], rows: Iterable[Sequence[Any]], task: str) -> str:
    """Return what runs on the same rows have in common: a hash of classes and (path, sha256, label, split, group)."""
    return hash_rows({"classes": classes, "rows": [], **told_of(task)}, "rows", rows)


def read_labels(rows: Rows, task: str | None) -> tuple[Rows, tuple[str, ...]]:
    """Return rows with labels as `Targets.of` reads them, and what to tell of how they were read.

    Raises
    ------
    DataError
        A label is no number, where numbers are to be learned.
    """
    if task not in (MULTILABEL, REGRESSION):
        return rows, ()
    texts = [text for text in rows.labels.names if text]  # errors are of the first
    if task == MULTILABEL:
        separator = separator_of(texts)
        known = {text: joined_label(_parts(text, separator)) for text in texts}
        notes = tuple(_separated(texts, separator))
    else:
        known, notes = {text: _number(text, rows) for text in texts}, ()
    return rows.renamed(labels=known), notes


def separator_of(texts: Iterable[str]) -> str:
    """Return what stands between the labels of an image: the first of `;`, `|` and `,` that any text has.

    A `;` alone says that there is none.

    >>> separator_of(["cat", "cat|dog, brown", ";"]), separator_of(["cat"])
    ('|', ';')
    """
    texts = [text for text in texts if text.strip() != NONE]
    return next((each for each in _SEPARATORS if any(each in text for text in texts)), NONE)


def _separated(texts: Iterable[str], separator: str) -> Iterator[str]:
    """Yield what is to be told of the separator, and of others that are then a part of names."""
    if separator != NONE:
        yield f"Labels of an image are taken as separated by '{separator}'."
    plain = [text for text in texts if not LIST.fullmatch(text) and text.strip() != NONE]
    for other in _SEPARATORS[_SEPARATORS.index(separator) + 1 :]:
        if some := [text for text in plain if other in text]:
            yield (
                f"'{separator}' separates the labels of an image, and '{other}' is a part of the names of "
                f"{counted(len(some), 'label')}, like '{some[0]}'; if that separates labels, too, write '{separator}'."
            )


def _parts(text: str, separator: str) -> list[str]:
    """Return the names that a text joins, or lists as Python and JSON do."""
    if LIST.fullmatch(text):
        names = [name.strip().strip("'\"") for name in text[1:-1].split(",")]
    else:
        names = [] if text.strip() == NONE else [name.strip() for name in text.split(separator)]
    return [name for name in names if name]


_POINT = " (a point, no comma, and nothing between thousands)"


def _number(text: str, rows: Rows) -> str:
    value = float(text) if _WRITTEN.fullmatch(text.strip()) else inf
    if not isfinite(value):
        path = next(row.path for row in rows if row.label == text)
        how = _POINT if "," in text else ""
        raise DataError(
            f"--task regression learns numbers, and the label of '{path}' is '{text}'. Write a number like 3.5{how}, "
            "leave such rows out with --ignore, or leave --task out to learn classes."
        )
    return repr(value + 0.0)  # of which -0 is 0
