"""Run records: what the page says of them, which are found again, listed and removed."""

import csv
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import make_run, tiny_network
from filelock import FileLock
from rich.console import Console
from test_cli import invoke
from typer.testing import CliRunner

import tlcache
from tlcache.auditing.run import audit
from tlcache.cli import app
from tlcache.errors import CacheError, UnknownNameError
from tlcache.extraction.extract import extract
from tlcache.finetuning.finetune import finetune
from tlcache.inventory.entries import list_cache
from tlcache.probing.fit import fit_heads
from tlcache.report.kept import cache_table
from tlcache.report.page import write_report
from tlcache.runs.base import Identity
from tlcache.runs.folder import list_runs, lock_path, path_of, read_runs, recorded, remove_runs, runs_folder
from tlcache.runs.naming import backbone_label
from tlcache.runs.record import RUNS, Run

PAGE = Path(tlcache.__file__).parent / "runs" / "README.md"
QUICK = {"precision": "fp32", "layout": "contiguous", "epochs": 1, "batch_size": 8}
RIGHT = np.arange(40) % 4 > 0
NAMES = {str: "string", bool: "boolean", int: "integer", float: "number", type(None): "null"}


def page_fields() -> dict[str, dict[str, list[str]]]:
    """Return the fields that the page has of each strategy, with their types."""
    common, *own = re.findall(r"```\n((?:format|chosen) .*?)```", PAGE.read_text(), re.DOTALL)
    found: dict[str, dict[str, list[str]]] = {}
    for strategy, block in zip(("frozen", "finetune"), own, strict=True):
        lines = (re.split(r" {2,}", line) for line in filter(None, f"{common}\n{block}".splitlines()))
        found[strategy] = {name: kinds.split(" or ") for name, kinds, *_ in lines}
    return found


def fields_of(value: Any, name: str, page: dict[str, list[str]]) -> Iterator[tuple[str, str]]:
    """Yield the fields of a record with their types; of an object with free names, those that the page has."""
    if isinstance(value, list):
        for each in value:
            yield from fields_of(each, f"{name}[]", page)
    elif isinstance(value, dict):
        free = "object" in page.get(name, ())
        if free:
            yield name, "object"
        inside = {f"{name}.{key}".lstrip("."): each for key, each in value.items()}
        for key, each in inside.items():
            if not free or any(known == key or known.startswith((f"{key}.", f"{key}[")) for known in page):
                yield from fields_of(each, key, page)
    else:
        yield name, NAMES[type(value)]


@pytest.mark.usefixtures("tinynet")
def test_the_page_has_every_field_with_its_type_and_no_other(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = extract(photos, "tinynet", "random").path
    fit_heads([made], ["ridge", "linear"], coverage=0.8, per_class=True)
    fit_heads([made], ["ridge"], cv="2x1")
    audit([made], group_regex=r"([0-9])\.png")
    fit_heads([made], ["ridge"], split="group")
    settings = QUICK | {"init_head": "scratch", "head_epochs": 1, "warmup_epochs": 0.0, "optimizer": "sgd"}
    finetune(photos, "tinynet", "random", **settings, sweep={"lr": [1e30, 0.01]}, refit=True)
    finetune(photos, "tinynet", "random", **settings, cv="2x1")
    monkeypatch.setattr("tlcache.finetuning.race.RACED", ("steady", "adapt"))
    monkeypatch.setattr("tlcache.finetuning.plan._MANY", 2)
    finetune(photos, "tinynet", "random", precision="fp32", layout="contiguous")
    pages = page_fields()
    missing = {strategy: set(page) for strategy, page in pages.items()}
    records = [json.loads(run.path.read_text()) for run in read_runs(runs_folder())]
    assert sorted(record["strategy"] for record in records) == [*["finetune"] * 3, *["frozen"] * 4]
    for record in records:
        strategy = record["strategy"]
        for name, kind in fields_of(record, "", pages[strategy]):
            assert kind in pages[strategy].get(name, ()), f"{name}: {kind}"
            missing[strategy].discard(name)
    tasks = ("task", "thresholds", "interval.", "per_group.", "energy_j")  # of tests of their own
    assert {name for name in missing["frozen"] if not name.startswith(tasks)} == set()
    shown = (
        *tasks,
        "grouping.",
        "uncertainty.",
        "race.left_out",
        "race.cut",
    )  # by those of "frozen", and by a race that is short of time
    assert {name for name in missing["finetune"] if not name.startswith(shown)} == set()


def test_the_page_tells_how_predictions_are_read(
    photos: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (run,) = fit_heads([extract(photos, str(tiny_model)).path], ["ridge"])
    (block,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    exec(re.sub(r"runs/digits/\S+\.npz", str(run.predictions_path), block), {})
    assert re.search(r"\['blue/\d\.png', .*\] \['(blue|green|red)' ", capsys.readouterr().out)
    with np.load(run.predictions_path) as stored:
        kinds = {name: values.dtype.kind for name, values in stored.items()}
    each = {"row": "S", "label": "i", "probabilities": "f", "group": "S"}
    assert kinds == {**each, **{f"held_{name}": kind for name, kind in each.items()}, "classes": "U"}
    with run.predictions_path.with_suffix(".csv").open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    found = run.predictions().top()
    assert [row["path"] for row in rows] == found.paths
    assert [row["label"] for row in rows] == [run.classes[label] for label in found.label]
    assert [row["predicted"] for row in rows] == [run.classes[label] for label in found.predicted]
    assert [float(row["confidence"]) for row in rows] == pytest.approx(found.confidence.tolist(), abs=1e-4)


def test_what_json_holds_is_the_record(photos: Path, tiny_model: Path, tmp_path: Path) -> None:
    extract(photos, str(tiny_model))
    invoke("fit-heads", "--heads", "linear", "--json", tmp_path / "fit.json")
    (told,) = json.loads((tmp_path / "fit.json").read_text())["runs"]
    (record,) = runs_folder().glob("*/*.json")
    written, places = json.loads(record.read_text()), {"source", "features", "record", "extract_arguments"}
    assert list(written) == ["format", "format_version", *told]
    assert all(written[name] == value for name, value in told.items() if name not in places)
    assert json.loads(json.dumps(RUNS.read(record).as_json())) == told


def test_identities_are_what_they_were() -> None:
    """A changed digest would let everything that is recorded be done again."""
    options = {"search": "quick", "folds": 0, "metric": "accuracy", "one_se": False, "class_weight": None}
    options |= {"repeats": 1, "seed": 0, "budget_s": None, "space": {"k": [50, 20, 10, 5, 3, 1]}}
    identity = Identity(
        dataset="digits",
        dataset_digest="f4150e21f3f73c008d0aa7a8cad2fa8ba584e070bceeaec8d02188d9057b83b5",
        backbone="resnet20_cifar",
        key="4e25f2a8240b439ffe595e6001e48eb68f3c426fead8382198bafe69d9b0ec14",
        strategy="frozen",
        head="knn",
        arguments=options,
    )
    assert path_of(Path("runs"), identity) == Path("runs/digits/resnet20_cifar-knn-802efce9e5ca.json")


def test_records_of_earlier_versions_are_read() -> None:
    path = make_run("ridge", RIGHT).path
    record = json.loads(path.read_text())
    for name in ("split", "grouping", "split_seed", "given_digest", "extract_arguments"):
        del record[name]
    path.write_text(json.dumps({**record, "later": {"field": 1}, "record": "/elsewhere/ridge.json"}))
    run = RUNS.read(path)
    assert (run.split, run.grouping, run.given_digest, run.path) == ("given", None, None, path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"strategy": "warm"}, r"by this tlcache \(Invalid value 'warm' - at `\$\.strategy`\)\. Move it away"),
        ({"rows": {"train": 1, "val": 1}}, r"\(Object missing required field `test` - at `\$\.rows`\)"),
        ({"candidates": None}, "is not a run record by this tlcache"),
        ({"test": []}, r"\(Expected `object`, got `array` - at `\$\.test`\)"),
    ],
)
def test_a_record_of_another_shape_is_refused_and_told_where(change: dict[str, Any], words: str) -> None:
    path = make_run("ridge", RIGHT).path
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(CacheError, match=words):
        RUNS.read(path)


def old_name(run: Run) -> Path:
    """Move a run to the name that fine-tunings had before names told."""
    for path in run.path.parent.glob(f"*{run.path.stem}*"):
        path.rename(path.with_name(path.name.replace("-finetuned-", "-")))
    return run.path.with_name(run.path.name.replace("-finetuned-", "-"))


@pytest.mark.usefixtures("tinynet")
def test_names_say_what_is_fine_tuned_and_earlier_ones_stay(photos: Path) -> None:
    run = finetune(photos, "tinynet", "random", **QUICK)
    assert re.fullmatch(r"tinynet-linear-finetuned-[0-9a-f]{12}\.json", run.path.name)
    path = old_name(run)
    again = finetune(photos, "tinynet", "random", **QUICK)
    assert (again.path, again.created, again.test) == (path, run.created, run.test)
    finetune(photos, "tinynet", "random", **QUICK, force=True)
    assert list(runs_folder().glob("*/*.json")) == [path]


@pytest.mark.usefixtures("tinynet")
def test_a_fine_tuning_goes_on_under_its_earlier_name(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("tlcache.finetuning.run.save_weights", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            finetune(photos, "tinynet", "random", **QUICK)
    (checkpoints,) = runs_folder().glob("*/*.checkpoints")
    before = checkpoints.rename(checkpoints.with_name(checkpoints.name.replace("-finetuned-", "-")))
    run = finetune(photos, "tinynet", "random", **QUICK)
    assert run.path.stem == before.stem
    assert not before.exists()


def test_runs_are_listed_by_dataset(tmp_path: Path) -> None:
    with pytest.raises(CacheError, match="No runs are recorded in .* tlcache fit-heads"):
        list_runs()
    for dataset, head in (("photos", "svm"), ("photos", "knn"), ("cats", "svm")):
        make_run(head, RIGHT, dataset=dataset)
    make_run("linear", RIGHT, strategy="finetune")
    assert [(run.dataset, run.head) for run in list_runs()] == [
        ("cats", "svm"), ("photos", "knn"), ("photos", "linear"), ("photos", "svm"),
    ]  # fmt: skip
    (cats,) = list_runs(data=str(tmp_path / "cats.csv"))
    assert (cats.dataset, cats.strategy, cats.test.accuracy) == ("cats", "frozen", 0.75)
    with pytest.raises(
        UnknownNameError, match=r"Unknown dataset 'dogs'\. Known: cats, photos\. No folder or manifest is"
    ):
        list_runs(data="dogs")
    cats.path.write_text("{")
    told: list[str] = []
    assert len(list_runs(on_warning=told.append)) == 3
    assert told[0].startswith(f"'{cats.path}' is not a run record")


def test_all_of_a_run_is_removed_and_nothing_else() -> None:
    kept, gone = make_run("linear", RIGHT), make_run("linear", RIGHT, strategy="finetune")
    for run in (kept, gone):
        run.head_path.write_bytes(b"weights")
    (gone.path.with_suffix(".checkpoints") / "refit").mkdir(parents=True)
    lock_path(gone.path).touch()
    gone.path.with_name("notes.json.txt").touch()
    before = {path for path in runs_folder().rglob("*") if gone.path.stem not in path.as_posix()}
    assert {path.suffix for path in remove_runs([gone])} == {
        ".json", ".npz", ".csv", ".safetensors", ".checkpoints", ".lock",
    }  # fmt: skip
    assert set(runs_folder().rglob("*")) == before
    assert [run.path for run in list_runs()] == [kept.path]


def test_a_run_that_is_being_done_is_not_removed() -> None:
    run = make_run("linear", RIGHT, strategy="finetune")
    with FileLock(lock_path(run.path)), pytest.raises(CacheError, match="A process works on .*linear-finetuned-"):
        remove_runs([run])
    assert run.path.exists()
    remove_runs([run])
    assert list(run.path.parent.iterdir()) == []


def test_a_run_without_its_head_is_not_recorded(photos: Path, tiny_model: Path) -> None:
    (run,) = fit_heads([extract(photos, str(tiny_model)).path], ["ridge"])
    names = ("dataset", "dataset_digest", "backbone", "key", "strategy", "head", "arguments")
    identity = Identity(**{name: getattr(run, name) for name in names})
    assert recorded(runs_folder(), identity) == run
    run.head_path.unlink()
    assert recorded(runs_folder(), identity) is None


def test_predictions_are_read_once_for_a_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tlcache.runs import base

    make_run("svm", RIGHT)
    make_run("linear", RIGHT, strategy="finetune")
    read, paths = base.read_predictions, list[Path]()
    monkeypatch.setattr(base, "read_predictions", lambda path: paths.append(path) or read(path))
    write_report(tmp_path / "r.html")
    assert sorted(paths) == sorted(run.predictions_path for run in list_runs())
    paths.clear()
    assert CliRunner().invoke(app, ["compare"]).exit_code == 0
    assert len(paths) == 2


def test_networks_of_one_name_are_told_apart_wherever_they_are_shown(photos: Path, tmp_path: Path) -> None:
    """Two files called model.onnx, which is what many exporters write, and one of them twice, by another output."""
    keys = set()
    for seed, output in ((0, None), (1, None), (1, "z")):
        network, path = tiny_network(seed), tmp_path / f"of {seed}" / "model.onnx"
        del network.metadata_props[:]  # somebody else's
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(network.SerializeToString())
        done = extract(photos, path, output=output, pool="max" if output else None, resize=16)
        keys.add(done.path.stem.removeprefix("model-")[:6])
    assert len(keys) == 3
    runs = fit_heads(heads="ridge")
    names = {backbone_label(run, runs) for run in runs}
    assert {name for name in names if "max" in name} == {"model z max"}
    assert {name.removeprefix("model ") for name in names if "max" not in name} < keys
    console = Console(width=160)
    with console.capture() as shown:
        console.print(cache_table(list_cache(), runs_folder()))
    listed = re.findall(r"photos +(model.*?)  ", shown.get())
    assert len(set(listed)) == 3
    assert sum(key in " ".join(listed) for key in keys) == 2  # the third has an output of its own
