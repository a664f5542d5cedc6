"""Somebody's ONNX file as a backbone."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tlcache.backbones.backbone import LAST, Backbone, TorchNetwork, Weights
from tlcache.backbones.model import UNKNOWN, Model, model_identity
from tlcache.errors import ModelError, OptionError
from tlcache.images import Preprocess
from tlcache.keys import native
from tlcache.progress import say

if TYPE_CHECKING:
    import onnx
    from torch import Tensor

    from tlcache.backbones.model import Onnx
    from tlcache.backbones.onnx_image import ImageInput
    from tlcache.backbones.output import Output

__all__ = ["ONNX_FILE", "check_written", "read_onnx"]


def check_written(path: str | Path) -> None:
    """Raise OptionError where a network that is written would not be found again, as its file is called otherwise."""
    if not ONNX_FILE.find(str(path)):
        raise OptionError(f"'{path}' does not end with .onnx, by which such a file is known. Call it so.")


class OnnxFile:
    """A source of any network that somebody exported: it can be run, not trained."""

    name = "onnx"
    form = "an ONNX file"
    trainable = False

    def names(self, pattern: str | None = None) -> Sequence[str]:
        """Return nothing: files are not looked for."""
        del pattern
        return ()

    def find(self, model: str) -> Backbone | None:
        """Return what ends with `.onnx`, whether it is there or not."""
        path = Path(model).expanduser()
        return Backbone(path.stem, self, str(path), pools=()) if path.suffix.lower() == ".onnx" else None

    def at_hand(self, backbone: Backbone) -> list[str]:
        """Return nothing: the weights are in the file."""
        del backbone
        return []

    def weights(self, backbone: Backbone, name: str) -> Weights:
        """Raise OptionError: the weights are in the file."""
        raise OptionError(f"'{backbone.builder}' has no weights beside its own; asked: {name}.")

    def build(
        self, backbone: Backbone, preprocess: Preprocess, state: Mapping[str, Tensor] | None = None
    ) -> TorchNetwork:
        """Raise ModelError: torch does not know the network."""
        del preprocess, state
        raise ModelError(f"'{backbone.builder}' is an ONNX file, which torch cannot build.")

    def layers(self, backbone: Backbone, changes: Mapping[str, Any]) -> list[Output]:
        """Return the tensors through which all that comes later passes, and the embedding."""
        from tlcache.backbones.onnx_layers import outputs_in

        return outputs_in(read_onnx(Path(backbone.builder))[1], changes.get("crop", 0))

    def load(
        self, backbone: Backbone, weights: str | None, pool: str | None, output: str | None, changes: Mapping[str, Any]
    ) -> Model:
        """Take the file as it is when it was exported here; otherwise put preprocessing and pooling into the graph."""
        del weights
        output = None if output == LAST else output
        from tlcache.backbones.onnx_graph import adapt, alone, depends_on_batch
        from tlcache.backbones.onnx_image import image_inputs
        from tlcache.backbones.onnx_weights import packed, read_weights

        path = Path(backbone.builder)
        data, network = read_onnx(path)
        metadata = {entry.key: entry.value for entry in network.metadata_props}
        origin: dict[str, Any] = {"onnx_sha256": hashlib.sha256(data).hexdigest()}
        hashes, apart = read_weights(path, network)
        if hashes:
            origin["weights_sha256"] = hashes
        arguments = {"model": str(path.absolute()), "weights": None}
        licence = metadata.get("licence", UNKNOWN)
        made = partial(Model, backbone.name, f"onnx:{path.name}", arguments=arguments, licence=licence)
        if metadata.get("exporter", "").startswith("tlcache"):
            preprocess = _exported(path, metadata, pool, output, changes)
            if len(network.graph.output) > 1:  # with a head
                network, data = alone(network, "embedding"), b""

            def whole() -> Onnx:
                return data if data and not hashes else packed(network, apart)

            if known := _known(network, metadata):
                identity = {**known, "preprocess": preprocess.as_json()}
                return replace(made(preprocess, identity, whole), name=metadata["backbone"])
            return made(preprocess, model_identity(origin, "embedding", metadata["pool"], preprocess), whole)
        ways = image_inputs(network.graph)
        preprocess = _stated(path, ways[0], changes)
        adapted, embedding = adapt(network, preprocess, output, pool, ways[0])
        if output is None and embedding != network.graph.output[0].name:
            say(f"'{path.name}': the embedding is output {embedding}, the first that can be one.")
        if depends_on_batch(network):
            origin["batch"] = 1  # of batches of more there may be rows, which nobody shall use
            say(f"'{path.name}': images are run one at a time, as each would change the embeddings of the others.")
        identity = model_identity(origin, embedding, pool, preprocess)
        if len(ways) == 1:
            return made(preprocess, identity, lambda: packed(adapted, apart))

        def fed(way: ImageInput) -> Onnx:
            return packed(adapt(network, preprocess, output, pool, way)[0], apart)

        return made(preprocess, identity, lambda: _first_that_runs(path.name, fed, ways))


ONNX_FILE = OnnxFile()
_LFS = b"version https://git-lfs.github.com/spec/"


def read_onnx(path: Path) -> tuple[bytes, onnx.ModelProto]:
    """Read the file of an ONNX model, without weights that it keeps in others.

    Raises
    ------
    ModelError
        Missing, not ONNX, or cut.
    """
    import onnx

    try:
        data = path.read_bytes()
    except OSError as error:
        raise ModelError(f"Cannot read the model '{path}': {error.strerror}.") from None
    if data.startswith(_LFS):
        raise ModelError(f"'{path}' is a Git LFS pointer, not the model itself. Fetch that with: git lfs pull")
    try:
        model = onnx.load_model_from_string(data)
    except Exception:
        model = onnx.ModelProto()
    if not model.graph.node or not model.graph.output:
        raise ModelError(f"'{path}' is not a whole ONNX model ({len(data):,} bytes, starts with {data[:12]!r}).")
    return data, model


def _first_that_runs(name: str, fed: Callable[[ImageInput], Onnx], ways: Sequence[ImageInput]) -> Onnx:
    """Return the network by the first way to understand its input that an image can be run with, and say which."""
    from tlcache.backbones.engines import OnnxRuntimeNetwork, Use

    refused: ModelError | None = None
    for way in ways:
        try:
            OnnxRuntimeNetwork(model := fed(way), Use("cpu", "fp32", batch=1, callers=1, alone=True))
        except ModelError as error:
            refused = refused or error
        else:
            say(f"'{name}': its shape does not say what its input is; it runs with {way.words}.")
            return model
    assert refused is not None
    raise refused


def _known(network: onnx.ModelProto, metadata: Mapping[str, str]) -> dict[str, Any]:
    """Return the identity that a file with a head states of its network; nothing if that was changed since."""
    from tlcache.backbones.onnx_graph import fingerprint

    if metadata.get("network") != fingerprint(network):
        return {}
    stated: dict[str, Any] = native(json.loads(metadata["identity"]))
    return stated


def _exported(
    path: Path, metadata: Mapping[str, str], pool: str | None, output: str | None, changes: Mapping[str, Any]
) -> Preprocess:
    """Return the preprocessing of one of our exports, in which only what comes before the graph can be changed."""
    in_graph = {"crop", "mean", "std", "channels", "range"} & set(changes)
    if in_graph or output or pool not in (None, metadata["pool"]):
        raise OptionError(
            f"'{path}' was exported by tlcache: size, normalisation and pooling ({metadata['pool']}) are part of "
            "its graph. Export it again to change them."
        )
    return replace(Preprocess.from_json(json.loads(metadata["preprocess"])), **changes)


def _stated(path: Path, image: ImageInput, changes: Mapping[str, Any]) -> Preprocess:
    """Return the preprocessing that the caller states for a foreign model; guessing it would be silently wrong."""
    height, width = image.size
    size = min(height, width) or height or width
    ignored = [f"--{name}" for name in ("mean", "std", "range") if name in changes and not image.floating]
    if ignored:
        raise OptionError(f"'{path}' normalises its uint8 images itself; leave {' and '.join(ignored)} out.")
    if changes.get("channels") == "bgr" and image.channels == 1:
        raise OptionError(f"'{path}' takes grey images; leave --channels out.")
    fields = {"crop": size, **changes} if size else dict(changes)
    if not image.floating or "range" in fields:
        fields = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0), **fields}
    missing = [name for name in ("resize", "crop", "mean", "std") if name not in fields]
    if missing:
        raise OptionError(
            f"'{path}' does not say how its images are prepared. Give {', '.join('--' + name for name in missing)} "
            "(usual for ImageNet networks: --resize 256 --crop 224 --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225)."
        )
    if size not in (0, fields["crop"]):
        raise OptionError(
            f"'{path}' takes images of {height or size} x {width or size} pixels; asked: --crop {fields['crop']}."
        )
    if height and width and height != width:
        fields["shape"] = height, width
    return Preprocess(**fields)
