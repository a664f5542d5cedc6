"""From a run or a head to what embeds images for it, and what it says of embeddings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlcache.deploying.saved import Saved, find_saved
from tlcache.images import Preprocess

__all__ = ["Answers", "find_answers"]

Probabilities = NDArray[np.float32]
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
    request, key
        What embeds images for it, as `tlcache.extraction.embed.embed` takes it.
    load
        Returns what makes probabilities, float32 (n, C), of embeddings, float32 (n, dim).
    """

    name: str
    classes: tuple[str, ...]
    request: Mapping[str, Any]
    key: str | None
    load: Callable[[], Callable[[NDArray[np.float32]], Probabilities]]

    @cached_property
    def probabilities(self) -> Callable[[NDArray[np.float32]], Probabilities]:
        """Embeddings, float32 (n, dim) -> calibrated probabilities, float32 (n, C); loaded when first asked for."""
        return self.load()


def find_answers(run: str | Path, runs: str | Path | None = None) -> Answers:
    """Return what a run answers with.

    Parameters
    ----------
    run
        Its record, its `.safetensors`, or the name of both.
    runs
        The folder where a name is looked for.

    Raises
    ------
    OptionError, CacheError, HeadError
        There is no such run, or it is damaged.
    """
    saved = find_saved(run, runs)
    return _of_tuned(saved) if saved.tuned else _of_head(saved)


def _of_head(saved: Saved) -> Answers:
    run = saved.run
    classes = run.classes if run else saved.head.classes
    key = run.key if run else saved.head.key
    request = _USUAL | (dict(run.extract_arguments) if run else {"model": saved.head.backbone})
    return Answers(saved.path.stem, classes, request, key, lambda: saved.head.predict_proba)


def _of_tuned(saved: Saved) -> Answers:
    def load() -> Callable[[NDArray[np.float32]], Probabilities]:
        from tlcache.finetuning.saved import load_tuned_head

        return load_tuned_head(saved.path)

    assert saved.tuned
    prepared = asdict(Preprocess.from_json(saved.tuned["preprocess"]))
    limit = saved.run.extract_arguments.get("max_pixels") if saved.run else None
    request = {"model": saved.tuned["backbone"], "weights": str(saved.path.absolute()), **prepared}
    classes = tuple(saved.tuned["classes"])
    return Answers(saved.path.stem, classes, {**_USUAL, **request, "max_pixels": limit}, None, load)
