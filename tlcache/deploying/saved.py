"""What a run left to be used: its record, its head, and the network that it takes embeddings of."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tlcache.backbones.joined import joined_model
from tlcache.backbones.load import load_again, load_model
from tlcache.backbones.model import Model
from tlcache.backbones.sources import lookup
from tlcache.backbones.weights import HEAD_PREFIX
from tlcache.errors import CacheError, HeadError, ModelError, OptionError
from tlcache.files import folder_meant
from tlcache.heads.answering import Answering, answering_of
from tlcache.heads.logits import softmax, through_layers
from tlcache.heads.uncertainty import Uncertainty
from tlcache.images import Preprocess
from tlcache.keys import native
from tlcache.runs.finetuned import FORMAT
from tlcache.runs.folder import ENDINGS, read_runs, runs_folder
from tlcache.runs.joined import JoinedRun
from tlcache.runs.naming import named_runs
from tlcache.runs.record import RUNS, Run
from tlcache.tasks import CLASSIFY

if TYPE_CHECKING:
    from tlcache.heads.fitted import FittedHead

__all__ = ["Saved", "find_saved"]

Rows = NDArray[np.float32]


@dataclass(frozen=True)
class Saved:
    """The files of a run.

    Parameters
    ----------
    path
        The `.safetensors`.
    run
        The record beside it; None where there is none.
    """

    path: Path
    run: Run | None

    @cached_property
    def tuned(self) -> dict[str, Any] | None:
        """What a fine-tuned network says of itself; None of a head that was fitted on frozen features."""
        stated = _metadata(self.path)
        return dict(native(json.loads(stated["fields"]))) if stated.get("format") == FORMAT else None

    @cached_property
    def head(self) -> FittedHead:
        """The head that was fitted on frozen features."""
        from tlcache.heads.fitted import load_head

        return load_head(self.path)

    @cached_property
    def asked(self) -> FittedHead:
        """The same head, which only answers."""
        from tlcache.heads.fitted import load_to_ask

        return load_to_ask(self.path)

    @property
    def answering(self) -> Answering | None:
        """How its answers are read, where they are not of classes."""
        return answering_of(self.tuned) if self.tuned else self.asked.answering

    @cached_property
    def tuned_layers(self) -> list[tuple[Rows, Rows]]:
        """Weights (in, out) and biases (out,) of each layer of a fine-tuned network's head."""
        found = dict[int, dict[str, Rows]]()
        for name, values in _tensors(self.path, HEAD_PREFIX).items():
            number, kind = name.split(".")
            found.setdefault(int(number), {})[kind] = values
        return [(layer["weight"].T, layer["bias"]) for _, layer in sorted(found.items())]

    def tuned_answers(self, rows: Rows) -> NDArray[Any]:
        """Return calibrated probabilities (n, C), or numbers where it learned these, of a fine-tuned network.

        Parameters
        ----------
        rows
            (n, dim), its embeddings.
        """
        assert self.tuned
        logits, temperature = through_layers(self.tuned_layers, rows), float(self.tuned["temperature"])
        return self.answering.answers(logits, temperature) if self.answering else softmax(logits / temperature)

    @property
    def uncertainty(self) -> Uncertainty | None:
        """What it promises of new images; None where `--coverage` was not asked for."""
        if not self.tuned:
            return self.asked.uncertainty
        tables = self.tuned.get("uncertainty")
        return Uncertainty.of_tables(tables) if tables else None

    def model(self, precision: str | None = None) -> Model:
        """Return the network that embeds images for the head, or the fine-tuned one.

        Parameters
        ----------
        precision
            Another one than the embeddings were computed in.

        Raises
        ------
        ModelError
            The network or its weights are gone, or are others by now.
        """
        if self.tuned:
            preprocess = asdict(Preprocess.from_json(self.tuned["preprocess"]))
            return load_model(self.tuned["backbone"], str(self.path), **preprocess)
        made = [request for request, _ in self.networks]
        found = _together([load_again(each) for each in made])
        if found.key != self.asked.key:
            raise ModelError(self._another(found))
        return _together([load_again({**each, "precision": precision}) for each in made]) if precision else found

    @property
    def networks(self) -> tuple[tuple[dict[str, Any], str], ...]:
        """What embeds images for the head, as `tlcache.extraction.embed.embed` takes it: arguments and key of each.

        Raises
        ------
        ModelError
            There is no record, and the head takes embeddings of several networks.
        """
        if isinstance(self.run, JoinedRun):
            return tuple((dict(part.extract_arguments), part.key) for part in self.run.parts)
        if self.run:
            return ((dict(self.run.extract_arguments) or {"model": self.run.backbone}, self.run.key),)
        if self.asked.scaler.widths:
            raise ModelError(self._missing_record())
        return (({"model": self.asked.backbone}, self.asked.key),)

    def _missing_record(self) -> str:
        record = self.path.with_suffix(".json").name
        return f"{self._wanted()} its record, {record}, which says how they were made, is not beside it. Put it there."

    def _wanted(self) -> str:
        return f"The {self.asked.name} head takes embeddings of {self.asked.backbone}, key {self.asked.key[:12]};"

    def _another(self, found: Model) -> str:
        if self.run is None:
            return self._missing_record()
        return (
            f"{self._wanted()} {found.name} with weights {found.weights} now has key {found.key[:12]}. Put the weights "
            "or file back that it was, or extract and fit again."
        )


def find_saved(run: str | Path, runs: str | Path | None = None, tasks: Sequence[str] = (CLASSIFY,)) -> Saved:
    """Return the files of a run.

    Parameters
    ----------
    run
        Its record, its `.safetensors`, or the name of both, which is looked for in `runs`.
    tasks
        What it may have learned, names of `tlcache.tasks.TASKS`.

    Raises
    ------
    OptionError, CacheError
        There is no such run, its files are not whole, or it learned something else.
    """
    found = _find_saved(run, runs)
    answering = None if found.run else found.answering
    task = found.run.task if found.run else answering.task if answering else CLASSIFY
    if task not in tasks:
        raise OptionError(
            f"'{found.path.stem}' is of --task {task}, and this is of --task {' or '.join(tasks)} alone. "
            "What it says of images: tlcache predict; as a file: tlcache export; the head: load_head."
        )
    return found


def _find_saved(run: str | Path, runs: str | Path | None) -> Saved:
    path = Path(run).expanduser()
    if path.is_file():
        record = path.with_suffix(".json")
        return _whole(RUNS.read(record)) if record.is_file() else Saved(path, None)
    if lookup(str(run)):
        raise OptionError(f"'{run}' is a network, not a run. For a network alone: --model {run}")
    folder = runs_folder(runs)
    known = read_runs(folder)
    if not known:
        hint = folder_meant(folder)
        raise OptionError(f"There is no run at '{run}', and none is recorded in '{folder}'.{hint} See: tlcache runs")
    found = named_runs(known, [path.stem if path.suffix in ENDINGS else str(run)])
    if len(found) > 1:
        raise OptionError(f"'{run}' names {len(found)} runs: {', '.join(each.path.stem for each in found)}. Give one.")
    return _whole(found[0])


def _together(models: Sequence[Model]) -> Model:
    return models[0] if len(models) == 1 else joined_model(models)


def _whole(run: Run) -> Saved:
    if not run.kept:
        raise OptionError(
            f"'{run.path.stem}' was tested in folds, and none of their networks is kept. To train one, give the "
            "command again that made the run, without --cv."
        )
    if not run.head_path.is_file():
        raise CacheError(
            f"'{run.head_path}', what the run fitted, is missing. Put it back, or give the command again that made "
            "the run, with --force."
        )
    return Saved(run.head_path, run)


def _metadata(path: Path) -> Mapping[str, str]:
    with _opened(path) as file:
        return file.metadata() or {}


def _tensors(path: Path, prefix: str) -> dict[str, NDArray[Any]]:
    """Return those whose names begin with `prefix`, by the rest of the name."""
    with _opened(path) as file:
        names = [name for name in file.keys() if name.startswith(prefix)]  # noqa: SIM118  # not a mapping
        return {name.removeprefix(prefix): file.get_tensor(name) for name in names}


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "numpy") as file:
            yield file
    except (OSError, SafetensorError) as error:
        raise HeadError(
            f"'{path}' is no head or network of a run: {error}. Give a record (.json), what lies beside it "
            "(.safetensors), or the name of both."
        ) from None
