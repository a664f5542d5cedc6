"""Runs in Weights & Biases, or in a folder for `wandb sync` (`WANDB_MODE=offline`)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from tlcache.errors import TlcacheError, first_line
from tlcache.extras import extra
from tlcache.finetuning.live import LiveEpoch
from tlcache.keys import slug
from tlcache.tracking.entry import Entry, figures_of

__all__ = ["WeightsAndBiases"]

_DIGEST = "tlcache_digest"  # in a run's settings


class WeightsAndBiases:
    """A project; a run's id is made of its name and digest, so that it is there once."""

    def __init__(self, place: str) -> None:
        self.wandb: Any = extra("wandb", "Weights & Biases", "'tlcache[wandb]'")
        self.project = place
        self._live = dict[str, Any]()

    def _id(self, entry: Entry) -> str:
        return f"{slug(entry.name)}-{entry.digest}"[-64:]

    def _is_there(self, entry: Entry) -> bool:
        if os.environ.get("WANDB_MODE") == "offline":
            folder = Path(os.environ.get("WANDB_DIR", ".")) / "wandb"
            return any(folder.glob(f"offline-run-*-{self._id(entry)}"))
        try:
            return bool(self.wandb.Api().run(f"{self.project}/{self._id(entry)}"))
        except self.wandb.errors.CommError as error:
            if "Could not find" in str(error):
                return False
            raise TlcacheError(f"Weights & Biases does not answer: {first_line(error)}") from None

    def known(self, entry: Entry) -> str | None:
        """See `Tracker`; a run that was done again is another one here, beside the old."""
        return entry.digest if self._is_there(entry) else None

    def add(self, entry: Entry) -> None:
        """See `Tracker`; epochs that were told of it before stay beside it."""
        if entry.name in self._live:
            self._live.pop(entry.name).finish()
        settings = {**entry.settings, "dataset": entry.dataset, _DIGEST: entry.digest}
        with self.wandb.init(
            project=self.project, id=self._id(entry), name=entry.name, group=entry.dataset, config=settings
        ) as run:
            for each in entry.curves:
                run.log({name: value for name, value in each.items() if name != "epoch"}, step=int(each["epoch"]))
            run.summary.update(dict(entry.figures))

    def tell(self, epoch: LiveEpoch) -> None:
        """See `Tracker`."""
        if epoch.run not in self._live:
            named = {"id": f"{slug(epoch.run)}-live"[-64:], "name": f"{epoch.run} (live)", "group": epoch.dataset}
            self._live[epoch.run] = self.wandb.init(project=self.project, resume="allow", **named)
        self._live[epoch.run].log(figures_of(epoch))
