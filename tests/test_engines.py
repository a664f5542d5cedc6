"""`tlcache engines` and `--engine auto`: what is fast here, what it costs, and that the machine decides no key."""

import json
import time
from pathlib import Path

import numpy as np
import pytest
from fakes import tiny_network, write_photos
from numpy.typing import NDArray
from typer.testing import CliRunner

from tlcache.backbones import paces
from tlcache.backbones.load import load_model
from tlcache.backbones.network import Network
from tlcache.backbones.paces import fastest_engine, measure, ways
from tlcache.cli import app
from tlcache.errors import DataError, DeviceError
from tlcache.extraction.embedder import ImageEmbedder
from tlcache.extraction.extract import extract
from tlcache.probing import costs
from tlcache.probing.engines import engines
from tlcache.probing.fit import fit_heads

pytest.importorskip("openvino")


@pytest.fixture(autouse=True)
def vnni(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tlcache.backbones.engines.has_vnni", lambda: True)
    monkeypatch.setattr("tlcache.backbones.engines._has_gpu", lambda: False)
    monkeypatch.setattr("tlcache.backbones.engines._openvino_abilities", lambda: ["FP32"])


class Sleeping(Network):
    """A network that takes so many milliseconds for an image."""

    def __init__(self, milliseconds: float) -> None:
        self.provider, self.shape, self.dim, self.precision, self.ms = "sleep", (4, 4), 1, "fp32", milliseconds

    def _run(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        time.sleep(self.ms * len(images) / 1000)
        return np.ones((len(images), 1), np.float32)


def test_paces_are_of_images_whatever_a_call_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tlcache.backbones.paces.available_cpus", lambda: 2)
    slow, fast = measure([(Sleeping(4), 2), (Sleeping(1), 8)], np.zeros((3, 3, 4, 4), np.uint8), 0.09)
    assert len(slow) == len(fast) == 3
    assert np.median(slow) == pytest.approx(500, rel=0.2)
    assert np.median(fast) / np.median(slow) == pytest.approx(4, rel=0.3)


def test_every_way_is_listed_with_what_is_missing() -> None:
    found = {str(way): why for way, why in ways()}
    assert list(found) == [
        "onnxruntime fp32", "onnxruntime int8", "onnxruntime fp32 on cuda", "onnxruntime fp16 on cuda",
        "openvino fp32", "openvino bf16",
    ]  # fmt: skip
    assert found["openvino bf16"] == "this processor has no bf16 arithmetic (AVX-512 BF16 or AMX)"
    assert [name for name, why in found.items() if not why] == ["onnxruntime fp32", "onnxruntime int8", "openvino fp32"]
    assert [way.device for way, _ in ways("cuda")] == ["cuda", "cuda"]


def test_each_way_says_what_it_costs(photos: Path, tiny_model: Path) -> None:
    (photos / "red" / "0.png").write_bytes(b"no image")
    first, low, other = (each for each in engines(tiny_model, data=photos, seconds=0.03) if not each.why_not)
    assert (first.times, first.differs, first.against_first, first.exact) == (1, 0, None, True)
    assert 0.001 < (low.differs or 0) < 0.05
    assert (other.differs or 0) < 1e-4
    assert other.against_first is not None
    assert (other.against_first.won, other.against_first.lost) == (0, 0)
    assert [each.n for each in (first, low, other)] == [23] * 3
    assert first.accuracy == other.accuracy == 1
    assert first.images_per_s is not None
    assert first.images_per_s > 100
    assert not low.exact


def test_how_many_times_as_many_and_how_many_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    first, other = (way for way, why in ways("cpu") if not why and way.precision == "fp32")
    rounds = [[100.0, 50.0, 200.0], [300.0, 60.0, 180.0]]  # in the second one the machine did something else, too
    monkeypatch.setattr(costs, "measure", lambda *_: rounds)
    known = {way: costs.EngineCost(way.engine, way.precision, way.device) for way in (first, other)}
    found = costs._timed(known, dict.fromkeys(known, (Sleeping(1), 1)), np.zeros((1, 3, 4, 4), np.uint8), 1.0)
    assert [(each.images_per_s, each.times) for each in found.values()] == [(100, 1), (pytest.approx(120), 1.2)]


def test_images_for_testing_are_not_looked_at(photos: Path, tiny_model: Path) -> None:
    (photos / "test").mkdir()
    for folder in [each for each in photos.iterdir() if each.name != "test"]:
        write = photos / "train" / folder.name
        write.parent.mkdir(exist_ok=True)
        folder.rename(write)
        (photos / "test" / folder.name).mkdir()
        for image in list(write.iterdir())[:3]:
            image.rename(photos / "test" / folder.name / image.name)
    assert engines(tiny_model, data=photos, seconds=0.01)[0].n == 15
    assert engines(tiny_model, data=photos, seconds=0.01, sample=10)[0].n == 10


def test_images_without_labels_tell_differences_alone(photos: Path, tiny_model: Path) -> None:
    flat = photos.parent / "flat"
    flat.mkdir()
    for number, path in enumerate(sorted(photos.rglob("*.png"))):
        path.rename(flat / f"{number}.png")
    first, low, *_ = engines(tiny_model, data=flat, seconds=0.01)
    assert (first.accuracy, first.n, low.against_first) == (None, 0, None)
    assert (low.differs or 0) > 0
    for path in flat.iterdir():
        path.write_bytes(b"no image")
    with pytest.raises(DataError, match="flat: of 24 images that are not for testing, 0 can be used"):
        engines(tiny_model, data=flat, seconds=0.01)


def test_a_network_that_one_engine_does_not_take_runs_by_others(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tlcache.backbones.quantised._PRODUCTS", set())
    found = {f"{each.engine} {each.precision}": each for each in engines(tiny_model, seconds=0.01, device="cpu")}
    assert "no convolutions" in found["onnxruntime int8"].why_not
    assert found["openvino fp32"].times


def test_the_table_and_the_figures_say_the_same(photos: Path, tiny_model: Path, tmp_path: Path) -> None:
    words = ["engines", "--model", str(tiny_model), "--data", str(photos), "--seconds", "0.03", "--json", "x.json"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    written = json.loads((tmp_path / "x.json").read_text())["engines"]
    assert [each["precision"] for each in written] == ["fp32", "int8", "fp32", "fp16", "fp32", "bf16"]
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["Engine", "Images/s", "Times", "Differs", "Accuracy", "Points", "(95", "%)"]
    assert lines[1].split()[:2] == ["onnxruntime", "fp32"]
    assert f"{written[1]['accuracy']:.3f}" in lines[2]
    assert "onnxruntime fp16 on cuda: there is no CUDA device here" in done.stdout.replace("this ONNX Runtime is", "")
    assert max(map(len, lines)) <= 100


@pytest.mark.parametrize(
    ("rates", "chosen"),
    [
        ({"onnxruntime": 100.0, "openvino": 105.0}, "onnxruntime"),
        ({"onnxruntime": 100.0, "openvino": 120.0}, "openvino"),
        ({"onnxruntime": 100.0, "openvino": 20.0}, "onnxruntime"),
        ({"openvino": 20.0}, "openvino"),
        ({"onnxruntime": 0.0}, "onnxruntime"),
    ],
)
def test_auto_takes_what_is_clearly_faster_once_and_for_all(
    rates: dict[str, float], chosen: str, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = list[str]()
    monkeypatch.setattr(paces, "_measured_apart", lambda model, *_: asked.append(model.key) or rates)
    model = load_model(str(tiny_model))
    assert [fastest_engine(model), fastest_engine(model)] == [chosen] * 2
    assert asked == [model.key]
    monkeypatch.setattr("tlcache.backbones.paces.hardware", lambda: {"cpu": "another"})
    fastest_engine(model)
    assert len(asked) == 2


def test_auto_is_of_one_precision(tiny_model: Path) -> None:
    assert fastest_engine(load_model(str(tiny_model), precision="int8")) == "onnxruntime"  # without a measurement
    with pytest.raises(DeviceError, match="no bf16 arithmetic|which --engine openvino"):
        extract(write_photos(Path("some")), str(tiny_model), engine="auto", precision="bf16")


def test_what_auto_takes_decides_no_key(photos: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paces, "_measured_apart", lambda *_: {"onnxruntime": 1.0, "openvino": 9.0})
    done = extract(photos, str(tiny_model), engine="auto")
    assert done.provider == "OpenVINO fp32"
    (run,) = fit_heads([done.path], ["ridge"])
    assert run.extract_arguments["engine"] == "openvino"
    assert extract(photos, str(tiny_model)).path == done.path
    network, size = ImageEmbedder(str(tiny_model), engine="auto")._network(load_model(str(tiny_model)))
    assert (network.provider, size) == ("OpenVINO fp32", 16)


def test_engines_are_measured_in_a_process_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "tiny.onnx"
    path.write_bytes(tiny_network().SerializeToString())
    found = paces._measured_apart(load_model(str(path)), "cpu", ["onnxruntime", "openvino"])
    assert set(found) == {"onnxruntime", "openvino"}
    assert all(rate > 10 for rate in found.values())
    monkeypatch.setattr("sys.executable", "/bin/false")
    assert paces._measured_apart(load_model(str(path)), "cpu", ["onnxruntime"]) == {"onnxruntime": 0}
