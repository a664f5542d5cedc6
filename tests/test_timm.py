"""Networks of timm: names, weights without a network, preprocessing, embeddings, sizes, stages, fine-tuning."""

import io
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from tlcache.backbones.backbone import Backbone
from tlcache.backbones.load import load_model
from tlcache.backbones.sources import find, list_models, lookup
from tlcache.backbones.torch_network import embedding, operations, pretrained, untrained
from tlcache.backbones.weights import is_here, load_state, resolve
from tlcache.cache.feature_file import FeatureFile
from tlcache.cli import app
from tlcache.deploying.export import export
from tlcache.deploying.predict import predict
from tlcache.errors import ModelError, OptionError, UnknownNameError, WeightsError
from tlcache.extraction.extract import extract, extract_layers
from tlcache.finetuning.classifier import cut_before, trained_layers
from tlcache.finetuning.finetune import finetune
from tlcache.images import Preprocess, prepare
from tlcache.probing.fit import fit_heads

NETWORKS = ("test_vit", "test_vit3", "test_efficientnet", "test_resnet", "test_convnext", "test_mambaout")
SIZES = [
    *((160, 160), (161, 160), (96, 333), (333, 96), (500, 375), (375, 500), (640, 427), (100, 399), (251, 250)),
    *((4, 16), (3, 2), (17, 19), (63, 64), (224, 224), (225, 224), (256, 256), (168, 168), (719, 501)),
    *((400, 168), (168, 400)),
]  # of images more than four times as long as wide the ends are cut first


def state_of(name: str, seed: int = 1, **options: Any) -> dict[str, Tensor]:
    """Return a state dict as timm itself has it, in which nothing is near zero as in a fresh network."""
    random = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = timm.create_model(name, **options)
    numbers = {
        name: each + 0.1 * torch.rand(each.shape, generator=random) for name, each in module.state_dict().items()
    }
    return {name: each if each.is_floating_point() else module.state_dict()[name] for name, each in numbers.items()}


def save(path: Path, state: dict[str, Tensor]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: each.contiguous().clone() for name, each in state.items()}, path)
    return path


def picture(height: int, width: int) -> Image.Image:
    """Return what photographs are: smooth, with edges."""
    rows, columns = np.mgrid[:height, :width]
    waves = [127 + 100 * np.sin(rows / (9 + band) + columns / (23 - band)) for band in range(3)]
    pixels = np.stack(waves, axis=2).astype(np.uint8)
    pixels[height // 3 : height // 2, width // 4 : width // 2] //= 2
    return Image.fromarray(pixels)


def png(image: Image.Image) -> bytes:
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


def test_a_name_has_the_tag_of_its_weights() -> None:
    assert find("timm/test_resnet").name == "timm/test_resnet.r160_in1k"
    assert find("timm/test_mambaout").name == "timm/test_mambaout"  # of which none are published
    assert find("timm/test_mambaout").checkpoints == {}
    row = find("timm/resnet50.tv_in1k")
    assert (row.dim, row.parameters) == (2048, 25_557_032)
    assert row.preprocess() == Preprocess(256, 224, "bilinear")
    assert find("timm/resnet50").preprocess() == Preprocess(235, 224, "bicubic")  # the tag decides, not the network
    assert row.checkpoints["tv_in1k"].licence == "bsd-3-clause"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("timm/test_resnt", r"no network 'test_resnt'. Did you mean 'timm/test_resnet'\? See: tlcache models --timm"),
        ("timm/resnet50.imagenet", r"no weights 'imagenet' of resnet50. Known: .*tv_in1k"),
        ("timm/test_mambaout.in1k", "no weights 'in1k' of test_mambaout. It has none"),
    ],
)
def test_unknown_names_are_answered_with_known_ones(name: str, words: str) -> None:
    with pytest.raises(UnknownNameError, match=words):
        find(name)


def test_a_network_for_other_images_or_without_an_embedding_is_refused() -> None:
    with pytest.raises(ModelError, match="not squares"):
        find("timm/vit_base_patch16_sapiens2")
    with pytest.raises(ModelError, match="does not support classification"):
        find("timm/gemma4_vit_167m_enc")


def test_without_timm_the_way_to_install_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ModelError, match=r"pip install 'tlcache\[timm\]'"):
        find("timm/resnet50")
    assert lookup("timm/resnet50") is None  # as of a run that was recorded elsewhere
    assert find("resnet50").name == "resnet50"


def test_networks_are_listed_when_they_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not [row for row in list_models() if row.source.name == "timm"]
    assert [row.name for row in list_models("timm/test_conv*2*")] == ["timm/test_convnext2.r160_in1k"]
    from typer.testing import CliRunner

    monkeypatch.setenv("COLUMNS", "120")
    shown = CliRunner().invoke(app, ["models", "--timm", "test_resnet*"]).stdout
    assert "timm/test_resnet.r160_in1k" in shown
    assert "apache-2.0" in shown


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("the network was tried")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def test_missing_weights_are_told_at_once_and_found_where_the_message_says() -> None:
    row, started = find("timm/test_resnet"), time.perf_counter()
    with pytest.raises(WeightsError) as caught:
        resolve(row)
    assert time.perf_counter() - started < 5
    message = str(caught.value)
    assert "model.safetensors of timm/test_resnet.r160_in1k" in message
    assert "pass --weights FILE" in message
    assert not is_here(row)
    place = Path(message.partition("Put the file at ")[2].partition(" by hand")[0])
    save(place, state_of("test_resnet"))
    with pytest.MonkeyPatch.context() as patch:
        no_network.__wrapped__(patch)  # type: ignore[attr-defined]
        assert resolve(row).path == place
        assert row.at_hand == ["r160_in1k"]
        assert is_here(row)


@pytest.mark.usefixtures("no_network")
def test_weights_of_the_hubs_cache_are_used_without_a_network(tmp_path: Path) -> None:
    folder = tmp_path / "hub" / "hub" / "models--timm--test_resnet.r160_in1k"
    save(folder / "snapshots" / "abc" / "model.safetensors", state_of("test_resnet"))
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("abc")
    row = find("timm/test_resnet")
    weights = resolve(row)
    assert weights.label == "r160_in1k"
    assert weights.path == folder / "snapshots" / "abc" / "model.safetensors"
    module = pretrained(row, load_state(weights), weights.label, row.preprocess()).module
    assert torch.equal(module.state_dict()["layer1.0.conv1.weight"], state_of("test_resnet")["layer1.0.conv1.weight"])


@pytest.mark.usefixtures("no_network")
def test_a_network_that_others_publish_is_described_by_its_folder(tmp_path: Path) -> None:
    folder = tmp_path / "hub" / "hub" / "models--lab--scans" / "snapshots" / "main"
    save(folder / "model.safetensors", state_of("test_resnet", num_classes=3))
    config = '{"input_size": [3, 96, 96], "crop_pct": 1.0, "interpolation": "bicubic", "mean": [0.1, 0.2, 0.3]'
    config += ', "std": [0.5, 0.5, 0.5], "num_classes": 3, "classifier": "fc", "license": "cc-by-nc-4.0"}'
    (folder / "config.json").write_text(
        f'{{"architecture": "test_resnet", "num_classes": 3, "pretrained_cfg": {config}}}'
    )
    row = find("hf-hub:lab/scans")
    assert row.preprocess() == Preprocess(96, 96, "bicubic", (0.1, 0.2, 0.3), (0.5, 0.5, 0.5))
    assert row.checkpoints["hub"].licence == "cc-by-nc-4.0"
    assert row.at_hand == ["hub"]
    model = load_model("hf-hub:lab/scans")
    assert model.identity["backbone"]["builder"] == "hf-hub:lab/scans"
    weights = resolve(row)
    assert pretrained(row, load_state(weights), weights.label, row.preprocess()).module.fc.out_features == 3


def test_a_network_that_is_not_at_hand_says_which_file_describes_it() -> None:
    with pytest.raises(
        WeightsError, match=r"(?s)config.json of lab/none.*models--lab--none.snapshots.main.config.json"
    ):
        find("hf-hub:lab/none")
    assert lookup("hf-hub:lab/none") is None


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        ("resnet50.tv_in1k", "center"),
        ("vit_base_patch16_siglip_224", "center"),
        ("convnext_tiny.fb_in22k_ft_in1k_384", "squash"),
        ("deepseek_vit_412m", "border"),
    ],
)
def test_images_are_prepared_as_timm_prepares_them(name: str, mode: str) -> None:
    config = timm.data.resolve_data_config(pretrained_cfg=timm.models.get_pretrained_cfg(name).to_dict())
    assert config["crop_mode"] == mode
    preprocess, transform = find(f"timm/{name}").preprocess(), timm.data.create_transform(**config, normalize=False)
    differences = []
    for height, width in SIZES:
        image = picture(height, width)
        found, expected = prepare(png(image), preprocess)[0].astype(int), transform(image).numpy()
        differences.append(np.abs(found - expected))
        assert differences[-1].max() <= (2 if mode == "center" else 0), (height, width)
    assert np.mean([each.mean() for each in differences]) < 0.05


@pytest.fixture(scope="module", params=NETWORKS)
def network(request: pytest.FixtureRequest) -> tuple[Backbone, dict[str, Tensor]]:
    return find(f"timm/{request.param}"), state_of(request.param)


def images(side: int, count: int = 2) -> Tensor:
    random = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8, generator=random)


def normal(image: Tensor, preprocess: Preprocess) -> Tensor:
    mean, std = (torch.tensor(each).view(3, 1, 1) for each in (preprocess.mean, preprocess.std))
    return (image / 255 - mean) / std


def test_embeddings_are_timms_own(network: tuple[Backbone, dict[str, Tensor]]) -> None:
    row, state = network
    preprocess = row.preprocess()
    found = embedding(row, pretrained(row, state, "file:x", preprocess), "model", preprocess)
    own = timm.create_model(row.builder).eval()
    own.load_state_dict(state)
    image = images(preprocess.crop)
    with torch.inference_mode():
        logits = own(normal(image, preprocess))
        assert torch.allclose(found.trunk.module(normal(image, preprocess)), logits, atol=1e-6)
        own.reset_classifier(0)
        expected, rows = own(normal(image, preprocess)), found(image)
    assert rows.shape == (2, row.dim)
    assert torch.allclose(rows, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))


def test_poolings_are_of_patches_and_of_the_class_token(network: tuple[Backbone, dict[str, Tensor]]) -> None:
    row, state = network
    preprocess = row.preprocess()
    whole = pretrained(row, state, "file:x", preprocess)
    image = images(preprocess.crop)
    with torch.inference_mode():
        (last,) = whole.module.forward_intermediates(
            normal(image, preprocess), indices=1, norm=True, output_fmt="NCHW", intermediates_only=True
        )
        rows = {pool: embedding(row, whole, pool, preprocess)(image) for pool in row.pools}
        features = whole.part()(normal(image, preprocess))
    assert ("cls" in row.pools) == (row.builder.partition(".")[0] == "test_vit")
    if last.shape[1] == rows["avg"].shape[1]:  # the layer after the last stage has more channels in some
        assert torch.allclose(rows["avg"], last.mean((2, 3)), rtol=1e-3, atol=1e-4)
        assert torch.allclose(rows["max"], last.amax((2, 3)), rtol=1e-3, atol=1e-4)
    if "cls" in row.pools:
        assert torch.allclose(rows["cls"], features[:, 0], rtol=1e-3, atol=1e-4)
        assert torch.equal(rows["cls+avg"], torch.cat([rows["cls"], rows["avg"]], 1))
    assert rows["flatten"].shape[1] == features[0].numel()


def test_layers_are_all_of_the_network_but_the_classifier(network: tuple[Backbone, dict[str, Tensor]]) -> None:
    row, _ = network
    whole = untrained(row, 0)
    layers = whole.layers()
    names = [name for layer in layers for name in layer.parameters]
    config = whole.module.pretrained_cfg
    rest = {name for name, _ in whole.module.named_parameters()} - set(names)
    assert len(names) == len(set(names))
    assert {name.rpartition(".")[0] for name in rest} == {config["classifier"]}
    assert [layer.stage for layer in layers] == sorted(layer.stage for layer in layers)
    assert {layer.stage for layer in layers} == set(range(1, layers[-1].stage + 1))


def test_a_network_in_two_parts_is_the_whole(network: tuple[Backbone, dict[str, Tensor]]) -> None:
    row, state = network
    preprocess = row.preprocess()
    whole = pretrained(row, state, "file:x", preprocess)
    assert bool(whole.stages) == (row.builder != "test_vit.r160_in1k")  # images of any size, which fx cannot follow
    image = normal(images(preprocess.crop), preprocess)
    with torch.inference_mode():
        expected = whole.part()(image)
        for cut in whole.stages:
            found = whole.part(start=cut)(whole.part(end=cut)(image))
            assert torch.allclose(found, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))


def test_stages_are_where_feature_maps_shrink_and_quarters_of_transformers() -> None:
    assert untrained(find("timm/test_efficientnet"), 0).stages == ("blocks.0", "blocks.1", "blocks.2", "blocks.3")
    assert untrained(find("timm/test_vit3"), 0).stages == ("blocks.1", "blocks.3", "blocks.5")


def test_what_cannot_be_cut_is_trained_whole_and_cached_by_nobody() -> None:
    row = find("timm/test_vit")
    whole = untrained(row, 0)
    trained = trained_layers(row, whole, "last:2")
    assert [layer.name for layer in trained] == ["blocks.4", "blocks.5"]  # timm's groups: the last has the norm, too
    assert cut_before(whole, trained) is None
    with pytest.raises(OptionError, match="cannot be cut in two: .*leave cached-prefix out"):
        trained_layers(row, whole, "last:2", cached_prefix=True)


@pytest.mark.parametrize("wrap", ["", "module.", "state_dict.model."])
def test_weights_of_other_classes_and_from_trainings_are_taken(wrap: str) -> None:
    row, state = find("timm/test_resnet"), state_of("test_resnet", num_classes=7)
    found = pretrained(row, {wrap + name: each for name, each in state.items()}, "file:x", row.preprocess()).module
    assert found.fc.out_features == 7
    assert torch.equal(found.state_dict()["layer1.0.conv1.weight"], state["layer1.0.conv1.weight"])


@pytest.mark.parametrize("classes", [1000, 7])
@pytest.mark.parametrize("missing", ["layer1.0.conv1.weight", "layer2.0.bn1.running_mean"])
def test_weights_that_lack_something_are_refused(missing: str, classes: int) -> None:
    row, state = find("timm/test_resnet"), state_of("test_resnet", num_classes=classes)
    del state[missing]
    with pytest.raises(WeightsError, match=f"1 of .* tensors are missing: {missing}"):
        pretrained(row, state, "file:x", row.preprocess())


def test_weights_of_another_network_are_refused() -> None:
    row = find("timm/test_resnet")
    with pytest.raises(WeightsError, match="do not fit timm/test_resnet.r160_in1k"):
        pretrained(row, state_of("test_convnext"), "file:x", row.preprocess())


def test_positions_are_interpolated_for_images_of_another_size() -> None:
    row, state = find("timm/test_vit3"), state_of("test_vit3")
    preprocess = Preprocess(96, 96, "bicubic")
    found = pretrained(row, state, "file:x", preprocess).module
    own = timm.create_model("test_vit3", pretrained=True, pretrained_cfg_overlay={"state_dict": state}, img_size=96)
    assert found.pos_embed.shape == (1, 1 + 36, 96)  # with a register
    assert torch.equal(found.pos_embed, own.pos_embed)
    with pytest.raises(ModelError, match="takes no images of 8 x 8 pixels, its own are 160 x 160"):
        pretrained(row, state, "file:x", Preprocess(8, 8))


def test_the_key_has_the_name_the_weights_and_the_preprocessing(tmp_path: Path) -> None:
    path = str(save(tmp_path / "mine.safetensors", state_of("test_resnet")))
    model = load_model("timm/test_resnet", path)
    backbone = model.identity["backbone"]
    assert (backbone["source"], backbone["builder"]) == ("timm", "test_resnet.r160_in1k")
    assert model.identity["preprocess"]["interpolation"] == "bilinear"
    assert model.arguments == {"model": "timm/test_resnet.r160_in1k", "weights": path}
    keys = {load_model("timm/test_resnet", path, **each).key for each in ({}, {"pool": "max"}, {"crop": 128})}
    assert len(keys) == 3


def test_a_network_embeds_images(photos: Path, tmp_path: Path) -> None:
    weights = str(save(tmp_path / "mine.safetensors", state_of("test_resnet")))
    made = extract(photos, "timm/test_resnet", weights, resize=32, crop=32)
    assert (made.rows, made.embedded) == (24, 24)
    assert extract(photos, "timm/test_resnet.r160_in1k", weights, resize=32, crop=32).up_to_date
    with FeatureFile(made.path) as file:
        assert file.attrs["backbone"] == "timm/test_resnet.r160_in1k"
        assert file.split("train").features.shape[1] == 96


@pytest.mark.slow
def test_a_transformer_does_the_whole_job(photos: Path) -> None:
    quick = {"epochs": 1, "precision": "fp32", "layout": "contiguous", "augment": "none"}
    options = {"resize": 32, "crop": 32, "unfreeze": "last:2", "cached_prefix": True, **quick}
    tuned = finetune(photos, "timm/test_vit3", "random", **options)
    assert tuned.layers.cut == "blocks.5"
    assert tuned.layers.trained == ("blocks.8", "attn_pool")
    asked = {"weights": "random", "resize": 32, "crop": 32}
    made = extract_layers(photos, "timm/test_vit3", ["stage:2", "last"], ["avg"], **asked)
    assert [each.embedded for each in made] == [24, 24]
    ridge = fit_heads(made[1].path, heads=["ridge"])[0]
    for run in (ridge, tuned):
        done = export(run.path, out=photos.parent / f"{run.strategy}.onnx")
        assert done.recorded is not None
        assert done.recorded.same == done.recorded.n == 6
        asked_run, asked_file = (predict(each, photos / "red") for each in (run, done.path))
        assert asked_run.labels == asked_file.labels
        assert np.allclose(asked_run.confidences, asked_file.confidences, atol=1e-4)
    chosen = [run for run in fit_heads(heads=["ridge"], layers="all") if run.layers]
    assert [each.output for each in chosen[0].layers] == ["stage:2", None, None]  # and the last, as timm pools it
    assert len(predict(chosen[0], photos / "blue").labels) == 8


@pytest.mark.slow
def test_no_network_is_tried_where_all_is_at_hand(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In all processes that take part."""
    folder = tmp_path / "hub" / "hub" / "models--timm--test_resnet.r160_in1k" / "snapshots" / "main"
    save(folder / "model.safetensors", state_of("test_resnet"))
    tried, cut = tmp_path / "tried", tmp_path / "cut"
    cut.mkdir()
    (cut / "sitecustomize.py").write_text(
        f"import socket\ndef refuse(*_):\n    open({str(tried)!r}, 'a').write('tried')\n    raise OSError('cut')\n"
        "socket.getaddrinfo = refuse\nsocket.socket.connect = refuse\n"
    )
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(cut), os.environ.get("PYTHONPATH", "")]))
    command = [sys.executable, "-m", "tlcache", "extract", "--data", photos, "--resize", "32", "--crop", "32"]
    done = subprocess.run([*command, "--model", "timm/test_resnet"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "24 images embedded" in done.stdout
    assert not tried.exists()
    missing = subprocess.run([*command, "--model", "timm/test_vit"], capture_output=True, text=True, check=False)
    assert "Put the file at" in missing.stderr
    assert tried.exists()  # the cut works


def test_operations_are_counted_where_a_parameter_is_the_query_of_a_pooling() -> None:
    row = find("timm/test_vit3")  # as in SigLIP
    attention, patches = 9 * 4 * 96 * 96 * 2 * 101, 100 * 96 * 3 * 16 * 16 * 2
    assert operations(row, row.preprocess()) > attention + patches


@pytest.mark.slow
def test_attention_with_a_bias_is_exported() -> None:
    model = load_model("timm/test_vit_relpos", "random")
    assert len(model.onnx()) > 100_000  # parity is checked
