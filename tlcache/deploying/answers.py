"""From a run, a head or an exported file to what embeds images for it, and what it says of embeddings."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tlcache.backbones.onnx_file import ONNX_FILE
from tlcache.deploying.saved import Saved, find_saved
from tlcache.extraction.several import Network
from tlcache.heads.answering import Answering, answering_of
from tlcache.heads.uncertainty import Uncertainty
from tlcache.images import Preprocess
from tlcache.keys import native
from tlcache.tasks import CLASSIFY, TASKS

__all__ = ["Answers", "find_answers"]

Rows = NDArray[np.float32]
Answer = Callable[[Rows], tuple[Rows, Rows | None]]  # (n, dim) -> calibrated probabilities (n, C), distances (n,)
_USUAL = {"engine": "onnxruntime", "precision": "fp32"}


@dataclass(frozen=True)
class Answers:
    """A model that is ready to answer.

    Parameters
    ----------
    name
        What to call it.
    classes
        Its classes, in the order of its probabilities.
    networks
        What embeds images for it, as `tlcache.extraction.several.embed_several` takes it.
    load
        Returns `answer`.
    uncertainty
        Returns what the model keeps of how sure it is; None: nothing.
    answering
        How its answers are read, where they are not of classes.
    """

    name: str
    classes: tuple[str, ...]
    networks: Sequence[Network]
    load: Callable[[], Answer]
    uncertainty: Callable[[], Uncertainty | None] = lambda: None
    answering: Answering | None = None

    @cached_property
    def answer(self) -> Answer:
        """Embeddings -> probabilities and distances; loaded when first asked for, beside the images' work."""
        return self.load()


def find_answers(run: str | Path, runs: str | Path | None = None) -> Answers:
    """Return what a run answers with.

    Parameters
    ----------
    run
        Its record, its `.safetensors`, the name of both, or an `.onnx` file that was exported from it.
    runs
        The folder where a name is looked for.

    Raises
    ------
    OptionError, CacheError, HeadError, ModelError
        There is no such run, or it is damaged.
    """
    if ONNX_FILE.find(str(run)):
        return _of_file(Path(run).expanduser())
    saved = find_saved(run, runs, TASKS)
    return _of_tuned(saved) if saved.tuned else _of_head(saved)


def _of_head(saved: Saved) -> Answers:
    run = saved.run
    classes = run.classes if run else saved.asked.classes

    def load() -> Answer:
        head, promised = saved.asked, saved.asked.uncertainty
        known = promised if promised and promised.far else None
        return lambda rows: (head.predict_proba(rows), known.distances(rows) if known else None)

    def uncertainty() -> Uncertainty | None:
        return None if run and run.uncertainty is None else saved.asked.uncertainty

    networks = [(_USUAL | request, key) for request, key in saved.networks]
    how = saved.answering if run is None or run.task != CLASSIFY else None  # reading the head takes a while
    return Answers(saved.path.stem, classes, networks, load, uncertainty, how)


def _of_tuned(saved: Saved) -> Answers:
    assert saved.tuned
    prepared = asdict(Preprocess.from_json(saved.tuned["preprocess"]))
    limit = saved.run.extract_arguments.get("max_pixels") if saved.run else None
    request = {"model": saved.tuned["backbone"], "weights": str(saved.path.absolute()), **prepared}
    classes = tuple(saved.tuned["classes"])
    networks = [({**_USUAL, **request, "max_pixels": limit}, None)]
    return Answers(
        saved.path.stem,
        classes,
        networks,
        lambda: lambda rows: (saved.tuned_answers(rows), None),
        lambda: saved.uncertainty,
        saved.answering,
    )


def _of_file(path: Path) -> Answers:
    from tlcache.deploying.tail import load_tail, stated_in

    stated = stated_in(path)
    kept = {name: native(json.loads(stated.get(name, "null"))) for name in ("classes", "uncertainty", "answering")}
    uncertainty = Uncertainty.of_tables(kept["uncertainty"]) if kept["uncertainty"] else None
    networks, load = [({**_USUAL, "model": str(path.absolute())}, None)], partial(load_tail, path)
    return Answers(path.name, tuple(kept["classes"]), networks, load, lambda: uncertainty, answering_of(kept))
