"""Runs in MLflow: an experiment for each dataset."""

from __future__ import annotations

import time
from typing import Any

from tlcache.errors import TlcacheError, first_line
from tlcache.extras import extra
from tlcache.finetuning.live import LiveEpoch
from tlcache.tracking.entry import Entry, figures_of

__all__ = ["MLflow"]

_MOST = 100  # parameters of one request
_LONGEST = 6000  # characters of a parameter
_DIGEST, _NAME = "tlcache.digest", "tlcache.run"  # tags
_WHOLE = "FINISHED"  # of a run to which all was added


class MLflow:
    """A tracking server, a database (`sqlite:///mlflow.db`), or what else MLflow takes."""

    def __init__(self, place: str) -> None:
        mlflow = extra("mlflow", "MLflow", "'tlcache[mlflow]'")
        try:
            self.client: Any = mlflow.MlflowClient(tracking_uri=place)
            self.client.search_experiments(max_results=1)
        except Exception as error:  # of MLflow, its database, its requests
            raise TlcacheError(
                f"MLflow does not take runs at '{place}': {first_line(error)}. Start its server there "
                "(mlflow server), or give another --place, like sqlite:///mlflow.db."
            ) from None
        self._live = dict[str, str]()

    def _experiment(self, dataset: str) -> str:
        found = self.client.get_experiment_by_name(dataset)
        return str(found.experiment_id if found else self.client.create_experiment(dataset))

    def _own(self, dataset: str, name: str) -> list[Any]:
        return list(self.client.search_runs([self._experiment(dataset)], f"tags.`{_NAME}` = '{name}'"))

    def known(self, entry: Entry) -> str | None:
        """See `Tracker`."""
        own = self._own(entry.dataset, entry.name)
        digests = [run.data.tags.get(_DIGEST, "") if run.info.status == _WHOLE else "" for run in own]
        return entry.digest if entry.digest in digests else next(iter(digests), None)

    def add(self, entry: Entry) -> None:
        """See `Tracker`."""
        from mlflow.entities import Metric, Param

        for old in self._own(entry.dataset, entry.name):
            self.client.delete_run(old.info.run_id)
        began = int(entry.began_s * 1000)
        tags = {_DIGEST: entry.digest, _NAME: entry.name}
        run = self.client.create_run(self._experiment(entry.dataset), began, tags, entry.name).info.run_id
        settings = [Param(name, value[:_LONGEST]) for name, value in entry.settings.items()]
        for first in range(0, len(settings), _MOST):
            self.client.log_batch(run, params=settings[first : first + _MOST])
        self.client.log_batch(run, [Metric(name, value, began, 0) for name, value in entry.figures.items()])
        for each in entry.curves:
            step = int(each["epoch"])
            self.client.log_batch(run, [Metric(k, v, began, step) for k, v in each.items() if k != "epoch"])
        self.client.log_artifact(run, entry.record)
        self.client.set_terminated(run, _WHOLE, began)

    def tell(self, epoch: LiveEpoch) -> None:
        """See `Tracker`; what an earlier try has left unfinished is removed."""
        from mlflow.entities import Metric

        if epoch.run not in self._live:
            for old in self._own(epoch.dataset, epoch.run):
                if old.info.status != _WHOLE:
                    self.client.delete_run(old.info.run_id)
            made = self.client.create_run(self._experiment(epoch.dataset), None, {_NAME: epoch.run}, epoch.run)
            self._live[epoch.run] = made.info.run_id
        now = int(time.time() * 1000)
        figures = [Metric(name, value, now, epoch.number) for name, value in figures_of(epoch).items()]
        self.client.log_batch(self._live[epoch.run], figures)
