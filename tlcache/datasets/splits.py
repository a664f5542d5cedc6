"""Which image trains, validates and tests: stratified, seeded, and never tearing a group or a duplicate apart."""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from tlcache.errors import DataError
from tlcache.keys import some

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = [
    "FRACTION",
    "ROLES",
    "Row",
    "SPLITS",
    "check_splits",
    "draw_splits",
    "find_leaks",
    "missing_splits",
    "split_names",
]

SPLITS = ("train", "val", "test")
FRACTION = 0.2


def check_splits(
    labels: NDArray[np.int64], splits: Sequence[str], classes: Sequence[str], groups: Sequence[str] | None = None
) -> None:
    """Raise DataError when what is there is too little for the splits that must be drawn, before a long run.

    Every class needs an image for each of them, and one class as many groups.
    """
    import numpy as np

    from tlcache.datasets.drawing import codes

    missing = missing_splits(splits)
    parts = 1 + len(missing)
    train = np.flatnonzero(np.fromiter((split == "train" for split in splits), bool, len(splits)))
    counts = np.bincount(labels[train] + 1, minlength=len(classes) + 1)[1:]  # -1 is none
    small = [name for number, name in enumerate(classes) if 0 < counts[number] < parts]
    if small:
        raise DataError(
            f"Drawing {' and '.join(missing)} from train needs {parts} images in every class; too few in: "
            f"{some(small, 10)}. Add images, leave the class out with --ignore, or give the splits yourself."
        )
    if missing and groups and any(groups):
        names = (f"g{groups[row]}" if groups[row] else f"r{row}" for row in train.tolist())
        whole = len(classes) * codes(names, len(train)) + labels[train]
        most = np.bincount(np.unique(whole) % len(classes)).max(initial=0)
        if 0 < most < parts:
            raise DataError(
                f"Drawing {' and '.join(missing)} from train needs {parts} groups in a class, as none is torn apart; "
                f"no class has more than {most}. Give the splits yourself, or groups that are smaller."
            )


def draw_splits(
    labels: NDArray[np.int64] | NDArray[np.uint8],
    splits: Sequence[str],
    groups: Sequence[str],
    sha256: Sequence[str],
    seed: int,
    shares: Mapping[str, float] | None = None,
) -> Sequence[str]:
    """Complete the splits: each of val and test that is not given takes a share of the images that train.

    Images of one group, and images with the same bytes, go to one split together. Within each class the groups are
    ranked by a hash of the seed and their content, so a dataset that grows keeps nearly all of its split, and neither
    the order nor the names of files matter.

    Parameters
    ----------
    labels, splits, groups, sha256
        (N,) per image: class, `train`/`val`/`test`, group or empty, hash of the bytes. Several labels are (N, L) of 0
        and 1, which are dealt out as `tlcache.datasets.stratified.deal` does.
    seed
        Another seed, another split.
    shares
        Of val and of test, 20 % each unless said; one of 0 is not drawn.

    Returns
    -------
    sequence of str
        (N,) `train`, `val` or `test`; what was given, where nothing is drawn.
    """
    import numpy as np

    from tlcache.datasets.drawing import draw, joined_rows

    shares = shares or dict.fromkeys(SPLITS[1:], FRACTION)
    missing = {name: shares[name] for name in missing_splits(splits) if shares[name]}
    train = np.flatnonzero(np.fromiter((split == "train" for split in splits), bool, len(splits)))
    if not missing or not len(train):
        return splits
    result = list(splits)
    if labels.ndim == 2:
        return _dealt(labels, result, joined_rows(train, groups, sha256), sha256, seed, missing)
    for name, rows in draw(labels[train], train, groups, sha256, seed, missing).items():
        for row in rows.tolist():
            result[row] = name
    return tuple(result)


def _dealt(
    labels: NDArray[Any],
    splits: list[str],
    together: list[list[int]],
    sha256: Sequence[str],
    seed: int,
    shares: Mapping[str, float],
) -> tuple[str, ...]:
    """Return the splits in which those of `shares` have their parts of every label, by content and seed."""
    from tlcache.datasets.stratified import deal

    ranked = sorted(together, key=lambda rows: _rank(seed, min(sha256[row] for row in rows)))
    names = ["train", *shares]
    parts = deal(labels, ranked, [1 - sum(shares.values()), *shares.values()])
    return tuple(split if part < 0 else names[part] for split, part in zip(splits, parts.tolist(), strict=True))


def find_leaks(
    paths: Sequence[str], labels: NDArray[np.int64], splits: Sequence[str], sha256: Sequence[str]
) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Return pairs of byte-identical images in different splits, and pairs under different labels."""
    from tlcache.datasets.drawing import repeated

    first: dict[str, int] = {}
    across, conflicts = [], []
    for row in repeated(sha256).tolist():
        other = first.setdefault(sha256[row], row)
        if splits[other] != splits[row]:
            across.append((paths[other], paths[row]))
        if labels[other] != labels[row]:
            conflicts.append((paths[other], paths[row]))
    return across, conflicts


def missing_splits(splits: Iterable[str]) -> list[str]:
    """Return those of test and val that none is given of."""
    given = set(splits)
    return [name for name in ("test", "val") if name not in given]


def _rank(seed: int, content: str) -> str:
    return hashlib.sha256(f"{seed}:{content}".encode("utf-8", "surrogateescape")).hexdigest()  # may be a path


ROLES = ("path", "label", "split", "group")  # of the columns of a table


class Row(NamedTuple):
    """An image of a dataset: its path within its source, its label, a name of `SPLITS`, and its group or nothing.

    `cells` are the other columns of its table, each with its name.
    """

    path: str
    label: str
    split: str = "train"
    group: str = ""
    cells: tuple[tuple[str, str], ...] = ()


_WORDS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation", "holdout"), "test"),
}
_PLAIN = frozenset(
    (
        *("data", "dataset", "datasets", "set", "sets", "split", "folder", "x", "seg"),
        *("image", "images", "imgs", "img", "photos", "pictures"),
    )
)


def split_names(names: Iterable[str]) -> dict[str, str]:
    """Return which of some neighbours are called as splits are, and as which: `training_set`, `X_test`, `cats-val`.

    Beside one word for a split a name has only words that say nothing, or those that another split beside it has.

    >>> split_names(["seg_train", "Testing", "test_tube", "trainset 2"])
    {'seg_train': 'train', 'Testing': 'test', 'trainset 2': 'train'}
    >>> split_names(["cats train", "cats test", "dogs test"])
    {'cats train': 'train', 'cats test': 'test'}
    >>> split_names(["tRaIn", "tEsT", "ValImages"])
    {'tRaIn': 'train', 'tEsT': 'test', 'ValImages': 'val'}
    """
    read = {name: found for name in names if (found := _split_and_rest(name))}
    splits_by_rest: dict[frozenset[str], set[str]] = defaultdict(set)
    for split, rest in read.values():
        splits_by_rest[rest].add(split)
    return {name: split for name, (split, rest) in read.items() if not rest - _PLAIN or len(splits_by_rest[rest]) > 1}


def _split_and_rest(name: str) -> tuple[str, frozenset[str]] | None:
    """Return the split that a name has a word for, and its other words; None where it has none, or several."""
    for text in (name, re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)):  # `tEsT` is one word, `testImages` are two
        words = re.findall(r"[^\W\d_]+?(?=set\b|[\W\d_]|$)", text.lower())
        if splits := {_WORDS[word] for word in words if word in _WORDS}:
            return (splits.pop(), frozenset(words).difference(_WORDS)) if len(splits) == 1 else None
    return None
