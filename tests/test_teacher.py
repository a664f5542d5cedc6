"""A frozen head as the teacher of a network that is trained on the same images."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from fakes import TinySource
from msgspec import structs
from torch.nn.functional import kl_div

from tlcache.cache.feature_file import FeatureFile
from tlcache.errors import DataError, OptionError, UnknownNameError
from tlcache.extraction.extract import extract
from tlcache.finetuning import teacher
from tlcache.finetuning.finetune import finetune
from tlcache.finetuning.losses import teaching
from tlcache.finetuning.recipe import Recipe
from tlcache.finetuning.teacher import Teacher
from tlcache.probing.fit import fit_heads
from tlcache.report.reproduce import commands
from tlcache.runs.finetuned import FinetunedRun
from tlcache.runs.frozen import FrozenRun

FIXED = {"precision": "fp32", "layout": "contiguous", "batch_size": 8, "epochs": 1, "ema": 0.0}


def taught(photos: Path, **settings: object) -> FinetunedRun:
    return finetune(photos, "tinynet", "random", **{**FIXED, **settings})


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_the_gradient_is_that_of_the_divergence(temperature: float) -> None:
    logits = torch.randn(5, 4, requires_grad=True)
    said = torch.randn(5, 4)
    said[:, 3] = -torch.inf  # a class that the teacher has not seen
    (mine,) = torch.autograd.grad(teaching(logits, said.softmax(1), temperature), logits)
    soft = (said / temperature).softmax(1)
    apart = kl_div((logits / temperature).log_softmax(1), soft, reduction="batchmean") * temperature**2
    torch.testing.assert_close(mine, torch.autograd.grad(apart, logits)[0])


@pytest.mark.usefixtures("tinynet")
def test_a_teacher_answers_for_images_it_has_not_seen_and_sees_none_but_those_trained_on(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, seen, folds = teacher.out_of_fold, list[set[str]](), list[int]()

    def watched(row: object, rows: object, *others: object) -> object:
        seen.append(set(rows.paths))  # type: ignore[attr-defined]
        folds.append(others[-2])  # type: ignore[arg-type]
        return plain(row, rows, *others)  # type: ignore[arg-type]

    monkeypatch.setattr(teacher, "out_of_fold", watched)
    extract(photos, "tinynet", "random")
    (frozen,) = fit_heads(heads=["ridge"])
    run = taught(photos, distill=frozen.path.stem, init_head="scratch", head_epochs=1)
    val, test = ({name.decode() for name in each().row} for each in (run.held_out, run.predictions))
    assert not seen[0] & (val | test)
    assert seen[1] == seen[0] | val
    assert min(folds) > 1
    assert run.arguments["distill"] == frozen.path.stem
    assert f"--distill {frozen.path.stem}" in commands(run)[-1]


@pytest.mark.usefixtures("tinynet")
def test_what_a_teacher_says_is_learned(photos: Path) -> None:
    extract(photos, "tinynet", "random")
    (frozen,) = fit_heads(heads=["ncm"])
    settings = {"init_head": "scratch", "head_epochs": 1, "lr": 0.01, "epochs": 6, "patience": 9, "refit": False}
    run = taught(photos, **settings, distill=str(frozen.path), distill_weight=1.0, distill_temperature=1.0)
    losses = [epoch.train_loss or 0.0 for epoch in run.history]
    assert losses[-1] < 0.9 * losses[0]
    assert run.test.accuracy > 0.6  # without a label in the loss
    swept = taught(photos, **settings, sweep={"distill": [None, frozen.path.stem]})
    assert (
        len({each.history[-1].train_loss if each.history else each.scores["val_loss"] for each in swept.candidates})
        == 2
    )


@pytest.mark.usefixtures("tinynet")
def test_images_are_found_by_their_content(photos: Path, tmp_path: Path) -> None:
    """Of another dataset, with other names, order and splits."""
    others = tmp_path / "others"
    for number, path in enumerate(sorted(photos.rglob("*.png"))):
        place = others / path.parent.name / f"{-number % 7}-{number}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, place)
    for each in (photos, others):
        extract(each, "tinynet", "random")
    heads = {run.dataset: run for run in fit_heads(heads=["ncm"])}
    own, other = heads["photos"], heads["others"]
    with FeatureFile(Path(own.features)) as file:
        rows, hashes = file.split("train"), tuple(each.decode() for each in file.hashes()[: own.rows.train])
    alike = structs.replace(other, chosen=own.chosen, calibration=own.calibration)
    mine, theirs = (Teacher(run).answers(rows, hashes, 3, 0) for run in (own, alike))
    np.testing.assert_allclose(mine, theirs, atol=1e-6)
    assert (mine.argmax(1) == rows.labels).mean() > 0.6
    assert taught(photos, distill=str(other.path)).arguments["distill"] == other.path.stem
    shutil.rmtree(others / "red")
    extract(others, "tinynet", "random", name="fewer")
    (fewer,) = fit_heads(heads=["ncm"], data="fewer")
    with pytest.raises(DataError, match=r"has no embeddings of \d+ of 12 images that are trained on: red/"):
        taught(photos, distill=str(fewer.path))
    none = hashes[:0] + ("0" * 64,) * len(hashes)
    with pytest.raises(DataError, match="is of other images: 'fewer', blue, green.* embeddings of none of 12 images"):
        Teacher(fewer).answers(rows, none, 3, 0)


def test_joined_embeddings_teach(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = TinySource({"name": "tinynet"}, {"name": "wider", "layer": "features", "pools": ("max", "avg")})
    monkeypatch.setattr("tlcache.backbones.sources.SOURCES", (source,))
    for model in ("tinynet", "wider"):
        extract(photos, model, "random")
    (joined,) = fit_heads(heads=["ridge"], join="tinynet+wider")
    assert isinstance(joined, FrozenRun)
    assert taught(photos, distill=joined.path.stem).arguments["distill"] == joined.path.stem


@pytest.mark.usefixtures("tinynet")
def test_what_cannot_teach_is_refused(photos: Path) -> None:
    with pytest.raises(UnknownNameError, match="Unknown run 'nobody'"):
        taught(Path("no such folder"), distill="nobody")  # which is told before any image is read
    own = taught(photos, init_head="scratch", head_epochs=1)
    shutil.copytree(photos, "others")
    for each in (photos, "others"):
        extract(each, "tinynet", "random")
    names = {run.dataset: run.path.stem for run in fit_heads(heads=["ncm"])}
    for where in ({}, {"name": "photos"}):
        with pytest.raises(UnknownNameError, match=f"Unknown run 'nobody'\\. Known: {names['photos']}\\.$"):
            taught(photos, distill="nobody", **where)
    with pytest.raises(UnknownNameError, match=f"Known: {names['others']}, {names['photos']}\\.$"):
        taught(photos, distill="nobody", name="more")
    with pytest.raises(OptionError, match="--distill takes one run of fit-heads, of classes"):
        taught(photos, distill=own.path.stem)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"distill": "a", "mixup": 0.2}, "--distill teaches what single images show, --mixup and --cutmix mix them"),
        ({"distill_weight": 0.7}, "--distill-weight and --distill-temperature are of --distill"),
        ({"head_lr": 0.1}, "--head-lr and --head-epochs are of a fresh head"),
        ({"distill": "a", "task": "multilabel"}, "--distill is of classes, and the labels are of --task multilabel"),
        ({"distill": "a", "distill_weight": 1.5}, "--distill-weight takes a number above 0 to 1"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, object], words: str) -> None:
    with pytest.raises(OptionError, match=words):
        Recipe(**settings)  # type: ignore[arg-type]
