"""How a dataset is to be understood where its folders do not say it: options that extract, finetune and study share."""

from __future__ import annotations

import glob
import re
import shlex
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from fnmatch import fnmatchcase
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar
from unicodedata import normalize

from tlcache.arguments import DATA
from tlcache.datasets.splits import FRACTION, ROLES, SPLITS, split_names
from tlcache.errors import DataError, OptionError
from tlcache.kinds import PLACE, SWITCH, Kind, choice, listing, number, several, text, whole
from tlcache.options import Option, check_fields, described
from tlcache.tasks import TASKS

if TYPE_CHECKING:
    from tlcache.datasets.rows import Rows

__all__ = ["Layout", "ignoring", "splitting", "splitting_of"]

T = TypeVar("T")

_share = number(above=0, below=1).allows


def _share_or(split: str) -> Kind:
    """Return a share of the images, or the name of the other split."""

    def read(word: str) -> float | str:
        return word if word == split else float(word)

    takes = f"a number above 0 to below 1, or {split}"
    return Kind(takes, "X", f"float or {split!r}", read, lambda value: value == split or _share(value))


def _is_use(value: Any) -> bool:
    return isinstance(value, Mapping) and all(name and split in SPLITS for name, split in value.items())


def _uses(texts: Sequence[str]) -> dict[str, str]:
    """Read what is written `FOLDER=SPLIT`.

    >>> _uses(["seg_train=train, seg_test=test"])
    {'seg_train': 'train', 'seg_test': 'test'}
    """
    found: dict[str, str] = {}
    for words in texts:
        *pairs, rest = re.split(rf"=\s*({'|'.join(SPLITS)})\s*(?:,|$)", words)  # names may have commas
        found |= zip(map(str.strip, pairs[::2]), pairs[1::2], strict=True)
        if rest.strip() or not _is_use(found):
            raise ValueError(texts)
    return found


_USES = Kind(
    f"FOLDER=SPLIT like training_set=train,test_set=test, a split being one of {', '.join(SPLITS)}",
    "NAME=SPLIT",
    "dict",
    str,
    _is_use,
    gather=_uses,
)
_VAL, _TEST = _share_or("test"), _share_or("val")


def _column(what: str) -> Option:
    return Option(f"Column of {what} in a manifest", text("NAME"), DATA)


@described()
@dataclass(frozen=True)
class Layout:
    """How a dataset is to be understood."""

    split_folders: Annotated[
        Mapping[str, str] | None,
        Option(
            "Which folder is which split, like seg_train=train; in manifests, names",
            _USES,
            DATA,
        ),
    ] = None
    ignore: Annotated[
        str | Sequence[str],
        Option("Folders, files and classes to pass over, like masks or '*_old.png'", several(text("NAME")), DATA),
    ] = ()
    class_level: Annotated[
        int | None,
        Option(
            "How many folders down the classes are",
            whole(1, 9),
            DATA,
            more="Below --data, splits counted, too; a folder that alone holds everything is not counted",
        ),
    ] = None
    val: Annotated[
        float | str | None,
        Option("Share of train to draw as val, or test: use that", _VAL, DATA, default="0.2"),
    ] = None
    test: Annotated[
        float | str | None,
        Option("Share of train to draw as test, or val: use that", _TEST, DATA, default="0.2"),
    ] = None
    images: Annotated[
        str | Path | None, Option("Folder or archive of a manifest's images", PLACE, DATA, default="its own")
    ] = None
    path_column: Annotated[str | None, _column("paths")] = None
    label_column: Annotated[str | None, _column("labels")] = None
    split_column: Annotated[str | None, _column("splits")] = None
    group_column: Annotated[str | None, _column("groups")] = None
    task: Annotated[
        str | None,
        Option(
            "classify, multilabel or regression",
            choice(TASKS),
            DATA,
            more="What labels say: a class, several labels (a;b, several rows of an image, or columns of 0 and 1), a "
            "number; default: classify, and labels that look like the others are pointed out",
        ),
    ] = None
    unlabelled: Annotated[
        bool,
        Option(
            "Take images alone, without labels",
            SWITCH,
            DATA,
            more="A folder that has no class folders is taken so. Whatever learns from labels refuses such images",
        ),
    ] = False

    def __post_init__(self) -> None:
        check_fields(self)
        idle = ("split_folders", "class_level", "val", "test", "label_column", "split_column", "task")
        if self.unlabelled and (given := [name for name in idle if getattr(self, name) is not None]):
            flag = given[0].replace("_", "-")
            raise OptionError(f"--unlabelled leaves labels and splits out, and --{flag} is about these. Give one.")
        if sum(self.shares.values()) >= 1:
            raise OptionError(f"--val {self.val} and --test {self.test} leave nothing to train on.")

    def check_unlabelled(self, why: str) -> None:
        """Raise OptionError where shares are to be drawn of images that have no labels, as `why` says."""
        if given := [name for name in SPLITS[1:] if getattr(self, name) is not None]:
            raise OptionError(
                f"{why} They are taken without labels, and --{given[0]} is about splits of labelled images. Leave it "
                "out."
            )

    @classmethod
    def of(cls, arguments: Mapping[str, Any]) -> Layout:
        """Return the one that is among the arguments of an extraction."""
        return cls(**{field.name: arguments[field.name] for field in fields(cls) if field.name in arguments})

    @property
    def arguments(self) -> dict[str, Any]:
        """What is not the default, which is what feature files remember."""
        own = {field: getattr(self, field.name) for field in fields(self)}
        given = {field.name: value for field, value in own.items() if value != field.default}
        return given if self.images is None else given | {"images": str(self.images)}

    @property
    def columns(self) -> dict[str, str]:
        """What is asked of a manifest's columns: path, label, split or group -> the name of its column."""
        asked = {role: getattr(self, f"{role}_column") for role in ROLES}
        return {role: name for role, name in asked.items() if name is not None}

    def check_has_table(self, data: str, has_table: bool) -> None:
        """Raise OptionError where options for a manifest are given with what is none, or the other way round."""
        tables, folders = ("images", *(f"{role}_column" for role in ROLES)), ("class_level",)
        if given := [name for name in (folders if has_table else tables) if getattr(self, name) is not None]:
            flag, what = given[0].replace("_", "-"), "folders of classes" if has_table else "manifests"
            raise OptionError(f"--{flag} is for {what}, and '{data}' is none. Leave it out.")

    @property
    def shares(self) -> dict[str, float]:
        """The shares of train that become val and test where none is given."""
        asked = {name: getattr(self, name) for name in SPLITS[1:]}
        return {name: share if isinstance(share, float | int) else FRACTION for name, share in asked.items()}

    def named_splits(self, names: Iterable[str]) -> dict[str, str]:
        """Return which of some neighbours are splits, and which: as they are called, or as the user says."""
        names = list(names)
        known = {**split_names(names), **(self.split_folders or {})}
        return {name: known[name] for name in names if name in known}

    def ignored_by(self, name: str) -> str:
        """Return the pattern of `--ignore` that what has this name is passed over by; nothing if by none."""
        composed = partial(normalize, "NFC")  # accents are typed in one form, and a Mac's folders have another
        patterns = ((each, composed(each)) for each in listing(self.ignore))
        name = composed(name)
        return next((each for each, own in patterns if own == name or fnmatchcase(name, own)), "")

    def patterns(self, rows: Sequence[T], names: Callable[[T], Iterable[str]]) -> list[str]:
        """Return for each image, by all that names it, the pattern of `--ignore` that passes it over, or nothing."""
        first = cache(self.ignored_by)
        return [next(filter(None, map(first, names(row))), "") for row in rows] if self.ignore else [""] * len(rows)

    def unmatched(self, passed_over: Iterable[str]) -> list[str]:
        """Return the patterns of `--ignore` that nothing was passed over by, whose kinds are given."""
        kinds = set(passed_over)
        return [each for each in listing(self.ignore) if not {f"{each} file", f"{each} folder"} & kinds]

    def applied(self, rows: Rows, source: str) -> Rows:
        """Return the rows, each in the split that its own is to be used as.

        Raises
        ------
        DataError
            A split that is to be used or drawn is not there, or is there already.
        """
        self._check(Counter(rows.splits.counts()), source)
        return rows.renamed(splits=self._used_as)

    @property
    def _used_as(self) -> dict[str, str]:
        """Given split -> the one that it is used as."""
        return {asked: name for name in SPLITS[1:] if isinstance(asked := getattr(self, name), str)}

    def _check(self, given: Mapping[str, int], source: str) -> None:
        found = " and ".join(f"{name} ({given[name]:,})" for name in SPLITS if given[name])
        for asked, name in self._used_as.items():
            if not given[asked]:
                raise DataError(f"--{name} {asked}: '{source}' has no split {asked}. It has {found}.")
            if given[name] and name not in self._used_as:
                raise DataError(
                    f"--{name} {asked}: '{source}' has a split {name} already. It has {found}. Say with --{asked} "
                    f"{name} that this one is used as {asked}, or leave it out with --ignore."
                )
        for name in SPLITS[1:]:
            if given[name] and _share(getattr(self, name)) and name not in self._used_as:
                raise DataError(
                    f"--{name} {getattr(self, name):g} draws a split {name}, but '{source}' has one. It has {found}. "
                    f"Leave --{name} out to use it, or leave that split out with --ignore."
                )


def ignoring(names: Iterable[str]) -> str:
    """Return the option that passes over what has these names.

    >>> ignoring(["masks", "ant, red"])
    "--ignore 'masks,ant? red'"
    """
    return f"--ignore {shlex.quote(','.join(glob.escape(each).replace(',', '?') for each in names))}"


def splitting(uses: Mapping[str, str]) -> str:
    """Return the option that says which folder is which split.

    >>> splitting({"A": "train", "B": "test"})
    '--split-folders A=train,B=test'
    """
    return f"--split-folders {shlex.quote(','.join(f'{name}={split}' for name, split in uses.items()))}"


def splitting_of(names: Iterable[str]) -> str:
    """Return that option with the splits left to fill in, as only who made the folders knows which they are.

    >>> splitting_of(["tr", "te"])
    '--split-folders tr=SPLIT,te=SPLIT, a SPLIT being one of train, val, test'
    """
    return f"{splitting(dict.fromkeys(names, 'SPLIT'))}, a SPLIT being one of {', '.join(SPLITS)}"
