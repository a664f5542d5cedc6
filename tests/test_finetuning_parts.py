"""The parts of fine-tuning: cut networks, pixels, augmentation, optimisation, checkpoints."""

import hashlib
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from fakes import infinite_network, write_photos
from torch import nn

from tlcache.backbones.backbone import TorchNetwork
from tlcache.backbones.load import load_model
from tlcache.backbones.sources import find, list_models
from tlcache.backbones.torch_network import embedding, untrained
from tlcache.cache.feature_file import Split
from tlcache.datasets.folder import open_folder
from tlcache.errors import CacheError, ModelError
from tlcache.finetuning.augment import _grid, augment, draws
from tlcache.finetuning.checkpoints import Checkpoints
from tlcache.finetuning.classifier import Classifier, cut_before, trained_layers
from tlcache.finetuning.heads import cached_head
from tlcache.finetuning.losses import make_loss
from tlcache.finetuning.optimisation import averaged, balance, in_place, make_optimizer
from tlcache.finetuning.pixels import open_pixels
from tlcache.finetuning.presets import PRESETS, Preset
from tlcache.finetuning.recipe import Recipe
from tlcache.finetuning.schedules import learning_rate_factor
from tlcache.finetuning.sources import Source, from_activations, from_pixels
from tlcache.finetuning.stored import StoredArray
from tlcache.images import Preprocess, prepare
from tlcache.probing.protocol import FEW

SIDES = {"inception_v3": 75, "vit_b_16": 224}


@pytest.mark.parametrize("name", [row.name for row in list_models()])
def test_layers_are_all_there_and_in_stages(name: str) -> None:
    row = find(name)
    network = untrained(row, 0)
    layers = network.layers()
    stages = [layer.stage for layer in layers]
    if row.neck is None:
        assert stages == sorted(stages)
    assert set(stages) == set(range(1, len(row.stages) + 2))
    named = [parameter for layer in layers for parameter in layer.parameters]
    assert len(named) == len(set(named))
    after = ("layer3",) if row.layer == "layer2" else ()  # what the embedding does without
    head = ("classifier", "fc", "heads", "AuxLogits", *after)
    rest = {parameter for parameter, _ in network.module.named_parameters() if not parameter.startswith(head)}
    assert {parameter for parameter in named if not parameter.startswith(head)} == rest


@pytest.mark.parametrize(
    "name", ["mobilenetv2", "resnet18", "inception_v3", "efficientnet_b0", "convnext_tiny", "vit_b_16"]
)
def test_a_network_cut_in_two_is_the_same_network(name: str) -> None:
    row = find(name)
    network, side = untrained(row, seed=0), SIDES.get(name, 64)
    whole = embedding(row, network, row.pools[0], Preprocess(resize=side, crop=side))
    images = torch.randint(0, 256, (2, 3, side, side), dtype=torch.uint8)
    with torch.inference_mode():
        expected = whole(images)
        stem, whole.trunk = network.part(end=row.stages[1]), network.part(start=row.stages[1])
        found = whole.eval().embedded(stem.eval()(whole.normalised(images)))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def _classifier(name: str, unfreeze: str, still: bool = False) -> tuple[TorchNetwork, Classifier]:
    row = find(name)
    whole, preprocess = untrained(row, seed=0), Preprocess(resize=64, crop=64)
    layers = trained_layers(row, whole, unfreeze)
    network = Classifier(row, whole, nn.Linear(row.dim, 3), preprocess, layers, still)
    network.unfreeze()
    return whole, network


@pytest.mark.parametrize(("name", "still"), [("mobilenetv3_small", False), ("efficientnet_b0", True)])
def test_a_frozen_batchnorm_keeps_its_statistics_and_the_frozen_part_is_a_function(name: str, still: bool) -> None:
    whole, network = _classifier(name, "stage:4", still)
    model = whole.module
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    images = torch.randint(0, 256, (4, 3, 64, 64), dtype=torch.uint8)
    network.train()
    assert torch.equal(network.before(images), network.before(images))  # no dropped paths, no batch statistics
    network(images).square().mean().backward()
    stage = {
        parameter: layer.stage for layer in trained_layers(find(name), whole, "all") for parameter in layer.parameters
    }
    for buffer, value in model.named_buffers():
        norm = buffer.rpartition(".")[0]
        trained = stage.get(f"{norm}.weight", 0) >= 4 and not still
        assert torch.equal(before[buffer], value) != trained, buffer
    for parameter, value in model.named_parameters():
        assert (value.grad is not None) == (stage.get(parameter, 0) >= 4), parameter


def _one_each(classes: int, seed: int) -> Split:
    X = np.random.default_rng(0).normal(0, 1, (classes, 32)) + np.random.default_rng(seed).normal(0, 0.1, (classes, 32))
    names = tuple(str(number) for number in range(classes))
    return Split(X.astype(np.float32), np.arange(classes), names, ("",) * classes)


@pytest.mark.parametrize("class_weight", [None, "balanced"])
@pytest.mark.parametrize("refit", [False, True])
@pytest.mark.parametrize("kind", ["linear", "dense"])
def test_the_head_that_training_begins_with_is_sure_of_what_it_knows(
    kind: str, refit: bool, class_weight: str | None
) -> None:
    """One image per class, all recognised: nothing is left to learn, and steps of training do not undo it."""
    train, val = _one_each(30, seed=1), _one_each(30, seed=2)
    head = cached_head(kind, train, val, 30, 0, refit, class_weight).eval()
    features, labels = torch.from_numpy(train.features), torch.from_numpy(train.labels)
    loss = nn.functional.cross_entropy(head(features), labels)
    assert loss < 0.3 < np.log(30)
    optimizer = torch.optim.AdamW(head.parameters(), 1e-3)
    for _ in range(10):
        optimizer.zero_grad()
        nn.functional.cross_entropy(head(features), labels).backward()
        optimizer.step()
    logits = head(torch.from_numpy(val.features))
    assert (logits.argmax(1) == torch.from_numpy(val.labels)).float().mean() == 1


def test_few_validation_images_do_not_decide_how_training_begins_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four that are answered wrongly by chance would make the head sure of nothing."""
    random = np.random.default_rng(0)
    X, y = random.normal(0, 1, (64, 16)), np.arange(64) % 4
    X[np.arange(64), y] += 4
    made = Split(X.astype(np.float32), y, tuple(map(str, range(64))), ("",) * 64)
    train, val = made.of(np.arange(60)), replace(made.of(np.arange(60, 64)), labels=np.array([1, 2, 3, 0]))
    answers = []
    for few in (0, FEW):
        monkeypatch.setattr("tlcache.probing.folds.FEW", few)
        head = cached_head("linear", train, val, 4, 0).eval()
        answers.append(head(torch.from_numpy(train.features)).softmax(1).max(1).values.mean().item())
    by_four, by_folds = answers
    assert by_four < 0.3 < 0.7 < by_folds


def test_the_cut_is_the_last_stage_that_is_frozen_as_a_whole() -> None:
    row = find("resnet18")
    whole = untrained(row, seed=0)
    cuts = {
        each: cut_before(whole, trained_layers(row, whole, each)) for each in ("all", "stage:2", "last:3", "last:11")
    }
    assert cuts == {"all": None, "stage:2": "layer1", "last:3": "layer3", "last:11": "layer2"}


def test_pixels_are_those_of_extraction_and_damage_is_noticed(tmp_path: Path) -> None:
    photos = write_photos(tmp_path / "photos", 3)
    paths = sorted(path.relative_to(photos).as_posix() for path in photos.rglob("*.png"))
    sha256 = [hashlib.sha256((photos / path).read_bytes()).hexdigest() for path in paths]
    for preprocess in (Preprocess(resize=32, crop=24), Preprocess(resize=33, crop=20), Preprocess(resize=24, crop=24)):
        pixels = open_pixels(open_folder(photos), paths, sha256, preprocess)
        source = from_pixels(pixels, np.arange(9), np.zeros(9, np.int64), "none", 0, "cpu")
        found = source.fetch(np.array([8, 0]), 0).numpy()
        for image, path in zip(found, (paths[8], paths[0]), strict=True):
            assert np.array_equal(image, prepare((photos / path).read_bytes(), preprocess)[0])
    assert len(list(Path(os.environ["TLCACHE_CACHE"], "pixels").glob("*.npy"))) == 3
    other = replace(preprocess, mean=(0.5, 0.5, 0.5))  # applied by the network
    assert open_pixels(open_folder(photos), paths, sha256, other).images.path == pixels.images.path
    with pixels.images.path.open("r+b") as file:
        file.seek(-5, os.SEEK_END)
        file.write(b"\x07")
    assert len(pixels.images[np.array([0, 7])]) == 2
    with pytest.raises(CacheError, match="is damaged. Remove it and run the same command"):
        pixels.images[np.array([8])]


def test_frozen_layers_that_give_no_numbers_are_an_error_and_are_not_kept(tmp_path: Path) -> None:
    photos, infinite = write_photos(tmp_path / "photos", 1), tmp_path / "infinite.onnx"
    onnx.save(infinite_network(), infinite)
    paths = sorted(path.relative_to(photos).as_posix() for path in photos.rglob("*.png"))
    sha256 = [hashlib.sha256((photos / path).read_bytes()).hexdigest() for path in paths]
    stem = load_model(str(infinite))
    pixels = open_pixels(open_folder(photos), paths, sha256, stem.preprocess)
    with pytest.raises(ModelError, match="For 3 of 3 images the network gives numbers that are not finite"):
        from_activations(
            stem, (8,), pixels, np.arange(3), np.zeros(3, np.int64), "none", 0, 1, "cpu", tmp_path / "kept"
        )
    assert not list((tmp_path / "kept").iterdir())


def test_what_is_stopped_while_it_is_computed_leaves_nothing(tmp_path: Path) -> None:
    def fill(array: np.ndarray) -> None:
        array[0] = 1
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        StoredArray(tmp_path / "some.npy", (3, 2), np.float32, fill)
    assert not list(tmp_path.iterdir())
    assert StoredArray(tmp_path / "some.npy", (3, 2), np.float32, lambda array: array.fill(2)).rows.sum() == 12
    assert {path.name for path in tmp_path.iterdir()} == {"some.npy", "some.crc32", "some.seconds"}


@pytest.mark.parametrize("name", PRESETS)
def test_augmentation_is_decided_by_seed_epoch_and_image_alone(name: str) -> None:
    images = torch.randint(0, 256, (6, 3, 32, 32), dtype=torch.uint8)
    rows = np.array([4, 9, 2, 7, 5, 11])

    def changed(seed: int, epoch: int, order: list[int]) -> torch.Tensor:
        return augment(images[order], 24, PRESETS[name], draws(seed, epoch, rows[order]))

    one = changed(0, 3, [0, 1, 2, 3, 4, 5])
    assert one.dtype == torch.uint8
    assert one.shape == (6, 3, 24, 24)
    alone = torch.cat([changed(0, 3, [number]) for number in (5, 0)])
    assert (alone.int() - one[[5, 0]].int()).abs().max() <= 1  # the order of sums may round otherwise
    if name != "none":
        assert not torch.equal(one, changed(0, 4, [0, 1, 2, 3, 4, 5]))
        assert not torch.equal(one, changed(1, 3, [0, 1, 2, 3, 4, 5]))


def test_flips_and_crops_are_what_they_say() -> None:
    images = torch.randint(0, 256, (64, 3, 32, 32), dtype=torch.uint8)
    random = draws(0, 0, np.arange(64))
    centre = images[:, :, 4:28, 4:28]
    assert torch.equal(augment(images, 24, Preset(), random), centre)
    assert torch.equal(augment(images, 24, Preset(flips=(1.0, 0.0)), random), centre.flip(3))
    assert torch.equal(augment(images, 24, Preset(flips=(0.0, 1.0)), random), centre.flip(2))
    half = augment(images, 24, Preset(flips=(0.5, 0.5)), random)
    kinds = [centre, centre.flip(3), centre.flip(2), centre.flip((2, 3))]
    counts = [int((half == kind).flatten(1).all(1).sum()) for kind in kinds]
    assert sum(counts) == 64
    assert min(counts) >= 6
    assert torch.equal(augment(images, 32, Preset(area=(1.0, 1.0)), random), images)
    grey = images[:, :1].expand(-1, 3, -1, -1)
    assert torch.equal(augment(grey, 24, Preset(saturation=0.9), random), grey[:, :, 4:28, 4:28])


def test_every_operation_of_trivial_augment_runs() -> None:
    images = torch.randint(0, 256, (300, 3, 16, 16), dtype=torch.uint8)
    random = draws(0, 0, np.arange(300))
    assert len(set((random[:, 5] * 14).astype(int))) == 14
    assert augment(images, 16, Preset(trivial=True), random).shape == images.shape


def test_learning_rates() -> None:
    steps = [learning_rate_factor("cosine", step, 100, 10) for step in range(100)]
    assert steps[:10] == sorted(steps[:10])
    assert steps[10] == 1
    assert steps[10:] == sorted(steps[10:], reverse=True)
    assert steps[-1] < 0.001
    assert {learning_rate_factor("constant", step, 10, 0) for step in range(10)} == {1.0}
    falling = [learning_rate_factor("step", step, 100, 0) for step in (59, 60, 84, 85)]
    assert falling == pytest.approx([1, 0.1, 0.1, 0.01])


def test_groups_decay_by_stage_and_spare_biases_and_norms() -> None:
    row = find("resnet18")
    whole = untrained(row, seed=0)
    layers, head = trained_layers(row, whole, "stage:3"), nn.Linear(512, 3)
    optimizer = make_optimizer(Recipe(layer_decay=0.5, weight_decay=0.1), 1.0, whole.module, head, layers)
    rates = {
        id(each): (group["lr"], group["weight_decay"]) for group in optimizer.param_groups for each in group["params"]
    }
    named = dict(whole.module.named_parameters())
    assert rates[id(head.weight)] == (1.0, 0.1)
    assert rates[id(head.bias)] == (1.0, 0.0)
    assert rates[id(named["layer4.0.conv1.weight"])] == (0.5, 0.1)
    assert rates[id(named["layer3.0.bn1.weight"])] == (0.25, 0.0)
    assert id(named["layer2.0.conv1.weight"]) not in rates


def test_losses() -> None:
    logits, labels = torch.tensor([[2.0, 0.0, -1.0], [0.0, 3.0, 1.0]]), torch.tensor([0, 2])
    ones = torch.nn.functional.one_hot(labels, 3).float()
    binary = torch.nn.functional.binary_cross_entropy_with_logits(logits, ones, reduction="none").sum(1)
    assert make_loss("bce")(logits, labels) == pytest.approx(float(binary.mean()))
    weighted = make_loss("bce", 0.0, torch.tensor([1.0, 1.0, 3.0]))(logits, labels)
    assert weighted == pytest.approx(float((binary[0] + 3 * binary[1]) / 4))
    assert balance(np.array([0, 0, 0, 1]), 3).tolist() == pytest.approx([4 / 9, 4 / 3, 0])


def test_an_average_follows_and_is_put_in_place_for_a_while() -> None:
    layer = nn.Linear(1, 1)
    nn.init.zeros_(layer.weight)
    average = averaged(layer, 0.9)
    for _ in range(200):
        nn.init.ones_(layer.weight)
        average.update_parameters(layer)
    with in_place(average, layer):
        assert 0.99 < layer.weight.item() < 1
    assert layer.weight.item() == 1


def test_a_batch_never_has_a_single_image() -> None:
    source = Source(np.arange(9), lambda rows, _: torch.from_numpy(rows))
    sizes = [len(labels) for _, labels in source.batches(np.arange(9), 4, 0)]
    assert sizes == [4, 5]
    order = np.random.default_rng(0).permutation(9)
    batches = list(source.batches(order, 2, 0))
    assert torch.equal(torch.cat([labels for _, labels in batches]), torch.from_numpy(order))
    assert all(torch.equal(inputs, labels) for inputs, labels in batches)


def test_batches_are_made_on_one_thread_and_the_network_keeps_its_own() -> None:
    before, seen = torch.get_num_threads(), []

    def fetch(rows: np.ndarray, epoch: int) -> torch.Tensor:
        seen.append((torch.get_num_threads(), epoch))
        return torch.from_numpy(rows)

    torch.set_num_threads(2)
    try:
        for _ in Source(np.arange(8), fetch).batches(np.arange(8), 2, 3):
            assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert seen == 4 * [(1, 3)]


def test_the_grid_is_that_of_torch() -> None:
    maps = torch.randn(3, 2, 3)
    expected = torch.nn.functional.affine_grid(maps, [3, 3, 7, 7], False)
    torch.testing.assert_close(_grid(maps, 7), expected)


def test_two_checkpoints_are_kept_and_a_damaged_one_is_passed_over(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "kept")
    assert checkpoints.latest() is None
    for number in range(4):
        checkpoints.save(number, {"epoch": number, "weights": {"a": torch.full((2,), float(number))}})
    files = sorted((tmp_path / "kept").iterdir())
    assert [path.name[:6] for path in files] == ["000002", "000003"]
    state = checkpoints.latest()
    assert state is not None
    assert state["epoch"] == 3
    files[1].write_bytes(files[1].read_bytes()[:-7])
    state = checkpoints.latest()
    assert state is not None
    assert state["epoch"] == 2
