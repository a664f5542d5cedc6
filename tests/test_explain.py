"""What speaks for an answer: exact where it can be, at the right place, said how it is known, and clear refusals."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from fakes import tiny_network, write_image
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from PIL import Image
from rich.console import Console
from test_cli import invoke
from typer.testing import CliRunner

import tlcache
from tlcache.backbones.integers import Apart
from tlcache.backbones.load import load_model
from tlcache.backbones.onnx_mean import averaged
from tlcache.backbones.onnx_weights import joined
from tlcache.cli import app
from tlcache.deploying.saved import find_saved
from tlcache.errors import DataError, OptionError
from tlcache.heads.fitted import load_head
from tlcache.images import prepare
from tlcache.pictures.choosing import chosen_method
from tlcache.pictures.explain import Explained, Explanation
from tlcache.pictures.heat import grid_of
from tlcache.pictures.occlusion import Occlusion
from tlcache.report.heat import explained_table, overlay


def fitted(file: Path, head: str) -> Any:
    (run,) = tlcache.fit_heads([file], heads=[head])
    return run


def reduced(rank: int, axes_as_input: bool) -> onnx.ModelProto:
    """Return the tiny network whose mean is a ReduceMean, of the map or of its places in a row."""
    model = tiny_network()
    nodes = [node for node in model.graph.node if node.op_type not in ("GlobalAveragePool", "Flatten")]
    given, axes = "z", [2, 3]
    if rank == 3:
        model.graph.initializer.append(numpy_helper.from_array(np.array([0, 8, -1], np.int64), "places"))
        nodes.append(helper.make_node("Reshape", ["z", "places"], ["row"]))
        given, axes = "row", [-1]
    if axes_as_input:
        model.graph.initializer.append(numpy_helper.from_array(np.array(axes, np.int64), "axes"))
        nodes.append(helper.make_node("ReduceMean", [given, "axes"], ["embedding"], keepdims=0))
    else:
        nodes.append(helper.make_node("ReduceMean", [given], ["embedding"], keepdims=0, axes=axes))
        model.opset_import[0].version = 13
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model


def tiled(kernel: tuple[int, int]) -> onnx.ModelProto:
    """Return the tiny network whose embedding is several means side by side, each of a tile of its 4 x 4 map."""
    model = tiny_network()
    kept = [node for node in model.graph.node if node.op_type not in ("GlobalAveragePool", "Flatten")]
    pool = helper.make_node("AveragePool", ["z"], ["tiles"], kernel_shape=kernel, strides=kernel)
    del model.graph.node[:]
    model.graph.node.extend([*kept, pool, helper.make_node("Flatten", ["tiles"], ["embedding"])])
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 8 * 16 // (kernel[0] * kernel[1])
    return model


@pytest.mark.parametrize(
    "made",
    [
        tiny_network,
        lambda: reduced(4, True),
        lambda: reduced(4, False),
        lambda: reduced(3, True),
        lambda: tiled((2, 2)),
        lambda: tiled((4, 2)),
    ],
)
@pytest.mark.parametrize("head", ["ridge", "logreg", "linear"])
def test_the_sum_of_the_map_is_the_logit(photos: Path, tmp_path: Path, made: Any, head: str) -> None:
    onnx.save(made(), tmp_path / "tiny.onnx")
    run = fitted(tlcache.extract(photos, tmp_path / "tiny.onnx").path, head)
    method, classes, preprocess = chosen_method(find_saved(run.path))
    assert method.name == "class activation map"
    pixels, _ = prepare((photos / "red" / "0.png").read_bytes(), preprocess)
    from tlcache.backbones.engines import open_network

    embedding = open_network(joined(load_model(str(tmp_path / "tiny.onnx")).onnx()), "cpu").embed(pixels[None])
    logits = load_head(run.head_path).logits(embedding)[0]
    for label in range(len(classes)):
        heat = method.heat(pixels, label)
        assert heat.shape == (4, 4)
        assert heat.sum() == pytest.approx(logits[label], rel=1e-3, abs=float(1e-3 * np.abs(logits).max()))


def test_a_network_that_ends_otherwise_has_no_such_map() -> None:
    model = tiny_network()
    pooled = next(node for node in model.graph.node if node.op_type == "GlobalAveragePool")
    pooled.op_type = "GlobalMaxPool"
    assert averaged(model.SerializeToString()) is None
    after = tiny_network()
    after.graph.node[-1].input[0] = "more"
    after.graph.node.insert(len(after.graph.node) - 1, helper.make_node("Sigmoid", ["pooled"], ["more"]))
    assert averaged(after.SerializeToString()) is None
    mean_of_channels = reduced(4, True)
    mean_of_channels.graph.initializer[-1].CopyFrom(numpy_helper.from_array(np.array([1], np.int64), "axes"))
    found = averaged(mean_of_channels.SerializeToString())
    assert found is None or found.axes == (1,)


def quarter_red(path: Path) -> Path:
    """Write an image whose upper left quarter alone is as those of the class called red, the rest as another."""
    pixels = np.random.default_rng(3).integers(0, 120, (16, 16, 3), dtype=np.uint8)
    pixels[:, :, 1] += 100
    pixels[:8, :8] -= np.array([0, 100, 0], np.uint8)
    pixels[:8, :8] += np.array([0, 0, 100], np.uint8)
    Image.fromarray(pixels).save(path)
    return path


@pytest.mark.parametrize("head", ["ridge", "ncm"])
def test_the_map_is_strongest_where_the_class_is(made: Path, tmp_path: Path, head: str) -> None:
    run = fitted(made, head)
    (found,) = tlcache.explain(run.path, quarter_red(tmp_path / "two.png"), label="red").images
    heat = found.heat - found.heat.min()
    side = len(heat) // 2
    assert found.label == "red"
    assert heat[:side, :side].mean() > 1.2 * heat[side:, side:].mean()


def test_heads_that_are_not_linear_are_explained_by_covering(made: Path, photos: Path) -> None:
    found = tlcache.explain(fitted(made, "knn").path, photos / "red" / "0.png")
    assert (found.method, found.images[0].heat.shape) == ("occlusion", (8, 8))
    assert "never seen" in found.shows
    assert "the knn head is not linear" in found.shows


@pytest.mark.parametrize("head", ["ridge", "ncm"])
def test_the_network_is_explained_in_the_precision_of_the_run(
    photos: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, head: str
) -> None:
    monkeypatch.setattr("tlcache.backbones.engines.has_vnni", lambda: True)
    monkeypatch.setattr("tlcache.backbones.integers._compare", lambda *_: Apart(0.1, 2.0))
    image, said = quarter_red(tmp_path / "two.png"), {}
    for precision in ("fp32", "int8"):
        run = fitted(tlcache.extract(photos, tiny_model, precision=precision).path, head)
        (found,) = tlcache.explain(run.path, image).images
        assert found.probability == pytest.approx(float(tlcache.predict(run.path, image).confidences[0, 0]), abs=1e-6)
        said[precision] = found.heat
    apart = said["fp32"].shape != said["int8"].shape or np.abs(said["fp32"] - said["int8"]).max() > 1e-5
    assert apart


class Corner:
    """A network that sees the first pixels alone."""

    def embed(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        return images[:, 0, :2, :2].reshape(len(images), -1).astype(np.float32)


def test_where_a_head_is_sure_its_odds_still_fall() -> None:
    def answer(rows: NDArray[np.float32]) -> NDArray[np.float32]:
        logit = rows.mean(axis=1) / 5
        return np.stack([1 / (1 + np.exp(-logit)), np.exp(-logit) / (1 + np.exp(-logit))], axis=1).astype(np.float32)

    pixels = np.full((3, 16, 16), 150, np.uint8)
    pixels[:, :2, :2] = 250
    heat = Occlusion(Corner(), answer).heat(pixels, 0)
    assert answer(Corner().embed(pixels[None]))[0, 0] == 1
    assert heat[0, 0] == pytest.approx((250 - int(pixels[0].mean())) / 5, rel=1e-4)


def test_what_changes_next_to_nothing_is_said_and_painted_so() -> None:
    grey, faint = np.full((3, 32, 32), 100, np.uint8), np.full((8, 8), 6e-4, np.float32)
    assert np.abs(overlay(grey, faint, 0.1).astype(int) - 100).max() <= 1
    assert np.abs(overlay(grey, faint).astype(int) - 100).max() > 50
    images = tuple(
        Explanation(name, "red", 1.0, "red", heat, grey) for name, heat in (("a", faint), ("b", 1000 * faint))
    )
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(explained_table(Explained("r", "occlusion", "", images, {}, 0.1)))
    text = " ".join(console.export_text().split())
    assert text.count("changes next to") == 1
    assert "+0.0006 covering" in text
    assert "+0.6 row 1 of 8" in text


def test_a_cell_is_told_by_all_patches_that_cover_it() -> None:
    def answer(rows: NDArray[np.float32]) -> NDArray[np.float32]:
        share = rows.mean(axis=1) / 255
        return np.stack([share, 1 - share], axis=1).astype(np.float32)

    pixels = np.full((3, 16, 16), 51, np.uint8)
    pixels[:, :2, :2] = 204
    heat = Occlusion(Corner(), answer).heat(pixels, 0)
    mean = int(pixels[0].mean())
    assert heat[0, 0] == pytest.approx(np.log(4) - np.log(mean / (255 - mean)), rel=1e-5)
    assert heat[0, 1] == pytest.approx(heat[0, 0] / 2, rel=1e-5)  # two of the four patches over it cover the first, too
    assert heat[1, 1] == pytest.approx(heat[0, 0] / 4, rel=1e-5)
    assert (heat[2:, 2:] == 0).all()


@pytest.mark.usefixtures("tinynet")
def test_a_fine_tuned_network_is_explained_by_its_gradients(photos: Path) -> None:
    how = {"epochs": 1, "batch_size": 8, "precision": "fp32", "layout": "contiguous"}
    run = tlcache.finetune(photos, "tinynet", "random", **how)
    found = tlcache.explain(run.path, photos / "red" / "0.png")
    assert found.method == "Grad-CAM"
    (each,) = found.images
    predicted = tlcache.predict(run.path, photos / "red" / "0.png")
    assert (each.predicted, each.probability) == (
        predicted.labels[0],
        pytest.approx(predicted.confidences[0, 0], abs=1e-4),
    )
    from tlcache.finetuning.saved import load_tuned

    network = load_tuned(run.head_path)
    features = network.embedding.trunk(network.embedding.normalised(torch.from_numpy(each.pixels[None])))
    weights = network.head[-1].weight if isinstance(network.head, torch.nn.Sequential) else network.head.weight
    label = run.classes.index(each.label)
    expected = torch.einsum("chw,c->hw", features[0], weights[label]).clamp(min=0).detach().numpy()
    assert each.heat.shape == expected.shape
    assert each.heat / each.heat.max() == pytest.approx(expected / expected.max(), abs=1e-4)


@pytest.mark.parametrize(
    ("places", "size", "grid"),
    [
        (49, (224, 224), (7, 7)),
        (32, (64, 128), (4, 8)),
        (50, (224, 224), None),
        (1, (32, 32), (1, 1)),
        (48, (90, 120), (6, 8)),
    ],
)
def test_places_are_a_grid_in_the_proportions_of_the_image(
    places: int, size: tuple[int, int], grid: tuple[int, int] | None
) -> None:
    assert grid_of(places, *size) == grid


def test_an_overlay_is_orange_where_it_speaks_for_and_blue_where_against() -> None:
    heat = np.array([[2, 0], [0, -1]], np.float32)
    made = overlay(np.full((3, 32, 32), 100, np.uint8), heat)
    assert made.shape == (32, 32, 3)
    strongest, weakest = made[0, 0].astype(int), made[-1, -1].astype(int)
    assert strongest[0] > 150 > strongest[2]
    assert weakest[2] > 110 > weakest[0]


def test_the_command_says_how_it_is_known_and_writes_pages_and_pictures(made: Path, photos: Path) -> None:
    run = fitted(made, "ridge")
    tested = run.predictions().row[0].decode()
    output = invoke("explain", run.path, photos / "red" / "0.png", tested, "--out", "e.html", "--json", "e.json")
    assert "class activation map: Exact" in " ".join(output.split())
    found = json.loads(Path("e.json").read_text())
    assert [each["path"] for each in found["images"]] == [tested, str(photos / "red" / "0.png")]
    assert np.array(found["images"][0]["heat"]).shape == (4, 4)
    page = Path("e.html").read_text()
    assert page.count("data:image/jpeg;base64,") == 2
    assert found["shows"].split(".")[0] in page.replace("&#39;", "'")
    invoke("explain", run.path, photos / "red" / "0.png", "--out", "e.png", "--label", "blue", "-q")
    with Image.open("e.png") as picture:
        assert picture.width >= 2 * 224
        assert picture.height >= 224 + 5 * 15
        below = np.asarray(picture.convert("L"))[224:]
        assert (below < 100).sum() > 200  # letters


def test_the_report_has_the_maps_of_mistakes_that_were_asked_for(photos: Path, tiny_model: Path) -> None:
    for number in range(8):  # images of one class among those of another, so that there are mistakes
        write_image(photos / "green" / f"odd{number}.png", 300 + number, 2)
    run = fitted(tlcache.extract(photos, tiny_model).path, "ridge")
    top = run.predictions().in_order().top()
    wrong = {path for path, right in zip(top.paths, top.right, strict=True) if not right}
    assert wrong
    before = tlcache.write_report("r.html")[0].read_text()
    assert f"tlcache explain {run.path.stem} --mistakes" in before
    found = tlcache.explain(run.path, mistakes=True)
    assert {each.path for each in found.images} == wrong
    page = tlcache.write_report("r.html")[0].read_text()
    assert "tlcache explain" not in page
    assert "Maps: class activation map; orange speaks for the wrong answer, blue against it. Exact" in page
    for each in found.images:
        assert f"class activation map: what speaks for {each.predicted}" in page
    assert page.count("data:image/jpeg;base64,") > before.count("data:image/jpeg;base64,")
    record = run.path.parent / "explained" / run.path.name
    assert record in tlcache.remove_runs([run])
    assert not record.exists()


def test_a_run_without_mistakes_says_so(made: Path) -> None:
    run = fitted(made, "ridge")
    assert run.predictions().top().right.all()
    with pytest.raises(OptionError, match="makes no mistake"):
        tlcache.explain(run.path, mistakes=True)


def test_an_image_that_cannot_be_used_costs_itself_alone(made: Path, photos: Path, tmp_path: Path) -> None:
    run = fitted(made, "ridge")
    (tmp_path / "cut.png").write_bytes((photos / "red" / "0.png").read_bytes()[:60])
    result = CliRunner().invoke(
        app,
        ["explain", str(run.path), str(photos / "red" / "0.png"), str(tmp_path / "cut.png"), str(tmp_path / "no.png")],
    )
    assert result.exit_code == 0
    assert "2 of 3 images cannot be used" in " ".join(result.output.split())
    assert CliRunner().invoke(app, ["explain", str(run.path), str(tmp_path / "cut.png")]).exit_code == 1


def test_of_no_usable_image_nothing_is_shown_but_why(made: Path) -> None:
    result = CliRunner().invoke(app, ["explain", str(fitted(made, "ridge").path), "no.png"])
    assert result.exit_code == 1
    assert "no.png (No such file or directory)" in " ".join(result.output.split())
    assert "embed again" not in result.output
    assert "Strongest" not in result.output
    assert "Exact" not in result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["photos/red/0.png", "--label", "violet"], "Unknown class 'violet'"),
        ([], "No images are given"),
        (["photos/red/0.png", "--out", "e.pdf"], "neither an .html page nor a .png"),
    ],
)
def test_what_cannot_be_asked_is_said(made: Path, arguments: list[str], message: str) -> None:
    run = fitted(made, "ridge")
    result = CliRunner().invoke(app, ["explain", str(run.path), *arguments])
    assert result.exit_code == 2
    assert message in " ".join(result.output.split())
    assert not Path("e.pdf").exists()


def test_runs_of_other_tasks_and_no_runs_are_refused(made: Path) -> None:
    fitted(made, "ridge")
    with pytest.raises((OptionError, DataError), match="nothing-of-that-name"):
        tlcache.explain("nothing-of-that-name", "photos/red/0.png")
