"""Using heads on joined embeddings: predictions through every network, one file of them, and clear refusals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from fakes import tiny_network, write_image
from onnx import helper
from test_joins import networks as networks
from typer.testing import CliRunner

from tlcache.bundle import load_model
from tlcache.cache.feature_file import Split
from tlcache.cache.joined import open_joined
from tlcache.cli import app
from tlcache.deploying.export import export
from tlcache.deploying.predict import predict
from tlcache.errors import ModelError
from tlcache.extraction.extract import extract
from tlcache.heads.uncertainty import Uncertainty
from tlcache.images import prepare
from tlcache.probing.fit import fit_heads
from tlcache.probing.heldout import distances_of
from tlcache.runs.frozen import FrozenRun


@pytest.fixture
def run(photos: Path, networks: list[str]) -> FrozenRun:
    for network in networks:
        extract(photos, network)
    (found,) = fit_heads(join="first+second+third", heads=["ridge"], coverage=0.8)
    return found


def test_new_images_go_through_every_network(run: FrozenRun, tmp_path: Path) -> None:
    new = [write_image(tmp_path / "new" / f"{number}.png", 900 + number, number % 3) for number in range(5)]
    (tmp_path / "new" / "2b.png").write_bytes(b"no image")
    found = predict(run, tmp_path / "new")
    assert found.labels == ["blue", "green", "red", "", "blue", "green"]
    assert list(found.errors) == [3]
    assert (found.embedded, found.reused) == (5, 0)
    one = predict(run, new[4])
    assert one.confidences[0] == pytest.approx(found.confidences[5], rel=1e-5)


def test_what_is_cached_of_each_network_is_used(run: FrozenRun, photos: Path) -> None:
    found = predict(run, photos)
    assert (found.embedded, found.reused) == (0, 24)
    recorded = dict(zip((row.decode() for row in run.predictions().row), run.predictions().probabilities, strict=True))
    for path, confidence in zip(found.paths, found.confidences[:, 0], strict=True):
        name = str(Path(path).relative_to(photos))
        if name in recorded:
            assert confidence == pytest.approx(recorded[name].max(), rel=1e-5)


def test_an_image_that_one_network_cannot_take_is_bad(
    run: FrozenRun, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tlcache.extraction import several

    whole = several.embed

    def spoiling(paths, request, key, take, **how):  # type: ignore[no-untyped-def]
        def without(block):  # type: ignore[no-untyped-def]
            if "second" not in request["model"]:
                return take(block)
            keep = [place for place, number in enumerate(block.good) if number != 4]
            return take(several.Block(block.start, block.stop, block.rows[keep], {**block.bad, 4: "spoiled"}))

        return whole(paths, request, key, without, **how)

    expected = predict(run, photos)
    monkeypatch.setattr(several, "embed", spoiling)
    found = predict(run, photos)
    assert found.errors == {4: "spoiled"}
    others = [number for number in range(24) if number != 4]
    assert np.array_equal(found.confidences[others], expected.confidences[others])


def test_one_file_holds_all_networks_and_answers_as_the_run(run: FrozenRun, photos: Path, tmp_path: Path) -> None:
    done = export(run.path, out=tmp_path / "joined.onnx")
    assert all(check.worst < 1e-5 for check in done.checks)
    assert done.checks[0].what == "cached embeddings of test images"
    assert done.recorded is not None
    assert done.recorded.same == done.recorded.n == 6
    graph = onnx.load(done.path).graph
    assert [value.name for value in graph.input] == ["image"]
    bundle = load_model(done.path)
    assert bundle.metadata["backbone"] == "first+second+third"
    assert bundle.metadata["licence"] == "unknown"
    found = predict(done.path, photos)
    expected = predict(run, photos)
    assert found.labels == expected.labels
    assert np.allclose(found.confidences, expected.confidences, atol=1e-5)
    assert found.p_values is not None
    assert expected.p_values is not None
    assert np.allclose(found.p_values, expected.p_values, atol=0.06)  # a rank of 18, where distances tie
    with open_joined([Path(each) for each in run.feature_files]) as file:
        rows = file.split("test")
    pixels = np.stack([prepare((photos / path).read_bytes(), bundle.preprocess)[0] for path in rows.paths])
    assert np.allclose(bundle.outputs(pixels)["embedding"], rows.features, rtol=1e-4)


def test_no_backbone_decides_alone_what_is_unusual() -> None:
    random = np.random.default_rng(0)
    usual, new = (random.normal(size=(200, 16)).astype(np.float32) for _ in range(2))
    new[:, 8:] += 6.0  # which the second of two networks tells, in numbers a thousandth as large
    usual[:, :8], new[:, :8] = (1000 * each[:, :8] + 3000 for each in (usual, new))
    names = tuple(map(str, range(200)))
    rows = Split(usual, np.zeros(200, np.int64), names, ("",) * 200, widths=(8, 8))
    joined, alone = distances_of(rows), distances_of(replace(rows, widths=()))
    assert joined.ranks.p_values(joined(new)).max() < 0.05
    assert np.median(alone.ranks.p_values(alone(new))) > 0.2
    kept = Uncertainty.of(np.full((200, 2), 0.5, np.float32), rows.labels, 0.9, False, joined)
    assert np.array_equal(Uncertainty.of_tables(kept.arrays()).distances(new), joined(new))


def other_size(path: Path) -> None:
    model = onnx.load(path)
    prop = next(each for each in model.metadata_props if each.key == "preprocess")
    prop.value = prop.value.replace('"resize": 16', '"resize": 20')
    onnx.save(model, path)


def other_opset(path: Path) -> None:
    model = onnx.load(path)
    del model.opset_import[:]
    model.opset_import.append(helper.make_opsetid("", 17))
    onnx.save(model, path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (other_size, r"first \(resize 16\) and third \(resize 20\) take images that are prepared differently.*predict"),
        (other_opset, "first and third cannot be one file: they are in different versions.*tlcache predict"),
    ],
)
def test_what_cannot_be_one_file_is_refused_and_predicts_all_the_same(
    photos: Path, networks: list[str], tmp_path: Path, change: Callable[[Path], None], words: str
) -> None:
    change(Path(networks[2]))
    for network in (networks[0], networks[2]):
        extract(photos, network)
    (run,) = fit_heads(join="first+third", heads=["ridge"])
    with pytest.raises(ModelError, match=words):
        export(run.path, out=tmp_path / "joined.onnx")
    assert not (tmp_path / "joined.onnx").exists()
    assert predict(run, photos / "red" / "0.png").labels == ["red"]


def test_a_head_without_its_record_says_what_is_missing(run: FrozenRun, photos: Path) -> None:
    run.path.unlink()
    for command in (["predict", str(run.head_path), str(photos)], ["export", str(run.head_path), "-o", "x.onnx"]):
        result = CliRunner().invoke(app, command)
        assert result.exit_code == 1
        assert "is not beside it. Put it there" in " ".join(result.output.split())


def test_networks_that_changed_are_told(run: FrozenRun, photos: Path, networks: list[str]) -> None:
    onnx.save(tiny_network(9), networks[1])
    with pytest.raises(ModelError, match=r"another one than the run's|now has key"):
        predict(run, photos)
    with pytest.raises(ModelError, match="now has key"):
        export(run.path, out="x.onnx")
