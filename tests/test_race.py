"""The default of fine-tuning: recipes that are tried on validation within a budget, the best trained in earnest."""

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from tlcache.cache.feature_file import Split
from tlcache.cli import app
from tlcache.errors import OptionError, UnknownNameError
from tlcache.files import cache_folder
from tlcache.finetuning import race
from tlcache.finetuning.clock import Clock
from tlcache.finetuning.data import TuningData
from tlcache.finetuning.finetune import finetune
from tlcache.finetuning.pace import Pace
from tlcache.finetuning.plan import Plan, Round, Rows, budget_of, fitted, planned, usual_epochs
from tlcache.finetuning.recipe import Recipe, resolved
from tlcache.finetuning.recipes import INSTEAD, RACED, RECIPES
from tlcache.finetuning.step import Step
from tlcache.finetuning.training import Phase, TrainingError
from tlcache.finetuning.trial import Trial
from tlcache.probing.fit import fit_heads
from tlcache.report.curves import learning_curves
from tlcache.report.reproduce import commands
from tlcache.runs.finetuned import FinetunedRun
from tlcache.runs.record import RUNS

FLOWERS, QUICK = Rows(728, 706), Pace(0.001, 0.0003)
SLOW, KEPT = Pace(0.03, 0.01), Pace(0.003, 0.001, 0.004, 75_000, 4)


@pytest.fixture
def short(val_chooses: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trainings of few epochs, however few steps they have, of few recipes."""
    del val_chooses
    monkeypatch.setattr(race, "RACED", ("steady", "bold", "adapt"))
    monkeypatch.setattr("tlcache.finetuning.plan._FEW", 3)
    monkeypatch.setattr("tlcache.finetuning.plan._MANY", 4)
    monkeypatch.setattr("tlcache.finetuning.clock._SETTING_UP_S", 1e6)  # whatever else this machine does


def raced(photos: Path, **settings: object) -> FinetunedRun:
    return finetune(photos, "tinynet", "random", precision="fp32", layout="contiguous", **settings)


def seconds(rows: Rows, pace: Pace, epochs: int, refit: bool) -> float:
    again = rows.train + rows.val if refit else 0
    views = min(pace.views, epochs) * (rows.train + again) + rows.val
    return views * pace.once_s + epochs * ((rows.train + again) * pace.train_s + rows.val * pace.look_s)


def test_where_time_is_short_of_nothing_all_recipes_race_on_all_images() -> None:
    plan = planned(FLOWERS, dict.fromkeys("abcdef", QUICK), 1e5, 32)
    assert plan.epochs == dict.fromkeys("abcdef", usual_epochs(728, 32))
    assert [(each.recipes, each.train, each.val) for each in plan.rounds] == [(6, 728, 706), (3, 728, 706)]
    assert plan.rounds[0].epochs < plan.rounds[1].epochs < plan.epochs["a"]
    assert not plan.left_out


def test_what_cannot_be_afforded_is_left_out() -> None:
    plan = planned(FLOWERS, {"top": KEPT, "also": KEPT, "whole": SLOW}, 200.0, 32)
    assert plan.left_out == ("whole",)
    assert set(plan.epochs) == {"top", "also"}
    assert [each.recipes for each in plan.rounds] == [2]


@pytest.mark.parametrize("budget", [1e-6, 1.0, 40.0])
def test_something_is_trained_in_the_shortest_time(budget: float) -> None:
    plan = planned(FLOWERS, {"whole": SLOW, "top": KEPT}, budget, 32)
    assert min(plan.epochs.values()) >= 1
    assert all(each.train > 0 for each in plan.rounds)


@pytest.mark.parametrize(
    ("rows", "paces", "budget"),
    [
        (Rows(728, 706), {"a": SLOW, "b": KEPT, "c": KEPT}, 200.0),
        (Rows(4_096, 1_024), {"a": Pace(0.006, 0.002), "b": KEPT, "c": KEPT, "d": Pace(0.006, 0.002)}, 665.0),
        (Rows(40_000, 10_000), {"a": Pace(0.003, 0.001), "b": Pace(0.001, 0.001), "c": Pace(0.003, 0.001)}, 6_500.0),
        (Rows(600, 20, refit=False), {"a": Pace(0.01, 0.003), "b": Pace(0.01, 0.003)}, 200.0),
    ],
)
def test_a_plan_keeps_its_budget(rows: Rows, paces: dict[str, Pace], budget: float) -> None:
    plan = planned(rows, paces, budget, 32)
    own = [paces[name] for name in plan.epochs]
    spent = max(seconds(rows, paces[name], count, rows.refit) for name, count in plan.epochs.items())
    for each in plan.rounds:
        some = Rows(each.train, each.val)
        spent += sum(sorted(seconds(some, pace, each.epochs, False) for pace in own)[-each.recipes :])
    assert budget / 3 < spent <= budget


def test_a_budget_follows_the_images_and_the_machine() -> None:
    assert budget_of(FLOWERS, SLOW) == 200
    assert budget_of(Rows(4_096, 1_024), SLOW) == pytest.approx(0.13 * 5_120)
    assert budget_of(FLOWERS, Pace(1e-4, 1e-5)) < budget_of(FLOWERS, QUICK) < 200  # as on a GPU
    assert budget_of(Rows(12, 4), QUICK) == 10
    assert budget_of(Rows(10**7, 10**6), SLOW) == 7_200


@pytest.mark.parametrize(
    ("given", "recipe"),
    [
        ({}, "race"),
        ({"seed": 3, "class_weight": "balanced", "head": "dense", "refit": False, "device": "cpu"}, "race"),
        ({"epochs": 3}, None),
        ({"unfreeze": "last:2"}, None),
        ({"recipe": "own"}, None),
        ({"recipe": "race", "coverage": 0.9}, "race"),
        ({"recipe": "bold", "lr": 0.5}, None),
    ],
)
def test_a_setting_that_recipes_decide_is_taken_as_it_is(given: dict[str, object], recipe: str | None) -> None:
    found = resolved(given)
    assert found["recipe"] == recipe
    assert given.items() - {("recipe", given.get("recipe"))} <= found.items()
    assert resolved(found | {"recipe": found["recipe"] or "own"}) == found  # as a study hands it on


def test_named_recipes_can_be_changed_and_races_cannot() -> None:
    assert Recipe(**resolved({"recipe": "bare"})).augment == "none"
    assert Recipe(**resolved({"recipe": "bare", "augment": "study"})).augment == "study"
    assert resolved({}, {"lr": [0.1, 0.2]})["recipe"] is None
    with pytest.raises(OptionError, match=r"race tries several values of --lr, --ema\."):
        Recipe(recipe="race", lr=0.5, ema=0.5)
    with pytest.raises(UnknownNameError, match="Unknown recipe 'bolder'"):
        resolved({"recipe": "bolder"})


def test_every_recipe_is_one_and_differs_from_the_others() -> None:
    made = {name: Recipe(**resolved({"recipe": name})) for name in RECIPES}
    assert set(RACED) < set(made)
    assert len({made[name] for name in (*RACED, *INSTEAD.values())}) == len(RACED) + len(INSTEAD)


def _task(**labels: np.ndarray) -> TuningData:
    splits = {
        name: Split(np.zeros((len(y), 2), np.float32), y, ("",) * len(y), ("",) * len(y)) for name, y in labels.items()
    }
    edges = np.cumsum([0, *map(len, splits.values())])
    numbers = {name: np.arange(*edges[n : n + 2]) for n, name in enumerate(splits)}
    return TuningData({}, ("a", "b", "c"), splits, numbers, (), (), None, None, None, "cpu")  # type: ignore[arg-type]


def test_a_sample_has_all_classes_in_their_proportions() -> None:
    y = np.repeat([0, 1, 2], [900, 99, 1])
    data = _task(train=y, val=y[::2], test=y[:3])
    some = data.sampled(7, train=100, val=10_000)
    assert np.bincount(some.labels("train")).tolist() == [89, 10, 1]
    assert np.array_equal(some.labels("val"), y[::2])
    assert np.array_equal(y[some.rows("train")], some.labels("train"))
    assert some.rows("val")[0] == len(y)
    assert np.array_equal(some.labels("test"), y[:3])
    assert not np.array_equal(some.rows("train"), data.sampled(8, train=100).rows("train"))


@pytest.mark.usefixtures("tinynet", "short")
def test_a_race_is_recorded_with_all_that_it_tried_and_its_end_can_be_had_alone(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(race, "RACED", RACED)
    run = raced(photos)
    record = json.loads(run.path.read_text())
    tried, names = record["candidates"], [each["recipe"] for each in record["candidates"]]
    assert names[:6] == list(RACED)
    assert len(tried) == 10
    reached = [max(epoch["val_accuracy"] for epoch in each["history"][1:]) for each in tried]
    assert reached[names.index(names[6])] == max(reached[:6])
    assert reached[names.index(names[9], 6)] == max(reached[6:9])
    assert {each["images"] for each in tried} == {run.rows.train}
    assert tried[9]["history"] == record["history"]
    assert record["race"]["budget_s"] == 10
    assert record["race"]["spent_s"] == pytest.approx(record["search_s"] + record["refit_s"])
    assert run.train_s == pytest.approx(record["race"]["spent_s"] + record["decode_s"])
    assert record["race"]["cut"] == []
    assert run.train_s > sum(each["train_s"] for each in tried)
    assert RUNS.read(run.path) == run
    assert record["chosen"]["asked_epochs"] == run.settings["epochs"] == 4
    assert len(learning_curves(run).axes) == 4
    assert not list(cache_folder().rglob("activations/*"))
    assert (
        commands(run)[-1]
        == "tlcache finetune --data photos --model tinynet --weights random --precision fp32 --layout contiguous"
    )
    alone = raced(photos, **run.chosen.setting)
    assert alone.race is None
    assert np.array_equal(alone.predictions().probabilities, run.predictions().probabilities)
    (head,) = fit_heads(heads=["logreg"], folds=0)
    frozen = max(each.scores["val_accuracy"] for each in head.candidates)
    begins = {each.history[0].val_accuracy for each in run.candidates}
    assert len(begins) == 1
    assert 0 <= frozen - begins.pop() <= np.sqrt(frozen * (1 - frozen) / run.rows.val)


@pytest.mark.usefixtures("tinynet", "short")
def test_a_race_that_is_stopped_goes_on_where_it_was(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, calls = race.train_variant, list[str]()

    def stopping(data: TuningData, setting: dict[str, str], *others: object) -> object:
        calls.append(setting["recipe"])
        if len(calls) == 4:
            raise KeyboardInterrupt
        return plain(data, setting, *others)  # type: ignore[arg-type]

    monkeypatch.setattr(race, "train_variant", stopping)
    with pytest.raises(KeyboardInterrupt):
        raced(photos)
    monkeypatch.setattr(race, "measured", None)  # the machine is not timed again
    stopped = raced(photos)
    assert calls[:7] == ["steady", "bold", "adapt", calls[3], "steady", "bold", "adapt"]
    monkeypatch.undo()
    assert not list(stopped.path.parent.glob("*.checkpoints"))


def test_recipes_that_are_not_raced_are_told_with_the_reason() -> None:
    few = Plan(40.0, dict.fromkeys(("top", "steady", "adapt"), 9), LEFT.rounds, ("bold",))
    assert race._announced(few) == (
        "a race of 3 recipes: top, steady, adapt within 40 s; too slow for that: bold (--budget gives more); left out, "
        "as this network has no more stages than they train: upper, bare"
    )
    assert "left out" not in race._announced(Plan(40.0, dict.fromkeys(RACED, 9), LEFT.rounds, ()))
    instead = Plan(40.0, dict.fromkeys(("top", "plain", "steady", "bold", "adapt"), 9), LEFT.rounds, ())
    assert race._announced(instead).endswith("no more stages than they train: upper")


@pytest.mark.usefixtures("tinynet", "short")
@pytest.mark.parametrize(
    ("stages", "names"),
    [(1, "plain steady bold adapt"), (2, "top plain steady bold adapt"), (3, "top upper bare steady bold adapt")],
)
def test_a_network_of_any_stages_is_trained_on_images_as_they_are_too(
    stages: int, names: str, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Flips and crops make other signs of some images, like those of digits."""
    monkeypatch.setattr(race, "RACED", RACED)
    monkeypatch.setattr(Trial, "suits", lambda _, unfreeze: unfreeze == "all" or int(unfreeze[-1]) < stages)
    monkeypatch.setattr(Trial, "classifier", lambda self, _: self.network)
    seen = list[str]()

    def planned(_: Rows, paces: dict[str, Pace], *__: object) -> Plan:
        seen.extend(paces)
        raise KeyboardInterrupt

    monkeypatch.setattr(race, "planned", planned)
    with pytest.raises(KeyboardInterrupt):
        raced(photos)
    assert seen == names.split()


@pytest.mark.usefixtures("tinynet", "short")
def test_the_command_says_what_is_raced_and_when_nothing_came_of_it(
    photos: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "tlcache.finetuning.race.RECIPES", {name: {**each, "lr": 1e-12} for name, each in RECIPES.items()}
    )
    fixed = [
        "finetune",
        "-m",
        "tinynet",
        "-w",
        "random",
        "-d",
        str(photos),
        "--layout",
        "contiguous",
        "--precision",
        "fp32",
    ]
    result = CliRunner().invoke(app, fixed)
    told = " ".join((result.stderr + capfd.readouterr().err).split())
    assert "a race of 3 recipes: steady, bold, adapt within 10 s" in told
    assert re.search(r"round 2: \w+: 2 epochs on \d+ images, accuracy on validation \S+ \(before: \S+\); ", told)
    assert re.search(r"No epoch of \w+, the best of 3 recipes, was better on validation than the head it began", told)
    advice = "With 3 recipes tried within 10 s, nothing was gained: keep the frozen head, or give more time (--budget)."
    assert advice in told
    refused = CliRunner().invoke(app, [*fixed, "--recipe", "race", "--lr", "1"])
    assert refused.exit_code == 2


@pytest.mark.usefixtures("tinynet", "short")
def test_a_race_in_which_every_loss_goes_out_of_bounds_says_so(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(race, "RACED", ("steady", "bold"))
    wild = {"lr": 1e30, "optimizer": "sgd", "schedule": "constant", "warmup_epochs": 0.0, "clip": 0.0}
    monkeypatch.setattr(race, "RECIPES", {name: {**each, **wild} for name, each in RECIPES.items()})
    with pytest.raises(TrainingError, match="The loss went out of bounds with every recipe of the race"):
        raced(photos)


@pytest.mark.usefixtures("tinynet")
def test_a_sweep_over_epochs_says_what_it_chose(photos: Path) -> None:
    """Whose name is also that of what came of it."""
    run = raced(photos, sweep={"epochs": [1, 2]}, refit=False)
    assert [each.setting["epochs"] for each in RUNS.read(run.path).candidates] == [1, 2]


LEFT = Plan(100.0, {"a": 8, "b": 6}, (Round(2, 4, 728, 706),), ())


@pytest.mark.parametrize("times", [1.0, 1.5, 3.0, 10.0])
def test_what_is_left_is_cut_to_the_time_that_is_left(times: float) -> None:
    paces = dict.fromkeys("ab", Pace(0.004, 0.001).slowed(times))
    left = fitted(LEFT, FLOWERS, paces, 110.0)
    rounds = [2 * seconds(Rows(each.train, each.val), paces["a"], each.epochs, False) for each in left.rounds]
    spent = sum(rounds) + seconds(FLOWERS, paces["a"], max(left.epochs.values()), True)
    assert (left == LEFT) == (times == 1)
    assert spent <= 110 or left.epochs == {"a": 1, "b": 1}
    assert spent > 55
    assert left.epochs["b"] <= left.epochs["a"]


def test_where_no_time_is_left_one_epoch_is_trained() -> None:
    left = fitted(LEFT, FLOWERS, dict.fromkeys("ab", SLOW), -5.0)
    assert (left.epochs, left.rounds) == ({"a": 1, "b": 1}, ())


@pytest.mark.parametrize(
    ("slow_after", "times", "cut"),
    [
        (
            0,
            6,
            "the machine takes 6.0 times as long as it was timed to; to end in time: no other round, at most 1 epoch",
        ),
        (12, 6, "no time is left in this round for adapt"),
        (72, 6, "at most 1 epoch in the end, not 4 epochs"),
        (120, 8, "time ended the training after 2 epochs"),
        (168, 20, "the training on train + val would take too long"),
        (120, 2, None),  # for which there is time
    ],
)
@pytest.mark.usefixtures("tinynet", "short")
def test_a_race_keeps_its_budget_when_the_machine_becomes_busier(
    photos: Path, monkeypatch: pytest.MonkeyPatch, slow_after: int, times: int, cut: str | None
) -> None:
    """Image by image on a clock of its own: 1 s each, several after so many of them.

    The first round has 72, the second 48, the last training 48, the refit 18 an epoch.
    """
    monkeypatch.setattr("tlcache.finetuning.clock._SETTING_UP_S", 30.0)
    now, images = [0.0], [0]
    fake = SimpleNamespace(perf_counter=lambda: now[0])
    for module in ("training", "trial", "race"):
        monkeypatch.setattr(f"tlcache.finetuning.{module}.time", fake)
    plain = Step.__call__

    def step(
        self: Step, inputs: torch.Tensor, labels: torch.Tensor, factor: float, *more: torch.Tensor
    ) -> tuple[float, int, int]:
        images[0] += len(labels)
        now[0] += len(labels) * (times if images[0] > slow_after else 1)
        return plain(self, inputs, labels, factor, *more)

    monkeypatch.setattr(Step, "__call__", step)
    monkeypatch.setattr(race, "measured", lambda *_: Pace(1.0, 0.0))
    run = raced(photos, budget_s=400)
    assert run.race is not None
    assert run.race.spent_s == pytest.approx(now[0]) == run.search_s + run.refit_s
    assert 100 < run.race.spent_s <= 1.5 * 400
    assert any(cut in line for line in run.race.cut) if cut else not run.race.cut
    assert RUNS.read(run.path) == run


@pytest.mark.usefixtures("tinynet", "short")
def test_timing_ends_within_its_share_of_the_budget(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a clock of its own, on which a training step takes 10 s: one says how to compute, another what it costs."""
    now, plans = [0.0], list[dict[str, Pace]]()
    monkeypatch.setattr(race, "RACED", RACED)
    for module in ("speed", "race", "trial"):
        monkeypatch.setattr(f"tlcache.finetuning.{module}.time", SimpleNamespace(perf_counter=lambda: now[0]))

    def step(*_: object, **__: object) -> None:
        now[0] += 10

    def planned(_: Rows, paces: dict[str, Pace], *__: object) -> Plan:
        plans.append(paces)
        raise KeyboardInterrupt

    for module in ("speed", "pace"):
        monkeypatch.setattr(f"tlcache.finetuning.{module}.training_step", step)
    monkeypatch.setattr(race, "planned", planned)
    with pytest.raises(KeyboardInterrupt):
        finetune(photos, "tinynet", "random", budget_s=20)
    assert now[0] == 20
    assert {pace.train_s for pace in plans[0].values()} == {10 / 8}  # those not timed count as all layers


def test_what_is_done_once_takes_no_epochs_and_is_named_where_it_is_why_something_is_cut() -> None:
    clock, paces = Clock(100.0), dict.fromkeys("ab", Pace(0.004, 0.001))
    clock.spend(150.0, epochs_s=10.0)
    assert clock.left_s == 50  # what is planned for the training in earnest
    kept = fitted(LEFT, FLOWERS, paces, clock.left_s)
    why = clock.told_once()
    assert why == ("2.5 min of 1.7 min are spent, 2.3 min on what is done once (timing, heads, exporting, activations)")
    assert race._cut(LEFT, kept, why).startswith(f"{why}; to end in time: ")
    busy = Clock(100.0)
    busy.spend(150.0, epochs_s=150.0)
    assert busy.left_s == 10


@pytest.mark.usefixtures("tinynet", "short")
def test_where_setting_up_takes_long_the_best_recipe_has_its_epochs_still(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a clock on which an image takes 1 s, and what comes before the first epoch of each training 450 s."""
    monkeypatch.setattr("tlcache.finetuning.clock._SETTING_UP_S", 30.0)
    now = [0.0]
    for module in ("training", "trial", "race"):
        monkeypatch.setattr(f"tlcache.finetuning.{module}.time", SimpleNamespace(perf_counter=lambda: now[0]))
    step, phases = Step.__call__, Trial._phases

    def stepping(self: Step, inputs: torch.Tensor, labels: torch.Tensor, *more: Any) -> tuple[float, int, int]:
        now[0] += len(labels)
        return step(self, inputs, labels, *more)

    def setting_up(self: Trial) -> list[Phase]:
        now[0] += 450
        return phases(self)

    monkeypatch.setattr(Step, "__call__", stepping)
    monkeypatch.setattr(Trial, "_phases", setting_up)
    monkeypatch.setattr(race, "measured", lambda *_: Pace(1.0, 0.0))
    run = raced(photos, budget_s=400)
    assert run.race is not None
    assert len(run.history) - 1 == 4
    assert run.refit_history
    assert not any("machine" in line for line in run.race.cut)
