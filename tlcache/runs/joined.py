"""A run of the joined strategy: a head fitted on the embeddings of several backbones side by side."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, ClassVar, Self

from msgspec import Struct

from tlcache.cache.attributes import extract_arguments
from tlcache.cache.feature_file import STAGES
from tlcache.runs.base import ExtractSeconds
from tlcache.runs.frozen import FrozenRun

__all__ = ["JoinedPart", "JoinedRun", "kind_of_run", "strategy_of"]


class JoinedPart(Struct, frozen=True, kw_only=True):
    """One of the feature files whose embeddings are joined; its fields are those of a run on it alone."""

    backbone: str
    key: str
    weights: str
    licence: str | None = None
    dim: int
    extract: ExtractSeconds
    extract_arguments: Mapping[str, Any]
    features: str

    @classmethod
    def of(cls, attrs: Mapping[str, Any]) -> Self:
        """Return the part that is said by the attributes of its file, and `features`, the path of that."""
        return cls(
            **{name: attrs[name] for name in ("backbone", "key", "weights", "dim", "features")},
            licence=attrs.get("licence"),
            extract=ExtractSeconds(**{stage: attrs[stage] for stage in STAGES}),
            extract_arguments=extract_arguments(attrs),
        )


class JoinedRun(FrozenRun, frozen=True, kw_only=True, tag="joined"):
    """A head that was fitted on joined embeddings; `features` and what `parts` differ in is that of the first."""

    strategy: ClassVar[str] = "joined"

    parts: tuple[JoinedPart, ...]

    @property
    def backbones(self) -> tuple[str, ...]:
        """The names of the networks that an image goes through."""
        return tuple(part.backbone for part in self.parts)

    @property
    def keys(self) -> tuple[str, ...]:
        """The model keys of these networks."""
        return tuple(part.key for part in self.parts)

    @property
    def feature_files(self) -> tuple[str, ...]:
        """The feature files, in the order in which their embeddings are joined."""
        return tuple(part.features for part in self.parts)


def strategy_of(attrs: Mapping[str, Any]) -> str:
    """Return the strategy of heads on features, by the attributes of a feature file or of several as one."""
    return JoinedRun.strategy if "parts" in attrs else FrozenRun.strategy


def kind_of_run(attrs: Mapping[str, Any]) -> Callable[..., FrozenRun]:
    """Return what makes the record of a head on features, by these attributes."""
    return partial(JoinedRun, parts=tuple(map(JoinedPart.of, attrs["parts"]))) if "parts" in attrs else FrozenRun
