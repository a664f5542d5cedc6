"""How a network is fine-tuned: every setting that decides the result, with the defaults."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Annotated, Any

from tlcache.arguments import (
    CHOOSING,
    NETWORK,
    SPEED,
    TRAINING,
    ClassWeight,
    Coverage,
    PerClass,
    Seed,
    check_coverage,
    check_task,
    spelled,
)
from tlcache.errors import OptionError
from tlcache.finetuning.recipes import OWN, RACE, RECIPES
from tlcache.heads.optimizers import find_optimizer
from tlcache.kinds import SWITCH, choice, chosen_from, number, pattern, text, whole
from tlcache.options import Option, asked, check_fields, check_names, described, parameters
from tlcache.tasks import CLASSIFY

__all__ = ["Recipe", "arguments_of", "check_nested", "resolved", "settings_of", "variants"]

_ABOVE_0, _SHARE = number(above=0), number(0, below=1)
_HEAD = chosen_from("tlcache.heads.table:tuned_heads")
_OPTIMIZER = chosen_from("tlcache.heads.optimizers:OPTIMIZERS")
_SCHEDULE = chosen_from("tlcache.finetuning.schedules:SCHEDULES")
_AUGMENT = chosen_from("tlcache.finetuning.presets:PRESETS")
_LOSS = chosen_from("tlcache.finetuning.losses:LOSSES")
_LAYERS = pattern(
    "all|(last|stage|top):0*[1-9][0-9]*", "WHICH", "all, last:N, stage:K or top:N with a number from 1 on"
)
_METHOD = pattern(
    "full|last|bias|norm|lora:0*[1-9][0-9]*", "HOW", "full, last, bias, norm, or lora:R with a rank from 1 on"
)
_RUN = text("RUN")
_BATCH = whole(2, why="as BatchNorm has no statistics of a single image")
_UNFREEZE = "What is trained: all, last:N (layers), top:N (stages), or stage:K (from K on)"
_LAYERS_MORE = "Layers are those with parameters: a convolution and its BatchNorm are two; a backbone has 4 or 5 stages"
_METHODS = "What of these: full, last (stage), bias, norm, or lora:R (updates of rank R)"
_METHODS_MORE = "The head always. `last` is --unfreeze top:1; `norm`: weights and biases of normalisations"
_LR_MORE = "Ten times that with --method bias, norm or lora"
_MIX_MORE = "With --mixup one of them, by chance for each batch; 0: none of it"
_TEACHER = "Its head is fitted anew, to answer for images that it has not seen; joined ones may teach, too"
_PARTS_MORE = "Their gradients are added: the same up to rounding, but for BatchNorms in training mode and dropout"
_SYNC_MORE = "torch's SyncBatchNorm, with --batch-norm train or adapt; one process has them anyway"
_CACHED = "cached: begin with a head fitted on cached features; scratch: train a fresh one first"
_CACHED_MORE = (
    "The first is linear probing, then fine-tuning (Kumar et al., 2022); a fresh head trains with the backbone frozen"
)

_SHARED = {
    "head",
    "class_weight",
    "seed",
    "coverage",
    "per_class",
    "precision",
    "layout",
    "batch_size",
    "accumulate",
    "refit",
}
_TEACHING = {"distill": None, "distill_weight": 0.5, "distill_temperature": 2.0}
_FRESH = {"head_epochs", "head_lr"}
_OF_CLASSES = ("loss", "label_smoothing", "class_weight", "mixup", "cutmix", *_TEACHING)  # that others do not have
_LARGER = 10
_ALIKE = "--method last is --unfreeze top:1; found --unfreeze {}. Give one of them."
_BEFORE: Mapping[str, Any] = {
    "clip": 0.0,
    "method": "full",
    "mixup": 0.0,
    "cutmix": 0.0,
    "accumulate": 1,
    "sync_batch_norm": False,
    **_TEACHING,
}  # how it was before there were these settings: records leave them out then
_RECIPE = "race, own, top, upper, bare, plain, steady, bold, adapt or before"
_RECIPE_MORE = (
    "`own`: the settings as they are; `race`: what is best on validation of those that follow, in a time that is told "
    "before; `before`: the defaults of version 0.1"
)


@described()
@dataclass(frozen=True)
class Recipe:
    """The settings of a fine-tuning.

    Parameters
    ----------
    task
        What is learned, which is no option of its own.
    """

    recipe: Annotated[
        str | None,
        Option(
            _RECIPE,
            chosen_from("tlcache.finetuning.recipes:NAMES"),
            CHOOSING,
            default="race, but own where other settings are given",
            more=_RECIPE_MORE,
        ),
    ] = None
    head: Annotated[str, Option("What is put on the network: linear or dense", _HEAD, NETWORK)] = "linear"
    init_head: Annotated[str, Option(_CACHED, choice(("cached", "scratch")), TRAINING, more=_CACHED_MORE)] = "cached"
    head_epochs: Annotated[int, Option("Most epochs of a fresh head", whole(1), TRAINING)] = 10
    head_lr: Annotated[float, Option("Learning rate of a fresh head", _ABOVE_0, TRAINING)] = 1e-3
    epochs: Annotated[int, Option("Most epochs that train the backbone", whole(1), TRAINING)] = 15
    lr: Annotated[
        float | None,
        Option("Learning rate of those", _ABOVE_0, TRAINING, default="by optimizer, 3e-4 for adamw", more=_LR_MORE),
    ] = None
    unfreeze: Annotated[
        str,
        Option(_UNFREEZE, _LAYERS, NETWORK, more=_LAYERS_MORE),
    ] = "all"
    method: Annotated[str, Option(_METHODS, _METHOD, NETWORK, more=_METHODS_MORE)] = "full"
    optimizer: Annotated[
        str,
        Option("sgd, rmsprop, adam, nadam or adamw", _OPTIMIZER, TRAINING, more="SGD with momentum 0.9"),
    ] = "adamw"
    weight_decay: Annotated[
        float, Option("Of matrices and kernels", number(0), TRAINING, more="Biases and normalisations do not decay")
    ] = 0.01
    batch_size: Annotated[int, Option("Images per step", _BATCH, TRAINING)] = 32
    schedule: Annotated[
        str,
        Option(
            "Of the learning rate: constant, cosine or step",
            _SCHEDULE,
            TRAINING,
            more="`cosine` goes to 0, `step` to a tenth after 60 and after 85 % of the epochs",
        ),
    ] = "cosine"
    warmup_epochs: Annotated[float, Option("Epochs in which the learning rate rises", number(0), TRAINING)] = 1.0
    layer_decay: Annotated[
        float, Option("Factor of the learning rate from each stage to the one before it", _ABOVE_0, TRAINING)
    ] = 0.7
    augment: Annotated[
        str,
        Option(
            "none, light, study or strong",
            _AUGMENT,
            TRAINING,
            more="`light`: flip, crop; `study`: rotation, flips, contrast, saturation; `strong`: TrivialAugment",
        ),
    ] = "light"
    mixup: Annotated[float, Option("Mix pairs of images and labels, with this alpha like 0.2", number(0), TRAINING)] = (
        0.0
    )
    cutmix: Annotated[
        float, Option("Put parts of images into others, alpha like 1", number(0), TRAINING, more=_MIX_MORE)
    ] = 0.0
    loss: Annotated[str, Option("ce (cross-entropy) or bce (binary, on one-hot labels)", _LOSS, TRAINING)] = "ce"
    label_smoothing: Annotated[float, Option("Share of a label spread over all classes", _SHARE, TRAINING)] = 0.1
    clip: Annotated[float, Option("Largest norm of a step's gradient; 0: any", number(0), TRAINING)] = 1.0
    distill: Annotated[
        str | None,
        Option("A run of fit-heads whose answers are learned beside the labels", _RUN, TRAINING, more=_TEACHER),
    ] = None
    distill_weight: Annotated[float, Option("Share of these in the loss", number(above=0, most=1), TRAINING)] = 0.5
    distill_temperature: Annotated[
        float, Option("What its logits and the network's are divided by", _ABOVE_0, TRAINING)
    ] = 2.0
    class_weight: ClassWeight = None
    batch_norm: Annotated[
        str,
        Option(
            "Statistics of trained BatchNorms: train, adapt, or eval (kept)",
            choice(("train", "adapt", "eval")),
            TRAINING,
            more="`adapt`: as `train`, at a momentum that fits the steps; those of frozen layers are always kept",
        ),
    ] = "eval"
    sync_batch_norm: Annotated[
        bool,
        Option("Of several processes, each with a GPU: statistics of whole batches", SWITCH, TRAINING, more=_SYNC_MORE),
    ] = False
    ema: Annotated[
        float,
        Option(
            "Decay of a moving average of the weights; 0: none",
            _SHARE,
            TRAINING,
            more="It is then the average that is validated and kept",
        ),
    ] = 0.98
    patience: Annotated[int, Option("Epochs without a better validation score to stop after", whole(1), CHOOSING)] = 5
    cached_prefix: Annotated[
        bool,
        Option(
            "Compute the frozen layers once, train on their activations",
            SWITCH,
            SPEED,
            more="Needs --unfreeze last:N, stage:K or top:N",
        ),
    ] = False
    views: Annotated[int, Option("Augmented views per image that --cached-prefix keeps", whole(1), SPEED)] = 1
    accumulate: Annotated[
        int, Option("Parts that a batch is computed in, to save memory", whole(1), SPEED, more=_PARTS_MORE)
    ] = 1
    refit: Annotated[
        bool,
        Option(
            "Then train again on train + val, as fit-heads does",
            SWITCH,
            CHOOSING,
            more="For as many epochs as were best",
        ),
    ] = True
    precision: Annotated[
        str, Option("fp32, bf16, or auto: what is faster here", choice(("auto", "fp32", "bf16")), SPEED)
    ] = "auto"
    layout: Annotated[
        str,
        Option(
            "contiguous, channels_last, or auto: what is faster here",
            choice(("auto", "contiguous", "channels_last")),
            SPEED,
        ),
    ] = "auto"
    seed: Seed = 0
    coverage: Coverage = None
    per_class: PerClass = False
    task: str = CLASSIFY

    def __post_init__(self) -> None:
        check_fields(self)
        check_coverage(self.coverage, self.per_class)
        of_classes = ("class_weight", "per_class", "coverage", "mixup", "cutmix", "distill")
        said = {name: getattr(self, name) for name in of_classes}
        spread = self.label_smoothing not in (0, Recipe.label_smoothing)
        check_task(self.task, **said, loss=self.loss != Recipe.loss, label_smoothing=spread)
        if self.recipe == RACE and (decided := self._differs(_decided())):
            named = ", ".join(f"--{name.replace('_', '-')}" for name in decided)
            raise OptionError(f"The race tries several values of {named}. Leave that out, or give --recipe own.")
        if self.method == "last" and self.unfreeze != "all":
            raise OptionError(_ALIKE.format(self.unfreeze))
        if self.sync_batch_norm and self.batch_norm == "eval":
            raise OptionError(
                "--sync-batch-norm is about statistics that follow the images, --batch-norm eval keeps them: give "
                "--batch-norm train or adapt, or leave it out."
            )
        if self.cached_prefix and self.unfrozen == "all":
            raise OptionError("cached-prefix needs frozen layers to cache: unfreeze last:N, stage:K or top:N.")
        if (self.mixup or self.cutmix) and self.cached_prefix:
            name = "mixup" if self.mixup else "cutmix"
            raise OptionError(
                f"--{name} mixes images, --cached-prefix keeps activations of single ones: give one of them."
            )
        if self.distill and (self.mixup or self.cutmix):
            raise OptionError(
                "--distill teaches what single images show, --mixup and --cutmix mix them: give one of them."
            )
        if not self.distill and any(getattr(self, name) != value for name, value in _TEACHING.items()):
            raise OptionError("--distill-weight and --distill-temperature are of --distill; give that too.")
        if self.init_head != "scratch" and self._differs(_FRESH):
            raise OptionError("--head-lr and --head-epochs are of a fresh head: give --init-head scratch, too.")
        if self.views > 1 and not self.cached_prefix:
            raise OptionError("views says how many augmented views cached-prefix keeps; give that too.")

    def _differs(self, names: Collection[str]) -> list[str]:
        """Return which of these are not as they are by default."""
        own = parameters(Recipe)
        return [name for name in own if name in names and getattr(self, name) != own[name].default]

    @property
    def learning_rate(self) -> float:
        """Of the phase that trains the backbone; small parts of it bear larger steps."""
        usual = find_optimizer(self.optimizer).learning_rate * (1 if self.method in ("full", "last") else _LARGER)
        usual = round(usual, 12)  # 0.003, not 0.0029999999999999996, in names and records
        return usual if self.lr is None else self.lr

    @property
    def unfrozen(self) -> str:
        """Which layers are trained, as `unfreeze` says it."""
        return "top:1" if self.method == "last" else self.unfreeze

    @property
    def criterion(self) -> str:
        """What is minimised, as `tlcache.finetuning.losses.make_loss` names it."""
        return self.loss if self.task == CLASSIFY else self.task

    def as_json(self) -> dict[str, Any]:
        """Return all settings as records hold them, the learning rate in force included."""
        given = {**asked(self, "coverage", "per_class", "recipe"), "lr": self.learning_rate}
        idle = {name for name, value in _BEFORE.items() if given.get(name) == value}
        idle |= set(_OF_CLASSES) if self.task != CLASSIFY else set()
        return dict(_recorded(*each) for each in given.items() if each[0] not in idle)


def _decided() -> set[str]:
    """Return the names of the settings that a recipe decides."""
    return parameters(Recipe).keys() - _SHARED - {"recipe"}


def resolved(given: Mapping[str, Any], sweep: Mapping[str, Sequence[Any]] | None = None) -> dict[str, Any]:
    """Return settings with those of the recipe that they name.

    Where they name none, that is a race, unless a setting that recipes decide is among them or in the sweep.

    >>> resolved({"recipe": "bold", "epochs": 3})["lr"], resolved({"seed": 1})["recipe"], resolved({"epochs": 3})
    (0.001, 'race', {'epochs': 3, 'recipe': None})

    Raises
    ------
    OptionError
        No such recipe, or two settings that say the same.
    """
    if given.get("method") == "last" and "unfreeze" in given:
        raise OptionError(_ALIKE.format(given["unfreeze"]))
    name = given.get("recipe") or (OWN if sweep or given.keys() & _decided() else RACE)
    parameters(Recipe)["recipe"].check(name)
    return {**given, "recipe": RACE} if name == RACE else {**RECIPES[name], **given, "recipe": None}


_WHY_NOT_NESTED = {
    "coverage": "images to calibrate on that nothing was chosen by, and --cv leaves none",
    "distill": "a run that has not seen the images it is tested by, and with --cv these are all images",
}


def check_nested(cv: str | None, *recipes: Recipe) -> None:
    """Raise OptionError where networks are to be tested in folds, and an option is of a single test split."""
    for recipe in recipes if cv is not None else ():
        check_task(recipe.task, cv=cv)
        for name in _WHY_NOT_NESTED:
            if getattr(recipe, name) is not None:
                raise OptionError(f"--{name} needs {_WHY_NOT_NESTED[name]}. Leave one of them out.")


def arguments_of(
    recipe: Recipe,
    sweep: Mapping[str, Sequence[Any]] | None = None,
    budget_s: float | None = None,
    cv: str | None = None,
) -> dict[str, Any]:
    """Return what a fine-tuning's record says was asked for; its names and units are those of the first version."""
    pairs = [_recorded(name, value) for name, values in (sweep or {}).items() for value in values]
    searched = {name: [value for other, value in pairs if other == name] for name, _ in pairs}
    folds = {"cv": spelled(cv)} if cv else {}
    return {**recipe.as_json(), "sweep": searched, "budget": None if budget_s is None else budget_s / 60, **folds}


def settings_of(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return what was asked for by today's names, `sweep` and `budget_s` included: the reverse of `arguments_of`."""
    asked = {"recipe": OWN, **_BEFORE, **dict(_named(name, value) for name, value in arguments.items())}
    pairs = [_named(name, value) for name, values in asked.pop("sweep", {}).items() for value in values]
    minutes = asked.pop("budget", None)
    searched = {name: [value for other, value in pairs if other == name] for name, _ in pairs}
    if asked["recipe"] == RACE:
        asked = {name: value for name, value in asked.items() if name not in _decided()}
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
    check_names(Recipe, sweep)
    return [(setting, replace(recipe, **setting)) for setting in settings]
