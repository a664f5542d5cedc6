"""The command line as users meet it."""

import inspect
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer
from fakes import make_run, write_image, write_photos
from typer.testing import CliRunner

from tlcache.backbones.sources import find, list_models
from tlcache.backbones.torchvision import checkpoint_path
from tlcache.cli import app
from tlcache.datasets.dataset import list_datasets
from tlcache.demo import RECIPE, next_step
from tlcache.evaluation.compare import compare
from tlcache.evaluation.task import figure_names
from tlcache.files import folder_meant
from tlcache.heads.table import HEADS
from tlcache.runs.record import RUNS

COMMANDS = [command.name or command.callback.__name__.replace("_", "-") for command in app.registered_commands]
FIGURES = {"n", "accuracy", "accuracy_low", "accuracy_high", "macro_f1", "log_loss", "ece", "auroc", "mcc", "brier"}


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tlcache", *map(str, arguments)], capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(["audit", "--help"], id="help"),
        pytest.param(["heads"], id="table"),
        pytest.param(["ls", "--json", "-"], id="figures"),
        pytest.param(["help", "cache"], id="page"),
    ],
)
def test_who_reads_may_stop_at_any_time(arguments: list[str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as pipe:
        command = [sys.executable, "-m", "tlcache", *arguments]
        ended = subprocess.run(command, stdout=pipe, stderr=subprocess.PIPE, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (141, "")


@pytest.mark.parametrize("command", [each.callback for each in app.registered_commands])
def test_every_option_comes_through_to_its_command(command: Any) -> None:
    signature = inspect.signature(command.__wrapped__)
    signature.bind(None, **dict.fromkeys(command.__options__.keys() - {"json", "quiet", "verbose"}))


def invoke(*arguments: str | Path) -> str:
    result = CliRunner().invoke(app, list(map(str, arguments)))
    if result.exception is not None:
        raise result.exception
    return result.output


def stdout(*arguments: str | Path) -> str:
    result = CliRunner().invoke(app, list(map(str, arguments)))
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(command: str) -> None:
    text = invoke(command, "--help")
    assert f"Example: tlcache {command}" in " ".join(text.replace("│", " ").split())


def test_help_loads_nothing_heavy() -> None:
    code = "import sys; from tlcache.cli import app; import tlcache; print(sorted(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    for heavy in ("torch", "onnx", "onnxruntime", "sklearn", "lightgbm", "h5py", "numpy", "PIL"):
        assert f"'{heavy}'" not in loaded


def test_tables_name_everything() -> None:
    models, heads, datasets = invoke("models"), invoke("heads"), invoke("datasets")
    assert all(row.name in models for row in list_models())
    assert "74.0 / 75.3 %" in models
    (embedded,) = [line for line in models.splitlines() if line.startswith("resnet20_cifar")]
    assert re.search(r"embedded .* Apache-2\.0 .* 128 .* 0\.3 M .* 32 .* CIFAR-10: \d\d\.\d %", embedded)
    assert all(name in heads for name in HEADS)
    assert all(form.example in datasets for form in list_datasets())


def test_extract_and_fit_heads(photos: Path, tiny_model: Path, tmp_path: Path) -> None:
    report = tmp_path / "extract.json"
    first = invoke("extract", "-m", tiny_model, "--data", photos, "--json", report)
    assert "written" in first
    (file,) = json.loads(report.read_text())["files"]
    promised = "path dataset backbone rows embedded reused quarantined seconds images_per_s peak_rss_bytes"
    assert set(promised.split()) <= set(file)
    assert set(file["seconds"]) == {"decode_s", "infer_s", "write_s", "wall_s"}
    assert "up to date" in invoke("extract", "-m", tiny_model, "--data", photos)

    report = tmp_path / "fit.json"
    table = invoke("fit-heads", "--heads", "ridge, knn", "--json", report)
    runs = json.loads(report.read_text())["runs"]
    assert [one["head"] for one in runs] == ["ridge", "knn"]
    for one in runs:
        promised = {"dataset", "backbone", "strategy", "head", "chosen", "key", "fit_s", "record", "test"}
        assert promised <= set(one)
        assert one == json.loads(json.dumps(RUNS.read(Path(one["record"])).as_json()))
        assert set(one["test"]) >= FIGURES
    assert "photos: 6 test images (drawn), 3 classes" in table
    held_out = [max((each["val_accuracy"], -each["val_log_loss"]) for each in one["candidates"]) for one in runs]
    best = runs[held_out.index(max(held_out))]
    marked = [line for line in table.splitlines() if line.startswith("*")]
    assert best["head"] in marked[0]
    assert f"{best['test']['accuracy']:.3f}" in marked[0]


def test_tables_fit_80_columns(photos: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    invoke("extract", "-m", tiny_model, "--data", photos)
    table = invoke("fit-heads", "--heads", "ridge,lightgbm")
    rows = [line for line in table.splitlines() if "lightgbm" in line]
    assert len(rows) == 1
    assert len(rows[0].rstrip()) <= 80


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["extract", "-m", "resnet51"], 2, "Did you mean 'resnet50'?"),
        (
            ["extract", "-m", "resnet50", "-d", "nowhere"],
            2,
            "Unknown dataset 'nowhere'. Known: digits, flowers102. No folder",
        ),
        (["extract", "-m", "resnet18"], 1, "needs its imagenet weights. Put the file at"),
        (["extract", "-m", "squeezenet1_1", "-w", "random", "--device", "cuda"], 1, "CUDA was asked for"),
        (["extract", "-m", "gone.onnx", "-m", "resnet51"], 2, "Did you mean 'resnet50'?"),
        (["fit-heads", "--heads", ""], 2, "--heads names nothing. Leave it out for all, or give some of: logreg"),
        (["extract", "-m", "gone.onnx"], 1, "Cannot read the model 'gone.onnx'"),
        (["extract"], 2, "Missing option '--model'"),
        (["extract", "-m", "a.onnx", "--mean", "1,2"], 2, "--mean takes 3 numbers like 0.485,0.456,0.406; found '1,2'"),
        (["fit-heads"], 1, "No feature files under"),
        (["fit-heads", "--budget", "0"], 2, "above 0 like 90s, 30m or 2h (a number alone: seconds); found '0'"),
        (["finetune", "-m", "resnet18", "-d", "x", "--budget", "0h"], 2, "(a number alone: seconds); found '0h'"),
        (["fit-heads", "--heads", "forest"], 2, "Unknown head 'forest'"),
        (["fit-heads", "--search", "ful"], 2, "Unknown search 'ful'. Did you mean 'full'?"),
        (["fit-heads", "--folds", "1"], 2, "--folds takes 0, or a whole number from 2 on; found '1'"),
        (
            ["finetune", "-m", "resnet18", "-d", "x", "--optimizer", "adm"],
            2,
            "Unknown optimizer 'adm'. Did you mean 'adam'?",
        ),
        (
            ["finetune", "-m", "resnet18", "-d", "x", "--epochs", "0"],
            2,
            "--epochs takes a whole number from 1 on; found '0'",
        ),
        (["report", "--out", "r.pdf"], 2, "A report is an .html page"),
        (["nonsense"], 2, "No such command"),
        (
            ["export", "-m", "resnet20_cifar", "-o", "/dev/null/x.onnx"],
            1,
            "error: File exists: /dev/null",
        ),
    ],
)
def test_mistakes_get_a_sentence_and_no_traceback(
    few_digits: None, arguments: list[str], status: int, words: str
) -> None:
    del few_digits  # which `extract` takes where no data is given
    if "cuda" in arguments and torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    result = CliRunner().invoke(app, arguments)
    assert isinstance(result.exception, SystemExit)
    assert result.exit_code == status
    assert words in " ".join(result.stderr.replace("│", " ").split())
    assert result.stdout == ""


def test_a_mistake_ends_the_process_with_its_status() -> None:
    result = run("extract", "-m", "resnet51")
    assert (result.returncode, result.stdout) == (2, "")
    assert "Did you mean 'resnet50'?" in " ".join(result.stderr.split())
    assert "Traceback" not in result.stderr


def test_one_class_is_an_error(tmp_path: Path, tiny_model: Path) -> None:
    write_image(tmp_path / "set" / "only" / "1.png", 0, 0)
    result = CliRunner().invoke(app, ["extract", "-m", str(tiny_model), "-d", str(tmp_path / "set")])
    assert result.exit_code == 1
    assert "has one class, 'only'" in " ".join(result.stderr.split())


def test_export_writes_a_file_that_is_a_backbone(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "network.onnx"
    invoke("export", "-m", "resnet20_cifar", "-o", out)
    assert "written" in invoke("extract", "-m", out, "-d", photos)


def test_version() -> None:
    assert invoke("--version").startswith("tlcache 0.")
    with pytest.raises((SystemExit, typer.Exit)):
        app(["--version"])


def test_demo_takes_the_embedded_weights_and_says_how_to_get_the_real_ones(
    few_digits: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    del few_digits
    monkeypatch.setattr("tlcache.heads.table.HEADS", {name: HEADS[name] for name in ("ridge", "logreg", "linear")})
    monkeypatch.setattr("tlcache.backbones.downloads.download", lambda *_: pytest.fail("the demo downloads nothing"))
    monkeypatch.setattr("tlcache.demo.RECIPE", {**RECIPE, "epochs": 1})
    text = invoke("demo")
    plain = " ".join(text.replace("│", " ").split())
    assert plain.count("tlcache extract --data FOLDER --model mobilenetv3_small downloads them") == 2
    before, table, after = (
        text.index("embedded weights"),
        text.index("digits: 100 test images (drawn), 10 classes, weights: embedded"),
        text.rindex("embedded weights"),
    )
    assert before < table < after
    found = dict(re.findall(r"resnet20_\w* +(ridge|logreg|linear|fine-tuned)[a-z0-9 ()]* ([01]\.\d{3}) +\(0\.", text))
    assert set(found) == {"ridge", "logreg", "linear", "fine-tuned"}
    assert min(map(float, found.values())) > 0.9
    *_, told, line = text.splitlines()
    assert told == "Next, ask the best run what an image shows:"
    *program, predict, run, image = shlex.split(line)
    assert (program in (["tlcache"], [os.path.relpath(sys.executable), "-m", "tlcache"]), predict) == (True, "predict")
    assert f" {Path(image).parent.name} " in invoke(predict, run, image)  # the folder is named as the digit is


@pytest.mark.parametrize(("which", "program"), [("/bin/tlcache", "tlcache"), (None, "-m tlcache")])
def test_what_to_do_next_works_in_an_environment_that_is_not_activated(
    monkeypatch: pytest.MonkeyPatch, which: str | None, program: str
) -> None:
    monkeypatch.setattr("shutil.which", lambda _: which)
    make_run(head="ridge", right=np.arange(40) > 3)
    line = next_step(compare()[0]).splitlines()[1]
    assert line.removeprefix(f"{os.path.relpath(sys.executable)} ").startswith(f"{program} predict runs/photos/")
    assert line.endswith("/nowhere/test/00000.jpg")


def test_demo_takes_the_backbones_whose_imagenet_weights_are_here(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("mobilenetv3_large", "resnet50"):
        place = checkpoint_path(find(name).checkpoints["imagenet"])
        place.parent.mkdir(parents=True, exist_ok=True)
        place.touch()

    def extract(_: str, model: str, **__: object) -> None:
        raise RuntimeError(model)

    monkeypatch.setattr("tlcache.demo.extract", extract)
    with pytest.raises(RuntimeError, match="mobilenetv3_large"):
        invoke("demo")


def test_tables_are_printed_without_the_packages_that_take_seconds_to_load() -> None:
    tables, slow = "compared, choices, kept, tables", {"scipy", "sklearn", "matplotlib", "torch", "http.client"}
    code = f"import sys; from tlcache.report import {tables}; print(*{slow} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ["fit-heads", "--metric", "f1", "--metric", "accuracy"],
            "--metric takes one value; found 'f1' and 'accuracy'.",
        ),
        (["finetune", "-m", "resnet18", "-m", "resnet50", "-d", "x"], "--model takes one value; found 'resnet18' and"),
        (["fit-heads", "--metric", "f1"], "Unknown metric 'f1'. Did you mean 'macro_f1'?"),
        (["fit-heads", "--heads", "ridge", "--heads", "rigde"], "Unknown head 'rigde'. Did you mean 'ridge'?"),
        (["fit-heads", "--split", "grop"], "Unknown split 'grop'. Did you mean 'group'?"),
        (["fit-heads", "--class-weight", "balancd"], "Unknown class weight 'balancd'. Did you mean 'balanced'?"),
        (
            ["finetune", "-m", "resnet18", "-d", "x", "--sweep", "epoch=1,2"],
            "Unknown setting 'epoch'. Did you mean 'epochs'?",
        ),
        (["study", "-d", "x", "--setting", "lr=fast"], "--setting lr takes a number above 0; found 'fast'."),
        (["extract", "-m", "resnet18", "-d", "digts"], "Unknown dataset 'digts'. Did you mean 'digits'?"),
        (["extract", "-m", "resnet18", "-w", "resnet50=x.pth"], "Unknown backbone in --weights 'resnet50'."),
        (
            ["extract", "-m", "resnet18,resnet50", "-w", "x", "-w", "y"],
            "--weights takes one for all backbones, or BACK",
        ),
        (
            ["fit-heads", "--shots", "1,some"],
            "--shots takes numbers of images per class from 1 on, or all; found '1,",
        ),
        (["fit-heads", "--samples", "3"], "--samples is of the curves of --shots; give both."),
        (["fit-heads", "--repeats", "3", "--shots", "1"], "a curve takes --samples for each of --shots"),
    ],
)
def test_wrong_values_are_told_before_any_work_and_end_with_2(arguments: list[str], words: str) -> None:
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2
    assert words in " ".join(result.stderr.split())


def test_lists_are_repeated_or_have_commas(photos: Path, tiny_model: Path, tmp_path: Path) -> None:
    other = write_photos(tmp_path / "more" / "others")
    shutil.copy(tiny_model, tmp_path / "second.onnx")
    invoke("extract", "-m", f"{tiny_model},{tmp_path / 'second.onnx'}", "-d", photos, "-d", other)
    files = sorted(path.relative_to("features").parent.name for path in Path("features").glob("*/*.h5"))
    assert files == ["others", "others", "photos", "photos"]
    for heads in (["--heads", "ridge,knn"], ["--heads", "ridge", "--heads", "knn"]):
        report = json.loads(stdout("fit-heads", *heads, "-d", "photos,others", "--json", "-"))
        assert len(report["runs"]) == 8
        assert {run["head"] for run in report["runs"]} == {"ridge", "knn"}


def test_weights_are_for_all_or_for_each(tinynet: None, photos: Path, tiny_model: Path) -> None:
    del tinynet
    invoke("extract", "-m", "tinynet", "-w", "tinynet=random", "-d", photos)
    (file,) = json.loads(stdout("ls", "--json", "-"))["files"]
    assert file["weights"] == "random"
    Path("own.pth").touch()
    refused = CliRunner().invoke(app, ["extract", "-m", "tinynet", "-m", str(tiny_model), "-w", "own.pth"])
    assert refused.exit_code == 2
    told = " ".join(refused.stderr.split())
    assert "--weights takes one file for one backbone; found 'own.pth' for tinynet" in told
    assert "--weights tinynet=own.pth, and give others their own." in told
    assert "reading" not in told


def test_json_goes_to_standard_output_alone(photos: Path, tiny_model: Path) -> None:
    made = CliRunner().invoke(app, ["extract", "-m", str(tiny_model), "-d", str(photos), "--json", "-"])
    assert json.loads(made.stdout)["files"][0]["rows"] == 24
    assert "written, 24 images embedded on the CPU" in made.stderr
    fitted = CliRunner().invoke(app, ["fit-heads", "--heads", "ridge", "--json", "-"])
    assert [one["head"] for one in json.loads(fitted.stdout)["runs"]] == ["ridge"]
    assert "photos: 6 test images" in fitted.stderr
    assert not Path("-").exists()
    for command, key in (("models", "models"), ("heads", "heads"), ("datasets", "datasets"), ("report", "files")):
        assert json.loads(stdout(command, "--json", "-"))[key]
    names = {each["name"] for each in json.loads(stdout("models", "--json", "-"))["models"]}
    assert {"resnet50", "resnet20_cifar"} <= names


def test_a_dataset_is_named_the_same_way_everywhere(
    tinynet: None, photos: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """By its name where only the features know its source, and by its folder."""
    del tinynet
    invoke("extract", "-m", "tinynet", "-w", "random", "-d", photos, "--name", "kodak")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    where = ("--features", Path("features").resolve(), "--runs", Path("runs").resolve())
    monkeypatch.chdir(elsewhere)
    network = ("-m", "tinynet", "-w", "random")
    fixed = ("--epochs", "1", "--precision", "fp32", "--layout", "contiguous", "--batch-size", "8")
    for data in ("kodak", photos):
        invoke("extract", *network, "-d", "kodak", *where[:2])
        invoke("fit-heads", "--heads", "ridge", "-d", data, *where)
        name = () if data == "kodak" else ("--name", "kodak")
        said = invoke("finetune", *network, "-d", data, *name, *fixed, *where)
        assert "Recorded as" in said
        assert "kodak" in invoke("compare", "-d", data, *where[2:])
    plan = invoke("study", *network, "-d", "kodak", "--heads", "ridge", "--no-finetune", "--plan", *where)
    assert "recorded" in plan
    assert {path.parent.name for path in where[3].rglob("*.json")} == {"kodak"}
    shutil.rmtree(photos)
    gone = CliRunner().invoke(app, list(map(str, ["finetune", *network, "-d", "kodak", *where])))
    assert gone.exit_code == 1
    assert (
        f"made of '{photos}', which is not there any more. Give its new place: --data THERE --name kodak"
        in " ".join(gone.stderr.split())
    )


def test_only_extract_goes_without_data_and_says_so(few_digits: None, tiny_model: Path) -> None:
    del few_digits
    made = CliRunner().invoke(app, ["extract", "-m", str(tiny_model)])
    assert made.stderr.splitlines()[0] == "digits, which is built in, as no --data is given"
    assert "features/digits/" in made.stdout
    assert "--data" not in CliRunner().invoke(app, ["extract", "-m", str(tiny_model), "-d", "digits"]).stderr
    for command in (["finetune", "-m", "resnet18"], ["study"]):
        result = CliRunner().invoke(app, command)
        assert result.exit_code == 2
        assert "Missing option '--data'" in result.stderr


def test_quiet_and_verbose(few_digits: None, photos: Path, tiny_model: Path) -> None:
    del few_digits
    usual = CliRunner().invoke(app, ["extract", "-m", str(tiny_model), "-d", str(photos)])
    loud = CliRunner().invoke(app, ["extract", "-m", str(tiny_model), "-d", str(photos), "-v"])
    assert "Images/s and seconds are of the whole command" in loud.stdout
    assert "Images/s and seconds" not in usual.stdout
    invoke("fit-heads", "--heads", "ridge")
    assert "F1 and AUROC: means over classes" in " ".join(invoke("compare", "--verbose").split())
    assert "F1 and AUROC" not in invoke("compare")
    assert CliRunner().invoke(app, ["extract", "-m", str(tiny_model), "--quiet"]).stderr == ""


def test_long_work_gives_a_sign_of_life_first(tinynet: None, photos: Path, capfd: pytest.CaptureFixture[str]) -> None:
    del tinynet
    network = ("-m", "tinynet", "-w", "random")
    said = CliRunner().invoke(app, ["extract", *network, "-d", str(photos)]).stderr.splitlines()
    assert said[0] == f"reading {photos} for tinynet ..."
    assert " ".join(said[1:3]).startswith("photos: 24 images: train 12, val 6 (drawn), test 6 (drawn); 3 classes")
    assert "exporting tinynet (once) ..." in said
    assert "exporting" not in CliRunner().invoke(app, ["extract", *network, "-d", str(photos)]).stderr
    assert CliRunner().invoke(app, ["fit-heads", "--heads", "ridge"]).stderr.startswith("fitting heads ...")
    words = ["finetune", *network, "-d", "photos", "--epochs", "1", "--precision", "fp32", "--layout", "contiguous"]
    assert CliRunner().invoke(app, words).stderr.startswith("fine-tuning tinynet on photos ...")
    assert CliRunner().invoke(app, ["audit"]).stderr.startswith("comparing images ...")
    assert capfd.readouterr().err == ""


def test_a_command_that_makes_runs_says_where_they_are(photos: Path, tiny_model: Path) -> None:
    invoke("extract", "-m", tiny_model, "-d", photos)
    one = invoke("fit-heads", "--heads", "ridge")
    (record,) = Path("runs").glob("photos/*.json")
    assert f"Recorded as {record.resolve()}; beside it the head: {record.stem}.safetensors" in one
    assert f"Recorded in {record.resolve().parent}: 2 runs, with their heads" in invoke(
        "fit-heads", "--heads", "ridge,knn"
    )


def test_runs_are_listed_and_removed_by_name(photos: Path, tiny_model: Path) -> None:
    assert json.loads(stdout("runs", "--json", "-")) == {"runs": []}
    assert "Begin with: tlcache fit-heads" in stdout("runs")
    invoke("extract", "-m", tiny_model, "-d", photos)
    invoke("fit-heads", "--heads", "ridge,knn,logreg")
    names = {path.stem for path in Path("runs").glob("photos/*.json")}
    table = invoke("runs", "--data", "photos")
    assert all(name in table for name in names)
    (ridge,) = [name for name in names if "ridge" in name]
    wrong = CliRunner().invoke(app, ["runs", "--remove", ridge[:-1]])
    assert wrong.exit_code == 2
    assert f"Did you mean '{ridge}'?" in " ".join(wrong.stderr.split())
    unanswered = CliRunner().invoke(app, ["runs", "--remove", ridge])
    assert unanswered.exit_code == 2
    assert "Give --yes." in unanswered.stderr
    assert "Removed 0 files" in CliRunner().invoke(app, ["runs", "--remove", ridge], input="n\n").stdout
    assert "Removed 4 files" in CliRunner().invoke(app, ["runs", "--remove", ridge], input="y\n").stdout
    assert "Removed 4 files" in invoke("runs", "--remove", "*-knn-*", "--yes")
    (left,) = Path("runs").glob("photos/*.json")
    assert "logreg" in left.name


def test_prune_asks_twice_and_says_yes_where_nobody_answers(tiny_model: Path) -> None:
    from tlcache.extraction.embedder import ImageEmbedder

    ImageEmbedder(str(tiny_model)).transform([np.zeros((8, 8, 3), np.uint8)])
    asked = CliRunner().invoke(app, ["prune"])
    assert asked.exit_code == 2
    assert "Remove these?" not in asked.stdout  # there is nothing unfinished, so this is the first question
    assert "Empty these, which are made again when needed?" in asked.stdout
    assert "Give --yes." in asked.stderr


@pytest.mark.parametrize("width", [60, 80, 120])
def test_no_name_is_broken_within_a_word(
    tinynet: None, photos: Path, monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    del tinynet
    name = "a_collection_of_photographs-2026"
    invoke("extract", "-m", "tinynet", "-w", "random", "-d", photos, "--name", name)
    invoke("fit-heads", "--heads", "ridge,knn")
    monkeypatch.setenv("COLUMNS", str(width))
    for command in (["ls"], ["compare"], ["fit-heads", "--heads", "ridge,knn"], ["runs"]):
        text = invoke(*command)
        assert (
            max(len(line) for line in text.splitlines() if not re.match(r"Recorded in|\S+: \d+ images: ", line))
            <= width
        )
        words = set(re.findall(r"[a-z]{3,}", text))
        assert {"tinynet", "random"} <= words | ({"random"} if command == ["runs"] else set())
        assert not words & {"tinyne", "tinyn", "ridg", "rid", "collectio", "photograph", "photograp"}


def test_help_is_in_panels_and_fits_80_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    lines = invoke("extract", "--help").splitlines()
    panels = [found[1] for line in lines if (found := re.match(r"╭─ (\w+) ─", line))]
    assert panels == ["Options", "Data", "Network", "Speed", "Output"]
    assert len(lines) < 90
    assert max(map(len, lines)) <= 80


def test_a_paragraph_of_help_fills_its_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert "A step that fails is told and the others" in invoke("study", "--help")


@pytest.mark.parametrize("command", ["", "extract", "fit-heads", "finetune", "study", "compare"])
def test_help_answers_at_once(command: str) -> None:
    code = (
        "import sys, tlcache.cli\ntry:\n    tlcache.cli.app(sys.argv[1:], prog_name='tlcache')\nfinally:\n"
        "    heavy = {'torch', 'numpy', 'onnx', 'sklearn', 'h5py', 'PIL', 'msgspec'} & set(sys.modules)\n"
        "    assert not heavy, heavy"
    )
    words = [sys.executable, "-c", code, *filter(None, [command]), "--help"]
    result = subprocess.run(words, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "Usage" in result.stdout


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("tlcache fit-heads --metric ", set(figure_names())),
        ("tlcache fit-heads --heads ri", {"ridge"}),
        ("tlcache extract --model resnet5", {"resnet50"}),
        ("tlcache finetune --optimizer ad", {"adam", "adamw"}),
        ("tlcache fit-h", {"fit-heads"}),
    ],
)
def test_a_shell_completes_names(typed: str, expected: set[str]) -> None:
    code = "from tlcache.cli import app; app(prog_name='tlcache')"
    asked = {"_TLCACHE_COMPLETE": "complete_bash", "COMP_WORDS": typed, "COMP_CWORD": str(typed.count(" "))}
    result = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | asked, capture_output=True, text=True, check=False
    )
    assert set(result.stdout.split()) == expected


@pytest.mark.parametrize(
    "arguments",
    [
        ["extract", "-m", "resnet20_cifar", "--data", "photoes"],
        ["extract", "-m", "resnet20_cifar", "--data", "./photoes"],
        ["fit-heads", "--features", "photoes"],
        ["compare", "--runs", "photoes"],
        ["export", "--runs", "photoes", "-o", "x.onnx", "RUN"],
    ],
)
def test_a_folder_beside_a_misspelt_one_is_asked_for(arguments: list[str], photos: Path) -> None:
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code in (1, 2)
    assert " ".join(result.stderr.split()).count(f"Did you mean '{photos.name}'?") == 1


def test_folders_that_have_only_what_is_before_their_names_in_common_are_not_asked_for(photos: Path) -> None:
    assert folder_meant(photos.parent / "letters") == ""
    assert folder_meant(photos.parent / "photoes") == f" Did you mean '{photos}'?"


def test_figures_replace_no_file_of_another_kind(tmp_path: Path) -> None:
    picture, figures = tmp_path / "a.jpg", tmp_path / "figures.json"
    picture.write_bytes(b"\xff\xd8")
    refused = CliRunner().invoke(app, ["models", "--json", str(picture)])
    assert refused.exit_code == 2
    assert "holds no figures" in " ".join(refused.stderr.split())
    assert picture.read_bytes() == b"\xff\xd8"
    for _ in range(2):
        assert CliRunner().invoke(app, ["models", "--json", str(figures)]).exit_code == 0
