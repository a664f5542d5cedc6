"""Images that are mixed while a network is trained on them, and losses of shares of classes."""

from pathlib import Path

import pytest
import torch
from torch.nn.functional import one_hot

from tlcache.errors import OptionError
from tlcache.finetuning.augment import mixing
from tlcache.finetuning.finetune import finetune
from tlcache.finetuning.losses import LOSSES, make_loss
from tlcache.finetuning.recipe import Recipe

IMAGES, LABELS = torch.randint(0, 256, (6, 3, 8, 8), dtype=torch.uint8), torch.tensor([0, 1, 2, 0, 1, 2])


@pytest.mark.parametrize("weights", [None, torch.tensor([1.0, 0.2, 4.0])])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("name", LOSSES)
def test_a_label_is_the_whole_share_of_its_class(name: str, smoothing: float, weights: torch.Tensor | None) -> None:
    logits, loss = torch.randn(6, 3), make_loss(name, smoothing, weights)
    assert loss(logits, one_hot(LABELS, 3).float()) == pytest.approx(float(loss(logits, LABELS)), rel=1e-5)


@pytest.mark.parametrize("name", LOSSES)
def test_the_loss_of_half_of_each_is_the_mean_of_both(name: str) -> None:
    logits, loss = torch.randn(6, 3), make_loss(name)
    halves = (one_hot(LABELS, 3) + one_hot(LABELS.flip(0), 3)) / 2
    both = loss(logits, LABELS) + loss(logits, LABELS.flip(0))
    assert loss(logits, halves) == pytest.approx(float(both) / 2, rel=1e-5)


def test_mixed_images_have_the_shares_that_their_labels_say() -> None:
    mix = mixing(0.4, 0.0, 3)
    assert mix is not None
    torch.manual_seed(1)
    images, shares = mix(IMAGES, LABELS)
    share = shares[1, 1]  # beside it a 0
    assert 0 < share < 1
    torch.testing.assert_close(images, share * IMAGES + (1 - share) * IMAGES.roll(1, 0).float())
    torch.testing.assert_close(shares, share * one_hot(LABELS, 3) + (1 - share) * one_hot(LABELS, 3).roll(1, 0))
    torch.manual_seed(1)
    assert torch.equal(mix(IMAGES, LABELS)[0], images)


def test_a_part_of_an_image_has_the_share_of_its_area() -> None:
    mix = mixing(0.0, 1.0, 3)
    assert mix is not None
    torch.manual_seed(3)
    images, shares = mix(IMAGES, LABELS)
    other = (images != IMAGES).any(1)
    assert torch.equal(
        images[other.unsqueeze(1).expand_as(images)], IMAGES.roll(1, 0)[other.unsqueeze(1).expand_as(images)]
    )
    assert 0 < other[1].sum() < 64
    assert shares[1, 0] == pytest.approx(float(other.float().mean((1, 2)).max()), abs=0.02)


def test_of_both_one_is_taken_by_chance() -> None:
    mix = mixing(0.4, 1.0, 3)
    assert mix is not None
    assert mixing(0.0, 0.0, 3) is None
    torch.manual_seed(0)
    batches = [mix(IMAGES, LABELS)[0] for _ in range(20)]
    cut = [torch.equal(images, images.round()) for images in batches]
    assert 3 < sum(cut) < 20


@pytest.mark.usefixtures("tinynet")
def test_training_learns_of_mixed_images(photos: Path) -> None:
    settings = {"precision": "fp32", "layout": "contiguous", "batch_size": 8, "init_head": "scratch", "head_epochs": 1}
    settings |= {"lr": 0.01, "epochs": 6, "class_weight": "balanced", "refit": False, "patience": 9, "augment": "none"}
    run = finetune(photos, "tinynet", "random", **settings, mixup=0.2, cutmix=1.0)
    losses = [epoch.train_loss for epoch in run.history]
    assert losses[-1] < 0.9 * losses[0]
    assert run.test.accuracy > 0.6
    assert (run.arguments["mixup"], run.arguments["cutmix"]) == (0.2, 1.0)
    plain = finetune(photos, "tinynet", "random", **settings)
    assert "mixup" not in plain.arguments
    assert plain.history[1].train_loss != run.history[1].train_loss


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"mixup": 0.2, "cached_prefix": True, "unfreeze": "top:1"}, "--mixup mixes images, --cached-prefix keeps"),
        ({"cutmix": 1.0, "cached_prefix": True, "method": "last"}, "--cutmix mixes images, --cached-prefix keeps"),
        ({"mixup": 0.2, "task": "multilabel"}, "--mixup is of classes, and the labels are of --task multilabel"),
        ({"cutmix": 0.2, "task": "regression"}, "--cutmix is of classes, and the labels are of --task regression"),
        ({"mixup": -1.0}, "--mixup takes a number from 0 on"),
        ({"cutmix": 1.0, "recipe": "race"}, "The race tries several values of --cutmix"),
    ],
)
def test_what_cannot_be_mixed_is_refused(settings: dict[str, object], words: str) -> None:
    with pytest.raises(OptionError, match=words):
        Recipe(**settings)  # type: ignore[arg-type]
