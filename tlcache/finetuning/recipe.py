"""How a network is fine-tuned: every setting that decides the result, with the defaults."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from typing import Any

from tlcache.errors import OptionError
from tlcache.finetuning.settings import check_name, check_value
from tlcache.heads.optimizers import find_optimizer

__all__ = ["Recipe", "arguments_of", "make_recipe", "settings_of", "variants"]


@dataclass(frozen=True)
class Recipe:
    """The settings of a fine-tuning.

    Parameters
    ----------
    head
        `linear`, or `dense` (512, dropout 0.6, 512, dropout 0.6).
    init_head
        `cached`: begin with a head fitted on the cached embeddings and train everything from the first step (linear
        probing, then fine-tuning: Kumar et al., 2022). `scratch`: train a fresh head for `head_epochs` first, the
        backbone frozen.
    head_epochs, head_lr
        Most epochs and learning rate of that first phase.
    epochs, lr
        Of the phase that trains the backbone too; `lr` None: 3e-4, SGD 1e-2, RMSprop 1e-4.
    unfreeze
        What of the backbone is trained: `all`, `last:N` (N layers with parameters; a convolution and its BatchNorm
        are two) or `stage:K` (from stage K on; a backbone has 4 or 5).
    optimizer, weight_decay, batch_size
        As in torch, SGD with momentum 0.9; biases and normalisations do not decay.
    schedule, warmup_epochs
        `constant`, `cosine` (to 0) or `step` (a tenth after 60 and 85 % of the epochs), after a linear warm-up.
    layer_decay
        Factor of the learning rate from each stage to the one before it; 1: the same everywhere.
    augment
        `none`, `light` (flip, crop), `study` (rotation, flips, contrast, saturation) or `strong` (TrivialAugment).
    loss, label_smoothing, class_weight
        `ce` (cross-entropy) or `bce` (binary cross-entropy on one-hot labels); `balanced`: classes weighted by 1 /
        frequency, None: every image counts the same.
    batch_norm
        Of layers that are trained: `train` or `eval` (statistics stay as they are). Frozen ones are always in `eval`.
    ema
        Decay of an exponential moving average of the weights, which is then what is validated and kept; 0: none.
    patience
        Epochs without a better validation score after which a phase ends.
    cached_prefix, views
        Compute the activations where the frozen layers end once, of `views` augmented views per image, and train on
        them. Needs `unfreeze` other than `all`.
    refit
        Train again on train + val, for as many epochs as were best, as `fit_heads` does.
    precision, layout
        `fp32` or `bf16` (autocast), `contiguous` or `channels_last`; `auto`: the fastest here, measured at the start.
    seed
        Of everything random: order, augmentation, dropout, fresh heads.
    """

    head: str = "linear"
    init_head: str = "cached"
    head_epochs: int = 10
    head_lr: float = 1e-3
    epochs: int = 15
    lr: float | None = None
    unfreeze: str = "all"
    optimizer: str = "adamw"
    weight_decay: float = 0.01
    batch_size: int = 32
    schedule: str = "cosine"
    warmup_epochs: float = 1.0
    layer_decay: float = 1.0
    augment: str = "light"
    loss: str = "ce"
    label_smoothing: float = 0.0
    class_weight: str | None = None
    batch_norm: str = "train"
    ema: float = 0.0
    patience: int = 5
    cached_prefix: bool = False
    views: int = 1
    refit: bool = False
    precision: str = "auto"
    layout: str = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if (name, value) not in (("lr", None), ("class_weight", None)):
                check_value(name, value)
        if self.cached_prefix and self.unfreeze == "all":
            raise OptionError("cached-prefix needs frozen layers to cache: unfreeze last:N or stage:K.")
        if self.views > 1 and not self.cached_prefix:
            raise OptionError("views says how many augmented views cached-prefix keeps; give that too.")

    @property
    def learning_rate(self) -> float:
        """Of the phase that trains the backbone."""
        return find_optimizer(self.optimizer).learning_rate if self.lr is None else self.lr

    def as_json(self) -> dict[str, Any]:
        """Return all settings as records hold them, the learning rate in force included."""
        return dict(_recorded(*each) for each in {**asdict(self), "lr": self.learning_rate}.items())


def make_recipe(settings: Mapping[str, Any]) -> Recipe:
    """Return a recipe with some of its fields given.

    Raises
    ------
    OptionError
        No such setting or choice, or a number that is impossible.
    """
    for name in settings:
        check_name(name)
    return Recipe(**settings)


def arguments_of(
    recipe: Recipe, sweep: Mapping[str, Sequence[Any]] | None = None, budget_s: float | None = None
) -> dict[str, Any]:
    """Return what a fine-tuning's record says was asked for; its names and units are those of the first version."""
    pairs = [_recorded(name, value) for name, values in (sweep or {}).items() for value in values]
    searched = {name: [value for other, value in pairs if other == name] for name, _ in pairs}
    return {**recipe.as_json(), "sweep": searched, "budget": None if budget_s is None else budget_s / 60}


def settings_of(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return what was asked for by today's names, `sweep` and `budget_s` included: the reverse of `arguments_of`."""
    asked = dict(_named(name, value) for name, value in arguments.items())
    pairs = [_named(name, value) for name, values in asked.pop("sweep", {}).items() for value in values]
    minutes = asked.pop("budget", None)
    searched = {name: [value for other, value in pairs if other == name] for name, _ in pairs}
    return {**asked, "sweep": searched, "budget_s": None if minutes is None else 60 * minutes}


def _recorded(name: str, value: Any) -> tuple[str, Any]:
    return ("class_weights", value == "balanced") if name == "class_weight" else (name, value)


def _named(name: str, value: Any) -> tuple[str, Any]:
    return ("class_weight", "balanced" if value else None) if name == "class_weights" else (name, value)


def variants(recipe: Recipe, sweep: Mapping[str, Sequence[Any]]) -> list[tuple[dict[str, Any], Recipe]]:
    """Return every combination of the values in `sweep`, with the recipe that it makes of `recipe`.

    Without a sweep that is the recipe itself.

    >>> [setting for setting, _ in variants(Recipe(), {"lr": [0.1, 0.01]})]
    [{'lr': 0.1}, {'lr': 0.01}]
    """
    settings = [dict(zip(sweep, values, strict=True)) for values in product(*sweep.values())]
    return [(setting, make_recipe({**asdict(recipe), **setting})) for setting in settings]
