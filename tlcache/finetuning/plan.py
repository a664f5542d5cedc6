"""How a race spends its time: which recipes can be afforded, for how many epochs, and on how many images."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sized
from dataclasses import dataclass, replace

from tlcache.finetuning.pace import Pace

__all__ = [
    "FLOOR_S",
    "Plan",
    "Round",
    "Rows",
    "budget_of",
    "fitted",
    "planned",
    "training_s",
    "usual_epochs",
    "worth_keeping",
]

_IMAGE_S, FLOOR_S, _LEAST_S, _MOST_S = 0.13, 200.0, 10.0, 7_200.0
_WORTH = 40  # epochs of all layers: more time than they take is not needed
_STEPS, _FEW, _MANY = 300, 10, 30  # a training has about so many steps, in so many epochs at least and at most
_LEAST_EPOCHS = 4  # with fewer a recipe is not worth trying
_ROUND = 0.25  # share of the budget that each of two rounds may take
_TELLING = 300  # images to train on that tell recipes apart
_JUDGES = 1_000  # images that rounds are judged on, at most
_DISK = 600_000_000  # bytes of activations that are kept


@dataclass(frozen=True)
class Rows:
    """How many images there are to train on and to judge by, and whether both are trained on in the end."""

    train: int
    val: int
    refit: bool = True

    @classmethod
    def of(cls, splits: Mapping[str, Sized], refit: bool) -> Rows:
        """Return how many there are in these splits."""
        return cls(len(splits["train"]), len(splits["val"]), refit)

    @property
    def trained(self) -> int:
        """How many there are in an epoch and the one that follows on train + val, if any."""
        return 2 * self.train + self.val if self.refit else self.train


@dataclass(frozen=True)
class Round:
    """So many recipes are trained for so many epochs, on so many of the images; the better half goes on."""

    recipes: int
    epochs: int
    train: int
    val: int


@dataclass(frozen=True)
class Plan:
    """What is to be tried.

    Parameters
    ----------
    budget_s
        For all of it, in seconds.
    epochs
        Of each recipe that can be afforded, when it is trained on all images.
    rounds
        The first with all of these; the best of the last is trained for its epochs.
    left_out
        The recipes for which there is no time.
    """

    budget_s: float
    epochs: Mapping[str, int]
    rounds: tuple[Round, ...]
    left_out: tuple[str, ...]


def budget_of(rows: Rows, whole: Pace) -> float:
    """Return the seconds that a race and what follows may take, where nothing is said.

    It grows with the images, and is no more than `_WORTH` epochs of all layers take; `whole` is the pace of these.
    """
    enough = _WORTH * (rows.train * whole.train_s + rows.val * whole.look_s)
    return max(_LEAST_S, min(enough, _MOST_S, max(FLOOR_S, _IMAGE_S * (rows.train + rows.val))))


def worth_keeping(images: int, pace: Pace) -> bool:
    """Return whether the activations of so many images are small enough to keep."""
    return 0 < pace.views * images * pace.kept_bytes <= _DISK


def usual_epochs(train: int, batch_size: int) -> int:
    """Return how many epochs a training has where time does not matter."""
    return min(_MANY, max(_FEW, math.ceil(_STEPS / math.ceil(train / batch_size))))


def planned(rows: Rows, paces: Mapping[str, Pace], budget_s: float, batch_size: int) -> Plan:
    """Return which recipes can be afforded in a budget, each by its pace, and how the rounds are sized.

    The best of the last round is trained, and trained again on train + val; half of the budget is for that. Rounds have
    fewer images where the others would take too long.
    """
    usual = usual_epochs(rows.train, batch_size)
    most = {name: min(usual, _epochs_in(budget_s / 2, rows, pace)) for name, pace in paces.items()}
    enough = min(_LEAST_EPOCHS, max(most.values()))
    epochs = {name: max(1, number) for name, number in most.items() if number >= enough}
    own = {name: paces[name] for name in epochs}
    longest = max(epochs.values())
    rounds = tuple(_round(rows, own, count, max(2, longest // part), budget_s) for count, part in _halved(len(own)))
    return Plan(budget_s, epochs, rounds, tuple(name for name in paces if name not in epochs))


def fitted(plan: Plan, rows: Rows, paces: Mapping[str, Pace], left_s: float) -> Plan:
    """Return what is left of a plan, cut where it would take longer than `left_s`.

    `plan` has the rounds and the recipes that are left, `paces` are what these take by now. A third of the time is for
    a round; one that finds none is left out. The training that follows has one epoch at least.
    """
    if _left_s(plan, rows, paces) <= left_s:
        return plan
    cut = (_shorter(each, rows, paces, left_s / 3) for each in plan.rounds)
    rounds = [each for each in cut if _sum_s(each, rows, paces) <= left_s / 2]
    room = left_s * (2 / 3 if rounds else 1)
    epochs = {name: max(1, min(number, _epochs_in(room, rows, paces[name]))) for name, number in plan.epochs.items()}
    return replace(plan, epochs=epochs, rounds=tuple(rounds))


def _shorter(each: Round, rows: Rows, paces: Mapping[str, Pace], seconds: float) -> Round:
    """Return a round with fewer images, and if there are few anyway, fewer epochs."""
    some = _round(rows, paces, each.recipes, each.epochs, seconds / _ROUND)
    share = min(1.0, seconds / _sum_s(some, rows, paces)) if seconds > 0 else 0.0
    return replace(some, epochs=max(2, int(share * each.epochs)))


def _sum_s(each: Round, rows: Rows, paces: Mapping[str, Pace]) -> float:
    """Return the seconds of a round, whichever recipes are in it."""
    some = replace(rows, train=each.train, val=each.val)
    return sum(sorted((_round_s(some, pace, each.epochs) for pace in paces.values()), reverse=True)[: each.recipes])


def _left_s(plan: Plan, rows: Rows, paces: Mapping[str, Pace]) -> float:
    """Return what the rounds of a plan take, and the training that follows, of whichever recipe."""
    own = {name: (paces[name], epochs) for name, epochs in plan.epochs.items()}
    last = max(training_s(rows, pace, epochs) for pace, epochs in own.values())
    return sum(_sum_s(each, rows, paces) for each in plan.rounds) + last


def training_s(rows: Rows, pace: Pace, epochs: int) -> float:
    """Return the seconds of a training of so many epochs, and of that on train + val which follows."""
    return _kept_s(rows, pace, pace.views) + epochs * _epoch_s(rows, pace)


def _halved(recipes: int) -> list[tuple[int, int]]:
    """Return how many recipes are in each round, and which part of the epochs they are trained for."""
    if recipes < 2:
        return []
    return [(recipes, 2)] if recipes == 2 else [(recipes, 4), (math.ceil(recipes / 2), 2)]


def _round(rows: Rows, paces: Mapping[str, Pace], recipes: int, epochs: int, budget_s: float) -> Round:
    """Return a round of the most images for which there is time, whichever recipes are in it."""
    dearest = sorted((_round_s(rows, pace, epochs) for pace in paces.values()), reverse=True)[:recipes]
    share = min(1.0, _ROUND * budget_s / sum(dearest))
    train = min(rows.train, max(_TELLING, int(share * rows.train)))
    return Round(recipes, epochs, train, min(rows.val, _JUDGES, max(_TELLING, int(share * rows.val))))


def _epochs_in(seconds: float, rows: Rows, pace: Pace) -> int:
    """Return for how many epochs there is time, with the training on train + val that follows."""
    return int((seconds - _kept_s(rows, pace, pace.views)) / _epoch_s(rows, pace))


def _round_s(rows: Rows, pace: Pace, epochs: int) -> float:
    """Return the seconds of a training in a round, where nothing follows."""
    alone = replace(rows, refit=False)
    return _kept_s(alone, pace, min(pace.views, epochs)) + epochs * _epoch_s(alone, pace)


def _kept_s(rows: Rows, pace: Pace, views: int) -> float:
    return pace.once_s * (views * rows.trained + rows.val)


def _epoch_s(rows: Rows, pace: Pace) -> float:
    """Return the seconds of an epoch, validation included, and of the one that follows on train + val."""
    return rows.trained * pace.train_s + rows.val * pace.look_s
