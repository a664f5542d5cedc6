"""Fakes that are tiny and real: a dozen generated images, an 8-dimensional ONNX network."""

import fnmatch
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import h5py
import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from PIL import Image, PngImagePlugin
from torch import nn

from tlcache.backbones.backbone import Backbone, Checkpoint, TorchNetwork, Weights
from tlcache.backbones.downloads import published
from tlcache.backbones.exported import from_torch
from tlcache.backbones.layers import outputs_of
from tlcache.backbones.torch_network import TracedNetwork, filled
from tlcache.cache import feature_file as store
from tlcache.cache.feature_file import Split
from tlcache.evaluation.metrics import evaluate
from tlcache.evaluation.significance import unit_numbers
from tlcache.heads.ridge import Ridge
from tlcache.heads.table import HEADS, HeadRow
from tlcache.images import Preprocess
from tlcache.runs.base import ExtractSeconds, Hardware, Identity, SplitSizes
from tlcache.runs.finetuned import FinetunedRun, Layers, PhaseEpochs, TunedChoice, TunedEpoch
from tlcache.runs.folder import path_of, runs_folder, write_run
from tlcache.runs.frozen import FrozenRun, HeadCandidate, Repeats, TemperatureScaling
from tlcache.runs.joined import JoinedPart, JoinedRun
from tlcache.runs.predictions import Predictions
from tlcache.runs.record import Run

SIDE = 16

SABOTAGE = '''
"""Imported by every Python process of the test: Pillow's PNG decoder dies or hangs on images with a marker."""
import os, signal, sys, threading, time
from importlib.abc import MetaPathFinder
from importlib.machinery import PathFinder


class Saboteur(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        spec = PathFinder.find_spec(name, path, target) if name == "PIL.PngImagePlugin" else None
        if spec is not None:
            load = spec.loader.exec_module

            def exec_module(module):
                load(module)
                original = module.PngImageFile.load_prepare

                def load_prepare(image):
                    if image.info.get("fate") == "crash":
                        signal.pthread_kill(threading.get_ident(), signal.SIGSEGV)  # here, as a real fault
                    while image.info.get("fate") == "hang":
                        time.sleep(0.01)
                    if image.info.get("fate") == "stall once" and not os.path.exists(os.environ["STALLED"]):
                        open(os.environ["STALLED"], "w").close()
                        time.sleep(60)
                    original(image)

                module.PngImageFile.load_prepare = load_prepare

            spec.loader.exec_module = exec_module
        return spec


sys.meta_path.insert(0, Saboteur())
'''


def write_image(path: Path, seed: int, colour: int, side: int = 20) -> Path:
    """Write a noisy PNG in which one channel is brighter."""
    random = np.random.default_rng(seed)
    pixels = random.integers(0, 120, (side, side, 3), dtype=np.uint8)
    pixels[:, :, colour % 3] += np.uint8(100)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def write_photos(folder: Path, per_class: int = 8) -> Path:
    for colour, name in enumerate(("blue", "green", "red")):
        for number in range(per_class):
            write_image(folder / name / f"{number}.png", 100 * colour + number, colour)
    return folder


def doom(path: Path, fate: str) -> None:
    """Write a PNG that crashes or hangs the decoder of processes that `SABOTAGE` is imported by."""
    info = PngImagePlugin.PngInfo()
    info.add_text("fate", fate)
    seed = sum(map(ord, path.name + fate))
    Image.new("RGB", (20, 20), (seed % 256, 0, 0)).save(path, pnginfo=info)


def tiny_network(seed: int = 0) -> onnx.ModelProto:
    """A convolution, ReLU and global average: uint8 (batch, 3, 16, 16) -> float32 (batch, 8)."""
    random = np.random.default_rng(seed)
    kernel = random.normal(0, 0.01, (8, 3, 4, 4)).astype(np.float32)
    nodes = [
        helper.make_node("Cast", ["image"], ["x"], to=TensorProto.FLOAT),
        helper.make_node("Conv", ["x", "kernel"], ["y"], strides=[4, 4]),
        helper.make_node("Relu", ["y"], ["z"]),
        helper.make_node("GlobalAveragePool", ["z"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["embedding"], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["batch", 3, SIDE, SIDE])],
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["batch", 8])],
        [numpy_helper.from_array(kernel, "kernel")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    preprocess = {"rules": 1, "resize": SIDE, "crop": SIDE, "interpolation": "bilinear", "crop_borders": False}
    preprocess |= {"mean": [0.0, 0.0, 0.0], "std": [1.0, 1.0, 1.0]}
    helper.set_model_props(
        model, {"exporter": "tlcache tests", "preprocess": json.dumps(preprocess), "pool": "avg", "backbone": "tiny"}
    )
    return model


def tiny_bundle(classes: Sequence[str] = ("blue", "green", "red")) -> onnx.ModelProto:
    """The tiny network with a head, as an export of a run: the brighter a channel, the likelier its class.

    The probabilities are the softmax of a tenth of the channels' means.
    """
    model = tiny_network()
    (embedding,) = model.graph.output
    nodes = [
        helper.make_node("Constant", [], ["tenth"], value=numpy_helper.from_array(np.float32(0.1))),
        helper.make_node("Constant", [], ["names"], value=helper.make_tensor("c", TensorProto.STRING, [3], classes)),
        helper.make_node("GlobalAveragePool", ["x"], ["means"]),
        helper.make_node("Flatten", ["means"], ["flat"], axis=1),
        helper.make_node("Mul", ["flat", "tenth"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
        helper.make_node("ArgMax", ["probabilities"], ["best"], axis=1, keepdims=0),
        helper.make_node("Gather", ["names", "best"], ["label"]),
    ]
    model.graph.node.extend(nodes)
    answers = [
        helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", 3]),
        helper.make_tensor_value_info("label", TensorProto.STRING, ["batch"]),
    ]
    model.graph.ClearField("output")
    model.graph.output.extend([*answers, embedding])
    helper.set_model_props(
        model, {**{entry.key: entry.value for entry in model.metadata_props}, "classes": json.dumps(classes)}
    )
    return model


def infinite_network() -> onnx.ModelProto:
    """The tiny network with one number that is too large for float32, so that no embedding is finite."""
    model = tiny_network()
    kernel = numpy_helper.to_array(model.graph.initializer[0]).copy()
    kernel[0] = 3e38
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(kernel, "kernel"))
    return model


def change_features(path: Path, change: Callable[[h5py.File], None]) -> None:
    """Change a feature file and make its checksums right again, as only a bug or a forger would."""
    with h5py.File(path, "r+") as file:
        change(file)
        columns = [file[name][:] for name in store._ROW]
        file["integrity/crc32"][:] = store._checksums(file["features"][:], columns)
        attrs = {name: store._plain(value) for name, value in file.attrs.items() if name != "header_sha256"}
        quarantine = zip(*(store._decode(file[f"quarantine/{name}"][:]) for name in store.QUARANTINE), strict=True)
        header = store._hash_header(attrs, store._decode(file["classes"][:]), list(quarantine))
        file.attrs["header_sha256"] = np.bytes_(header)


def slow_network() -> onnx.ModelProto:
    """The tiny network with work that changes nothing, so that an extraction lasts some seconds."""
    model = tiny_network()
    *body, last = model.graph.node
    matrix = np.linalg.qr(np.random.default_rng(0).normal(size=(700, 700)))[0].astype(np.float32)
    model.graph.initializer.append(numpy_helper.from_array(matrix, "q"))
    work = [
        helper.make_node("ReduceMean", ["pooled"], ["level"], keepdims=0),
        helper.make_node("Mul", ["q", "level"], ["w0"]),
        *(helper.make_node("MatMul", [f"w{i}", "q"], [f"w{i + 1}"]) for i in range(24)),
        helper.make_node("ReduceMean", ["w24"], ["w"], keepdims=0),
        helper.make_node("Sub", ["w", "w"], ["nothing"]),
        helper.make_node("Add", ["pooled", "nothing"], ["slowly"]),
    ]
    last.input[0] = "slowly"
    nodes = [*body, *work, last]
    model.graph.ClearField("node")
    model.graph.node.extend(nodes)
    return model


class TinyNetwork(nn.Module):
    """Three stages of convolution, BatchNorm and ReLU, named as torchvision names its networks' parts."""

    def __init__(self, num_classes: int = 1000) -> None:
        super().__init__()
        widths = (3, 8, 16, 16)
        self.features = nn.Sequential(
            *(
                nn.Sequential(nn.Conv2d(a, b, 3, stride, 1, bias=False), nn.BatchNorm2d(b), nn.ReLU())
                for a, b, stride in zip(widths, widths[1:], (2, 2, 1), strict=False)
            )
        )
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(16, num_classes))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.classifier(self.avgpool(self.features(x)).flatten(1))
        return out


class TinySource:
    """A source as somebody outside the package would write one: one object with all that is asked of it.

    Its backbone is `tinynet`; where `changes` are given, there is one of each, which differs from it so.
    """

    name = "tiny"
    form = ""
    trainable = True
    load = staticmethod(from_torch)
    layers = staticmethod(outputs_of)

    def __init__(self, *changes: Mapping[str, Any]) -> None:
        checkpoints = {"imagenet": Checkpoint("NONE", "tiny-00000000.pth", 0.0, Preprocess(resize=24, crop=20))}
        stages = ("features.0", "features.1")
        row = Backbone("tinynet", self, "TinyNetwork", 16, 4_000, "features", stages, checkpoints)
        self.rows = [replace(row, **each) for each in changes or ({},)]

    def names(self, pattern: str | None = None) -> Sequence[str]:
        return fnmatch.filter([row.name for row in self.rows], pattern or "*")

    def find(self, model: str) -> Backbone | None:
        return next((row for row in self.rows if row.name == model), None)

    def at_hand(self, backbone: Backbone) -> list[str]:
        return [name for name, row in backbone.checkpoints.items() if Path("hub", row.file).is_file()]

    def weights(self, backbone: Backbone, name: str) -> Weights:
        file = backbone.checkpoints[name].file
        return published(backbone, name, Path("hub", file), lambda: f"{os.environ['TLCACHE_WEIGHTS_URL']}/{file}")

    def build(
        self, backbone: Backbone, preprocess: Preprocess, state: Mapping[str, torch.Tensor] | None = None
    ) -> TorchNetwork:
        del preprocess  # any size will do
        return TracedNetwork(backbone, filled(TinyNetwork, state))


def right_but(wrong: int, start: int = 0, n: int = 400) -> NDArray[np.bool_]:
    """Return which of `n` images are right: all but so many from `start` on."""
    right = np.ones(n, bool)
    right[start : start + wrong] = False
    return right


def make_run(
    head: str,
    right: NDArray[np.bool_],
    *,
    strategy: str = "frozen",
    dataset: str = "photos",
    backbone: str = "tinynet",
    digest: str = "d1",
    fit_s: float = 2.0,
    train_s: float = 100.0,
    extract_s: float = 40.0,
    groups: Sequence[str] | None = None,
    order: NDArray[np.int64] | None = None,
    labels: NDArray[Any] | None = None,
    classes: Sequence[str] = ("cat", "dog"),
    val: Sequence[float] = (0.7, 0.8),
    held_out: float | None = None,
    probabilities: NDArray[np.float32] | None = None,
    held: Predictions | None = None,
    chosen_by: str = "validation split",
    swept: Mapping[str, Any] | None = None,
    **arguments: Any,
) -> Run:
    """Record a run of two classes whose test predictions are right where `right` (n,) says so.

    `held_out` is what a head reached on validation, where its record says so; `probabilities` replace 0.8 and 0.2;
    `held` is what it said of validation images, `chosen_by` by which of these a head was chosen;
    `val` are the accuracies of a fine-tuning on validation: of its start, and after every epoch;
    `swept` is what a sweep chose.
    """
    n = len(right)
    rows = np.arange(n) if order is None else order
    true = (rows % 2 if labels is None else labels[rows]).astype(np.int64)
    predicted = np.where(right[rows], true, 1 - true)
    if probabilities is None:
        probabilities = np.where(np.arange(2) == predicted[:, None], 0.8, 0.2).astype(np.float32)
    paths = tuple(f"test/{row:05}.jpg" for row in rows)
    test = Split(np.zeros((n, 1), np.float32), true, paths, tuple(groups[row] if groups else "" for row in rows))
    asked = {"refit": False, "batch_norm": "train", "lr": 3e-4, "optimizer": "adamw"}
    settings = {**asked, **arguments} if strategy == "finetune" else arguments
    identity = Identity(
        dataset=dataset,
        dataset_digest=digest,
        backbone=backbone,
        key="k",
        strategy=strategy,
        head=head,
        arguments=settings,
    )
    fields = {
        **{name: getattr(identity, name) for name in Identity.__struct_fields__ if name != "strategy"},
        "weights": "random",
        "pool": "avg",
        "precision": "fp32",
        "preprocess": {"crop": 32},
        "classes": tuple(classes),
        "source": "/nowhere",
        "extract_arguments": {"data": dataset, "model": backbone, "weights": "random"},
        "versions": {"tlcache": "0"},
        "hardware": Hardware(cpu="none", cpus=1, system="none"),
        "extract": ExtractSeconds(decode_s=1.0, infer_s=1.0, write_s=1.0, wall_s=extract_s),
        "rows": SplitSizes(train=400, val=400, test=n),
        "test": evaluate(true, probabilities, unit_numbers(test.groups)),
        "created": "2026-01-01T00:00:00+00:00",
        "record": str(path_of(runs_folder(), identity)),
    }
    if strategy == "finetune":
        run: Run = _tuned(fields, train_s, val, swept or {})
    else:
        fields["chosen_by"] = chosen_by
        run = _frozen(fields, fit_s, held_out, backbone.split("+") if strategy == "joined" else ())
    write_run(run, test, probabilities, held)
    return run


def _frozen(fields: dict[str, Any], fit_s: float, held_out: float | None, parts: Sequence[str] = ()) -> FrozenRun:
    scores = {} if held_out is None else {"val_accuracy": held_out, "val_log_loss": 1 - held_out}
    names = ("key", "weights", "extract", "extract_arguments")
    each = [
        JoinedPart(**{name: fields[name] for name in names}, backbone=part, dim=8, features="none") for part in parts
    ]
    kind: Any = partial(JoinedRun, parts=tuple(each)) if parts else FrozenRun
    ece = {f"{split}_ece_{when}": 0.0 for split in ("val", "test") for when in ("before", "after")}
    run: FrozenRun = kind(
        **fields,
        chosen={},
        candidates=(HeadCandidate(setting={}, scores=scores, fit_s=1.0),) if scores else (),
        skipped=0,
        history=(),
        calibration=TemperatureScaling(temperature=1.0, **ece),
        repeats=Repeats(seeds=(None,), accuracy=(0.5,), accuracy_mean=0.5, accuracy_std=None),
        fit_s=fit_s,
        search_s=fit_s,
        refit_s=0.0,
        features="features/photos/tinynet.h5",
    )
    return run


def _tuned(fields: dict[str, Any], train_s: float, val: Sequence[float], swept: Mapping[str, Any]) -> FinetunedRun:
    return FinetunedRun(
        **fields,
        chosen=TunedChoice(setting=swept, epochs=PhaseEpochs(head=0, backbone=int(np.argmax(val)))),
        candidates=(),
        history=tuple(
            TunedEpoch(phase="backbone", epoch=number, val_accuracy=each, val_loss=1 - each, val_s=1.0)
            for number, each in enumerate(val)
        ),
        refit_history=(),
        temperature=1.0,
        layers=Layers(trained=(), cut=None),
        train_precision="fp32",
        layout="contiguous",
        measured_images_per_s={},
        train_s=train_s,
        epoch_s=train_s,
        images_per_s=1.0,
    )


class FailingHead(Ridge):
    """A ridge regression that raises `error` when it is fitted on `least` rows or more."""

    error: ClassVar[Exception] = RuntimeError("out of leaves\nat leaf 3")
    least: ClassVar[int] = 0

    @classmethod
    def _fit_heads(cls, heads, X, y, validation):
        if len(y) >= cls.least:
            raise cls.error
        super()._fit_heads(heads, X, y, validation)


def failing_row() -> HeadRow:
    """Return the row of a head called `failing`, as someone else's code may have."""
    return replace(HEADS["ridge"], name="failing", builder="fakes:FailingHead")
