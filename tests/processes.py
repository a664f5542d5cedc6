"""Processes that train together, as torchrun starts them, without the seconds that a Python takes to begin."""

import multiprocessing
import os
import socket
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from fakes import TinySource

import tlcache.backbones.sources
import tlcache.extraction.extract
from tlcache.extraction import sandbox
from tlcache.finetuning.finetune import finetune
from tlcache.finetuning.live import LiveEpoch
from tlcache.runs.finetuned import FinetunedRun

__all__ = ["Epochs", "Ranks"]

_LOADED = [  # what takes seconds to import, once for all processes
    "tlcache.finetuning.run",
    "tlcache.heads.linear",
    "onnx",
    "sklearn.linear_model",
    "torchvision.models.feature_extraction",
    "torch._dynamo",
]


class Ranks:
    """Processes with the numbers from 0 on, which know `tinynet` and stay for several trainings."""

    def __init__(self, count: int) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(_LOADED)  # a training in this process would keep torch from running in its forks
        self._pool = ProcessPoolExecutor(count, context, _begin)
        self._count = count

    def finetune(self, *data: Any, **settings: Any) -> list[FinetunedRun]:
        """Return the record that each process has in the end."""
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
        joined = {"WORLD_SIZE": self._count, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TORCHELASTIC_RUN_ID": 1}
        waits = []
        for rank in range(self._count):
            own = {name: str(value) for name, value in {**joined, "RANK": rank, "LOCAL_RANK": rank}.items()}
            waits.append(self._pool.submit(_finetune, Path.cwd(), {**os.environ, **own}, data, settings))
        return [each.result() for each in waits]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()


@dataclass(frozen=True)
class Epochs:
    """Writes the numbers of epochs into a file, and kills its process after the last of them, where one is said."""

    path: Path
    last: int | None = None

    def __call__(self, epoch: LiveEpoch) -> None:
        with self.path.open("a") as file:
            file.write(f"{epoch.number} ")
        if epoch.number == self.last:
            os._exit(9)


def _begin() -> None:
    torch.set_num_threads(1)
    tlcache.backbones.sources.SOURCES = (TinySource(),)
    tlcache.extraction.extract.run_apart = lambda arguments, work: sandbox._WORK[work](None)(**arguments)


def _finetune(folder: Path, environment: dict[str, str], data: tuple[Any], settings: dict[str, Any]) -> FinetunedRun:
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    return finetune(*data, **settings)
