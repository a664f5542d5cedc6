"""Options are described once: what they take, how they are read, what docs say; and records keep the first names."""

from __future__ import annotations

import inspect
import json
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import pytest

from tlcache.auditing.run import audit
from tlcache.backbones.engines import DEVICES, ENGINES, PRECISIONS
from tlcache.cache.resplit import KINDS
from tlcache.cli import app
from tlcache.datasets.layout import Layout
from tlcache.deploying.export import export
from tlcache.errors import OptionError, UnknownNameError
from tlcache.evaluation.compare import compare
from tlcache.extraction.extract import extract
from tlcache.finetuning.finetune import finetune
from tlcache.finetuning.losses import LOSSES
from tlcache.finetuning.recipe import Recipe, arguments_of, settings_of
from tlcache.finetuning.recipes import RECIPES
from tlcache.finetuning.schedules import SCHEDULES
from tlcache.flags import Output
from tlcache.inventory.checks import verify
from tlcache.inventory.entries import list_cache
from tlcache.keys import hash_json
from tlcache.kinds import (
    PATH,
    SECONDS,
    SIZE,
    SWITCH,
    Kind,
    choice,
    listed,
    number,
    numbers,
    pattern,
    several,
    text,
    whole,
)
from tlcache.options import Option, Parameter, asked, check_fields, described, made, parameters
from tlcache.probing.fit import fit_columns, fit_curves, fit_heads
from tlcache.probing.protocol import SearchProtocol
from tlcache.report.page import write_report
from tlcache.report.plain import plain_table
from tlcache.runs.folder import list_runs
from tlcache.studying.study import study
from tlcache.suggesting.suggest import suggest


def test_equal_settings_have_the_identities_of_the_first_version() -> None:
    """Hashes made by the first version, when these were called class_weights and budget, in minutes."""
    before = RECIPES["before"]
    assert hash_json(Recipe(**before).as_json()).startswith("8ab29e6bebe93cd0")  # names the folder of checkpoints
    assert hash_json(arguments_of(Recipe(**before))).startswith("24e7c95303501e9a")
    swept = arguments_of(
        Recipe(**before, class_weight="balanced", lr=0.01),
        {"class_weight": [None, "balanced"], "lr": [0.1, 0.2]},
        1800.0,
    )
    assert swept["class_weights"] is True
    assert swept["sweep"] == {"class_weights": [False, True], "lr": [0.1, 0.2]}
    assert hash_json(swept).startswith("c310929f7e506778")
    assert hash_json(SearchProtocol().arguments()).startswith("01ef5b9f2aa28ff1")
    other = SearchProtocol("full", 5, "macro_f1", True, "balanced", 3, 7, 90.0)
    assert hash_json(other.arguments()).startswith("c5954453e80aa540")


def test_what_is_recorded_is_read_by_the_names_of_today() -> None:
    recipe = Recipe(class_weight="balanced", lr=0.01, coverage=0.9, per_class=True)
    sweep = {"class_weight": [None, "balanced"], "lr": [0.1]}
    assert settings_of(arguments_of(recipe, sweep, 90.0)) == {
        **asked(recipe), "recipe": "own", "sweep": sweep, "budget_s": 90.0,
    }  # fmt: skip


@described()
@dataclass(frozen=True)
class Settings:
    """Some settings."""

    epochs: Annotated[int, Option("How long", whole(1), more="Really")] = 3
    rate: Annotated[float | None, Option("How fast", number(above=0), default="by optimizer")] = None
    heads: Annotated[Sequence[str], Option("Which", several(choice(("ridge", "knn"))))] = ()
    weight: Annotated[str | None, Option("How much", choice(("balanced",)))] = None

    def __post_init__(self) -> None:
        check_fields(self)


@described(Settings)
def work(
    data: Annotated[str | Path, Option("On what", PATH)],
    *,
    wait: Annotated[bool, Option("Wait", SWITCH)] = True,
    **settings: Any,
) -> tuple[bool, Settings]:
    """Do it.

    Returns
    -------
    tuple
        What was asked.
    """
    return wait and bool(data), made(Settings, {**settings, "epochs": settings.get("epochs", 4)})


@pytest.mark.parametrize(
    ("kind", "words", "value"),
    [
        (whole(), "-3", -3),
        (whole(1), "1", 1),
        (number(0, below=1), "1e-3", 0.001),
        (SWITCH, "True", True),
        (SECONDS, "90", 90.0),
        (SECONDS, "90s", 90.0),
        (SECONDS, "30m", 1800.0),
        (SECONDS, "1.5h", 5400.0),
        (PATH, "a/b", Path("a/b")),
        (choice(("a", "b")), "b", "b"),
        (pattern("all|last:[1-9]", "WHICH", "all or last:N"), "last:3", "last:3"),
        (numbers(3, "1,2,3"), "0.5,1,2", (0.5, 1.0, 2.0)),
        (text("NAME"), "any", "any"),
    ],
)
def test_kinds_read_what_they_allow(kind: Kind, words: str, value: object) -> None:
    assert kind.value(words) == value
    assert kind.allows(value)
    assert not kind.allows(None)


@pytest.mark.parametrize(
    ("kind", "words", "takes"),
    [
        (whole(1), "0", "a whole number from 1 on"),
        (whole(0, 9), "1.5", "a whole number from 0 to 9"),
        (whole(2, why="as one is none"), "1", "a whole number from 2 on, as one is none"),
        (number(above=0), "0", "a number above 0"),
        (number(0, below=1), "1", "a number from 0 to below 1"),
        (number(0, 1), "nan", "a number from 0 to 1"),
        (number(), "x", "a number"),
        (SWITCH, "yes", "true or false"),
        (SECONDS, "0h", "a time above 0 like 90s, 30m or 2h (a number alone: seconds)"),
        (SECONDS, "-5m", "a time above 0 like 90s, 30m or 2h (a number alone: seconds)"),
        (SECONDS, "inf", "a time above 0 like 90s, 30m or 2h (a number alone: seconds)"),
        (numbers(3, "1,2,3"), "1,2", "3 numbers like 1,2,3"),
    ],
)
def test_kinds_refuse_the_rest_and_say_what_they_take(kind: Kind, words: str, takes: str) -> None:
    with pytest.raises(ValueError, match="."):
        kind.value(words)
    assert kind.takes == takes


def test_a_bool_is_no_number() -> None:
    assert not whole().allows(True)
    assert not number().allows(True)
    assert not SWITCH.allows(1)


def test_lists_are_repeated_or_have_commas_and_paths_stay_whole(tmp_path: Path) -> None:
    odd = tmp_path / "a,b"
    odd.mkdir()
    assert listed(["x, y", str(odd), "", "z,"]) == ["x", "y", str(odd), "z"]
    heads = parameters(Settings)["heads"]
    assert heads.gather(["ridge,knn"]) == heads.gather(["ridge", "knn"]) == ["ridge", "knn"]
    assert Settings(heads="knn").heads == "knn"  # one alone may be given alone


def test_texts_are_values_or_errors_that_name_the_option() -> None:
    known = parameters(Settings)
    assert known["epochs"].gather(["5"]) == 5
    assert known["weight"].gather(["none"]) is None
    with pytest.raises(OptionError, match=r"--epochs takes one value; found '1' and '2'\. Give it once\."):
        known["epochs"].gather(["1", "2"])
    with pytest.raises(OptionError, match=r"--epochs takes a whole number from 1 on; found '0'\."):
        known["epochs"].gather(["0"])
    with pytest.raises(OptionError, match=r"--setting epochs takes a whole number"):
        known["epochs"].read("x", "--setting")
    with pytest.raises(UnknownNameError, match=r"Unknown head 'rigde'\. Did you mean 'ridge'\? Known: ridge, knn\."):
        known["heads"].gather(["knn,rigde"])
    with pytest.raises(UnknownNameError, match=r"Unknown weight in --setting 'balancd'\. Did you mean 'balanced'\?"):
        known["weight"].read("balancd", "--setting")


def test_a_function_takes_the_settings_as_its_own_and_checks_them() -> None:
    assert list(inspect.signature(work).parameters) == ["data", "wait", "epochs", "rate", "heads", "weight"]
    assert work("x", rate=0.5) == (True, Settings(4, 0.5))
    with pytest.raises(OptionError, match="--wait takes true or false; found 'no'"):
        work("x", wait="no")  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="--data takes a path; found '3'"):
        work(3)  # type: ignore[arg-type]
    with pytest.raises(UnknownNameError, match="Unknown setting 'epoch'. Did you mean 'epochs'"):
        work("x", epoch=3)
    with pytest.raises(OptionError, match="--rate takes a number above 0; found '-1'"):
        work("x", rate=-1)


def test_docs_have_the_parameters_before_what_else_they_say() -> None:
    assert (
        inspect.getdoc(work)
        == """Do it.

Parameters
----------
data : str or Path
    On what.
wait : bool, default: true
    Wait.
epochs : int, default: 3
    How long. Really.
rate : float or None, default: by optimizer
    How fast.
heads : {'ridge', 'knn'}, or several, default: ()
    Which.
weight : {'balanced'} or None, default: None
    How much.

Returns
-------
tuple
    What was asked."""
    )
    assert (Settings.__doc__ or "").startswith("Some settings.\n\nParameters\n----------\nepochs : int")


PUBLIC = (
    extract,
    fit_heads,
    fit_curves,
    fit_columns,
    finetune,
    study,
    suggest,
    audit,
    compare,
    list_runs,
    write_report,
    list_cache,
    verify,
    export,
)


@pytest.mark.parametrize("function", PUBLIC, ids=lambda function: function.__name__)
def test_the_docs_of_public_functions_have_all_their_options(function: Callable[..., Any]) -> None:
    section = (function.__doc__ or "").partition("Parameters\n----------\n")[2]
    for parameter in parameters(function).values():
        assert re.search(rf"^{parameter.name} : ", section, re.MULTILINE)
        assert parameter.option.help.split(" ")[-1] in " ".join(section.split())
    others = {"on_warning", "on_epoch", "labelled"}
    assert set(inspect.signature(function).parameters) - others == set(parameters(function))


def test_choices_are_those_of_the_tables() -> None:
    of_extract, of_recipe = parameters(extract), parameters(Recipe)
    assert tuple(of_extract["device"].kind.choices()) == DEVICES
    assert set(of_extract["engine"].kind.choices()) == {"auto", *ENGINES}
    assert tuple(of_extract["precision"].kind.choices()) == PRECISIONS
    assert tuple(parameters(fit_heads)["split"].kind.choices()) == KINDS
    assert set(of_recipe["schedule"].kind.choices()) == set(SCHEDULES)
    assert set(of_recipe["loss"].kind.choices()) == set(LOSSES)


def test_an_address_stays_one_where_a_folder_of_images_is_asked_for() -> None:
    assert parameters(Layout)["images"].kind.read("s3://bucket/photos") == "s3://bucket/photos"


def test_options_of_one_name_mean_one_thing() -> None:
    """The same words for the same name in every command, but for what only one of them has."""
    found: dict[str, set[str]] = {}
    for command in app.registered_commands:
        for name, parameter in command.callback.__options__.items():  # type: ignore[union-attr]
            assert isinstance(parameter, Parameter)
            found.setdefault(parameter.flag, set()).add(parameter.kind.takes)
            spelt = parameter.flag.lower().replace(" ", "-")
            assert name.removesuffix("_s").replace("_", "-").rstrip("s") in spelt.rstrip("s")
    allowed = {"--batch-size": 2, "--to": 2, "--precision": 1, "--plot": 1}
    for flag, kinds in found.items():
        assert len(kinds) <= allowed.get(flag, 1), (flag, kinds)


def test_what_a_list_names_twice_is_in_it_once() -> None:
    gather = several(text("NAME")).gather
    assert gather is not None
    assert gather(["a", "b,a", "c"]) == ["a", "b", "c"]


def test_brackets_in_names_are_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    table = plain_table("Image")
    table.add_row("[red]c/[bold]1.jpg")
    Output().show(table)
    assert "[red]c/[bold]1.jpg" in capsys.readouterr().out


def test_a_pipe_that_figures_go_to_stays_a_pipe(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        Output(pipe).write({"runs": []})
        assert json.loads(os.read(reader, 100)) == {"runs": []}
    finally:
        os.close(reader)
    assert pipe.is_fifo()


@pytest.mark.parametrize(
    ("text", "size"),
    [("500kB", 500_000), ("500 KB", 500_000), ("1.5G", 1_500_000_000), ("2TB", 2 * 10**12), ("1GiB", 2**30), ("7", 7)],
)
def test_sizes_have_the_usual_units(text: str, size: int) -> None:
    assert SIZE.read(text) == size


@pytest.mark.parametrize("text", ["1XB", "GB", "1 i", "-1MB"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=text):
        SIZE.read(text)
