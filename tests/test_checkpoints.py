"""Checkpoints in the forms that trainings write: embeddings as of the plain state dict, or the way out is said."""

import argparse
import io
import pickle
import warnings
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fakes import TinyNetwork, TinySource
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from typer.testing import CliRunner

from tlcache.backbones.onnx_file import ONNX_FILE
from tlcache.backbones.sources import find
from tlcache.backbones.state_dicts import read_tensors
from tlcache.backbones.torch_network import embedding, pretrained
from tlcache.backbones.weights import load_state, resolve
from tlcache.cache.feature_file import open_features
from tlcache.cli import app
from tlcache.errors import WeightsError
from tlcache.extraction.extract import extract
from tlcache.finetuning.finetune import finetune

pytestmark = pytest.mark.usefixtures("tinynet")

State = dict[str, Tensor]


@pytest.fixture
def network() -> TinyNetwork:
    torch.manual_seed(3)
    return TinyNetwork()


def embedded(path: Path) -> np.ndarray:
    row = find("tinynet")
    weights = resolve(row, str(path))
    network = pretrained(row, load_state(weights), weights.label, row.preprocess())
    images = torch.arange(2 * 3 * 20 * 20).reshape(2, 3, 20, 20).remainder(251).byte()
    with torch.inference_mode():
        return embedding(row, network, "avg", row.preprocess())(images).numpy()


def below(prefix: str, state: State) -> State:
    return {prefix + name: each for name, each in state.items()}


def body(state: State) -> State:
    return {name: each for name, each in state.items() if not name.startswith("classifier.")}


def other(state: State) -> State:
    return {name: each + 1 for name, each in state.items()}


def ones(**shapes: Any) -> State:
    return {name.replace("_", "."): torch.ones(shape) for name, shape in shapes.items()}


def converted(state: State, kind: torch.dtype) -> State:
    return {name: each.to(kind) if each.is_floating_point() else each for name, each in state.items()}


def arrays(state: State) -> dict[str, np.ndarray]:
    return {name: each.numpy() for name, each in state.items()}


def uncounted(state: State) -> State:
    return {name: each for name, each in state.items() if "num_batches" not in name}


def parameters(state: State) -> State:
    return {name: nn.Parameter(each) if each.is_floating_point() else each for name, each in state.items()}


def averaged(state: State) -> State:
    network = TinyNetwork()
    network.load_state_dict(state)
    return AveragedModel(network).state_dict()


def middle(state: State) -> State:
    """The features alone in DataParallel, as in PyTorch's ImageNet example."""
    return {name.replace("features.", "features.module."): each for name, each in state.items()}


FORMS: dict[str, Callable[[State], Any]] = {
    "DataParallel": lambda state: below("module.", state),
    "compiled": lambda state: below("_orig_mod.", state),
    "both": lambda state: below("module._orig_mod.", state),
    "features in DataParallel": middle,
    "compiled layers": lambda state: {name.replace(".0.0.", ".0._orig_mod.0."): each for name, each in state.items()},
    "in state_dict": lambda state: {"state_dict": state, "epoch": 7, "best_acc1": 71.2, "optimizer": {"state": {}}},
    "in model_state_dict": lambda state: {"model_state_dict": state, "loss": torch.tensor(1.0)},
    "in an unknown key": lambda state: {"my weights": state},
    "averaged": lambda state: {"model": other(state), "model_ema": averaged(state), "args": argparse.Namespace(lr=0.1)},
    "averaged, in timm": lambda state: {"state_dict": other(state), "state_dict_ema": state, "arch": "tinynet"},
    "an AveragedModel": averaged,
    "Lightning": lambda state: {
        "state_dict": below("model.", state) | {"criterion.weight": torch.ones(3)},
        "hyper_parameters": {"lr": 1e-3, "path": Path("x")},
        "optimizer_states": [{"state": {0: {"exp_avg": torch.zeros(2)}}, "param_groups": []}],
        "callbacks": defaultdict(dict),
    },
    "with an optimizer": lambda state: {"net": state, "optimizer": {"state": {0: {"exp_avg": torch.zeros(2)}}}},
    "NumPy numbers": lambda state: {"state_dict": state, "best": np.float64(0.5), "curve": np.arange(3.0)},
    "a backbone beside a head": lambda state: {"backbone": body(state), "head": {"weight": torch.ones(3, 16)}},
    "below backbone": lambda state: below("backbone.", body(state)) | {"fc.weight": torch.ones(3, 16)},
    "below encoder": lambda state: below("encoder.", state),
    "below net, and a loss": lambda state: below("net.", state) | {"centres": torch.ones(3, 16)},
    "no classifier": body,
    "another classifier": lambda state: body(state) | ones(classifier_1_weight=(7, 16), classifier_1_bias=7),
    "a plain classifier": lambda state: body(state) | ones(classifier_weight=(7, 16), classifier_bias=7),
    "a deep classifier": lambda state: body(state) | ones(classifier_1_weight=(9, 16), classifier_3_weight=(7, 9)),
    "a classifier of wider features": lambda state: state | ones(classifier_1_weight=(1000, 99)),
    "a head of another name": lambda state: body(state) | ones(head_weight=(7, 16)),
    "float64": lambda state: converted(state, torch.float64),
    "float64 in state_dict": lambda state: {"state_dict": converted(state, torch.float64)},
    "no counts of batches": uncounted,
    "no counts, in DataParallel": lambda state: below("module.", uncounted(state)),
    "a profiler's counts": lambda state: state | {"total_ops": torch.ones(1), "features.0.total_params": torch.ones(1)},
    "parameters": parameters,
    "NumPy arrays": arrays,
    "NumPy arrays of the other byte order, in a dict": lambda state: {
        "params": {name: each.astype(each.dtype.newbyteorder(">")) for name, each in arrays(state).items()}
    },
    "NumPy arrays beside a name": lambda state: arrays(state) | {"arch": np.array("tinynet"), "curve": [np.ones(3)]},
    "ordered": lambda state: OrderedDict(reversed(state.items())),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_embeddings_are_those_of_the_plain_state_dict(
    form: Callable[[State], Any], network: TinyNetwork, tmp_path: Path
) -> None:
    torch.save(network.state_dict(), tmp_path / "plain.pth")
    torch.save(form(network.state_dict()), tmp_path / "form.pth")
    assert np.array_equal(embedded(tmp_path / "form.pth"), embedded(tmp_path / "plain.pth"))


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_half_precision_is_read_as_it_is(kind: torch.dtype, network: TinyNetwork, tmp_path: Path) -> None:
    half = converted(network.state_dict(), kind)
    torch.save(converted(half, torch.float32), tmp_path / "plain.pth")
    save_file(below("model.", half), tmp_path / "half.safetensors")
    assert np.array_equal(embedded(tmp_path / "half.safetensors"), embedded(tmp_path / "plain.pth"))


def test_files_of_other_makes_are_read_by_what_they_hold(network: TinyNetwork, tmp_path: Path) -> None:
    state = network.state_dict()
    torch.save(state, tmp_path / "plain.pth")
    torch.save(state, tmp_path / "old.bin", _use_new_zipfile_serialization=False)
    save_file(below("net.", state), tmp_path / "tensors.ckpt")
    for name in ("old.bin", "tensors.ckpt"):
        assert np.array_equal(embedded(tmp_path / name), embedded(tmp_path / "plain.pth"))


def test_what_was_done_is_said_in_one_line(
    network: TinyNetwork, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "tlcache")
    state = network.state_dict()
    path = tmp_path / "mine.pth"
    torch.save(state, path)
    embedded(path)
    assert caplog.messages == []
    torch.save({"state_dict": below("module.", body(state)) | {"module.classifier.weight": torch.ones(7, 16)}}, path)
    embedded(path)
    assert caplog.messages == [
        "The weights 'file:mine.pth' as those of tinynet: 'state_dict.module.features.0.0.weight' is its "
        "'features.0.0.weight'; its classifier is not there; not used: classifier.weight."
    ]


def test_extract_and_finetune_take_them(photos: Path, network: TinyNetwork, tmp_path: Path) -> None:
    plain, wrapped = tmp_path / "plain.pth", tmp_path / "wrapped.pth"
    torch.save(network.state_dict(), plain)
    torch.save({"state_dict": below("module.", body(network.state_dict()))}, wrapped)
    rows = []
    for path in (plain, wrapped):
        with open_features(extract(photos, "tinynet", str(path)).path) as file:
            rows.append(file.split("train").features)
    assert np.array_equal(*rows)
    settings = {"epochs": 1, "precision": "fp32", "layout": "contiguous", "batch_size": 8}
    first, second = (finetune(photos, "tinynet", str(path), **settings) for path in (plain, wrapped))
    assert np.array_equal(first.predictions().probabilities, second.predictions().probabilities)
    words = ["-d", str(photos), "-m", "tinynet", "-w", str(wrapped), "--heads", "ridge", "--no-finetune"]
    result = CliRunner().invoke(app, ["study", *words])
    assert result.exit_code == 0, result.output


class Hostile:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, ("open('executed', 'w')",)


def zipped(save: Callable[..., None], **content: Any) -> bytes:
    buffer = io.BytesIO()
    save(buffer, **content)
    return buffer.getvalue()


def saved(content: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "a Git LFS pointer.*git lfs pull"),
        (b"\n<!DOCTYPE html><html><body>Sign in</body></html>", "a web page or XML.*Download it again"),
        (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "a web page or XML"),
        (b"\x89HDF\r\n\x1a\n" + bytes(99), "an HDF5 file, as Keras writes"),
        (b"\x93NUMPY\x01\x00" + bytes(99), "a NumPy array"),
        (b"", "it is empty"),
        (saved({"a": torch.ones(999)})[:-999], "an archive that is cut off or damaged"),
        (saved(TinyNetwork()), r"holds Python objects \(fakes.TinyNetwork\), which may run anything"),
        (saved({"state_dict": {"a": torch.ones(2)}, "config": Hostile()}), r"Python objects \((builtins\.)?exec\)"),
        (pickle.dumps(Hostile()), "is not a plain PyTorch state dict"),
        (saved({"epoch": 3, "nets": [{}]}), r"no tensors by their names, but a dict of epoch \(int\), nets \(list\)"),
        (saved([torch.ones(2), 3]), "no tensors by their names, but a list of Tensor, int"),
        (saved(torch.ones(2)), r"no tensors by their names, but a Tensor. Save them with torch.save\(model.state"),
        (saved({}), "no tensors by their names, but a dict of nothing"),
        (pickle.dumps({"a": np.ones(3)}), r"perhaps a pickle, which tlcache does not load. Save one with torch.save"),
        (b'{"weight_map": {"a": "model-00001-of-00002.safetensors"}}', "it is JSON. If it is the index .* in parts"),
        (zipped(np.savez, a=np.ones(3), b=np.ones(3)), "it is a zip archive of a.npy, b.npy. Save one"),
    ],
)  # fmt: skip
def test_what_is_no_checkpoint_is_called_by_its_name(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=message):
        load_state(resolve(find("tinynet"), str(path)))
    assert not Path("executed").exists()


def test_a_program_is_not_run(network: TinyNetwork, tmp_path: Path) -> None:
    with warnings.catch_warnings(action="ignore"):  # that it is a form of yesterday
        torch.jit.script(network).save(tmp_path / "script.pt")
    with pytest.raises(WeightsError, match="a TorchScript program"):
        load_state(resolve(find("tinynet"), str(tmp_path / "script.pt")))


WRONG: dict[str, tuple[Callable[[State], Any], str]] = {
    "another network": (
        lambda _: ones(conv1_weight=(4, 3, 3, 3), fc_bias=2),
        r"15 of 15 tensors are missing: features.0.0.weight, .* and 10 more; there are conv1.weight \(4, 3, 3, 3\), fc",
    ),
    "a part": (
        lambda state: {name: each for name, each in state.items() if "features.2.1" not in name},
        "4 of 15 tensors are missing: features.2.1.weight",
    ),
    "a deeper network": (
        lambda state: state | ones(features_3_0_weight=(16, 16, 3, 3)),
        r"more than that network has: features.3.0.weight \(16, 16, 3, 3\)",
    ),
    "a wider network": (
        lambda state: state | ones(features_0_0_weight=(9, 3, 3, 3)),
        "size mismatch for features.0.0.weight",
    ),
    "NaN": (
        lambda state: state | {"features.1.0.weight": state["features.1.0.weight"] * np.nan},
        "hold NaN or infinity, in features.1.0.weight",
    ),
    "sparse": (
        lambda state: state | {"features.0.0.weight": state["features.0.0.weight"].to_sparse()},
        "hold sparse or complex tensors: features.0.0.weight. Save them dense",
    ),
    "complex": (
        lambda state: state | {"features.0.0.weight": state["features.0.0.weight"].to(torch.complex64)},
        "hold sparse or complex tensors: features.0.0.weight. Save them dense",
    ),
}


def test_tensors_with_gradients_are_those_without(network: TinyNetwork, tmp_path: Path) -> None:
    state = network.state_dict()
    torch.save(state, tmp_path / "plain.pth")
    torch.save({name: each.float().requires_grad_() for name, each in state.items()}, tmp_path / "grad.pth")
    assert not any(each.requires_grad for each in read_tensors(tmp_path / "grad.pth").values())
    np.testing.assert_array_equal(embedded(tmp_path / "grad.pth"), embedded(tmp_path / "plain.pth"))


@pytest.mark.parametrize(("form", "message"), WRONG.values(), ids=WRONG)
def test_what_does_not_fit_is_listed(
    form: Callable[[State], Any], message: str, network: TinyNetwork, tmp_path: Path
) -> None:
    torch.save(form(network.state_dict()), tmp_path / "wrong.pth")
    with pytest.raises(WeightsError, match=message) as caught:
        embedded(tmp_path / "wrong.pth")
    assert "'file:wrong.pth'" in str(caught.value)


def test_several_networks_are_not_chosen_from(network: TinyNetwork, tmp_path: Path) -> None:
    state = network.state_dict()
    torch.save(below("encoder_q.", state) | below("encoder_k.", other(state)), tmp_path / "moco.pth")
    first = "'encoder_[qk].features.0.0.weight'"
    with pytest.raises(
        WeightsError,
        match=rf"'file:moco.pth' do not fit tinynet: .* several such networks, .* {first}, {first}. Save the",
    ):
        embedded(tmp_path / "moco.pth")


def quantised(state: State) -> State:
    """Make integers with a scale, as `torch.ao.quantization` does."""
    with warnings.catch_warnings(action="ignore"):  # that torch will do so elsewhere
        return {
            name: torch.quantize_per_tensor(each, 0.1, 0, torch.qint8) if name.endswith("0.weight") else each
            for name, each in state.items()
        }


@pytest.mark.parametrize(
    "form",
    [
        quantised,
        lambda state: {"model": below("module.", quantised(state))},
        lambda state: {name: (9 * each).to(torch.int8) for name, each in state.items()},
        lambda state: body(state) | {"features.0.0.weight": torch.ones(4, 27, dtype=torch.uint8)},
        lambda _: {"features.0.0.scale": torch.ones(1), "features.0.0.zero_point": torch.ones(1)},
    ],
    ids=["torch", "in a dict", "int8", "uint8 in another form", "packed"],
)
def test_integers_with_a_scale_are_called_quantised(
    form: Callable[[State], Any], network: TinyNetwork, tmp_path: Path
) -> None:
    torch.save(form(network.state_dict()), tmp_path / "int8.pth")
    with pytest.raises(
        WeightsError, match="'file:int8.pth' are quantised to integers: .*0.* Save those of the network"
    ):
        embedded(tmp_path / "int8.pth")


def test_the_network_that_fits_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two networks of one source the other one was asked for."""
    small, source = TinyNetwork(), TinySource({}, {"name": "tinier"})
    build = source.build

    def built(backbone: Any, preprocess: Any, state: State | None = None) -> Any:
        network = build(backbone, preprocess)
        if backbone.name == "tinier":
            network.module.features = network.module.features[:2]
            network.module.load_state_dict(state or network.module.state_dict(), assign=True)
        elif state is not None:
            return build(backbone, preprocess, state)
        return network

    monkeypatch.setattr(source, "build", built)
    monkeypatch.setattr("tlcache.backbones.sources.SOURCES", (source, ONNX_FILE))
    torch.save(below("module.", small.state_dict()), tmp_path / "small.pth")
    row = find("tinier")
    weights = resolve(row, str(tmp_path / "small.pth"))
    with pytest.raises(WeightsError, match=r"do not fit tinier: .*They fit tinynet: pass --model tinynet\."):
        pretrained(row, load_state(weights), weights.label, row.preprocess())
