"""Leaks in real images, by real networks."""

import re
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from planted import plant

from tlcache.auditing.findings import Audit
from tlcache.auditing.groups import groups_path, read_groups
from tlcache.auditing.run import audit
from tlcache.extraction import extract
from tlcache.runs import runs_folder
from tlcache.store import open_features

pytestmark = [pytest.mark.real, pytest.mark.slow]

Found = Callable[[str, str, Path], Audit]


@pytest.fixture
def found(real: Path) -> Found:
    def run(model: str, weights: str, data: Path) -> Audit:
        extract(data, model, str(real / "weights" / weights))
        return audit()[0]

    return run


@pytest.mark.parametrize(
    ("model", "weights"),
    [
        ("mobilenetv2", "mobilenet_v2-imagenet.pth"),
        ("mobilenetv3_small", "mobilenet_v3_small-imagenet.pth"),
        ("squeezenet1_1", "squeezenet1_1-imagenet.pth"),
    ],
)
def test_copies_planted_among_flowers(found: Found, real: Path, tmp_path: Path, model: str, weights: str) -> None:
    """300 of 728 train images get a copy in test.

    Pairs among the others are of one class, and mostly true: the same flower photographed twice.
    """
    root, source = tmp_path / "flowers", real / "data" / "flowers102_small"
    for path in source.rglob("*.jpg"):
        link = root / path.relative_to(source)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(path)
    train = sorted((root / "train").rglob("*.jpg"))
    some = [train[row] for row in np.random.default_rng(3).choice(len(train), 300, replace=False)]
    planted = plant(some, lambda path, kind: root / "test" / path.parent.name / f"{path.stem}-{kind}.jpg")
    result = found(model, weights, root)
    pairs = {frozenset((pair.first, pair.second)) for pair in result.near}
    names = [frozenset(path.relative_to(root).as_posix() for path in pair) for pair in planted]
    missed = Counter(min(pair).rpartition("-")[2].removesuffix(".jpg") for pair in names if pair not in pairs)
    copied = frozenset().union(*names)
    rest = {path for pair in pairs if not pair & copied for path in pair}
    others = result.images - len(copied)
    certain = {path for pair in result.near if pair.conflict for path in (pair.first, pair.second)}
    share = len(rest) / others
    print(model, f"{result.calibration.threshold:.3f}", missed, len(rest), f"{share:.2%}")  # noqa: T201  with pytest -s
    assert 1 - sum(missed.values()) / len(names) >= 0.95
    assert len(certain) <= 0.001 * others
    assert share <= 0.04


def test_the_identical_pair_of_flowers(found: Found, real: Path) -> None:
    data = real / "data" / "flowers102_small"
    result = found("mobilenetv2", "mobilenet_v2-imagenet.pth", data)
    assert [(pair.first, pair.second) for pair in result.exact] == [
        ("train/094/image_07307.jpg", "test/094/image_07309.jpg")
    ]
    assert result.leaks
    assert result.conflicts() == []


def test_the_scans_of_a_patient_are_found_without_knowing_any_patient(found: Found, real: Path) -> None:
    """The names of the test slices do tell: 27 (10).jpg is slice 27 of the tenth patient of its class; 200 in all."""
    result = found("mobilenetv3_small", "mobilenet_v3_small-imagenet.pth", real / "data" / "alzheimer_mri")
    assert result.leak.test == 1279
    assert 250 <= result.leak.duplicated <= 450
    assert result.leak.grouped >= 0.95 * 1279
    assert result.telltale is not None
    assert result.telltale.suspicious
    assert "says little about new images" in result.verdict
    groups = read_groups(groups_path(runs_folder(), "alzheimer_mri"), "alzheimer_mri").groups
    (path,) = Path("features").rglob("*.h5")
    with open_features(path) as file:
        named = [(name, groups[digest.decode()]) for digest, name in zip(file.hashes(), file.paths(), strict=True)]
    groups_of, patients_of = defaultdict(set), defaultdict(set)
    for name, group in named:
        if patient := re.fullmatch(r"test/(\w+)/\d+( \(\d+\))?\.jpg", name):
            groups_of[patient.groups()].add(group)
            patients_of[group].add(patient.groups())
    assert len(groups_of) == 200
    assert sum(len(each) == 1 for each in groups_of.values()) >= 190
    assert sum(len(each) > 1 for each in patients_of.values()) <= 4
    assert Counter(Counter(group for _, group in named).values())[32] >= 170
