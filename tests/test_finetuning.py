"""From images to a fine-tuned network and its record."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from fakes import write_image, write_photos
from filelock import FileLock
from safetensors.torch import load_file
from typer.testing import CliRunner

import tlcache
from tlcache.backbones.sources import find
from tlcache.backbones.weights import load_state, resolve
from tlcache.cache.feature_file import open_features
from tlcache.cache.find import features_folder
from tlcache.cli import app
from tlcache.errors import CacheError, DataError, DeviceError, ModelError, OptionError, UnknownNameError
from tlcache.evaluation.metrics import evaluate
from tlcache.extraction.extract import extract
from tlcache.finetuning.classifier import Classifier
from tlcache.finetuning.data import TuningData
from tlcache.finetuning.finetune import finetune
from tlcache.finetuning.live import LiveEpoch
from tlcache.finetuning.losses import LOSSES
from tlcache.finetuning.presets import PRESETS
from tlcache.finetuning.recipe import Recipe
from tlcache.finetuning.saved import export_tuned
from tlcache.finetuning.schedules import SCHEDULES
from tlcache.finetuning.speed import ComputeFormat
from tlcache.finetuning.training import TrainingError
from tlcache.finetuning.trial import Trial
from tlcache.heads.optimizers import OPTIMIZERS
from tlcache.heads.table import tuned_heads
from tlcache.options import parameters
from tlcache.probing.fit import fit_heads
from tlcache.probing.protocol import SearchProtocol
from tlcache.records import as_json
from tlcache.runs.folder import runs_folder
from tlcache.runs.record import Run

pytestmark = pytest.mark.usefixtures("tinynet")

SCRATCH = {"init_head": "scratch", "head_epochs": 1}
FIXED = {"recipe": "before", "precision": "fp32", "layout": "contiguous"}


def tune(data: Path, name: str = "tinynet", **settings: object) -> Run:
    return finetune(data, name, "random", **{**FIXED, "epochs": 2, "batch_size": 8, **settings})


def weights_of(run: Run) -> dict[str, torch.Tensor]:
    return load_file(run.head_path)


def same(one: Run, other: Run) -> bool:
    first, second = weights_of(one), weights_of(other)
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_a_run_is_recorded_as_heads_are_and_on_the_same_rows(photos: Path) -> None:
    started = time.perf_counter()
    run = tune(photos)
    took = time.perf_counter() - started
    (head,) = fit_heads(heads=["ridge"])
    assert [*run.predictions().row] == [*head.predictions().row]
    for name in ("dataset", "dataset_digest", "backbone", "key", "weights", "preprocess", "classes", "rows"):
        assert getattr(run, name) == getattr(head, name)
    record = json.loads(run.path.read_text())
    stored = run.predictions()
    assert record["test"] == pytest.approx(evaluate(stored.label, stored.probabilities).as_json())
    assert record["arguments"]["lr"] == 3e-4
    assert record["hardware"]["threads"] == torch.get_num_threads()
    assert [epoch["epoch"] for epoch in record["history"]] == [0, 1, 2]
    for epoch in record["history"][1:]:
        assert {"phase", "train_loss", "train_accuracy", "val_loss", "val_accuracy", "lr", "train_s"} <= set(epoch)
    epochs = sum(epoch.get("train_s", 0) + epoch["val_s"] for epoch in record["history"])
    assert epochs < record["train_s"] <= took  # decoding, the head and the rest count too
    assert not list(run.path.parent.glob("*.checkpoints"))


def test_every_epoch_is_told_as_it_ends(photos: Path) -> None:
    told = list[LiveEpoch]()
    run = tune(photos, sweep={"lr": [1e-4, 1e-3]}, refit=True, on_epoch=told.append)
    assert {(each.run, each.dataset) for each in told} == {(run.path.stem, "photos")}
    assert [each.training for each in told] == ["lr 0.0001"] * 3 + ["lr 0.001"] * 3 + ["refit"] * len(run.refit_history)
    assert [each.number for each in told[:6]] == [0, 1, 2, 0, 1, 2]
    chosen = [each for each in told if each.training == f"lr {run.chosen.setting['lr']}"]
    assert [each.figures["val_accuracy"] for each in chosen] == [epoch.val_accuracy for epoch in run.history]


def test_the_same_run_is_not_done_again_unless_asked(photos: Path) -> None:
    first = tune(photos)
    stamp = first.path.stat().st_mtime_ns
    assert tune(photos) == first
    assert first.path.stat().st_mtime_ns == stamp
    again = tune(photos, force=True)
    assert again.path.stat().st_mtime_ns > stamp
    assert same(first, again)
    assert tune(photos, seed=1).path != first.path


def test_the_cached_head_begins_where_its_fit_ended(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Epoch 0 is the frozen network with the fitted head, in torch instead of ONNX Runtime and scikit-learn."""
    monkeypatch.setattr("tlcache.probing.folds.FEW", 0)
    run = tune(photos, epochs=1)
    (fitted,) = fit_heads(heads=["logreg"], folds=0)
    found = [each.scores["val_accuracy"] for each in fitted.candidates]
    error = np.sqrt(max(found) * (1 - max(found)) / 6)
    first = next(accuracy for accuracy in found if accuracy >= max(found) - error)
    assert run.history[0].val_accuracy == pytest.approx(first)


def test_a_class_that_was_not_trained_on_has_probability_0(tmp_path: Path) -> None:
    """Its images in val have no say in the temperature."""
    write_photos(tmp_path / "set" / "test", 4)
    for split, classes in (("train", 2), ("val", 3)):
        for colour, name in enumerate(("blue", "green", "red")[:classes]):
            for image in range(4):
                write_image(tmp_path / "set" / split / name / f"{image}.png", 50 + 7 * image + colour, colour)
    run = tune(tmp_path / "set", epochs=1)
    assert (run.predictions().probabilities[:, 2] == 0).all()
    assert run.temperature < 1.5
    assert all(epoch.val_loss < 1 for epoch in run.history)


def test_splits_without_a_common_class_are_refused(tmp_path: Path) -> None:
    lines = ["path,label,split"]
    for split, names in (("train", "ab"), ("val", "cd"), ("test", "ac")):
        for colour, name in enumerate(names):
            write_image(tmp_path / f"{split}-{name}.png", ord(name), colour)
            lines.append(f"{split}-{name}.png,{name},{split}")
    (tmp_path / "set.csv").write_text("\n".join(lines))
    with pytest.raises(DataError, match="no class that is in train and in val"):
        tune(tmp_path / "set.csv")


def test_a_fresh_head_is_trained_first_with_the_backbone_frozen(photos: Path) -> None:
    run = tune(photos, init_head="scratch", head_epochs=3, epochs=1)
    phases = [(epoch.phase, epoch.epoch) for epoch in run.history]
    assert phases == [("head", 1), ("head", 2), ("head", 3), ("backbone", 1)]


@pytest.mark.parametrize("setting", [{"augment": "strong"}, {"loss": "bce", "class_weight": "balanced"}, {"ema": 0.5}])
def test_training_learns(photos: Path, setting: dict[str, object]) -> None:
    run = tune(photos, lr=0.01, epochs=6, init_head="scratch", head_epochs=1, patience=10, **setting)
    losses = [epoch.train_loss for epoch in run.history]
    assert losses[-1] < 0.8 * losses[0]
    assert run.test.accuracy > 0.6


def test_only_what_is_unfrozen_changes(photos: Path) -> None:
    before = load_state(resolve(find("tinynet"), "random"))
    for unfreeze, changed in (
        ("stage:3", {"features.2"}),
        ("last:1", {"features.2.1"}),
        ("last:3", {"features.2", "features.1.1"}),
        ("all", {"features.0", "features.1", "features.2"}),
    ):
        run = tune(photos, unfreeze=unfreeze, epochs=1, refit=True, init_head="scratch", head_epochs=1)
        after = weights_of(run)
        for name, tensor in before.items():
            trained = name.startswith(tuple(changed))
            assert torch.equal(tensor, after[name]) != trained, (unfreeze, name)


def test_the_test_split_has_no_say(tmp_path: Path) -> None:
    runs = []
    for number in range(2):
        root = tmp_path / f"set{number}"
        for split, seed in (("train", 0), ("val", 50), ("test", 1000 * (number + 1))):
            for colour, name in enumerate(("blue", "green", "red")):
                for image in range(4):
                    write_image(root / split / name / f"{image}.png", seed + 7 * image + colour, colour)
        runs.append(tune(root))
    assert same(*runs)
    assert runs[0].temperature == runs[1].temperature
    assert not np.array_equal(runs[0].predictions().probabilities, runs[1].predictions().probabilities)


def test_refitting_takes_validation_in_and_as_many_epochs_as_were_best(photos: Path) -> None:
    run = tune(photos, refit=True, init_head="scratch", head_epochs=2, lr=0.01)
    counts = {"head": 0, "backbone": 0}
    for epoch in run.refit_history:
        counts[epoch.phase] += 1
    assert counts == as_json(run.chosen.epochs)
    assert all("val_loss" not in epoch for epoch in json.loads(run.path.read_text())["refit_history"])
    assert not same(run, tune(photos, init_head="scratch", head_epochs=2, lr=0.01))


def test_a_cached_prefix_gives_the_same_network(photos: Path) -> None:
    """Same seeds, same order, no augmentation: only rounding differs, as ONNX Runtime computes the frozen layers."""
    for unfreeze, cut in (("stage:3", "features.1"), ("last:3", "features.0")):
        settings = {"unfreeze": unfreeze, "augment": "none", "lr": 0.01, "epochs": 3, "patience": 9}
        plain, cached = tune(photos, **settings), tune(photos, **settings, cached_prefix=True)
        assert plain.layers == cached.layers
        assert cached.layers.cut == cut
        first, second = weights_of(plain), weights_of(cached)
        for name in first:
            torch.testing.assert_close(first[name], second[name], rtol=1e-3, atol=1e-4)
        for one, other in zip(plain.history, cached.history, strict=True):
            assert one.val_loss == pytest.approx(other.val_loss, rel=1e-4)


def test_views_take_turns(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tlcache.finetuning.training.Training._is_stale", lambda *_: False)
    one = tune(photos, unfreeze="stage:3", cached_prefix=True, epochs=2)
    two = tune(photos, unfreeze="stage:3", cached_prefix=True, epochs=2, views=2)
    shapes = {np.load(path, "r").shape for path in Path(os.environ["TLCACHE_CACHE"]).glob("activations/*.npy")}
    assert shapes == {(12, 16, 5, 5), (24, 16, 5, 5), (6, 16, 5, 5)}
    losses = [[epoch.train_loss for epoch in run.history[1:]] for run in (one, two)]
    assert losses[0][0] == losses[1][0]
    assert losses[0][1] != losses[1][1]


def test_tuned_weights_are_weights_for_extract(photos: Path) -> None:
    run = tune(photos, lr=0.01, init_head="scratch", head_epochs=1, unfreeze="stage:2")
    done = tlcache.extract(photos, "tinynet", str(run.head_path), name="tuned")
    tensors = weights_of(run)
    weight, bias = (tensors[f"tlcache.head.0.{name}"].numpy() for name in ("weight", "bias"))
    with open_features(done.path) as file:
        logits = file.split("test").features @ weight.T + bias
    expected = run.predictions().probabilities
    assert np.array_equal(logits.argmax(1), expected.argmax(1))
    scaled = np.exp(logits / run.temperature)
    assert np.allclose(scaled / scaled.sum(1, keepdims=True), expected, atol=1e-4)


def test_a_network_file_that_is_none_of_a_fine_tuning_is_refused(photos: Path, tmp_path: Path) -> None:
    run = tune(photos, head="dense")
    with pytest.raises(ModelError, match="is not a network that tlcache finetune saved, but tlcache-head"):
        export_tuned(fit_heads(heads=["ridge"])[0].head_path)
    renamed = run.head_path.rename(tmp_path / "tuned")  # what it is, it says itself
    assert export_tuned(renamed)
    other = tmp_path / "other.safetensors"
    other.write_bytes(renamed.read_bytes()[:1000])
    with pytest.raises(ModelError, match="Cannot read the network '.*other.safetensors'"):
        export_tuned(other)


def test_a_loss_that_is_no_number_stops_it_and_the_last_good_state_stays(photos: Path) -> None:
    settings = {"optimizer": "sgd", "schedule": "constant", "init_head": "scratch", "epochs": 3}
    with pytest.raises(TrainingError, match=r"no finite number any more, in epoch 1 of the backbone .*smaller --lr"):
        tune(photos, **settings, lr=1e30, warmup_epochs=0.0, head_epochs=2)
    names = [path.name[:6] for path in sorted(runs_folder().rglob("*.pt"))]
    assert names == ["000002", "000003"]
    with pytest.raises(TrainingError, match=r"sgd, learning rate 1e\+30.* stays in '.*checkpoints/"):
        tune(photos, **settings, lr=1e30, warmup_epochs=0.0, head_epochs=2)


KILLED = """
import sys, time
sys.path[:0] = {paths!r}
import torch
torch.set_num_threads(1)
from fakes import TinySource
import tlcache.backbones.sources, tlcache.extraction.extract
from tlcache.extraction.steps import extract_here
tlcache.backbones.sources.SOURCES = (TinySource(),)
tlcache.extraction.extract.run_apart = lambda arguments, _: extract_here(**arguments).as_json()
from pathlib import Path
from tlcache.finetuning.recipe import Recipe
from tlcache.finetuning.finetune import finetune
from tlcache.finetuning.speed import ComputeFormat
quick = ComputeFormat.forward
def slow(*arguments):  # the third epoch lasts long enough to be killed in
    time.sleep(0.1 * (len(list(Path({runs!r}).rglob("*.pt"))) >= 2))
    return quick(*arguments)
ComputeFormat.forward = slow
if __name__ == "__main__":
    finetune({photos!r}, "tinynet", "random", recipe="before", precision="fp32", layout="contiguous", epochs=5,
             patience=99, batch_size=8, head="dense", ema=0.9, init_head="scratch", head_epochs=2, lr=0.003,
             runs={runs!r})
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_run_that_was_killed_ends_with_the_same_weights(
    tmp_path: Path, how: signal.Signals, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "tlcache")
    photos = write_photos(tmp_path / "photos", 20)
    extract(photos, "tinynet", "random")  # here, where the network has been exported before
    paths = [str(Path(__file__).parent), str(Path(tlcache.__file__).parents[1])]
    script = tmp_path / "job.py"
    script.write_text(KILLED.format(paths=paths, photos=str(photos), runs=str(tmp_path / "runs")))
    process = subprocess.Popen(
        [sys.executable, str(script)],
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # which background jobs ignore
    )
    while len(kept := list((tmp_path / "runs").rglob("*.pt"))) < 2:  # the second epoch has ended, the third runs
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(how)
    process.wait()
    assert not list((tmp_path / "runs").rglob("*.json"))
    assert len(list((tmp_path / "runs").rglob("*.pt"))) <= 3, kept
    settings = {**FIXED, "epochs": 5, "patience": 99, "batch_size": 8, "head": "dense", "ema": 0.9, "lr": 0.003}
    settings |= {"init_head": "scratch", "head_epochs": 2}
    resumed = finetune(photos, "tinynet", "random", **settings, runs=tmp_path / "runs")
    whole = finetune(photos, "tinynet", "random", **settings, runs=tmp_path / "other")
    assert re.findall("goes on after .*", caplog.text) == ["goes on after head 2/2"]
    assert same(resumed, whole)
    for one, other in zip(resumed.history, whole.history, strict=True):
        both = (as_json(one), as_json(other))
        timeless = [{name: value for name, value in each.items() if not name.endswith("_s")} for each in both]
        assert timeless[0] == timeless[1]


SEVERAL = """
import sys
sys.path[:0] = {paths!r}
import torch
from fakes import TinySource
import tlcache.backbones.sources, tlcache.extraction.extract
from tlcache.extraction.steps import extract_here
tlcache.backbones.sources.SOURCES = (TinySource(),)
tlcache.extraction.extract.run_apart = lambda arguments, _: extract_here(**arguments).as_json()
from tlcache.cli import app
if __name__ == "__main__":
    app()
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "equal"),
    [
        ({"batch_norm": "eval", "class_weight": "balanced", "label_smoothing": 0.1, "refit": True, **SCRATCH}, True),
        ({"batch_norm": "eval", "unfreeze": "stage:2", "cached_prefix": True, "views": 2, "loss": "bce"}, True),
        ({"ema": 0.5, "optimizer": "sgd", **SCRATCH}, False),
    ],
)
def test_processes_share_a_training(tmp_path: Path, settings: dict[str, object], equal: bool) -> None:
    """Two give what one gives, up to rounding; in training mode a BatchNorm sees its own share of a batch alone."""
    photos = write_photos(tmp_path / "photos", 15)  # 27 train: the last batch of 7 is torn into 4 and 3
    extract(photos, "tinynet", "random")
    paths = [str(Path(__file__).parent), str(Path(tlcache.__file__).parents[1])]
    script, report = tmp_path / "job.py", tmp_path / "two.json"
    script.write_text(SEVERAL.format(paths=paths))
    settings = {**FIXED, "epochs": 3, "lr": 0.003, "batch_size": 10, "patience": 9, **settings}
    options = [f"--{name.replace('_', '-')}{'' if value is True else f'={value}'}" for name, value in settings.items()]
    done = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)),
            *("finetune", "-m", "tinynet", "-w", "random", "-d", str(photos), "--json", str(report), *options),
        ],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "TLCACHE_RUNS": str(tmp_path / "two")},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("9 test images (drawn), ") == 1
    assert done.stderr.count("\nbackbone 3/3") == 1
    assert len(re.findall(r"\nrefit backbone (\d)/\1:", done.stderr)) == settings.get("refit", False)
    (two,) = json.loads(report.read_text())["runs"]
    one = finetune(photos, "tinynet", "random", **settings)
    two_weights, one_weights = load_file(Path(two["record"]).with_suffix(".safetensors")), weights_of(one)
    close = [torch.allclose(one_weights[name], two_weights[name], rtol=1e-3, atol=1e-5) for name in one_weights]
    assert all(close) or not equal
    tolerance = 1e-4 if equal else 0.3
    for mine, other in zip(one.history, two["history"], strict=True):
        for figure in ("train_loss", "train_accuracy", "val_loss", "lr"):
            assert other.get(figure, 0) == pytest.approx(getattr(mine, figure) or 0, rel=tolerance)


def test_what_cannot_be_tuned_says_why(photos: Path, tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is an ONNX file, which cannot be trained here"):
        finetune(photos, str(tiny_model))
    with pytest.raises(UnknownNameError, match="Unknown optimizer 'adamv'. Did you mean 'adam'"):
        tune(photos, optimizer="adamv")
    with pytest.raises(UnknownNameError, match="Unknown setting 'epoch'. Did you mean 'epochs'"):
        tune(photos, epoch=3)
    with pytest.raises(OptionError, match="tinynet has 6 layers with parameters; asked: --unfreeze last:7"):
        tune(photos, unfreeze="last:7")
    with pytest.raises(OptionError, match="tinynet has 3 stages; asked: --unfreeze stage:4"):
        tune(photos, unfreeze="stage:4")
    with pytest.raises(OptionError, match="--unfreeze takes all, last:N, stage:K or top:N"):
        tune(photos, unfreeze="first:2")
    with pytest.raises(OptionError, match="cached-prefix needs frozen layers"):
        tune(photos, cached_prefix=True)
    with pytest.raises(OptionError, match="reaches into the first stage of tinynet"):
        tune(photos, cached_prefix=True, unfreeze="stage:1")
    with pytest.raises(OptionError, match="--lr takes a number above 0; found '-1.0'"):
        tune(photos, lr=-1.0)
    with pytest.raises(OptionError, match="--epochs takes a whole number from 1 on; found '3'"):
        tune(photos, epochs="3")
    if not torch.cuda.is_available():
        with pytest.raises(DeviceError, match="CUDA was asked for"):
            tune(photos, device="cuda")
    for name in ("train", "test"):
        write_photos(tmp_path / "three" / name, 2)
    write_image(tmp_path / "three" / "val" / "red" / "0.png", 99, 2)
    assert tune(tmp_path / "three", batch_size=5).rows.val == 1  # a last batch of one joins another


@pytest.mark.parametrize(
    "settings",
    [
        {"class_weight": "balanced", "label_smoothing": 0.1},
        {"loss": "bce", "unfreeze": "top:1", "cached_prefix": True, "refit": True},
        {"mixup": 0.3},
    ],
)
def test_a_batch_in_parts_gives_the_same_network(
    photos: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, object]
) -> None:
    plain, sizes = ComputeFormat.forward, list[int]()

    def watched(way: ComputeFormat, network: Classifier, inputs: torch.Tensor, ready: bool) -> torch.Tensor:
        sizes.extend([len(inputs)] * torch.is_grad_enabled())
        return plain(way, network, inputs, ready)

    monkeypatch.setattr(ComputeFormat, "forward", watched)
    fixed = {"batch_norm": "eval", "lr": 0.003, "optimizer": "sgd", "patience": 9, **settings}
    one, most = tune(photos, **fixed), max(sizes)
    sizes.clear()
    parts = tune(photos, **fixed, accumulate=3)  # 8 images are 3, 3 and 2, the last 4 are 4, as none is left alone
    assert (most, max(sizes), min(sizes)) == (8, 4, 2)
    first, second = weights_of(one), weights_of(parts)
    for name in first:
        torch.testing.assert_close(first[name], second[name], rtol=1e-4, atol=1e-5)
    for mine, other in zip(one.history[1:], parts.history[1:], strict=True):
        assert other.train_loss == pytest.approx(mine.train_loss, rel=1e-4)
    assert parts.arguments["accumulate"] == 3
    assert "accumulate" not in one.arguments


def test_a_part_has_two_images_at_least(photos: Path) -> None:
    with pytest.raises(OptionError, match=r"--batch-size 8 leaves 5 parts \(--accumulate\) less than 2 images each"):
        tune(photos, accumulate=5)


def test_two_processes_do_not_do_the_same(photos: Path) -> None:
    done = tune(photos)
    (lock,) = done.path.parent.glob(".*.lock")
    with FileLock(lock), pytest.raises(CacheError, match="Another process does the same fine-tuning"):
        tune(photos, force=True)
    before = lock.stat().st_ino
    tune(photos, force=True)
    assert lock.stat().st_ino == before  # who waits at the file waits at the one that is locked


def test_an_image_that_changed_meanwhile_is_an_error(photos: Path) -> None:
    done = tlcache.extract(photos, "tinynet", "random")
    write_image(photos / "red" / "0.png", 12345, 1)
    words = r"red/0\.png' has changed since it was embedded: its sha256 begins with"
    with open_features(done.path) as file, pytest.raises(DataError, match=words):
        assert TuningData.of(file, "random", "cpu").pixels


def test_the_choices_of_a_recipe_are_those_there_are_and_its_help_names_them() -> None:
    options = parameters(Recipe)
    tables = {"optimizer": OPTIMIZERS, "augment": PRESETS, "schedule": SCHEDULES, "loss": LOSSES, "head": tuned_heads()}
    for name, table in tables.items():
        assert list(options[name].kind.choices()) == list(table)
    for each in [*options.values(), *parameters(SearchProtocol).values()]:
        assert all(name in each.option.help + each.option.more for name in each.kind.choices()), each.name


def test_a_sweep_chooses_on_validation_and_tests_once(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tested = []
    plain = Trial.logits
    monkeypatch.setattr(Trial, "logits", lambda trial, split, way: tested.append(split) or plain(trial, split, way))
    settings = {"init_head": "scratch", "head_epochs": 1, "warmup_epochs": 0.0}
    run = tune(photos, **settings, sweep={"optimizer": ["sgd", "adam"], "lr": [1e30, 0.01]})
    assert tested == ["val", "test"]
    tried = run.candidates
    assert [(each.setting["optimizer"], each.setting["lr"]) for each in tried] == [
        ("sgd", 1e30), ("sgd", 0.01), ("adam", 1e30), ("adam", 0.01),
    ]  # fmt: skip
    assert tried[0].diverged
    best = max(
        (each for each in tried if not each.diverged),
        key=lambda each: (each.scores["val_accuracy"], -each.scores["val_loss"]),
    )
    assert {"optimizer", "lr"} == set(best.setting)
    assert best.setting == run.chosen.setting
    alone = tune(photos, **settings, **best.setting)
    assert same(run, alone)
    assert run.train_s >= sum(each.train_s for each in tried)


def test_a_sweep_over_heads_records_and_saves_the_head_that_was_chosen(photos: Path) -> None:
    run = tune(photos, epochs=1, sweep={"head": ["linear", "dense"], "lr": [1e-5]}, init_head="scratch", head_epochs=1)
    assert run.head == run.chosen.setting["head"]
    layers = {name for name in weights_of(run) if name.startswith("tlcache.head.")}
    assert len(layers) == {"linear": 2, "dense": 6}[run.head]
    assert export_tuned(run.head_path)


def test_a_budget_ends_a_sweep_and_never_before_its_first_setting(photos: Path) -> None:
    run = tune(photos, epochs=1, sweep={"lr": [1e-3, 1e-4, 1e-5]}, budget_s=6e-5)
    assert [each.setting["lr"] for each in run.candidates] == [1e-3]
    with pytest.raises(UnknownNameError, match="Unknown setting 'rate'"):
        tune(photos, sweep={"rate": [1]})


def test_the_command_line_sweeps_draws_and_writes_json(photos: Path, tmp_path: Path) -> None:
    report, picture = tmp_path / "tune.json", tmp_path / "curves.svg"
    result = CliRunner().invoke(
        app,
        [
            *("finetune", "-m", "tinynet", "-w", "random", "-d", str(photos), "--epochs", "2", "--batch-size", "8"),
            *("--sweep", "lr=1e-3,1e-2", "--unfreeze", "stage:2", "--layout", "contiguous", "--precision", "fp32"),
            *("--init-head", "scratch", "--head-epochs", "2", "--json", str(report), "--plot", str(picture)),
        ],
    )
    assert result.exit_code == 0, result.output
    assert "tinynet   fine-tuned" in result.output
    (run,) = json.loads(report.read_text())["runs"]
    promised = "dataset backbone strategy head train_s epoch_s images_per_s record test history"
    assert set(promised.split()) <= set(run)
    assert run["strategy"] == "finetune"
    assert Path(run["record"]).is_file()
    assert "</svg>" in picture.read_text()


def test_the_command_says_where_it_begins_what_is_a_refit_and_when_nothing_was_better(
    photos: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    fixed = ["-m", "tinynet", "-w", "random", "-d", str(photos), "--layout", "contiguous", "--precision", "fp32"]
    arguments = ["finetune", *fixed, "--recipe", "before", "--epochs", "2", "--batch-size", "8", "--lr"]
    result = CliRunner().invoke(app, [*arguments, "1e-9", "--refit"])  # so small that nothing changes
    record = json.loads(next(runs_folder().rglob("*.json")).read_text())
    assert record["chosen"]["epochs"]["backbone"] == 0
    start = record["history"][0]
    told = " ".join((result.stderr + capfd.readouterr().err).split())
    assert f"backbone 0/2: loss and accuracy: val {start['val_loss']:.3f} {start['val_accuracy']:.3f}, of the" in told
    assert "backbone 2/2: loss and accuracy: train" in told
    assert "refit" not in told
    assert "fine-tuned (0 epochs kept)" in result.stdout
    assert "warning: No epoch was better on validation than the head it began with" in told
    assert "Try --batch-norm eval, a smaller --lr than 1e-09 or fewer layers (--unfreeze last:N or stage:K)." in told
    result = CliRunner().invoke(app, [*arguments, "0.01", "--batch-norm", "eval", "--refit", "--init-head", "scratch"])
    told = result.stderr + capfd.readouterr().err
    assert "refit head 1/" in told
    assert "refit backbone 1/" in told
    assert "warning" not in told


@pytest.mark.parametrize(
    ("sweep", "words"),
    [
        (["lr=1e-3,abc"], "--sweep lr takes a number above 0; found 'abc'"),
        (["batch-size=16,1"], "--sweep batch-size takes a whole number from 2 on"),
        (["refit=true,maybe"], "--sweep refit takes true or false; found 'maybe'"),
        (["optimizer=sgd,adamv"], "Unknown optimizer in --sweep 'adamv'. Did you mean 'adam'"),
        (["lr"], "--sweep takes NAME=VALUE,VALUE like lr=1e-4,1e-3; found 'lr'"),
        (["lr=1e-3", "lr=1e-4"], "--sweep has lr twice, as '1e-3' and as '1e-4'"),
    ],
)
def test_a_sweep_is_checked_before_the_first_training(photos: Path, sweep: list[str], words: str) -> None:
    options = [word for each in sweep for word in ("--sweep", each)]
    result = CliRunner().invoke(app, ["finetune", "-m", "tinynet", "-w", "random", "-d", str(photos), *options])
    assert result.exit_code == 2
    assert words in " ".join(result.stderr.split())
    assert not features_folder().exists()


def test_a_picture_that_cannot_be_drawn_is_an_error_before_the_training(photos: Path) -> None:
    result = CliRunner().invoke(
        app, ["finetune", "-m", "tinynet", "-w", "random", "-d", str(photos), "--plot", "a.gif"]
    )
    assert result.exit_code == 2
    assert not runs_folder().exists()
