"""What runs networks, ONNX Runtime or OpenVINO, on the device that was asked for."""

from __future__ import annotations

import hashlib
import io
import re
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from tlcache.backbones.model import Onnx, Parted
from tlcache.backbones.network import Network
from tlcache.backbones.opening import open_tested
from tlcache.backbones.several import Several, open_several
from tlcache.errors import DeviceError, ModelError, UnknownNameError, closest, first_line, one_line
from tlcache.extras import extra
from tlcache.machine import has_vnni
from tlcache.progress import say
from tlcache.threads import available_cpus

__all__ = [
    "DEVICES",
    "ENGINES",
    "OnnxRuntimeNetwork",
    "PRECISIONS",
    "Use",
    "default_batch",
    "find_device",
    "open_network",
    "open_networks",
    "open_session",
]

DEVICES = ("auto", "cpu", "cuda")
PRECISIONS = ("fp32", "fp16", "bf16", "int8")
_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}

# Images per call of the network. Measured on 2 CPU cores, images/s with 8 and with 32 to a call: ONNX Runtime 1,220 and
# 919 (MobileNetV3-Small), 234 and 223 (MobileNetV2), 25.7 and 26.3 (ResNet-50). OpenVINO in bf16, decoding included, as
# switching between that and the network costs it more: 690 with 8, 715 with 16, 740 with 32 (MobileNetV3-Small); but 32
# of a ResNet-152 take 3 seconds, which a kill may lose. On a GPU not measured yet.
_BATCH_SIZES = {("onnxruntime", "cpu"): 8, ("openvino", "cpu"): 16, ("onnxruntime", "cuda"): 64}
_BATCH_PIXELS = 299 * 299  # of larger images fewer go into a batch, so that its activations need no more memory


@dataclass(frozen=True)
class Use:
    """What a network is opened for: its device (`cpu` or `cuda`), and the rest as for `open_network`.

    `alone`: images are run one at a time.
    """

    device: str
    precision: str
    batch: int
    callers: int
    alone: bool = False


@dataclass(frozen=True)
class Engine:
    """What runs networks.

    Parameters
    ----------
    name
        As it is asked for.
    precisions
        Those it has, on each device that it knows.
    survives_fork
        Whether a network on the CPU still works in a forked process: one that has threads of its own does not.
    network
        What opens a network.
    """

    name: str
    precisions: Mapping[str, tuple[str, ...]]
    survives_fork: bool
    network: type[OnnxRuntimeNetwork] | type[OpenVinoNetwork]


def open_network(
    model: Onnx,
    device: str = "auto",
    *,
    engine: str = "onnxruntime",
    precision: str = "fp32",
    batch: int = 8,
    callers: int | None = None,
) -> Network:
    """Make a network ready to run.

    Parameters
    ----------
    model
        An ONNX model with one uint8 input (batch, 3, H, W) and one embedding output.
    device
        `auto` (a GPU when there is one and the engine can use it), `cpu` or `cuda`.
    engine
        A name of `ENGINES`.
    precision
        Of the arithmetic: `fp32`; `bf16` with OpenVINO; `fp16` on a GPU, where the model itself is in float16
        (`tlcache.backbones.half`); `int8` with ONNX Runtime on the CPU, where it is in integers
        (`tlcache.backbones.integers`).
    batch
        How many images calls will bring; OpenVINO compiles for it, and pads smaller batches.
    callers
        How many threads will call at once; default: one for each CPU.

    Raises
    ------
    UnknownNameError, DeviceError
        No such device, engine or precision, or not here.
    ModelError
        The engine does not accept the model.
    """
    found = find_device(device, engine, precision)
    use = Use(found, precision, batch, callers or available_cpus())
    try:
        return _tested(model, engine, use)
    except DeviceError as error:
        if (device, found) != ("auto", "cuda"):
            raise
        say(f"Going on without the GPU. {error}")
        return _tested(model, engine, replace(use, device="cpu"))


def open_networks(
    models: Sequence[Onnx], device: str, *, engine: str, precision: str, batch: int, callers: int
) -> Several:
    """Make networks of the same images ready to run together; arguments and errors are those of `open_network`."""
    found = find_device(device, engine, precision)
    identity = {"engine": engine, "runtime": _version(engine), "device": found, "precision": precision}
    options: Any = {"engine": engine, "precision": precision, "batch": batch, "callers": callers}
    return open_several(models, lambda model: open_network(model, device, **options), identity)


class OnnxRuntimeNetwork(Network):
    """One session of ONNX Runtime."""

    def __init__(self, model: Onnx, use: Use) -> None:
        self._model = model  # whose weights the session may use where they are
        self._session, self.precision = open_session(model, use.device), use.precision
        self.provider = self._session.get_providers()[0]
        if self.provider != _PROVIDERS[use.device]:
            raise DeviceError(
                f"CUDA was asked for, but the session runs on {self.provider}. "
                "Install a CUDA-capable onnxruntime-gpu and driver, or pass --device cpu."
            )
        images, embeddings = self._session.get_inputs(), self._session.get_outputs()
        if len(images) != 1 or images[0].type != "tensor(uint8)" or len(embeddings) != 1:
            found = [f"{value.name}: {value.type} {value.shape}" for value in (*images, *embeddings)]
            raise _unfit(found)
        self._input, shape = images[0].name, images[0].shape
        self.shape = shape[2], shape[3]
        self._batch = shape[0] if isinstance(shape[0], int) else 1 if use.alone else None
        try:
            self.dim = int(self.rows(np.zeros((1, *shape[1:]), np.uint8)).shape[1])
        except Exception as error:  # ONNX Runtime's own have no base but this
            raise ModelError(f"ONNX Runtime cannot run the model: {one_line(error)}") from None

    def _run(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        result: NDArray[np.float32] = self._session.run(None, {self._input: images})[0]
        return result


class OpenVinoNetwork(Network):
    """One compiled network of OpenVINO with a stream per core, and one request for each thread that calls."""

    def __init__(self, model: Onnx, use: Use) -> None:
        core = _openvino_core()
        self._model = model  # whose weights the network may use where they are
        try:
            network = _read(core, model)
            self._compiled = self._compile(core, network, use)
        except RuntimeError as error:
            raise ModelError(f"OpenVINO does not accept the model: {one_line(error)}") from None
        self.precision, self.provider = use.precision, f"OpenVINO {use.precision}"
        self._requests = threading.local()
        self.dim = int(self._run(np.zeros(self._compiled.input(0).shape, np.uint8)).shape[1])

    def _compile(self, core: Any, network: Any, use: Use) -> Any:
        kinds = [value.get_element_type().to_string() for value in network.inputs]
        if kinds != ["u8"] or len(network.outputs) != 1:
            raise _unfit([str(value) for value in (*network.inputs, *network.outputs)])
        shape = network.input(0).partial_shape
        if shape[0].is_dynamic:  # a constant batch is faster than a dynamic one
            shape[0] = 1 if use.alone else use.batch
            network.reshape(shape)
        self._batch = shape[0].get_length()
        self.shape = shape[2].get_length(), shape[3].get_length()
        settings = {
            "INFERENCE_PRECISION_HINT": {"fp32": "f32", "bf16": "bf16"}[use.precision],
            "NUM_STREAMS": use.callers,
            "INFERENCE_NUM_THREADS": use.callers,
            "ENABLE_CPU_PINNING": False,  # others use these cores as well, our own decoding among them
        }
        return core.compile_model(network, "CPU", settings)

    def _run(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        if not hasattr(self._requests, "own"):
            self._requests.own = self._compiled.create_infer_request()
        request = self._requests.own
        request.infer([images], share_inputs=True)
        result: NDArray[np.float32] = request.get_output_tensor(0).data.copy()
        return result


ENGINES: Mapping[str, Engine] = {
    row.name: row
    for row in (
        Engine("onnxruntime", {"cpu": ("fp32", "int8"), "cuda": ("fp32", "fp16")}, True, OnnxRuntimeNetwork),
        Engine("openvino", {"cpu": ("fp32", "bf16")}, False, OpenVinoNetwork),
    )
}


def find_device(device: str, engine: str = "onnxruntime", precision: str = "fp32") -> str:
    """Return `cpu` or `cuda` for `auto`, `cpu` or `cuda`, once engine and precision are known to fit.

    Raises
    ------
    UnknownNameError, DeviceError
        No such device, engine or precision; the engine is not installed or does not have them together; CUDA was
        asked for and there is none.
    """
    for kind, name, known in (
        ("device", device, DEVICES),
        ("engine", engine, ENGINES),
        ("precision", precision, PRECISIONS),
    ):
        if name not in known:
            raise UnknownNameError(closest(kind, name, known))
    able = ENGINES[engine].precisions
    if device != "auto" and device not in able:
        raise DeviceError(f"--engine {engine} runs on {' or '.join(able)}; asked: {device}.")
    if engine == "openvino":
        abilities = _openvino_abilities()  # an error where OpenVINO is not installed
        if precision == "bf16" and "BF16" not in abilities:
            raise DeviceError(
                "bf16 was asked for, but this processor has no bf16 arithmetic (AVX-512 BF16 or AMX). "
                "Pass --precision fp32."
            )
    found = ("cuda" if "cuda" in able and _has_gpu() else "cpu") if device == "auto" else device
    if found == "cuda" and not _has_gpu():
        raise DeviceError(f"CUDA was asked for, but {_why_no_gpu()}. Pass --device cpu or auto.")
    if precision == "int8" and not has_vnni():
        raise DeviceError(
            "int8 was asked for, but this processor has no products of 8-bit integers (VNNI), without which sums may "
            "overflow. Pass --precision fp32."
        )
    if precision not in able[found]:
        where = [
            f"--engine {row.name} --device {name}"
            for row in ENGINES.values()
            for name, precisions in row.precisions.items()
            if precision in precisions
        ]
        reason = f" ({_why_no_gpu()})" if found == "cpu" and "cuda" in able and not _has_gpu() else ""
        raise DeviceError(
            f"On {found}{reason}, --engine {engine} computes in {' or '.join(able[found])}; asked: {precision}, "
            f"which {' and '.join(where)} has."
        )
    return found


def default_batch(engine: str, device: str, crop: int) -> int:
    """Return how many images of `crop` x `crop` pixels go into one call of the network on `cpu` or `cuda`."""
    return max(1, _BATCH_SIZES[engine, device] * _BATCH_PIXELS // max(_BATCH_PIXELS, crop * crop))


def _tested(model: Onnx, engine: str, use: Use) -> Network:
    graph = model.graph if isinstance(model, Parted) else model
    identity = {"model": hashlib.sha256(graph).hexdigest(), "engine": engine, "runtime": _version(engine)}
    identity |= {"device": use.device, "precision": use.precision}
    return open_tested(lambda alone: ENGINES[engine].network(model, replace(use, alone=alone)), identity)


def _version(engine: str) -> str:
    return onnxruntime.__version__ if engine == "onnxruntime" else version(engine)


def _openvino_core() -> Any:
    return extra("openvino", "OpenVINO", "'tlcache[openvino]'", DeviceError).Core()


def _read(core: Any, model: Onnx) -> Any:
    """Return a network of OpenVINO; of weights that are beside the graph there is no copy in it."""
    if not isinstance(model, Parted):
        return core.read_model(io.BytesIO(model))
    from openvino.op import Constant

    from tlcache.backbones.onnx_weights import as_inputs

    network = core.read_model(io.BytesIO(as_inputs(model)))
    for parameter in network.get_parameters():
        if (name := parameter.friendly_name) in model.weights:
            parameter.output(0).replace(Constant(model.weights[name], shared_memory=True).output(0))
            network.remove_parameter(parameter)
    network.validate_nodes_and_infer_types()
    return network


def _openvino_abilities() -> list[str]:
    return list(_openvino_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"))


def _unfit(found: list[str]) -> ModelError:
    return ModelError(f"Expected one uint8 image input and one embedding; found {'; '.join(found)}.")


def _has_gpu() -> bool:
    """Return whether a CUDA device and a runtime built for it are both there; ONNX Runtime lists CUDA without one."""
    if _PROVIDERS["cuda"] not in onnxruntime.get_available_providers():
        return False
    if sys.platform == "linux" and not any(Path("/dev", name).exists() for name in ("nvidiactl", "dxg")):
        return False  # without importing torch
    import torch

    return torch.cuda.is_available()


def _why_no_gpu() -> str:
    providers = onnxruntime.get_available_providers()
    if _PROVIDERS["cuda"] in providers:
        return "there is no CUDA device here"
    return f"this ONNX Runtime is built without CUDA (providers: {', '.join(providers)})"


def open_session(model: Onnx, device: str = "cpu") -> onnxruntime.InferenceSession:
    """Return a model in ONNX Runtime: on a GPU (`cuda`), or on the CPU, where a call uses one core.

    Raises
    ------
    ModelError
        ONNX Runtime does not accept it.
    """
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 4  # errors come back as exceptions; a provider that fell back is checked for
    providers: list[Any] = [_PROVIDERS["cpu"]]
    if device == "cpu":
        options.intra_op_num_threads = 1
    else:
        onnxruntime.preload_dlls()
        providers.insert(0, (_PROVIDERS["cuda"], {"use_tf32": "0"}))  # whose 10 bits would not be fp32
    try:
        if isinstance(model, Parted):
            values = [onnxruntime.OrtValue.ortvalue_from_numpy(each) for each in model.weights.values()]
            options.add_external_initializers(list(model.weights), values)
            model = model.graph
        return onnxruntime.InferenceSession(model, options, providers=providers)
    except Exception as error:
        reason = re.sub(r"/onnxruntime_src/.*\) (?=[A-Z])", "", first_line(error))  # where in its source it was said
        newer = " Update onnxruntime, or save the model in an older version." if "version" in reason else ""
        raise ModelError(f"ONNX Runtime does not accept the model: {reason}{newer}") from None
