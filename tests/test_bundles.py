"""Runs as ONNX files: what they answer is what the run answers, and what they say of themselves is true."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import onnx
import onnxruntime
import pytest
from fakes import tiny_network, write_photos
from numpy.typing import NDArray
from test_extending import CENTROIDS
from typer.testing import CliRunner

from exporters import heads
from exporters.classify import classified, head_alone
from exporters.trees import rounded_down
from tlcache.backbones.load import load_model
from tlcache.backbones.onnx_nodes import Nodes
from tlcache.backbones.onnx_weights import joined, packed, read_weights
from tlcache.backbones.sources import find
from tlcache.cache.feature_file import open_features
from tlcache.cli import app
from tlcache.deploying.export import export
from tlcache.deploying.parity import check_head
from tlcache.errors import CacheError, HeadError, ModelError, OptionError, UnknownNameError
from tlcache.extraction.extract import extract
from tlcache.finetuning.finetune import finetune
from tlcache.heads.base import Head
from tlcache.heads.fitted import FittedHead, load_head
from tlcache.heads.rows import Scaler
from tlcache.heads.table import HEADS, HeadRow
from tlcache.heads.uncertainty import Uncertainty
from tlcache.images import Preprocess, prepare
from tlcache.probing.fit import fit_heads
from tlcache.progress import set_display
from tlcache.runs.record import Run

CLASSES = ("blue", "green", "red")


def outputs(model: Path | bytes, **inputs: NDArray[Any]) -> dict[str, NDArray[Any]]:
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_outputs()]
    return dict(zip(names, session.run(names, inputs), strict=True))


def metadata(path: Path) -> dict[str, str]:
    return {entry.key: entry.value for entry in onnx.load(path).metadata_props}


def test_images(photos: Path, run: Run) -> NDArray[np.uint8]:
    preprocess = Preprocess.from_json(run.preprocess)
    names = [row.decode() for row in run.predictions().row]
    return np.stack([prepare((photos / name).read_bytes(), preprocess)[0] for name in names])


test_images.__test__ = False  # type: ignore[attr-defined]


def fitted(name: str, rows: NDArray[np.float32], labels: NDArray[np.int64], classes: int, **params: Any) -> FittedHead:
    """Return a head on standardised rows, with a temperature, for as many classes."""
    scaler = Scaler.of(rows)
    head = HEADS[name].type()(**params).fit(scaler.over(rows), labels)
    names = tuple(f"class {number}" for number in range(classes))
    return FittedHead(name, head, scaler, 0.5, names, "tiny", "k" * 64)


def rows_of(n: int = 90, dim: int = 12, classes: int = 3) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    random = np.random.default_rng(0)
    labels = np.arange(n) % classes
    return (random.normal(size=(n, dim)) + random.normal(size=(classes, dim))[labels]).astype(np.float32), labels


@pytest.fixture
def ridge(photos: Path, tiny_model: Path) -> Run:
    extract(photos, str(tiny_model))
    return fit_heads(heads=["ridge"])[0]


@pytest.mark.parametrize("name", HEADS)
def test_every_head_answers_in_its_file_as_in_its_record(
    name: str, photos: Path, tiny_model: Path, tmp_path: Path
) -> None:
    done = extract(photos, str(tiny_model))
    (run,) = fit_heads(heads=[name])
    written = export(run.path, out=tmp_path / "run.onnx")
    found, known = outputs(written.path, image=test_images(photos, run)), run.predictions()
    assert list(found) == ["probabilities", "label", "embedding"]
    assert np.abs(found["probabilities"] - known.probabilities).max() < HEADS[name].tolerance
    assert found["label"].tolist() == [CLASSES[number] for number in known.probabilities.argmax(axis=1)]
    with open_features(done.path) as file:
        assert np.allclose(found["embedding"], file.split("test").features, rtol=1e-6)
    on_embeddings, on_images = written.checks
    assert (on_embeddings.n, on_embeddings.what) == (6, "cached embeddings of test images")
    assert (on_images.n, on_images.what) == (6, "test images")
    assert written.recorded is not None
    assert (written.recorded.n, written.recorded.same) == (6, 6)


def test_a_file_says_what_it_is(ridge: Run, tmp_path: Path) -> None:
    stated = metadata(export(ridge.path, out=tmp_path / "run.onnx").path)
    test = ridge.test
    assert stated["run"] == ridge.path.stem
    assert (stated["dataset"], stated["backbone"], stated["head"]) == ("photos", "tiny", "ridge")
    assert (stated["key"], float(stated["temperature"])) == (ridge.key, ridge.calibration.temperature)
    assert json.loads(stated["classes"]) == list(CLASSES)
    assert json.loads(stated["preprocess"]) == ridge.preprocess
    assert json.loads(stated["accuracy"]) == {
        "accuracy": test.accuracy,
        "low": test.accuracy_low,
        "high": test.accuracy_high,
        "n": 6,
        "split": "drawn",
    }
    assert stated["licence"] == "unknown"  # of a file, which may have come from anywhere
    assert stated["exporter"].startswith("tlcache")
    assert stated["tlcache"]


def test_embeddings_of_a_file_with_a_head_are_those_that_are_cached(ridge: Run, photos: Path, tmp_path: Path) -> None:
    path = export(ridge.path, out=tmp_path / "run.onnx").path
    assert load_model(str(path)).key == ridge.key
    again = extract(photos, str(path), name="again")
    assert (again.embedded, again.reused) == (0, 24)
    changed = onnx.load(path)
    weights = next(node for node in changed.graph.initializer if node.name == "kernel")
    weights.CopyFrom(onnx.numpy_helper.from_array(2 * onnx.numpy_helper.to_array(weights), "kernel"))
    onnx.save(changed, path)
    assert load_model(str(path)).key != ridge.key  # whatever its metadata says
    resized = load_model(str(export(ridge.path, out=tmp_path / "run.onnx").path), resize=20)
    assert resized.key == load_model(ridge.extract_arguments["model"], resize=20).key


def test_a_network_whose_tensors_have_our_names_keeps_them_apart(photos: Path, tmp_path: Path) -> None:
    """A classifier whose own logits are called `probabilities`, in a branch `label`, and whose input is `pixels`."""
    model = tiny_network()
    for node in model.graph.node:
        for names in (node.input, node.output):
            new = [{"image": "pixels", "pooled": "probabilities", "y": "label"}.get(name, name) for name in names]
            del names[:]
            names.extend(new)
    model.graph.input[0].name = "pixels"
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "theirs.onnx")
    extract(photos, str(tmp_path / "theirs.onnx"), resize=16)
    (run,) = fit_heads(heads=["logreg"])
    path = export(run.path, out=tmp_path / "run.onnx").path
    found = outputs(path, image=test_images(photos, run))
    assert np.abs(found["probabilities"] - run.predictions().probabilities).max() < 1e-5
    assert load_model(str(path)).key == run.key


@pytest.mark.parametrize("name", ["ridge", "knn", "lightgbm", "dense"])
def test_classes_that_were_never_seen_have_probability_0(name: str) -> None:
    rows, labels = rows_of()
    head = fitted(name, rows, np.array([1, 2, 4])[labels], 6)
    found = outputs(head_alone(head), embedding=rows)
    assert not found["probabilities"][:, [0, 3, 5]].any()
    assert np.abs(found["probabilities"] - head.predict_proba(rows)).max() < 1e-5
    assert found["label"].tolist() == head.predict(rows).tolist()


@pytest.mark.parametrize("name", HEADS)
def test_constant_features_and_such_with_a_far_mean_are_standardised_as_in_the_head(name: str) -> None:
    rows, labels = rows_of(classes=2)
    rows[:, 0] = 7
    rows[:, 1] = 20_000 + rows[:, 1]
    head = fitted(name, rows, labels, 2)
    assert np.isinf(head.scaler.scale[0])
    assert check_head(head, rows, "rows").worst < HEADS[name].tolerance
    moved = rows + np.eye(12, dtype=np.float32)[0]  # a constant feature has no say
    moved_found, found = (outputs(head_alone(head), embedding=each)["probabilities"] for each in (moved, rows))
    assert np.array_equal(moved_found, found)


@pytest.mark.parametrize(("opset", "name"), [(8, "svm"), (9, "logreg"), (10, "knn"), (12, "lightgbm"), (21, "knn")])
def test_networks_of_any_operator_set_take_a_head(opset: int, name: str) -> None:
    rows, labels = rows_of(dim=8)
    head = fitted(name, rows, labels, 4)
    network = tiny_network()
    network.opset_import[0].version = opset
    images = np.random.default_rng(0).integers(0, 256, (5, 3, 16, 16), dtype=np.uint8)
    found = outputs(classified(network.SerializeToString(), head).SerializeToString(), image=images)
    expected = head.predict_proba(found["embedding"])
    assert np.abs(found["probabilities"] - expected).max() < HEADS[name].tolerance


@pytest.mark.parametrize("by", ["its own average", "a batch of 4"])
def test_a_network_that_takes_so_many_images_at_a_time_still_does(by: str, photos: Path, tmp_path: Path) -> None:
    """Embeddings that depend on their batch are found when the network is tried; a batch may be fixed as well."""
    model = tiny_network()
    if by == "a batch of 4":
        for value in (model.graph.input[0], model.graph.output[0]):
            value.type.tensor_type.shape.dim[0].dim_value = 4
    else:
        last = model.graph.node.pop()
        model.graph.node.append(onnx.helper.make_node("ReduceMax", ["pooled"], ["most"], keepdims=1))
        model.graph.node.append(onnx.helper.make_node("Div", ["pooled", "most"], ["shares"]))
        last.input[0] = "shares"
        model.graph.node.append(last)
    onnx.save(model, tmp_path / "net.onnx")
    extract(photos, str(tmp_path / "net.onnx"))
    (run,) = fit_heads(heads=["ridge"])
    written = export(run.path, out=tmp_path / "run.onnx", half=True)
    assert written.cost is not None
    written = export(run.path, out=tmp_path / "run.onnx")
    size = 4 if by == "a batch of 4" else 1
    found = outputs(written.path, image=test_images(photos, run)[:size])["probabilities"]
    assert np.abs(found - run.predictions().probabilities[:size]).max() < 1e-5
    assert written.recorded is not None
    assert written.recorded.same == 6


def test_neighbours_need_operators_that_old_networks_lack(photos: Path) -> None:
    del photos
    rows, labels = rows_of(dim=8)
    network = tiny_network()
    network.opset_import[0].version = 8
    with pytest.raises(ModelError, match=r"version 8.*need 10 or later"):
        classified(network.SerializeToString(), fitted("knn", rows, labels, 3))


def test_too_many_neighbours_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heads, "_MOST_ROWS", 89)
    rows, labels = rows_of()
    with pytest.raises(ModelError, match=r"knn head has 90 training rows.*at most 89.*such as logreg"):
        head_alone(fitted("knn", rows, labels, 3))


def test_thresholds_of_trees_decide_as_in_double_precision() -> None:
    exact = np.array([0.1, -0.1, 1 / 3, 1.0, 0.0, 1e-40, -1e-40, 16_777_217.0])
    below = rounded_down(exact)
    assert below.dtype == np.float32
    assert (below <= exact).all()
    assert (np.nextafter(below, np.float32(np.inf)) > exact).all()


def splits_of(node: dict[str, Any]) -> Iterator[tuple[int, float]]:
    """Yield feature and threshold of every split of a tree."""
    if "split_feature" in node:
        yield node["split_feature"], node["threshold"]
        yield from splits_of(node["left_child"])
        yield from splits_of(node["right_child"])


def test_rows_that_lie_on_a_threshold_go_the_way_of_the_trees() -> None:
    """Every threshold of every component is met, from both sides."""
    rows, labels = rows_of(200, 3)
    head = fitted("lightgbm", rows, labels, 3, rounds=20)
    head = replace(head, scaler=Scaler.of(rows, scaled=False))
    head.head.vectors_ = np.eye(3, dtype=np.float32)  # the components are the features
    head.head.middle_ = np.zeros(3, np.float32)
    trees = lightgbm.Booster(model_str=head.head.text_.tobytes().decode()).dump_model()["tree_info"]
    met = {each for tree in trees for each in splits_of(tree["tree_structure"]) if abs(each[1]) > 1e-30}  # less is 0
    features, thresholds = (np.array(each) for each in zip(*sorted(met), strict=True))
    assert len(met) > 30
    on = np.zeros((len(met), 3), np.float32)
    on[np.arange(len(met)), features] = rounded_down(thresholds)
    for some in (on, np.nextafter(on, np.float32(np.inf)), np.nextafter(on, np.float32(-np.inf))):
        found = outputs(head_alone(head), embedding=some)["probabilities"]
        assert np.abs(found - head.predict_proba(some)).max() < 1e-5


def _shifted(nodes: Nodes, rows: str, head: Head) -> str:
    return nodes.add("Mul", heads.layers(nodes, rows, head), np.float32(1.001))


def test_a_file_that_would_answer_otherwise_is_not_written(
    ridge: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(HEADS, "ridge", replace(HEADS["ridge"], exporter=f"{__name__}:_shifted"))
    with pytest.raises(ModelError, match=r"exported ridge head is not the same: for \d of 6 cached embeddings"):
        export(ridge.path, out=tmp_path / "run.onnx")
    assert not (tmp_path / "run.onnx").exists()


class Steps(Head):
    """Sure of the first class below 0, and of the second from there on."""

    def _logits(self, X: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.where(X[:, :1] < self.edge, [[4, 0]], [[0, 4]]).astype(np.float32)  # type: ignore[attr-defined]


def test_where_rounding_decides_an_answer_may_differ_but_not_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """The head steps at 1, and the graph a little above: no row but those within rounding may tell."""
    row = HeadRow("steps", f"{__name__}:Steps", {}, {}, False, "", 1.0, exporter=f"{__name__}:_step_at_1")
    monkeypatch.setitem(HEADS, "steps", row)
    head = Steps()
    head.classes_, head.n_features_in_, head.edge = np.arange(2), 1, np.float32(1)  # type: ignore[attr-defined]
    made = FittedHead("steps", head, Scaler(np.zeros(1, np.float32), np.ones(1, np.float32)), 1.0, ("a", "b"), "t", "k")
    rows = np.linspace(-3, 3, 200, dtype=np.float32)[:, None]
    rows[7] = 1
    found = check_head(made, rows, "rows")
    assert (found.worst, found.at_a_jump) == (0, 1)
    rows[7:20] = 1
    with pytest.raises(ModelError, match="for 13 of 200 rows"):
        check_head(made, rows, "rows")
    rows[7:20] = 0.5
    head.edge = np.float32(0.4)  # type: ignore[attr-defined]
    with pytest.raises(ModelError, match="up to 9.6e-01"):
        check_head(made, rows, "rows")


def _step_at_1(nodes: Nodes, rows: str, head: Any) -> str:
    del head
    above = nodes.add("Cast", nodes.add("Less", np.float32([1]), rows), to=1)
    signs = nodes.add("Sub", nodes.add("Mul", above, np.float32(2)), np.float32(1))
    return nodes.add("MatMul", signs, np.float32([[-2, 2]]))


def test_a_head_from_outside_is_exported_by_its_layers_or_by_what_its_row_names(
    photos: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(HEADS, CENTROIDS.name, CENTROIDS)
    extract(photos, str(tiny_model))
    (run,) = fit_heads(heads=["centroids"])
    assert export(run.path, out=tmp_path / "run.onnx").checks[0].worst < 1e-5
    monkeypatch.setattr("test_extending.Centroids.layers", None)
    monkeypatch.delattr("tlcache.heads.base.LinearHead.layers")
    monkeypatch.delattr("test_extending.Centroids.layers")
    with pytest.raises(ModelError, match=r"head 'centroids' cannot be exported.*exporter='module:function'"):
        export(run.path, out=tmp_path / "run.onnx")
    monkeypatch.setitem(HEADS, CENTROIDS.name, replace(CENTROIDS, exporter=f"{__name__}:_centroids"))
    assert export(run.path, out=tmp_path / "run.onnx").checks[0].worst < 1e-5


def _centroids(nodes: Nodes, rows: str, head: Any) -> str:
    return nodes.add("Gemm", rows, head.coef_, head.intercept_)


def test_without_the_cache_and_the_images_made_ones_are_compared(ridge: Run, photos: Path, tmp_path: Path) -> None:
    Path(ridge.features).unlink()
    photos.rename(tmp_path / "elsewhere")
    written = export(ridge.path, out=tmp_path / "run.onnx")
    assert [each.what.partition(",")[0] for each in written.checks] == ["made-up embeddings", "made-up images"]
    assert written.recorded is None
    ridge.predictions_path.unlink()
    assert export(ridge.path, out=tmp_path / "run.onnx").recorded is None


def test_a_head_alone_is_enough_where_its_network_is_known(
    ridge: Run, photos: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = ridge.head_path.rename(tmp_path / "head.safetensors")
    with pytest.raises(UnknownNameError, match="Unknown backbone 'tiny'"):
        export(alone, out=tmp_path / "run.onnx")
    monkeypatch.setattr("tlcache.backbones.load.find", lambda name: find(str(tiny_model) if name == "tiny" else name))
    path = export(alone, out=tmp_path / "run.onnx").path
    found = outputs(path, image=test_images(photos, ridge))["probabilities"]
    assert np.abs(found - ridge.predictions().probabilities).max() < 1e-5
    assert "run" not in metadata(path)
    replace(load_head(alone), key="0" * 64).save(alone)
    with pytest.raises(ModelError, match=r"its record, head.json, which says how they were made, is not beside it"):
        export(alone, out=tmp_path / "run.onnx")


def test_a_network_that_has_changed_since_is_refused(ridge: Run, tiny_model: Path, tmp_path: Path) -> None:
    onnx.save(tiny_network(seed=1), tiny_model)
    with pytest.raises(ModelError, match=rf"takes embeddings of tiny, key {ridge.key[:12]}; tiny .* now has key"):
        export(ridge.path, out=tmp_path / "run.onnx")


def test_runs_are_named_by_their_files_or_by_their_stem(ridge: Run, tmp_path: Path) -> None:
    out = tmp_path / "run.onnx"
    files = [export(name, out=out).path.read_bytes() for name in (ridge.path, ridge.head_path, ridge.path.stem)]
    assert files[0] == files[1] == files[2]
    fit_heads(heads=["knn"])
    with pytest.raises(OptionError, match=r"run\.onnx\.gz' does not end with \.onnx"):
        export(ridge.path, out=tmp_path / "run.onnx.gz")
    for name, words in (
        ("tiny-ridge", f"Unknown run 'tiny-ridge'. Did you mean '{ridge.path.stem}'"),
        ("tiny-*", "'tiny-*' names 2 runs"),
        ("resnet50", "'resnet50' is a network, not a run. For a network alone: --model resnet50"),
    ):
        with pytest.raises(OptionError) as refused:
            export(name, out=out)
        assert words in str(refused.value)
    (tmp_path / "text").write_text("no head")
    with pytest.raises(HeadError, match=r"text' is no head or network of a run"):
        export(tmp_path / "text", out=out)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "Give a run (see: tlcache runs) or --best, or with --model a network alone"),
        (["--best", "-m", "resnet50"], "Given are --best and --model resnet50. Give one of them."),
        (["--best", "x.json"], "Given are the run 'x.json' and --best. Give one of them."),
        (["x.json", "--data", "photos"], "--data photos is of --best, which chooses a run."),
        (["--best", "--pool", "max"], "A run has its own weights, layer and pooling"),
        (["x.json", "-m", "resnet50"], "Given are the run 'x.json' and --model resnet50. Give one of them."),
        (["x.json", "--pool", "max"], "A run has its own weights, layer and pooling"),
        (["x.json"], "There is no run at 'x.json', and none is recorded in"),
        (["x.json", "--max-loss", "2"], "--max-loss 2 is of --half and --int8. Give one of these, too."),
        (["-m", "resnet50", "-o", "x.pt"], "'x.pt' does not end with .onnx, by which such a file is known."),
        (["-m", "resnet50", "-o", "x.onnx.data"], "'x.onnx.data' does not end with .onnx"),
    ],
)
def test_a_run_or_a_network_is_asked_for(arguments: list[str], words: str) -> None:
    result = CliRunner().invoke(app, ["export", *arguments, *([] if "-o" in arguments else ["-o", "x.onnx"])])
    assert result.exit_code == 2
    assert words in " ".join(result.stderr.split())


def test_the_command_tells_what_was_compared(ridge: Run) -> None:
    result = CliRunner().invoke(app, ["export", str(ridge.path), "-o", "run.onnx", "--json", "run.json"])
    assert result.exit_code == 0
    assert "Of 6 test images it answers 6 as recorded" in result.stdout
    figures = json.loads(Path("run.json").read_text())
    assert figures["bytes"] == Path("run.onnx").stat().st_size
    assert [each["n"] for each in figures["checks"]] == [6, 6]


@pytest.mark.usefixtures("ridge")
def test_the_best_run_is_the_one_that_predict_takes(photos: Path) -> None:
    fit_heads(heads=["knn"])
    named = CliRunner().invoke(app, ["predict", "--best", str(photos / "red")])
    result = CliRunner().invoke(app, ["export", "--best", "--data", "photos", "-o", "best.onnx"])
    assert result.exit_code == 0, result.output
    predicted, exported = (
        re.findall(r"tiny-\w+-\w{12}, .*recorded", " ".join(each.stderr.split())) for each in (named, result)
    )
    assert predicted == exported
    best = exported[0].partition(",")[0]
    export(best, out="named.onnx")
    assert Path("best.onnx").read_bytes() == Path("named.onnx").read_bytes()


@pytest.mark.parametrize("what", ["head", "record", "network"])
def test_a_file_of_the_run_is_not_written_over(what: str, ridge: Run, tiny_model: Path) -> None:
    out = {"head": ridge.head_path, "record": ridge.path, "network": tiny_model}[what]
    before = out.read_bytes()
    with pytest.raises(OptionError, match="is a file of the run itself, which needs it. Give another --out"):
        export(ridge.path, out=out)
    assert out.read_bytes() == before


def test_a_fine_tuned_network_answers_as_its_record(photos: Path, tmp_path: Path, tinynet: None) -> None:
    del tinynet
    run = finetune(photos, "tinynet", "random", epochs=1, precision="fp32", layout="contiguous", head="dense")
    written = export(run.path, out=tmp_path / "tuned.onnx")
    found, known = outputs(written.path, image=test_images(photos, run)), run.predictions()
    assert list(found) == ["probabilities", "label", "embedding"]
    assert np.abs(found["probabilities"] - known.probabilities).max() < 1e-5
    assert found["label"].tolist() == [CLASSES[number] for number in known.probabilities.argmax(axis=1)]
    assert written.recorded is not None
    assert written.recorded.same == 6
    stated = metadata(written.path)
    assert (stated["head"], stated["run"], stated["licence"]) == ("dense", run.path.stem, "unknown")
    tuned = load_model("tinynet", str(run.head_path))
    assert stated["key"] == tuned.key == load_model(str(written.path)).key
    run.path.unlink()
    alone = export(run.head_path, out=tmp_path / "alone.onnx")
    assert np.array_equal(outputs(alone.path, image=test_images(photos, run))["probabilities"], found["probabilities"])


def broken(network: bytes, *_: object) -> bytes:
    """Return a network that gives all images one embedding, as one that was quantised badly may."""
    model = onnx.load_model_from_string(network)
    for tensor in model.graph.initializer:
        tensor.CopyFrom(onnx.numpy_helper.from_array(0 * onnx.numpy_helper.to_array(tensor), tensor.name))
    return model.SerializeToString()


@pytest.mark.parametrize(("precision", "apart"), [("half", 1e-3), ("int8", 0.03)])
def test_a_smaller_file_says_what_it_costs_on_validation(
    precision: str, apart: float, ridge: Run, photos: Path, tmp_path: Path
) -> None:
    written = export(ridge.path, out=tmp_path / "run.onnx", **{precision: True})
    found, whole = (
        outputs(path, image=test_images(photos, ridge))
        for path in (written.path, export(ridge.path, out=tmp_path / "whole.onnx").path)
    )
    assert list(found) == list(whole)
    gone = np.abs(found["embedding"] - whole["embedding"]).max() / np.abs(whole["embedding"]).max()
    assert 0 < gone < apart
    with open_features(ridge.features) as file:
        train, val = file.split("train"), file.split("val")
    scaler, head = Scaler.of(train.features), load_head(ridge.head_path).head
    alone = type(head)(**head.get_params()).fit(scaler.over(train.features), train.labels)
    assert written.cost is not None
    assert (written.cost.n, written.cost.before) == (6, (alone.predict(scaler(val.features)) == val.labels).mean())
    assert written.cost.low <= written.cost.after - written.cost.before <= written.cost.high
    stated = metadata(written.path)
    assert stated["precision"] == written.cost.precision == {"half": "fp16", "int8": "int8"}[precision]
    assert json.loads(stated["cost"])["before"] == written.cost.before
    assert load_model(str(written.path)).key != ridge.key  # its embeddings are others
    assert extract(photos, str(written.path), name="again").embedded == 24


def test_making_integers_shows_how_far_it_is(ridge: Run, tmp_path: Path) -> None:
    bars = list[tuple[str, int, int]]()

    @contextmanager
    def display(kind: str, label: str, total: int) -> Iterator[Any]:
        assert kind == "images"
        done = list[int]()
        yield done.append
        bars.append((label, total, sum(done)))

    set_display(display)
    try:
        export(ridge.path, out=tmp_path / "run.onnx", int8=True)
    finally:
        set_display(None)
    assert bars == [("calibrating", 12, 12), ("measuring int8", 6, 6)]


def test_a_smaller_file_that_loses_more_than_it_may_is_not_written(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    extract(write_photos(tmp_path / "photos", 24), str(tiny_model))
    (run,) = fit_heads(heads=["ridge"])
    monkeypatch.setattr("tlcache.deploying.smaller.to_precision", broken)
    with pytest.raises(ModelError, match=r"In int8 the accuracy on 15 .* in fp32 1.000: -66.7 points .*--max-loss 1"):
        export(run.path, out=tmp_path / "run.onnx", int8=True)
    assert not (tmp_path / "run.onnx").exists()
    cost = export(run.path, out=tmp_path / "run.onnx", int8=True, max_loss=70).cost
    assert cost is not None
    assert (cost.before, cost.after) == (1, pytest.approx(1 / 3))


@pytest.mark.parametrize("precision", ["half", "int8"])
def test_a_fine_tuned_network_is_made_smaller(precision: str, photos: Path, tmp_path: Path, tinynet: None) -> None:
    del tinynet
    run = finetune(photos, "tinynet", "random", epochs=1, precision="fp32", layout="contiguous")
    written = export(run.path, out=tmp_path / "run.onnx", **{precision: True})
    found, whole = outputs(written.path, image=test_images(photos, run)), run.predictions().probabilities
    assert np.abs(found["probabilities"] - whole).max() < (0.01 if precision == "half" else 0.2)
    assert written.cost is not None
    assert written.cost.before == run.history[run.chosen.epochs.backbone].val_accuracy


def test_what_a_smaller_file_costs_needs_images_embeddings_and_a_record(
    ridge: Run, photos: Path, tmp_path: Path
) -> None:
    moved = photos.rename(tmp_path / "elsewhere")
    with pytest.raises(CacheError, match=r"measured on the images of the run, and one cannot be had. Cannot read"):
        export(ridge.path, out="x.onnx", int8=True)
    moved.rename(photos)
    Path(ridge.features).rename(tmp_path / "features.h5")
    with pytest.raises(CacheError, match=r"feature file of the run. Cannot open"):
        export(ridge.path, out="x.onnx", int8=True)
    with pytest.raises(OptionError, match="two precisions"):
        export(ridge.path, out="x.onnx", int8=True, half=True)
    with pytest.raises(OptionError, match="Give a run instead of --model"):
        export(model="resnet20_cifar", out="x.onnx", int8=True)
    assert not Path("x.onnx").exists()


def test_embeddings_of_another_engine_are_told_and_answered_in_float32(
    photos: Path, tiny_model: Path, tmp_path: Path
) -> None:
    pytest.importorskip("openvino")
    extract(photos, str(tiny_model), engine="openvino")
    (run,) = fit_heads(heads=["ridge"])
    result = CliRunner().invoke(app, ["export", str(run.path), "-o", str(tmp_path / "run.onnx")])
    assert "computed by openvino in fp32; the file computes in fp32" in " ".join(result.stderr.split())
    assert "Of 6 test images it answers 6 as recorded" in result.stdout


def test_weights_beside_a_graph_are_put_back_for_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tlcache.backbones.onnx_weights.MOST_BYTES", 0)
    monkeypatch.setattr("tlcache.backbones.onnx_weights._LARGE", 0)
    onnx.save(tiny_network(), tmp_path / "large.onnx")
    model = onnx.load(tmp_path / "large.onnx")
    _, apart = read_weights(tmp_path / "large.onnx", model)
    found = packed(model, apart)
    assert not isinstance(found, bytes)
    image = np.random.default_rng(0).integers(0, 256, (2, 3, 16, 16), dtype=np.uint8)
    expected = outputs(tiny_network().SerializeToString(), image=image)["embedding"]
    assert np.array_equal(outputs(joined(found), image=image)["embedding"], expected)
    monkeypatch.setattr("tlcache.backbones.onnx_weights._MESSAGE", 100)
    with pytest.raises(ModelError, match="one ONNX file can have 2"):
        joined(found)


def test_a_run_that_knows_what_is_unusual_gives_the_distance(photos: Path, tiny_model: Path, tmp_path: Path) -> None:
    done = extract(photos, str(tiny_model))
    (run,) = fit_heads(heads=["ridge"], coverage=0.9)
    path = export(run.path, out=tmp_path / "run.onnx").path
    found, head = outputs(path, image=test_images(photos, run)), load_head(run.head_path)
    assert list(found) == ["probabilities", "label", "embedding", "distance"]
    assert head.uncertainty is not None
    with open_features(done.path) as file:
        expected = head.uncertainty.distances(file.split("test").features)
    assert np.abs(found["distance"] - expected).max() < 1e-6
    promised = Uncertainty.of_tables(json.loads(metadata(path)["uncertainty"]))
    assert promised.coverage == 0.9
    assert np.array_equal(promised.unusual(expected), head.uncertainty.unusual(expected))
    assert np.array_equal(promised.sets(found["probabilities"]), head.uncertainty.sets(found["probabilities"]))


def test_class_names_of_any_script_are_the_labels() -> None:
    rows, labels = rows_of(classes=2)
    head = replace(fitted("ridge", rows, labels, 2), classes=("Café", "猫"))
    found = outputs(head_alone(head), embedding=rows[:2])
    assert found["label"].tolist() == ["Café", "猫"]
