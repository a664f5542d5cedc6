"""A run as one ONNX file: images in; calibrated probabilities, the name of the class and the embedding out."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
from numpy.typing import NDArray

from exporters.classify import classified, serialized, stated
from tlcache.backbones.engines import open_network
from tlcache.backbones.model import EXPORT_VERSION, UNKNOWN, Model
from tlcache.backbones.network import Network
from tlcache.backbones.onnx_graph import alone, fingerprint
from tlcache.backbones.onnx_weights import joined
from tlcache.cache.joined import open_joined
from tlcache.datasets.dataset import reopen
from tlcache.deploying.parity import Parity, answers, check_head, check_images, made_images, made_rows
from tlcache.deploying.saved import Saved
from tlcache.errors import CacheError, DataError, ImageReadError
from tlcache.heads.fitted import FittedHead
from tlcache.heads.rows import Array
from tlcache.images import BadImageError, Preprocess, prepare
from tlcache.keys import canonical_json
from tlcache.runs.frozen import FrozenRun
from tlcache.runs.licences import licences
from tlcache.runs.record import Run
from tlcache.tasks import USUAL
from tlcache.version import __version__

if TYPE_CHECKING:
    from tlcache.deploying.smaller import Cost

__all__ = ["Bundle", "Recorded", "make_bundle"]

_ROWS, _IMAGES = 4_096, 16  # that are compared


@dataclass(frozen=True)
class Recorded:
    """How answers for `n` test images compare with the recorded ones: `same` say the same, they are off by `worst`."""

    n: int
    same: int
    worst: float
    of: str = "probabilities"

    def __str__(self) -> str:
        return f"Of {self.n} test images it answers {self.same} as recorded, with {self.of} within {self.worst:.0e}."


@dataclass(frozen=True)
class Bundle:
    """An ONNX file.

    Parameters
    ----------
    data
        Its bytes.
    checks
        How far its probabilities are from the head's own, on embeddings and on images; none of a fine-tuned network,
        which has been compared with torch.
    recorded
        How its answers compare with the record; None where there is none, or test images are not at hand.
    cost
        What another precision costs.
    """

    data: bytes
    checks: tuple[Parity, ...]
    recorded: Recorded | None
    cost: Cost | None = None


def make_bundle(saved: Saved, precision: str = "fp32", max_loss: float = 1.0) -> Bundle:
    """Make an ONNX file of a run, whatever precision its embeddings were computed in, and compare it with the run.

    Raises
    ------
    ModelError
        The head cannot be exported, the network is another by now, or the file would answer otherwise.
    """
    model, checks = saved.model("fp32"), tuple[Parity, ...]()
    numbers, images = _test_images(saved.run, model.preprocess)
    if saved.tuned:
        from tlcache.finetuning.saved import export_tuned

        data = _finished(onnx.load_model_from_string(export_tuned(saved.path)), saved, model)
    else:
        whole = joined(model.onnx())
        network, made = open_network(whole, "cpu"), classified(whole, saved.head)
        if network.batch:  # as some networks give others for several at once
            made.graph.input[0].type.tensor_type.shape.dim[0].dim_value = network.batch
        data = _finished(made, saved, model)
        checks = _on_embeddings(saved), _on_images(saved.head, data, network, images, model.preprocess.size)
    cost = None
    if precision != "fp32":
        from tlcache.deploying.smaller import make_smaller

        data, cost = make_smaller(saved, data, precision, model.preprocess, max_loss)
        checks = ()
    return Bundle(data, checks, _recorded(saved, data, numbers, images), cost)


def _on_embeddings(saved: Saved) -> Parity:
    rows = _cached_rows(saved)
    if rows is None:
        return check_head(saved.head, made_rows(saved.head), "made-up embeddings, as the cached ones are not here")
    return check_head(saved.head, rows, "cached embeddings of test images")


def _on_images(
    head: FittedHead, data: bytes, network: Network, images: NDArray[np.uint8], size: tuple[int, int]
) -> Parity:
    if not len(images):
        return check_images(data, network, head, made_images(size), "made-up images, as the test images are not here")
    return check_images(data, network, head, images, "test images")


def _finished(made: onnx.ModelProto, saved: Saved, model: Model) -> bytes:
    """Return the bytes of a file that says what it is."""
    known = {entry.key: entry.value for entry in made.metadata_props}
    ours = known.get("exporter", "").startswith("tlcache")
    about = {
        "exporter": known["exporter"] if ours else f"tlcache export {EXPORT_VERSION}, onnx {onnx.__version__}",
        "backbone": model.name,
        "weights": model.weights,
        "preprocess": canonical_json(model.preprocess.as_json()),
        "pool": str(model.identity["pool"] or "none"),
        "key": model.key,
        "identity": canonical_json(model.identity),
        "network": fingerprint(alone(made, "embedding")),
        "tlcache": __version__,
        **_of_head(saved),
        **_of_run(saved.run),
    }
    return serialized(stated(made, about))


def _of_head(saved: Saved) -> dict[str, str]:
    names = ("head", "classes", "temperature")
    own = saved.tuned or dict(zip(names, (saved.head.name, saved.head.classes, saved.head.temperature), strict=True))
    stated = {"classes": canonical_json(list(own["classes"]))}
    stated |= {"head": str(own["head"]), "temperature": repr(float(own["temperature"]))}
    if promised := saved.uncertainty:
        stated["uncertainty"] = canonical_json(promised.tables())
    if answering := saved.answering:
        stated |= {"task": answering.task, "answering": canonical_json(answering.as_fields())}
    return stated


def _of_run(run: Run | None) -> dict[str, str]:
    if run is None:
        return {"licence": UNKNOWN}
    figures, name = run.test.as_json(), USUAL[run.task]
    reached = {name: figures[name], "low": figures[f"{name}_low"], "high": figures[f"{name}_high"], "n": run.test.n}
    return {
        "run": run.path.stem,
        "dataset": run.dataset,
        name: canonical_json({**reached, "split": run.test_split}),
        "licence": "; ".join(licences(run)),
    }


def _cached_rows(saved: Saved) -> Array | None:
    """Return embeddings of test images, where the feature file of the run is still there."""
    if not isinstance(saved.run, FrozenRun):
        return None
    with suppress(CacheError, DataError), open_joined([Path(each) for each in saved.run.feature_files]) as file:
        if file.attrs["key"] == saved.head.key:
            return file.split("test").features[:_ROWS]
    return None


def _test_images(run: Run | None, preprocess: Preprocess) -> tuple[list[int], NDArray[np.uint8]]:
    """Return some test images as the network takes them, and their numbers among the predictions; none if not here."""
    numbers, images, paths = list[int](), list[NDArray[np.uint8]](), list[bytes]()
    if run is not None:
        with suppress(CacheError):  # the predictions may have been left elsewhere
            paths = run.predictions().row.tolist()
        source, asked = reopen(run.source), np.linspace(0, len(paths) - 1, _IMAGES).astype(int)
        for number in np.unique(asked).tolist() if paths else ():
            try:
                images.append(prepare(source.read(os.fsdecode(paths[number])), preprocess)[0])
            except (ImageReadError, BadImageError):
                continue
            numbers.append(number)
    return numbers, np.array(images, np.uint8)


def _recorded(saved: Saved, data: bytes, numbers: list[int], images: NDArray[np.uint8]) -> Recorded | None:
    if saved.run is None or not numbers:
        return None
    known, found, how = saved.run.predictions().probabilities[numbers], answers(data, images), saved.answering
    same = how.same(known, found) if how else known.argmax(axis=1) == found.argmax(axis=1)
    of = "numbers" if how and how.are_numbers else "probabilities"
    return Recorded(len(numbers), int(same.sum()), float(np.abs(known - found).max()), of)
