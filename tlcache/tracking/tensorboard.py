"""Runs as event files, which `tensorboard --logdir` shows."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from tlcache.extras import extra
from tlcache.files import write_whole
from tlcache.finetuning.live import LiveEpoch
from tlcache.keys import slug
from tlcache.tracking.entry import Entry, figures_of

__all__ = ["TensorBoard"]

_DIGEST = "tlcache.txt"  # beside the events; written last, so that what was cut short is done again


class TensorBoard:
    """A folder of event files, a folder in it for each dataset, and in that for each run."""

    def __init__(self, place: str) -> None:
        extra("tensorboard", "TensorBoard", "'tlcache[tensorboard]'")
        self.folder = Path(place)
        self._live = dict[Path, Any]()

    def _of(self, dataset: str, name: str) -> Path:
        return self.folder / slug(dataset) / name

    def known(self, entry: Entry) -> str | None:
        """See `Tracker`."""
        own = self._of(entry.dataset, entry.name)
        if not own.exists():
            return None
        said = own / _DIGEST
        return said.read_text("utf-8") if said.exists() else ""

    def add(self, entry: Entry) -> None:
        """See `Tracker`."""
        from torch.utils.tensorboard import SummaryWriter

        own = self._of(entry.dataset, entry.name)
        if own in self._live:
            self._live.pop(own).close()
        shutil.rmtree(own, ignore_errors=True)
        with SummaryWriter(str(own)) as events:
            for each in entry.curves:
                for name in each.keys() - {"epoch"}:
                    events.add_scalar(name, each[name], int(each["epoch"]), entry.began_s)
            events.add_hparams(dict(entry.settings), dict(entry.figures), run_name=".", global_step=0)
        write_whole(own / _DIGEST, entry.digest.encode())

    def tell(self, epoch: LiveEpoch) -> None:
        """See `Tracker`."""
        from torch.utils.tensorboard import SummaryWriter

        own = self._of(epoch.dataset, epoch.run)
        if own not in self._live:
            shutil.rmtree(own, ignore_errors=True)
            self._live[own] = SummaryWriter(str(own))
        for name, value in figures_of(epoch).items():
            self._live[own].add_scalar(name, value, epoch.number)
        self._live[own].flush()
