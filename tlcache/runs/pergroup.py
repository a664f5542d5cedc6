"""What a run reaches where each group of images is given one answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from tlcache.records import as_json
from tlcache.runs.base import Figures, apart

__all__ = ["PerGroup"]


class PerGroup(Struct, frozen=True, kw_only=True):
    """What `--per group` found.

    Parameters
    ----------
    rule
        How the answers for a group's images become one: a name of `tlcache.evaluation.pergroup.RULES`.
    validated
        What each rule reaches on groups that were held out of training, by the metric that is chosen by; of no such
        groups it is empty, and the first rule is taken.
    mixed
        Test groups that have images of several classes, which are left out.
    test
        Of the other test groups, each counted once.
    """

    rule: str
    validated: Mapping[str, float]
    mixed: int
    test: Figures

    def as_json(self) -> dict[str, Any]:
        """Return it as records hold it."""
        return {**as_json(self), "test": self.test.as_json()}

    @classmethod
    def nested(cls, fields: dict[str, Any] | None) -> dict[str, Any] | None:
        """Return the fields of a record as those of this: on disk all figures lie beside each other."""
        return fields and {**fields, "test": apart(fields["test"], Figures, "others")}
