"""A comparison in a few plain sentences."""

from __future__ import annotations

from functools import partial
from statistics import NormalDist
from typing import TYPE_CHECKING

from tlcache.evaluation.task import larger_is_better
from tlcache.keys import printable, some
from tlcache.runs.finetuned import FinetunedRun
from tlcache.runs.frozen import FrozenRun
from tlcache.tasks import REGRESSION
from tlcache.text import duration, figure_text, p_text, points, times

if TYPE_CHECKING:
    from tlcache.evaluation.comparison import Comparison, Entry, Pair
    from tlcache.runs.record import Run

__all__ = ["interval_of", "layer_choices", "no_gain", "p_of", "size", "verdict"]

_POINT = 0.01 + 1e-9  # how far behind a quicker run may be
_MARGINS = {"equivalent": "equivalent", "not worse": "not worse", "not shown": "neither is shown"}


def verdict(found: Comparison) -> str:
    """Return in a few plain sentences which is best, whether fine-tuning is worth its time, what is as good for less.

    Examples
    --------
    >>> runs = fit_heads([feature_file], heads=["ridge"], runs=folder)
    >>> verdict(compare(folder)[0]).partition(":")[0]
    'One run'
    """
    frozen, tuned = found.top("frozen", "joined"), found.top("finetune")
    both = _strategies(found, tuned, frozen) if frozen and tuned else ""
    parts = [both if tuned else _start(found), _tunings(found), _partly(found), _joining(found), _picked(found)]
    parts += [_backbones(found), _margin(found), layer_choices(found)]
    return " ".join(filter(None, [*parts, _smallest(found), _quickest(found), _baseline(found)]))


def _picked(found: Comparison) -> str:
    """Name the run that was picked, what it reaches, and which others are shown to be worse."""
    picked, others = found.picked[0], [entry for entry in found.entries if entry is not found.picked[0]]
    value, low, high = (figure_text(each, found.by) for each in picked.figure(found.by))
    what = "" if found.by == "accuracy" else f"{found.by} "
    figures = f"{picked.name}, {what}{value} ({low}-{high})"
    if not others:
        return f"One run: {figures}. There is nothing to compare it with."
    alike = sum(entry.best for entry in others)
    shown = "are not shown" if alike else "are shown"
    who = f"the other {len(others)}"
    if len(others) == 1:
        who, shown = "the other one", shown.replace("are", "is")
    elif 0 < alike < len(others):
        who, shown = f"{alike} of {who}", shown if alike > 1 else shown.replace("are", "is")
    if found.without_test:
        first = f"Picked on validation, without the test images: {figures} on them"
    else:
        first = "The most accurate" if found.by == "accuracy" else "The best"
        first += "" if picked is found.entries[0] else " but for fine-tunings in vain"
        first += f" is {figures}"
        figures = "picked on the test images, where the luckiest of several looks better than it is"
        first += f" ({figures})"
    return f"{first}; {who} {shown} to be worse."


def _margin(found: Comparison) -> str:
    """Say which runs are shown to be as good as the picked one, or not worse, up to the margin."""
    if not found.margins:
        return ""
    kinds = {words: [each.name for each in found.margins if each.words == words] for words in _MARGINS}
    said = [f"{_MARGINS[words]}: {some(names)}" for words, names in kinds.items() if names]
    many = "1 point" if found.margin == 1 else f"{found.margin:g} points"
    return f"Against {found.picked[0].name}, up to a margin of {many}, {'; '.join(said)}."


def _strategies(found: Comparison, tuned: Entry, frozen: Entry) -> str:
    """Say what the fine-tuned network has over the frozen head, those that were picked."""
    (pair,) = found.among([(tuned, frozen)])
    what, other = f"Fine-tuning {tuned.backbone}", f"the best frozen head ({frozen.name})"
    cost = f"{times(tuned.first_s / frozen.first_s)} its time"
    return _gain(pair, found.by, what, other, cost) + _unequal(tuned.run)


def _gain(pair: Pair, by: str, what: str, other: str, cost: str) -> str:
    gain, figures = pair.found.difference, f"({interval_of(pair, by)}, {p_of(pair)})"
    amount = f"{size(abs(gain), by)} {figures}"
    if not pair.shown:
        sign = "+" if gain > 0 else "-" if gain < 0 else ""
        return f"{what} is not shown to differ from {other}: {sign}{amount}, for {cost}."
    if gain * _sign(by) > 0:
        return f"{what} gains {amount} over {other}, for {cost}."
    return f"{what} loses {amount} against {other}, and takes {cost}."


def _tunings(found: Comparison) -> str:
    """Say what fine-tuning adds to each backbone, where that is not said already."""
    said = (found.top("finetune"), found.top("frozen", "joined"))
    texts = []
    for pair in found.tunings:
        if (pair.a, pair.b) != said:
            cost = f"{times(pair.a.first_s / pair.b.first_s)} its time"
            texts.append(_gain(pair, found.by, f"Fine-tuning {pair.a.backbone}", f"its own {pair.b.head} head", cost))
    return " ".join(texts)


def _joining(found: Comparison) -> str:
    """Say what several backbones together have over the best one, where both were tried."""
    joined, single = found.top("joined"), found.top("frozen")
    if not (joined and single):
        return ""
    (pair,) = found.among([(joined, single)])
    what, other = f"Joining {joined.backbone} ({joined.head})", f"the best head on one backbone ({single.name})"
    return _gain(pair, found.by, what, other, f"{times(joined.first_s / single.first_s)} its time")


def layer_choices(found: Comparison) -> str:
    """Say what choosing among layers adds to each backbone, over the last one."""
    texts = []
    for pair in found.layer_choices:
        run = pair.a.run
        if not isinstance(run, FrozenRun):
            continue
        (chosen,) = (each.name for each in run.layers if each.key == run.key)
        count, last = len(run.layers), run.layers[-1]
        if run.key == last.key:
            texts.append(
                f"Of {count} layers of {run.backbone}, the last ({chosen}) was best on validation, by {run.head}."
            )
            continue
        what = f"The layer of {run.backbone} that was best of {count} on validation ({chosen})"
        cost = f"{times(pair.a.first_s / pair.b.first_s)} its time"
        texts.append(_gain(pair, found.by, what, f"the last ({last.name}), both by {run.head}", cost))
    return " ".join(texts)


def _backbones(found: Comparison) -> str:
    """Say which backbones are shown to be worse than the best, each by the head that was picked for it."""
    if len(found.backbones) < 2:
        return ""
    first, *others = found.backbones
    worse = [pair.b.backbone for pair in found.between_backbones if pair.a is first and _shown(pair, found.by)]
    who = f"{some(worse)} {'are' if len(worse) > 1 else 'is'}" if worse else "none of the others is"
    if len(others) == 1:
        who = "the other one is" if worse else "the other one is not"
    rank = "by the head picked for each"
    return f"Of {len(others) + 1} frozen backbones, {rank}, {first.backbone} is first; {who} shown to be worse."


def _shown(pair: Pair, by: str) -> bool:
    """Return whether the first of two is shown to be better."""
    return pair.shown and pair.found.difference * _sign(by) > 0


def _smallest(found: Comparison) -> str:
    """Say how large a difference must be to be shown."""
    smallest = found.smallest_shown
    if smallest is None or found.by != "accuracy":
        return ""
    images = f"{found.groups.number:,} groups of " if found.groups else ""
    images += f"{found.entries[0].run.test.n:,} test images"
    return f"With these {images}, differences under about {points(smallest)} points cannot be shown."


def _unequal(run: Run) -> str:
    """Say it where a fine-tuning had fewer images than heads have."""
    if run.rows.val and not run.settings["refit"]:
        return " It was trained on train alone, heads on train + val; with --refit both are."
    return ""


def _start(found: Comparison) -> str:
    """Say that no fine-tuning became better than it began, where there are only such."""
    tried = [(e.backbone, e.run) for e in found.entries if isinstance(e.run, FinetunedRun) and e.run.untuned]
    if not tried:
        return ""
    backbones = ", ".join(dict.fromkeys(backbone for backbone, _ in tried))
    if len(tried) == 1:
        _, run = tried[0]
        return f"Fine-tuning {backbones} gave nothing: {_untuned(run)}.{_unequal(run)}{_cut_short(run)}"
    many = f"in none of {len(tried)} runs was an epoch better on validation than the head it began with"
    cut = next((said for _, run in tried if (said := _cut_short(run))), "")
    return f"Fine-tuning {backbones} gave nothing: {many}.{cut}"


def _cut_short(run: FinetunedRun) -> str:
    """Say it where a race had no time for all that it would have tried."""
    if run.race and (run.race.left_out or run.race.cut):
        return f" A budget of {duration(run.race.budget_s)} cut the search short: more time may tell (--budget)."
    return ""


def _partly(found: Comparison) -> str:
    """Say in how many folds fine-tunings were no gain, of those that were one in others."""
    parts = ((entry.name, _in_some_folds(entry.run)) for entry in found.entries if isinstance(entry.run, FinetunedRun))
    return " ".join(f"{name}: {said}." for name, said in parts if said)


def _in_some_folds(run: FinetunedRun) -> str:
    """Return in how many folds no epoch was better than the head it began with; empty where that is none, or all."""
    kept = run.epochs_kept
    if all(kept) or not any(kept):
        return ""
    many = f"{kept.count(0)} of {len(kept)} folds"
    return f"in {many} no epoch was better on validation than the head it began with, which is what is tested there"


def no_gain(run: Run) -> str:
    """Return that a fine-tuning was in vain, and what to try, or in which share of folds; empty for all other runs."""
    if not isinstance(run, FinetunedRun):
        return ""
    if not run.untuned:
        said = _in_some_folds(run)
        return f"{said.capitalize()}." if said else ""
    return f"{_untuned(run).capitalize()}. {_advice(run)}"


def _untuned(run: FinetunedRun) -> str:
    """Return that no epoch of a fine-tuning was better than the head it began with, and by how much."""
    if run.cross_validation:
        return "in no fold was an epoch better on validation than the head it began with, which is what is tested"
    trained = [epoch for epoch in run.history if epoch.phase == "backbone" and epoch.epoch]
    before = [epoch for epoch in run.history if epoch not in trained]
    first, best = (max(some, key=lambda each: each.score) for some in (before, trained))
    scores = [
        f"{figure_text(epoch.value, epoch.figure)} with a loss of {epoch.val_loss:.3f}" for epoch in (first, best)
    ]
    raced = f" of {run.settings['recipe']}, the best of {_recipes(run)}," if run.race else ""
    return (
        f"no epoch{raced} was better on validation than the head it began with ({first.figure.replace('_', ' ')} "
        f"{scores[0]}; the best epoch {scores[1]}), which is what is tested"
    )


def _recipes(run: FinetunedRun) -> str:
    """Return how many recipes were raced; a cross-validation has no list of them."""
    if run.cross_validation:
        return "the recipes"
    tried = len({each.setting["recipe"] for each in run.candidates})
    return f"{tried} recipes" if tried > 1 else "one recipe"


def _advice(run: FinetunedRun) -> str:
    """Return what to try where no epoch of a fine-tuning was better than its start."""
    asked = run.settings
    if run.race:
        within = f"{_recipes(run)} tried within {duration(run.race.budget_s)}"
        return f"With {within}, nothing was gained: keep the frozen head, or give more time (--budget)."
    still = [] if asked["batch_norm"] == "eval" else ["--batch-norm eval"]
    *ways, last = [*still, f"a smaller --lr than {asked['lr']:g}", "fewer layers (--unfreeze last:N or stage:K)"]
    return f"Try {', '.join(ways)} or {last}."


def _quickest(found: Comparison) -> str:
    """Name the quickest of those that share the mark and are no more than a point behind, unless it was picked."""
    picked = found.picked[0]
    if found.task == REGRESSION:  # what is near is for who knows the unit to say
        return ""
    tried = [entry for entry in found.entries if entry.best and (picked.run.untuned or not entry.run.untuned)]
    near = [entry for entry in tried if _near(entry, picked, found.by)]
    quickest = min(near, key=lambda entry: entry.first_s)
    if quickest is picked:
        return ""
    took = f"{duration(quickest.first_s)} from nothing"
    return f"Of those not shown to be worse and within a point of it, the quickest is {quickest.name}: {took}."


def _near(entry: Entry, picked: Entry, by: str) -> bool:
    """Return whether a run is no more than a point behind on the test images, and on validation if of the same ones."""
    same = picked.run.validated_on == entry.run.validated_on
    both = [(picked.figure(by)[0], entry.figure(by)[0]), *([(picked.val_score, entry.val_score)] if same else [])]
    return all(_sign(by) * (a - b) <= _POINT for a, b in both if a is not None and b is not None)


def _baseline(found: Comparison) -> str:
    """Say it where the most accurate run may be no better than a constant answer."""
    if found.baseline is None:
        return ""
    if found.baseline.figure != "accuracy":
        value, low, high = found.picked[0].figure(found.by)
        behind = _sign(found.by) * (found.baseline.accuracy - (low if _sign(found.by) > 0 else high)) >= 0
        return (
            f"{found.picked[0].name} is not shown to be better than a constant answer. {found.baseline}"
            if behind
            else ""
        )
    answer, accuracy, _ = found.baseline
    picked, runs = found.picked[0], 1 if found.without_test else len(found.entries)
    wider = NormalDist().inv_cdf(1 - 0.025 / runs) / NormalDist().inv_cdf(0.975)  # for the best of so many (Bonferroni)
    if picked.accuracy - wider * (picked.accuracy - picked.low) > accuracy:
        return ""
    best = f"always answering '{printable(answer)}', which gives {accuracy:.3f}"
    return f"{picked.name} is not shown to be better than {best}."


def p_of(pair: Pair) -> str:
    """Return a pair's p value, and what the number of comparisons makes of it."""
    corrected = f", corrected for {pair.many} comparisons {p_text(pair.p_corrected)}" if pair.many > 1 else ""
    return p_text(pair.found.p) + corrected


def interval_of(pair: Pair, by: str = "accuracy") -> str:
    """Return the interval of what one run has over another."""
    shown = points if by == "accuracy" else partial(figure_text, name=by)
    return f"95 % CI {shown(pair.found.low)} to {shown(pair.found.high)}"


def size(difference: float, by: str = "accuracy") -> str:
    """Return how large a difference is, of an accuracy in points."""
    return f"{points(difference)} points" if by == "accuracy" else f"{figure_text(difference, by)} of {by}"


def _sign(by: str) -> int:
    return 1 if larger_is_better(by) else -1
