"""The commands of every page run in their order, in a folder of their own, on made images and small networks."""

import csv
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from zlib import crc32

import numpy as np
import onnx
import pytest
import torch
from fakes import TinyNetwork, TinySource, write_image
from test_docs import PAGES, ROOT, blocks
from torch import nn
from typer.testing import CliRunner

from tlcache.backbones import sources
from tlcache.backbones.backbone import Backbone, Checkpoint, TorchNetwork, Weights
from tlcache.backbones.torch_network import TracedNetwork, filled, untrained
from tlcache.cli import app
from tlcache.files import hash_file
from tlcache.heads.table import HEADS
from tlcache.images import Preprocess

HASHED = "-[0-9a-f]{12}"  # how the names of runs and feature files end
COLOURS = ("blue", "green", "red")
FEATURES, FITTED = "tlcache extract --data photos --model mobilenetv2", "tlcache fit-heads --heads logreg,ridge,svm"
BEFORE: Mapping[str, Sequence[str]] = {  # what a page takes for granted: commands of other pages
    "docs/audit.md": ("tlcache extract --data alzheimer_mri --model mobilenetv2",),
    "docs/cache.md": (FEATURES,),
    "docs/cluster.md": (FEATURES,),
    "docs/comparison.md": (FEATURES, FITTED),
    "docs/deploy.md": (FEATURES, FITTED),
    "docs/embeddings.md": (FEATURES,),
    "docs/explain.md": (FEATURES, FITTED),
    "docs/heads.md": (FEATURES, "tlcache extract --data photos --model resnet50"),
    "docs/pictures.md": (FEATURES, "tlcache extract --data photos --model resnet50", FITTED),
    "docs/predict.md": (FEATURES, FITTED),
    "docs/reference.md": (
        FEATURES,
        "tlcache extract --data holidays,pool --model mobilenetv2",
        "tlcache fit-heads --data photos",
    ),
    "docs/robust.md": (FEATURES, "tlcache extract --data photos --model resnet50", FITTED),
    "docs/statistics.md": (FEATURES, FITTED),
    "docs/suggest.md": (FEATURES, FITTED),
    "docs/track.md": (FEATURES, FITTED),
    "docs/uncertainty.md": (FEATURES, "tlcache extract --data holidays,scans --model mobilenetv2", FITTED),
}
INSTEAD = {"melanoma": "red"}  # a class of the made images
ONE_SETTING: Mapping[str, Mapping[str, tuple[object, ...]]] = {  # of heads that take seconds for each
    "linear": {"learning_rate": (1e-2,), "epochs": (2,)},
    "dense": {"learning_rate": (1e-3,), "epochs": (2,)},
    "lightgbm": {"components": (64,), "splits": ("random",)},
}


class Standing(TinySource):
    """A source that has a small network of five stages under every name that is no file and no function."""

    name = "standing"

    def names(self, pattern: str | None = None) -> Sequence[str]:
        del pattern
        return []

    def find(self, model: str) -> Backbone | None:
        if re.search(rf"\.onnx$|^[\w.]+:\w+$|{HASHED}$", model):
            return None
        published = {"imagenet": Checkpoint("NONE", "none.pth", 0.0, Preprocess(resize=36, crop=32))}
        stages = tuple(f"features.{number}" for number in range(3 if "resnet" in model else 4))
        return Backbone(model, self, model, 16, 4_000, "features", stages, published)

    def at_hand(self, backbone: Backbone) -> list[str]:
        return list(backbone.checkpoints)

    def weights(self, backbone: Backbone, name: str) -> Weights:
        path = Path("weights", f"{crc32(backbone.name.encode())}.pth").absolute()
        if not path.is_file():
            path.parent.mkdir(exist_ok=True)
            torch.save(untrained(backbone, crc32(backbone.name.encode())).module.state_dict(), path)
        return Weights(name, path, hash_file(path))

    def build(
        self, backbone: Backbone, preprocess: Preprocess, state: Mapping[str, torch.Tensor] | None = None
    ) -> TorchNetwork:
        del preprocess
        return TracedNetwork(backbone, filled(FiveStages, state))


class FiveStages(TinyNetwork):
    def __init__(self, num_classes: int = 1000) -> None:
        super().__init__(num_classes)
        first, second, third = self.features
        more = (
            nn.Sequential(nn.Conv2d(16, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU()) for _ in range(2)
        )
        self.features = nn.Sequential(first, second, third, *more)


def write_labelled(folder: Path, train: int = 10, test: int = 8) -> None:
    """Write images in folders of splits and classes, and a table of their sites, ages and groups."""
    rows = []
    for split, count in (("train", train), ("test", test)):
        for colour, label in enumerate(COLOURS):
            for number in range(count):
                name = f"{split}/{label}/{number}.jpg"
                seen = colour + (number == 7)  # which is a mistake
                write_image(folder / name, crc32(f"{folder.name}{name}".encode()), seen, 40)
                rows.append((name, label, split, f"{split}{label}{number // 2}", "ab"[number % 2], 20 + number))
    write_table(folder / "metadata.csv", ("file_name", "label", "split", "group", "site", "age"), rows)


def write_table(path: Path, names: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([names, *rows])


def write_everything(folder: Path) -> None:
    """Write what the pages speak of into a folder."""
    for name in ("photos", "other", "flowers102_small", "alzheimer_mri", "holidays", "scans"):
        write_labelled(folder / name)
    for number in range(1, 61):
        write_image(folder / "pool" / f"{number}.jpg", 5_000 + number, number, 40)
    for path in ("new.jpg", "new/1.jpg", "new/2.jpg"):
        write_image(folder / path, crc32(path.encode()), len(path), 40)
    images = [path.relative_to(folder).as_posix() for path in sorted((folder / "other").rglob("*.jpg"))]
    labels = [path.split("/")[2] for path in images]
    several = [f"{label};{'even' if at % 2 else 'odd'}" for at, label in enumerate(labels)]
    write_table(folder / "photos.csv", ("path", "label"), [*zip(images, several, strict=True)])
    write_table(folder / "growth.csv", ("path", "label"), [(path, at / 7) for at, path in enumerate(images)])
    write_table(folder / "slides.csv", ("path", "label"), [*zip(images, labels, strict=True)])
    write_embeddings(folder / "embeddings.parquet", images)
    network = torch.onnx.export(TinyNetwork().eval(), (torch.zeros(1, 3, 224, 224),), dynamo=True, verbose=False)
    onnx.save(network.model_proto, folder / "resnet50.onnx")  # type: ignore[union-attr]
    for name in ("mobilenet_v2-imagenet.pth", "mobilenet_v3_small-imagenet.pth"):
        torch.save(FiveStages().state_dict(), folder / name)
    (folder / "mylab").mkdir()
    (folder / "mylab" / "nets.py").write_text("from fakes import TinyNetwork as scan_net\n")


def write_embeddings(path: Path, images: Sequence[str]) -> None:
    import pyarrow as pa
    from pyarrow.parquet import write_table as write

    rows = np.random.default_rng(0).normal(size=(len(images), 8)).astype(np.float32)
    write(pa.table({"path": list(images), "embedding": list(rows)}), path)


def there(line: str) -> str:
    """Return a command with the names of what the commands before it made."""
    for written, here in INSTEAD.items():
        line = line.replace(written, here)
    line = re.sub(r"\bRUN\b", "mobilenetv2-ridge-0123456789ab", line)
    return re.sub(rf"[\w./-]+{HASHED}\b", lambda found: made(found[0]), line)


def made(name: str) -> str:
    """Return the last file whose name is this one but for its hash."""
    folder, _, stem = name.rpartition("/")
    found = Path(folder or "runs/photos").glob(f"{stem[:-12]}*[0-9a-f].*")
    path = max(found, key=lambda each: each.stat().st_mtime_ns).with_suffix("")
    return str(path) if folder else path.name


def run(line: str) -> str:
    """Run a command in this process where it is tlcache's, and return what it said where it failed."""
    expanded = subprocess.run(["bash", "-c", f"printf '%s\\0' {line}"], capture_output=True, text=True, check=True)
    program, *words = expanded.stdout.split("\0")[:-1]
    if program == "python":
        done = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=False)
        return done.stderr if done.returncode else ""
    assert program == "tlcache"
    result = CliRunner().invoke(app, words)
    return f"{result.output}{result.exception!r}" if result.exit_code else ""


WITH = {page.relative_to(ROOT).as_posix(): blocks(page) for page in PAGES if blocks(page)}


@pytest.mark.parametrize("page", WITH)
def test_what_is_not_run_is_marked(page: str) -> None:
    lines = [line for block in WITH[page] if not block.not_run for line in block.lines]
    assert [line for line in lines if line.split()[0] not in ("tlcache", "python")] == []
    assert re.findall(r"^ {4}(?:tlcache|python) .*", (ROOT / page).read_text(), re.MULTILINE) == []


@pytest.mark.slow
@pytest.mark.parametrize("page", WITH)
def test_the_commands_of_a_page_run(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "SOURCES", (Standing(), *sources.SOURCES))
    monkeypatch.setattr("tlcache.finetuning.race.RACED", ("bare", "bold"))  # the six are raced in tests/test_race.py
    for name, one in ONE_SETTING.items():
        monkeypatch.setitem(HEADS, name, replace(HEADS[name], quick=one, full=one))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    write_everything(tmp_path)
    lines = [line for block in WITH[page] if not block.not_run for line in block.lines]
    for line in (*BEFORE.get(page, ()), *lines):
        assert run(there(line)) == "", line
