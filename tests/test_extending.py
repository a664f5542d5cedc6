"""What is added from outside the package, each with one object, takes part in everything."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner
from zipped import ZIPPED, write_zip

from tlcache.cli import app
from tlcache.datasets.dataset import SOURCES
from tlcache.errors import UnknownNameError
from tlcache.evaluation.compare import compare
from tlcache.evaluation.metrics import METRICS, Metric
from tlcache.extraction.extract import extract
from tlcache.finetuning.finetune import finetune
from tlcache.finetuning.recipe import Recipe
from tlcache.finetuning.saved import export_tuned
from tlcache.heads.base import LinearHead, Validation
from tlcache.heads.fitted import load_head
from tlcache.heads.rows import Features
from tlcache.heads.table import HEADS, HeadRow
from tlcache.probing.fit import fit_heads
from tlcache.report.page import write_report
from tlcache.studying.study import study

QUICK = {"epochs": 1, "precision": "fp32", "layout": "contiguous"}


class Centroids(LinearHead):
    """The class whose mean is closest, which is a linear head."""

    def __init__(self, sharpness: float = 1.0, shrinking: str = "none", class_weight: Any = None) -> None:
        self.sharpness = sharpness
        self.shrinking = shrinking
        self.class_weight = class_weight

    def _fit(self, X: Features, y: NDArray[np.int64], validation: Validation) -> None:
        del validation
        rows = X[np.arange(len(X))]
        means = np.stack([rows[y == number].mean(axis=0) for number in range(len(self.classes_))])
        shrunk = means * (0.9 if self.shrinking == "some" else 1.0)
        self.coef_ = np.float32(2 * self.sharpness) * shrunk.T
        self.intercept_ = np.float32(-self.sharpness) * np.square(shrunk).sum(axis=1)


CENTROIDS = HeadRow(
    "centroids",
    f"{__name__}:Centroids",
    quick={"sharpness": (0.1, 1.0), "shrinking": ("some", "none")},
    full={"sharpness": (0.01, 0.1, 1.0)},
    scaled=True,
    about="the closest class mean",
    relative_cost=0.5,
    starts_from="centroids",
)


@pytest.fixture
def centroids(tinynet: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Add the head, for a while."""
    del tinynet
    monkeypatch.setitem(HEADS, CENTROIDS.name, CENTROIDS)


@pytest.mark.usefixtures("centroids")
def test_a_head_from_outside_is_fitted_compared_and_reported(photos: Path) -> None:
    extract(photos, "tinynet", "random")
    frozen, _ = fit_heads(heads=["centroids", "ridge"], folds=0)
    assert frozen.head == "centroids"
    assert len(frozen.candidates) == 4
    assert isinstance(load_head(frozen.head_path).head, Centroids)
    tuned = finetune(photos, "tinynet", "random", head="centroids", **QUICK)
    assert tuned.history[0].val_accuracy == pytest.approx(frozen.candidates[0].scores["val_accuracy"])
    assert export_tuned(tuned.head_path)
    (found,) = compare()
    heads = {entry.head.split(" (")[0] for entry in found.entries}
    assert {"centroids", "ridge"} <= heads
    assert any(entry.head.startswith("fine-tuned") and "centroids" in entry.head for entry in found.entries)
    page = write_report(Path("report.html"))[0].read_text()
    assert "--heads centroids" in page
    assert "--head centroids" in page


@pytest.mark.usefixtures("centroids")
def test_a_head_from_outside_is_part_of_a_study_and_of_its_plan(photos: Path) -> None:
    options = {"models": ["tinynet"], "weights": "random", "heads": ["centroids"], "head": "centroids", **QUICK}
    planned = study([photos], plan=True, **options)
    assert [(step.kind, step.state) for step in planned[:3]] == [
        ("extract", "to do"),
        ("fit-heads", "to do"),
        ("finetune", "to do"),
    ]
    assert all(step.seconds > 0 for step in planned[:3])
    done = study([photos], **options)
    assert [step.state for step in done] == ["done"] * 4


@pytest.mark.usefixtures("centroids")
def test_a_head_from_outside_is_listed_and_its_row_is_all_there_is_to_know() -> None:
    shown = CliRunner().invoke(app, ["heads"]).stdout
    assert "the closest class mean" in " ".join(shown.split())
    assert "shrinking some, none" in " ".join(shown.split())
    assert Recipe(head="centroids").head == "centroids"
    with pytest.raises(UnknownNameError, match="centroids"):
        Recipe(head="centroid")


def test_without_its_row_a_head_is_unknown(photos: Path, tinynet: None, monkeypatch: pytest.MonkeyPatch) -> None:
    del tinynet
    extract(photos, "tinynet", "random")
    with monkeypatch.context() as patch:
        patch.setitem(HEADS, CENTROIDS.name, CENTROIDS)
        (run,) = fit_heads(heads=["centroids"])
    with pytest.raises(UnknownNameError, match="Unknown head 'centroids'"):
        load_head(run.head_path)
    with pytest.raises(UnknownNameError, match="Unknown head 'ridge'"):
        Recipe(head="ridge")  # fine-tuning does not begin with it


def test_a_metric_from_outside_is_what_settings_are_chosen_by(photos: Path, tinynet: None) -> None:
    del tinynet
    extract(photos, "tinynet", "random")

    def surprise(labels: NDArray[np.int64], probabilities: NDArray[np.float32]) -> float:
        return float(1 - probabilities[np.arange(len(labels)), labels].mean())

    row = Metric("surprise", False, surprise, lambda *_: 0.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(METRICS, row.name, row)
        (run,) = fit_heads(heads=["ridge"], metric="surprise")
        (found,) = compare()
    tried = run.candidates
    best = min(tried, key=lambda each: (each.scores["val_surprise"], each.scores["val_log_loss"]))
    assert best.setting["alpha"] == run.chosen["alpha"]
    assert best.scores["val_surprise_se"] == 0
    stored = run.predictions()
    assert run.test.others["surprise"] == pytest.approx(surprise(stored.label, stored.probabilities))
    assert found.entries[0].run.path == run.path
    with pytest.raises(UnknownNameError, match="Unknown metric 'surprise'"):
        fit_heads(heads=["ridge"], metric="surprise")


@pytest.mark.usefixtures("centroids")
def test_a_head_a_backbone_and_a_dataset_from_outside_do_the_whole_job(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The backbone is `tinynet`, whose source is an object of these tests like the head and the archive."""
    monkeypatch.setattr("tlcache.datasets.dataset.SOURCES", (*SOURCES, ZIPPED))
    archive = str(write_zip(photos))
    made = extract(archive, "tinynet", "random")
    assert (made.dataset, made.rows, made.embedded) == ("photos", 24, 24)
    (frozen,) = fit_heads(data=archive, heads=["centroids"])
    tuned = finetune(archive, "tinynet", "random", head="centroids", **QUICK)
    assert (frozen.source, tuned.source) == (f"cbz:{archive}",) * 2
    options = {"models": ["tinynet"], "weights": "random", "heads": ["centroids"], "head": "centroids", **QUICK}
    planned = study([archive], plan=True, **options)
    assert [step.kind for step in planned] == ["extract", "fit-heads", "finetune", "report"]
    assert [step.state for step in planned[:2]] == ["recorded"] * 2
    (found,) = compare(data=archive)
    assert {entry.run.path for entry in found.entries} == {frozen.path, tuned.path}
    page = write_report(Path("report.html"))[0].read_text()
    assert f"tlcache extract --data {Path(archive).name} --model tinynet" in page  # from the page's folder
