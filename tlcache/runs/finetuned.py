"""A run of the tuned strategy: a backbone trained together with its head."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from msgspec import Struct

from tlcache.runs.base import RunRecord, beside
from tlcache.tasks import SMALLER, USUAL

__all__ = [
    "FORMAT",
    "FinetunedRun",
    "Layers",
    "PhaseEpochs",
    "Race",
    "RefitEpoch",
    "TunedCandidate",
    "TunedChoice",
    "TunedEpoch",
]

FORMAT = "tlcache-finetuned"  # of the file with the network


class PhaseEpochs(Struct, frozen=True, kw_only=True):
    """How many epochs of each phase led to the weights that were kept."""

    head: int
    backbone: int


class TunedChoice(Struct, frozen=True, kw_only=True):
    """What a sweep chose, and how many epochs."""

    setting: Mapping[str, Any]
    epochs: PhaseEpochs


class RefitEpoch(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An epoch of the training on train + val, which nothing validates."""

    phase: str
    epoch: int
    train_loss: float
    train_accuracy: float | None = None
    lr: float
    train_s: float
    images_per_s: float
    val_s: float


class TunedEpoch(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An epoch of a fine-tuning. Number 0 is the network before it, with the head that it begins with.

    Beside the loss on validation there is the usual figure of what is learned, one of `tlcache.tasks.USUAL`.
    """

    phase: str
    epoch: int
    train_loss: float | None = None
    train_accuracy: float | None = None
    lr: float | None = None
    train_s: float | None = None
    images_per_s: float | None = None
    val_loss: float
    val_accuracy: float | None = None
    val_mean_average_precision: float | None = None
    val_mae: float | None = None
    val_s: float

    @property
    def figure(self) -> str:
        """The name of the figure that epochs are compared by."""
        return next(name for name in USUAL.values() if getattr(self, f"val_{name}") is not None)

    @property
    def value(self) -> float:
        """Their figure on validation."""
        return float(getattr(self, f"val_{self.figure}"))

    @property
    def score(self) -> tuple[float, float]:
        """What epochs are compared by, the larger the better: the figure on validation, then loss."""
        return -self.value if self.figure in SMALLER else self.value, -self.val_loss


class TunedCandidate(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A setting of a sweep: `scores` are `val_<figure>` and `val_loss`; there are none where training diverged.

    Those of a race have the number of images that they were trained on, and their learning curves.
    """

    setting: Mapping[str, Any]
    scores: Mapping[str, float] = {}
    epochs: PhaseEpochs | None = None
    train_s: float = 0.0
    diverged: bool = False
    images: int = 0
    trained_parameters: int = 0
    peak_bytes: int = 0
    history: tuple[TunedEpoch, ...] = ()


class Layers(Struct, frozen=True, kw_only=True):
    """The layers of the backbone that were trained, and the one where cached activations end, if any."""

    trained: tuple[str, ...]
    cut: str | None


class Race(Struct, frozen=True, kw_only=True):
    """What a race of recipes was given.

    Parameters
    ----------
    budget_s
        Seconds for the race and what follows.
    timing_s
        Seconds that measuring the machine took.
    images_per_s
        Of each recipe, while training.
    left_out
        The recipes for which there was no time.
    spent_s
        Seconds that the race and what followed took.
    cut
        What was shortened or left out because the machine became busier, in words.
    """

    budget_s: float
    timing_s: float
    images_per_s: Mapping[str, float]
    left_out: tuple[str, ...] = ()
    spent_s: float = 0.0
    cut: tuple[str, ...] = ()


class FinetunedRun(RunRecord, frozen=True, kw_only=True, tag="finetune"):
    """A backbone that was trained together with its head."""

    strategy: ClassVar[str] = "finetune"

    chosen: TunedChoice
    candidates: tuple[TunedCandidate, ...]
    history: tuple[TunedEpoch, ...]
    refit_history: tuple[RefitEpoch, ...]
    temperature: float
    layers: Layers
    train_precision: str
    layout: str
    measured_images_per_s: Mapping[str, float]
    train_s: float
    epoch_s: float
    images_per_s: float
    race: Race | None = None
    trained_parameters: int = 0
    peak_bytes: int = 0
    decode_s: float = 0.0
    search_s: float = 0.0
    refit_s: float = 0.0
    energy_j: float | None = None

    @property
    def kept(self) -> bool:
        """Whether its network is kept, to be used; of a cross-validation none of several is."""
        return self.cross_validation is None

    @property
    def epochs_kept(self) -> list[int]:
        """How many epochs of the backbone were kept: in the training, or in each of the folds."""
        folds = self.cross_validation.chosen if self.cross_validation else ()
        return [chosen["epochs"]["backbone"] for chosen in folds] or [self.chosen.epochs.backbone]

    @property
    def untuned(self) -> bool:
        """Whether no epoch was better on validation than the head it began with; then that is what was tested."""
        return not any(self.epochs_kept)

    @property
    def validated(self) -> Mapping[str, float]:
        """Figures on the validation images, of the epoch that was kept; of a cross-validation there are several."""
        if not self.history:
            return {}
        best = max(self.history, key=lambda epoch: epoch.score)
        return {best.figure: best.value, **({} if best.val_accuracy is None else {"log_loss": best.val_loss})}

    @property
    def validated_on(self) -> int:
        """How many images `validated` is of."""
        return self.rows.val

    @property
    def settings(self) -> dict[str, Any]:
        """The options that were in force: those that were asked for, and of a sweep what it chose."""
        return {**self.arguments, **self.chosen.setting}

    def as_json(self) -> dict[str, Any]:
        """Return the record as it is on disk, which is what `--json` holds."""
        fields = super().as_json()
        for name in ("race", "trained_parameters", "peak_bytes", "decode_s", "search_s", "refit_s"):
            if not getattr(self, name):
                del fields[name]
        if self.energy_j is None:
            del fields["energy_j"]
        return {**fields, "chosen": beside(fields["chosen"], "setting")}
