"""A run of the frozen strategy: a head fitted on cached features."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from msgspec import Struct

from tlcache.runs.base import RunRecord
from tlcache.runs.pergroup import PerGroup

__all__ = ["FrozenRun", "HeadCandidate", "HeadEpoch", "LayerScore", "Repeats", "TemperatureScaling"]


class HeadCandidate(Struct, frozen=True, kw_only=True):
    """A setting of a head that was tried: `scores` are `val_<metric>` and, with `_se`, their standard errors."""

    setting: Mapping[str, Any]
    scores: Mapping[str, float]
    fit_s: float


class LayerScore(Struct, frozen=True, kw_only=True):
    """A layer with a pooling that a head was tried on: its best setting, and the `scores` of that as of a candidate."""

    output: str | None
    pool: str | None
    key: str
    features: str
    setting: Mapping[str, Any]
    scores: Mapping[str, float]
    search_s: float

    @property
    def name(self) -> str:
        """Layer and pooling."""
        return " ".join(filter(None, [self.output or "last", self.pool]))


class HeadEpoch(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An epoch of a head that is trained by epochs; a head of one's own may say less of it."""

    epoch: int
    train_loss: float | None = None
    val_loss: float | None = None
    val_accuracy: float | None = None


class TemperatureScaling(Struct, frozen=True, kw_only=True):
    """The temperature that logits are divided by, and the calibration error without and with it."""

    temperature: float
    val_ece_before: float
    val_ece_after: float
    test_ece_before: float
    test_ece_after: float


class Repeats(Struct, frozen=True, kw_only=True):
    """The last fit with several seeds; a head without chance has the seed None, a single one no deviation."""

    seeds: tuple[int | None, ...]
    accuracy: tuple[float, ...]
    accuracy_mean: float
    accuracy_std: float | None


class FrozenRun(RunRecord, frozen=True, kw_only=True, tag="frozen"):
    """A head that was fitted on the features of a backbone which stayed as it was."""

    strategy: ClassVar[str] = "frozen"
    untuned: ClassVar[bool] = False

    chosen: Mapping[str, Any]
    chosen_by: str
    candidates: tuple[HeadCandidate, ...]
    skipped: int
    history: tuple[HeadEpoch, ...]
    calibration: TemperatureScaling | None = None
    repeats: Repeats | None = None
    fit_s: float
    search_s: float
    refit_s: float
    features: str
    layers: tuple[LayerScore, ...] = ()
    per_group: PerGroup | None = None
    energy_j: float | None = None

    def as_json(self) -> dict[str, Any]:
        """Return the record as it is on disk, which is what `--json` holds."""
        fields = super().as_json()
        for name in ("layers", "per_group", "calibration", "repeats"):
            if not getattr(self, name):
                del fields[name]
        if self.energy_j is None:
            del fields["energy_j"]
        if self.per_group:
            fields["per_group"] = self.per_group.as_json()
        return fields

    @property
    def feature_files(self) -> tuple[str, ...]:
        """The feature files whose embeddings it was fitted on, side by side."""
        return (self.features,)

    @property
    def validated(self) -> Mapping[str, float]:
        """Figures of the chosen setting on images that were held out: of validation, or of all folds."""
        own = [each.scores for each in self.candidates if each.setting == self.chosen]
        return {name.removeprefix("val_"): value for each in own[:1] for name, value in each.items()}

    @property
    def validated_on(self) -> int:
        """How many images `validated` is of."""
        return self.rows.val if self.chosen_by == "validation split" else self.rows.train + self.rows.val

    @property
    def train_s(self) -> float:
        """Seconds of choosing layer and settings, and of fitting."""
        return self.fit_s + sum(each.search_s for each in self.layers if each.key != self.key)
