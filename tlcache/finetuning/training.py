"""The training loop: phases of epochs, validated after each, resumable, the best by validation restored."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tlcache.backbones.backbone import Layer
from tlcache.backbones.torch_network import synchronised
from tlcache.errors import TlcacheError
from tlcache.evaluation.task import Task
from tlcache.finetuning.augment import mixing
from tlcache.finetuning.checkpoints import Checkpoints
from tlcache.finetuning.classifier import Classifier
from tlcache.finetuning.live import Live
from tlcache.finetuning.losses import make_loss
from tlcache.finetuning.optimisation import averaged, balance, in_place, make_optimizer
from tlcache.finetuning.ranks import parallel, rank, shared, size
from tlcache.finetuning.recipe import Recipe
from tlcache.finetuning.schedules import learning_rate_factor
from tlcache.finetuning.sources import Source, parts_of
from tlcache.finetuning.speed import ComputeFormat
from tlcache.finetuning.step import Step
from tlcache.progress import say, training_bar
from tlcache.runs.finetuned import TunedEpoch
from tlcache.tasks import MULTILABEL, USUAL
from tlcache.text import duration, figure_text

if TYPE_CHECKING:
    from tlcache.display import Update

__all__ = ["Late", "Phase", "State", "Tell", "Training", "TrainingError", "logits_of"]

Tell = Callable[[str], None]
Late = Callable[[Sequence[Mapping[str, Any]]], bool]  # epochs that were trained -> whether no other is to follow


class TrainingError(TlcacheError):
    """A training that cannot go on, because its loss is no number any more."""


@dataclass(frozen=True)
class Phase:
    """Some epochs in which the same layers are trained.

    Parameters
    ----------
    name
        `head` or `backbone`.
    network, layers
        The classifier, and the layers of its backbone that are trained.
    epochs, learning_rate
        As planned, for the schedule; early stopping may end sooner.
    stop
        Epochs after which the phase ends in any case.
    train, val
        What is trained on, and what decides which epoch was best; without `val` the last one is kept.
    taught
        What a teacher says of the images that are trained on, (n, C); None without one.
    again
        Whether this is the training after the one that chose the number of epochs.
    """

    name: str
    network: Classifier
    layers: Sequence[Layer]
    epochs: int
    stop: int
    learning_rate: float
    train: Source
    val: Source | None
    taught: Tensor | None = None
    again: bool = False


@dataclass
class State:
    """How far a training is; all that a checkpoint has to hold.

    Parameters
    ----------
    phase, epoch
        Phases that are finished, and epochs of the one that is not.
    history
        Per epoch: phase, epoch, losses, figures, learning rate, seconds, images per second.
    best
        Length of `history` up to the best epoch so far, and its weights.
    weights, optimizer, average
        After the last epoch.
    precision, layout, measured
        How the network is computed, and the images per second that decided it.
    """

    precision: str
    layout: str
    measured: dict[str, float]
    weights: dict[str, Tensor]
    phase: int = 0
    epoch: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)
    best: dict[str, Any] = field(default_factory=dict)
    optimizer: dict[str, Any] | None = None
    average: dict[str, Any] | None = None

    @property
    def best_epoch(self) -> TunedEpoch:
        """The best epoch so far, of those that were validated."""
        return TunedEpoch(**self.history[self.best["epochs"] - 1])

    @property
    def way(self) -> ComputeFormat:
        """How the network is computed."""
        return ComputeFormat(self.precision, self.layout)


class Training:
    """Trains a model and its head, phase after phase.

    Parameters
    ----------
    model, head
        What is trained, on `device`.
    recipe
        The settings.
    target, classes
        What is learned; number of classes, or columns.
    checkpoints
        Where the state is kept after every epoch.
    tell
        What is told how every epoch went.
    late
        What ends it before its last epoch; never before the first.
    live
        Who is told of its figures.
    """

    def __init__(
        self,
        model: nn.Module,
        head: nn.Module,
        recipe: Recipe,
        target: Task,
        classes: int,
        device: str,
        checkpoints: Checkpoints,
        tell: Tell = say,
        late: Late | None = None,
        live: Live | None = None,
    ) -> None:
        self.model, self.head, self.recipe, self.device = model, head, recipe, device
        self.target, self.classes = target, classes
        self.both = nn.ModuleDict({"model": model, "head": head})
        self._columns = classes if target.name == MULTILABEL else 1  # losses are told per label, as those of the test
        self._checkpoints, self._tell, self._late, self._live = checkpoints, tell, late, live or Live()

    def run(self, phases: Sequence[Phase], state: State) -> State:
        """Train from `state` on to the end of the last phase, and load the best weights.

        Raises
        ------
        TrainingError
            The loss is no number any more; the last epoch's state is kept.
        """
        state.way.lay(self.model)
        self.both.load_state_dict(state.weights)
        if state.history:
            phase = phases[state.phase if state.epoch else state.phase - 1]
            self._tell(f"goes on after {_where(phase, state.history[-1]['epoch'])}")
        if self.recipe.init_head == "cached" and phases[0].val and not state.history:
            self._judge(phases[0], state, {"phase": phases[0].name, "epoch": 0})
            self._tell_epoch(state, phases[0])
        left = [phase.stop * len(phase.train) for phase in phases[state.phase :]]
        done = state.epoch * len(phases[state.phase].train) if left else 0
        with training_bar(sum(left) - done) as advance:
            while state.phase < len(phases):
                phase = phases[state.phase]
                self._run_phase(phase, state, advance)
                state.phase, state.epoch, state.optimizer, state.average = state.phase + 1, 0, None, None
                state.weights = state.best["weights"] if state.best else state.weights
                self.both.load_state_dict(state.weights)
                self._keep(state)
        return state

    def _run_phase(self, phase: Phase, state: State, advance: Update) -> None:
        phase.network.unfreeze()
        if self.recipe.batch_norm == "adapt":
            phase.network.follow(math.ceil(len(phase.train) / self.recipe.batch_size))
        step = self._step(phase, state)
        while state.epoch < phase.stop and not self._is_stale(phase, state):
            figures = self._train_epoch(phase, state, step, advance)
            with in_place(step.average, self.both) if step.average else nullcontext():
                self._judge(phase, state, figures)
            state.epoch += 1
            state.weights, state.optimizer = self.both.state_dict(), step.optimizer.state_dict()
            state.average = step.average.state_dict() if step.average else None
            self._keep(state)
            self._tell_epoch(state, phase)

    def _tell_epoch(self, state: State, phase: Phase) -> None:
        self._tell(_line(state.history[-1], phase))
        self._live.tell(len(state.history) - 1, state.history[-1])

    def _step(self, phase: Phase, state: State) -> Step:
        """Return what a step needs, the optimizer and the average as they were when the state was kept."""
        recipe = self.recipe
        weights = balance(phase.train.labels, self.classes).to(self.device) if recipe.class_weight else None
        optimizer = make_optimizer(recipe, phase.learning_rate, self.model, self.head, phase.layers)
        if state.optimizer is not None:
            optimizer.load_state_dict(state.optimizer)
        average = averaged(self.both, recipe.ema) if recipe.ema else None
        if average and state.average:
            average.load_state_dict(state.average)
        loss_of = make_loss(recipe.criterion, recipe.label_smoothing, weights)
        mix = None if phase.train.ready else mixing(recipe.mixup, recipe.cutmix, self.classes)
        network = self._parallel(phase) if size() > 1 else phase.network
        return Step(
            *(network, phase.train.ready, phase.learning_rate, self.both, state.way, self.device, recipe, self.target),
            *(optimizer, average, loss_of, weights, mix),
        )

    def _parallel(self, phase: Phase) -> nn.Module:
        one = phase.train.fetch(np.zeros(1, np.int64), 0).to(self.device)
        has_idle = phase.network.has_idle(one, phase.train.ready)
        return parallel(synchronised(phase.network) if self.recipe.sync_batch_norm else phase.network, has_idle)

    def _keep(self, state: State) -> None:
        if rank() == 0:
            self._checkpoints.save(len(state.history) + state.phase, vars(state))  # the end of a phase is one more

    def _is_stale(self, phase: Phase, state: State) -> bool:
        """Return whether it is late, or the best epoch further back than the patience that each phase has reaches."""
        late = self._late
        if state.epoch and late is not None and shared(lambda: late(state.history)):
            return True
        if phase.val is None or not state.best:
            return False
        begin = len(state.history) - state.epoch
        return bool(len(state.history) - max(begin, state.best["epochs"]) >= self.recipe.patience)

    def _train_epoch(self, phase: Phase, state: State, step: Step, advance: Update) -> dict[str, Any]:
        seeds = np.random.SeedSequence([self.recipe.seed, state.phase, state.epoch])  # nothing of the epoch before
        order = np.random.default_rng(seeds).permutation(len(phase.train))
        torch.manual_seed(int(seeds.generate_state(1)[0]))
        steps = math.ceil(len(order) / self.recipe.batch_size)
        began, seen, right, loss_sum = time.perf_counter(), 0, 0, 0.0
        phase.network.train()
        batch, share = self.recipe.batch_size, (rank(), size())
        batches = zip(phase.train.batches(order, batch, state.epoch, share), parts_of(order, batch, share), strict=True)
        for number, ((inputs, labels), rows) in enumerate(batches, state.epoch * steps):
            taught = () if phase.taught is None else (phase.taught[torch.from_numpy(rows)],)
            loss, hits, images = step(inputs, labels, self._factor(phase, number, steps), *taught)
            if not math.isfinite(loss):
                raise self._not_finite(phase, state)
            seen, right, loss_sum = seen + images, right + hits, loss_sum + loss / self._columns * images
            counted = {"train_accuracy": right / seen} if phase.train.labels.ndim == 1 else {}
            told = "".join(f", accuracy {share:.3f}" for share in counted.values())
            advance(images, f"{_where(phase, state.epoch + 1)}: loss {loss_sum / seen:.3f}{told}")
        seconds = time.perf_counter() - began
        return {
            "phase": phase.name,
            "epoch": state.epoch + 1,
            "train_loss": loss_sum / seen,
            **counted,
            "lr": phase.learning_rate * self._factor(phase, (state.epoch + 1) * steps - 1, steps),
            "train_s": seconds,
            "images_per_s": seen / seconds,
        }

    def _factor(self, phase: Phase, step: int, steps: int) -> float:
        warmup = round(self.recipe.warmup_epochs * steps)
        return learning_rate_factor(self.recipe.schedule, step, phase.epochs * steps, warmup)

    def _judge(self, phase: Phase, state: State, figures: dict[str, Any]) -> None:
        """Validate, write the epoch down, and keep its weights when they are the best so far."""
        figures = shared(lambda: self._validated(phase, state, figures))
        if not math.isfinite(figures.get("val_loss", 0.0)):
            raise self._not_finite(phase, state)
        state.history.append(figures)
        if phase.val is None or not state.best or TunedEpoch(**figures).score > state.best_epoch.score:
            weights = {name: each.detach().clone() for name, each in self.both.state_dict().items()}
            state.best = {"epochs": len(state.history), "weights": weights}

    def _validated(self, phase: Phase, state: State, figures: dict[str, Any]) -> dict[str, Any]:
        began = time.perf_counter()
        if phase.val is not None:
            target, wanted, name = self.target, phase.val.labels, USUAL[self.target.name]
            logits = logits_of(phase.network, phase.val, self.device, state.way)
            known = target.seen(phase.train.labels, wanted)  # the loss of others is whatever it was
            learned = (torch.from_numpy(each[known]) for each in (logits, target.learned(wanted)))
            loss = float(make_loss(self.recipe.criterion)(*learned)) / self._columns
            value = target.metrics[name].value(wanted, target.answers(logits))
            figures = {**figures, "val_loss": loss, f"val_{name}": value}
        return {**figures, "val_s": time.perf_counter() - began}

    def _not_finite(self, phase: Phase, state: State) -> TrainingError:
        option = "--head-lr" if phase.name == "head" else "--lr"
        return TrainingError(
            f"The loss is no finite number any more, in epoch {state.epoch + 1} of the {phase.name} phase "
            f"({self.recipe.optimizer}, learning rate {phase.learning_rate:g}). The state before that epoch stays in "
            f"'{self._checkpoints.folder}'. Try a smaller {option}, or more --warmup-epochs."
        )


def logits_of(network: Classifier, source: Source, device: str, way: ComputeFormat) -> NDArray[np.float32]:
    """Return the logits (n, C) of all rows of a source, in order; the network is left in evaluation mode."""
    network.eval()
    rows: list[Tensor] = []
    with torch.inference_mode():
        for inputs, _ in source.batches(np.arange(len(source)), 64, 0):
            rows.append(way.forward(network, inputs.to(device), source.ready).cpu())
    return torch.cat(rows).numpy()


def _where(phase: Phase, epoch: int) -> str:
    return f"{'refit ' if phase.again else ''}{phase.name} {epoch}/{phase.stop}"


def _line(figures: dict[str, Any], phase: Phase) -> str:
    judged = TunedEpoch(**figures) if "val_loss" in figures else None
    val = f"val {judged.val_loss:.3f} {figure_text(judged.value, judged.figure)}" if judged else ""
    name = judged.figure.replace("_", " ") if judged else "accuracy" if "train_accuracy" in figures else ""
    where = f"{_where(phase, figures['epoch'])}: {' and '.join(filter(None, ('loss', name)))}: "
    if not figures["epoch"]:
        return f"{where}{val}, of the head that it begins with"
    reached = (figures[each] for each in ("train_loss", "train_accuracy") if each in figures)
    train = " ".join(["train", *(f"{each:.3f}" for each in reached)])
    took = duration(figures["train_s"] + figures["val_s"])
    return f"{where}{', '.join(filter(None, (train, val)))}; {figures['images_per_s']:.0f} images/s, {took}"
