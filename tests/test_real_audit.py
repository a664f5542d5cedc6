"""Leaks in real images, by real networks."""

import re
import tarfile
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from planted import plant

from tlcache.auditing.findings import Audit
from tlcache.auditing.run import audit
from tlcache.cache.feature_file import open_features
from tlcache.cache.find import features_folder
from tlcache.cache.groups import groups_path, read_groups
from tlcache.extraction.extract import extract
from tlcache.runs.folder import runs_folder

pytestmark = [pytest.mark.real, pytest.mark.slow]

Found = Callable[[str, str, Path], Audit]
Planted = dict[frozenset[str], str]
Make = Callable[[Path], Planted]
Made = Callable[[str, Make], tuple[Path, Planted]]
MADE: dict[str, Planted] = {}


@pytest.fixture
def found(real: Path, session_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Found:
    """Return an audit of a dataset; images that another test has embedded by the same network are not again."""
    monkeypatch.setenv("TLCACHE_FEATURES", str(session_folder / "features"))

    def run(model: str, weights: str, data: Path) -> Audit:
        return audit([extract(data, model, str(real / "weights" / weights)).path])[0]

    return run


@pytest.fixture
def made(session_folder: Path) -> Made:
    """Return a folder and what was planted into it, which is made once for all networks."""

    def once(name: str, make: Make) -> tuple[Path, Planted]:
        root = session_folder / name
        if name not in MADE:
            MADE[name] = make(root)
        return root, MADE[name]

    return once


MODELS = {
    "mobilenetv2": "mobilenet_v2-imagenet.pth",
    "mobilenetv3_small": "mobilenet_v3_small-imagenet.pth",
    "squeezenet1_1": "squeezenet1_1-imagenet.pth",
}


def link(source: Path, root: Path) -> None:
    for path in source.rglob("*.jpg"):
        there = root / path.relative_to(source)
        there.parent.mkdir(parents=True, exist_ok=True)
        there.symlink_to(path)


def plant_some(root: Path, origin: str, target: str, seed: int) -> Planted:
    """Give 300 images of one split a copy in another; return each pair and its kind."""
    known = sorted((root / origin).rglob("*.jpg"))
    some = [known[row] for row in np.random.default_rng(seed).choice(len(known), 300, replace=False)]
    made = plant(some, lambda path, kind: root / target / path.parent.name / f"{path.stem}-{kind}.jpg")
    kinds = {frozenset(path.relative_to(root).as_posix() for path in pair): pair[1].stem for pair in made}
    return {pair: re.sub(r".*?-(?=[a-z])", "", stem, count=1) for pair, stem in kinds.items()}


def check(result: Audit, planted: Planted) -> None:
    """Of these copies 95 % are found, and of images without one at most 1 % are paired, whatever they show.

    These are the shares of one draw, no bounds for others: 300 copies tell them to 2 points either way, and a kind
    may be worse. The closest call is mobilenetv2 on CIFAR-10, which finds 287 of 300, and of 60 resized ones 47.
    """
    pairs = {frozenset((pair.first, pair.second)) for pair in result.near}
    missed = Counter(kind for pair, kind in planted.items() if pair not in pairs)
    copied = frozenset().union(*planted)
    rest = {path for pair in pairs if not pair & copied for path in pair}
    others = result.images - len(copied)
    print(result.backbone, result.calibration.threshold, missed, len(rest), others)  # noqa: T201  with pytest -s
    assert sum(missed.values()) <= 0.05 * len(planted)
    assert len(rest) <= 0.01 * others
    assert not any(pair.conflict for pair in result.near)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(("origin", "target", "seed"), [("train", "test", 3), ("test", "train", 11)])
def test_copies_planted_among_flowers(
    found: Found, real: Path, made: Made, model: str, origin: str, target: str, seed: int
) -> None:
    def make(root: Path) -> Planted:
        link(real / "data" / "flowers102_small", root)
        return plant_some(root, origin, target, seed)

    root, planted = made(f"flowers-{origin}", make)
    check(found(model, MODELS[model], root), planted)


@pytest.mark.parametrize("model", MODELS)
def test_copies_planted_among_small_images(found: Found, real: Path, made: Made, model: str) -> None:
    """About 2,600 train and 1,100 test images of CIFAR-10, 32 pixels wide."""

    def make(root: Path) -> Planted:
        random = np.random.default_rng(5)
        with tarfile.open(real / "data" / "cifar10_jpg.tar.xz") as archive:
            for member in archive:
                share = 0.05 if member.name.startswith("train/") else 0.12
                if member.isfile() and random.random() < share:
                    archive.extract(member, root, filter="data")
        return plant_some(root, "train", "test", 5)

    root, planted = made("cifar", make)
    check(found(model, MODELS[model], root), planted)


def test_the_identical_pair_of_flowers(found: Found, real: Path) -> None:
    data = real / "data" / "flowers102_small"
    result = found("mobilenetv2", "mobilenet_v2-imagenet.pth", data)
    assert [(pair.first, pair.second) for pair in result.exact] == [
        ("train/094/image_07307.jpg", "test/094/image_07309.jpg")
    ]
    assert result.leaks
    assert result.conflicts() == []
    assert result.labels_judged
    assert len(result.label_issues) <= 30


def test_the_scans_of_a_patient_are_found_without_knowing_any_patient(found: Found, real: Path) -> None:
    """The names of the test slices do tell: 27 (10).jpg is slice 27 of the tenth patient of its class; 200 in all."""
    result = found("mobilenetv3_small", "mobilenet_v3_small-imagenet.pth", real / "data" / "alzheimer_mri")
    assert result.leak.test == 1279
    assert 250 <= result.leak.duplicated <= 450
    assert result.leak.grouped >= 0.98 * 1279
    assert not result.labels_judged
    assert result.label_issues == ()
    assert result.neighbour_gap is not None
    assert result.neighbour_gap.suspicious
    assert "at most about 5" in result.verdict
    groups = read_groups(groups_path(runs_folder(), "alzheimer_mri"), "alzheimer_mri").groups
    (path,) = features_folder().glob("alzheimer_mri/*.h5")
    with open_features(path) as file:
        named = [(name, groups[digest.decode()]) for digest, name in zip(file.hashes(), file.paths(), strict=True)]
    groups_of, patients_of = defaultdict(set), defaultdict(set)
    for name, group in named:
        if patient := re.fullmatch(r"test/(\w+)/\d+( \(\d+\))?\.jpg", name):
            groups_of[patient.groups()].add(group)
            patients_of[group].add(patient.groups())
    assert len(groups_of) == 200
    assert sum(len(each) == 1 for each in groups_of.values()) >= 198
    assert sum(len(each) > 1 for each in patients_of.values()) <= 4
    assert Counter(Counter(group for _, group in named).values())[32] >= 190
