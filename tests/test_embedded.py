"""The backbone that is part of the package: its row, its weights and what they are worth, and their training."""

import hashlib
import json
import re
import tarfile
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from fakes import write_image

import tlcache
from benchmarks.resnet20_cifar.cifar import CLASSES, Images, read_folder, read_torchvision
from benchmarks.resnet20_cifar.train import Recipe, accuracy, train
from tlcache.backbones.embedded.network import resnet20_cifar
from tlcache.backbones.engines import open_network
from tlcache.backbones.load import load_model
from tlcache.backbones.sources import find
from tlcache.backbones.torch_network import pretrained
from tlcache.backbones.weights import load_state, resolve
from tlcache.datasets.dataset import load_dataset
from tlcache.errors import DataError, UnknownNameError, WeightsError

ROW = find("resnet20_cifar")
SHIPPED = ROW.checkpoints["embedded"]
FOLDER = Path(tlcache.__file__).parent / "backbones" / "embedded"
QUICK = Recipe(epochs=3, batch=8, held_out=10, warmup_epochs=1)


def test_the_row_says_what_the_network_and_the_files_are() -> None:
    network = resnet20_cifar().eval()
    assert sum(value.numel() for value in network.parameters()) == ROW.parameters
    assert network(torch.zeros(2, 3, 32, 32)).shape == (2, 10)
    (weights,) = FOLDER.glob("*.safetensors")
    assert weights.name == SHIPPED.file
    assert weights.stat().st_size < 700_000
    assert {value.dtype for value in load_state(resolve(ROW)).values()} == {torch.float16, torch.int64}
    assert f"{SHIPPED.top1:.2f} %" in (FOLDER / "resnet20_cifar.md").read_text()


def test_the_default_weights_are_the_first_that_a_backbone_has() -> None:
    assert ROW.at_hand == ["embedded"]
    assert resolve(ROW) == resolve(ROW, "embedded")
    model = load_model("resnet20_cifar")
    assert (model.weights, model.key) == ("embedded", load_model("resnet20_cifar", "embedded").key)
    assert model.key != load_model("resnet20_cifar", "random").key
    with pytest.raises(WeightsError, match="resnet18 needs its imagenet weights"):
        load_model("resnet18")
    with pytest.raises(UnknownNameError, match="resnet20_cifar 'imagenet'. Known: embedded, FILE, random"):
        load_model("resnet20_cifar", "imagenet")


def test_an_extraction_records_the_name_of_its_weights(photos: Path, tiny_model: Path) -> None:
    def recorded(path: Path) -> tuple[str, str | None]:
        with tlcache.open_features(path) as file:
            return file.attrs["weights"], json.loads(file.attrs["arguments"])["weights"]

    done = tlcache.extract(photos, "resnet20_cifar")
    assert recorded(done.path) == ("embedded", "embedded")
    assert tlcache.extract(photos, "resnet20_cifar", "embedded").up_to_date
    assert recorded(tlcache.extract(photos, str(tiny_model)).path) == ("onnx:tiny.onnx", None)


def test_weights_of_the_package_that_are_lost_or_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tlcache.backbones.embedded.source.weights_path", lambda _: tmp_path / SHIPPED.file)
    with pytest.raises(WeightsError, match=r"is part of tlcache, is not there. Install tlcache again\."):
        resolve(ROW)
    (tmp_path / SHIPPED.file).write_bytes(b"half")
    with pytest.raises(WeightsError, match=r"is damaged: .* Install tlcache again\."):
        resolve(ROW)


def test_the_export_gives_the_mean_of_each_quarter_of_the_second_stage() -> None:
    model = load_model("resnet20_cifar")
    images = np.random.default_rng(0).integers(0, 256, (4, 3, 32, 32), dtype=np.uint8)
    embeddings = open_network(model.onnx(), "cpu").embed(images)
    network = pretrained(ROW, load_state(resolve(ROW)), "embedded", SHIPPED.preprocess).module
    maps: list[torch.Tensor] = []
    network.layer2.register_forward_hook(lambda *arguments: maps.append(arguments[2]))
    mean, std = (torch.tensor(value).view(3, 1, 1) for value in (model.preprocess.mean, model.preprocess.std))
    with torch.inference_mode():
        network((torch.from_numpy(images) / 255 - mean) / std)
    expected = maps[0].view(4, 32, 2, 8, 2, 8).mean((3, 5)).flatten(1)
    assert embeddings.shape == (4, ROW.dim)
    assert np.allclose(embeddings, expected, rtol=1e-4, atol=1e-4)


def test_at_few_labels_it_is_far_ahead_of_the_same_network_untrained() -> None:
    """50 labels train, 50 choose, and both are fitted on; 500 test."""
    digits = load_dataset("digits")
    chosen = np.random.default_rng(0).permutation(len(digits))[:600]
    splits = ["train"] * 50 + ["val"] * 50 + ["test"] * 500
    manifest = Path(digits.source) / "few.csv"
    lines = [f"{digits.paths[row]},{digits.labels[row]},{split}" for row, split in zip(chosen, splits, strict=True)]
    manifest.write_text("\n".join(["path,label,split", *lines]))
    reached = {}
    for weights in ("embedded", "random"):
        done = tlcache.extract(manifest, "resnet20_cifar", weights)
        (run,) = tlcache.fit_heads([done.path], ["logreg"])
        assert run.weights == weights
        reached[weights] = run.test.accuracy
    assert reached["embedded"] > 0.88
    assert reached["embedded"] > reached["random"] + 0.05


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Batches of 8 small images are no work for two threads, which wait for each other when others compute."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def made(n: int = 58) -> Images:
    """Images whose class is a brightness, which a network learns in a moment."""
    labels = torch.arange(n) % 10
    noise = torch.randint(0, 15, (n, 3, 32, 32), generator=torch.Generator().manual_seed(0))
    return Images((noise + 24 * labels[:, None, None, None]).to(torch.uint8), labels)


@pytest.mark.usefixtures("one_thread")
def test_a_training_that_is_stopped_and_continued_gives_the_same_weights(tmp_path: Path) -> None:
    whole, history = train(made(), QUICK, tmp_path / "whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("benchmarks.resnet20_cifar.train._keep", stop_after(2))
        with pytest.raises(KeyboardInterrupt):
            train(made(), QUICK, tmp_path / "stopped")
    continued, again = train(made(), QUICK, tmp_path / "stopped")
    assert [figures["loss"] for figures in again] == [figures["loss"] for figures in history]
    assert len(history) == 3
    assert history[-1]["loss"] < history[0]["loss"]
    for one, other in zip(whole.state_dict().values(), continued.state_dict().values(), strict=True):
        assert torch.equal(one, other)
    kept = json.loads((tmp_path / "stopped" / "history.json").read_text())
    assert kept["recipe"] == json.loads(json.dumps(asdict(QUICK)))
    assert set(kept["epochs"][0]) == {"loss", "train_accuracy", "held_out_accuracy", "wall_s", "cpu_s"}
    with pytest.raises(WeightsError, match=r"belongs to .*Give another --out"):
        train(made(), replace(QUICK, seed=1), tmp_path / "stopped")


def stop_after(epochs: int) -> object:
    from benchmarks.resnet20_cifar.train import _keep

    def keep(run: object, *rest: object) -> None:
        _keep(run, *rest)
        if len(run.history) == epochs:
            raise KeyboardInterrupt

    return keep


@pytest.mark.usefixtures("one_thread")
def test_what_training_writes_is_a_backbone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks.resnet20_cifar.train import main

    for name in CLASSES:
        for split, number in (("train", 2), ("test", 1)):
            for each in range(number):
                write_image(tmp_path / "cifar" / split / name / f"{each}.png", each, each, 32)
    monkeypatch.setattr(Recipe.__init__, "__defaults__", tuple(asdict(QUICK).values()))
    monkeypatch.setattr("sys.argv", ["train", "--images", str(tmp_path / "cifar"), "--out", str(tmp_path / "out")])
    main()
    figures = json.loads((tmp_path / "out" / "history.json").read_text())
    assert 0 <= figures["test_accuracy"] <= 1
    (mine,) = (tmp_path / "out").glob("resnet20_cifar-*.safetensors")
    assert hashlib.sha256(mine.read_bytes()).hexdigest().startswith(mine.stem.partition("-")[2])
    network = pretrained(ROW, load_state(resolve(ROW, str(mine))), "file", SHIPPED.preprocess).module
    assert accuracy(network, read_folder(tmp_path / "cifar", "test")) == figures["test_accuracy"]


class Brightness(torch.nn.Module):
    """Knows the classes 0 to 6 of the made images by their mean, and calls the others 6."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        red = images[:, 0].mean((1, 2)) * SHIPPED.preprocess.std[0] + SHIPPED.preprocess.mean[0]
        return torch.nn.functional.one_hot((red * 255 / 24).long().clamp(max=6), 10).float()


def test_accuracy_counts_right_answers() -> None:
    assert accuracy(Brightness(), made(1_010)) == pytest.approx(0.7, abs=0.001)


def test_a_folder_that_is_no_cifar_is_refused(photos: Path) -> None:
    with pytest.raises(DataError, match=r"no unpacked CIFAR-10: expected train/ .*; found train with blue, green, red"):
        read_folder(photos, "train")


def test_torchvisions_copy_gives_the_same_arrays(monkeypatch: pytest.MonkeyPatch) -> None:
    images = made(20)

    class Fake:
        def __init__(self, root: str, train: bool, download: bool) -> None:
            assert (root, train, download) == ("here", True, True)
            self.data = images.pixels.permute(0, 2, 3, 1).numpy()
            self.targets = images.labels.tolist()

    monkeypatch.setattr("torchvision.datasets.CIFAR10", Fake)
    found = read_torchvision("here", "train")
    assert torch.equal(found.pixels, images.pixels)
    assert torch.equal(found.labels, images.labels)


@pytest.mark.real
@pytest.mark.slow
def test_the_accuracy_of_the_card(real: Path, tmp_path: Path) -> None:
    with tarfile.open(real / "data" / "cifar10_jpg.tar.xz") as archive:
        wanted = re.compile(r"(\./)?(test/.*|train/\w+/0000\.jpg)")
        archive.extraction_filter = getattr(tarfile, "data_filter", lambda member, _: member)  # Python 3.11.4 has it
        archive.extractall(tmp_path / "cifar", [member for member in archive if wanted.fullmatch(member.name)])
    images = read_folder(tmp_path / "cifar", "test")
    network = pretrained(ROW, load_state(resolve(ROW)), "embedded", SHIPPED.preprocess).module
    assert len(images) == 10_000
    assert 100 * accuracy(network, images) == pytest.approx(SHIPPED.top1, abs=0.03)  # three images: kernels round
