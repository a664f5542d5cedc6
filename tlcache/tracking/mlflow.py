"""Runs in MLflow: an experiment for each dataset."""

from __future__ import annotations

from typing import Any

from tlcache.errors import TlcacheError, first_line
from tlcache.extras import extra
from tlcache.tracking.entry import Entry

__all__ = ["MLflow"]

_MOST = 100  # parameters of one request
_LONGEST = 6000  # characters of a parameter
_DIGEST, _NAME = "tlcache.digest", "tlcache.run"  # tags


class MLflow:
    """A tracking server, a database (`sqlite:///mlflow.db`), or what else MLflow takes."""

    def __init__(self, place: str) -> None:
        mlflow = extra("mlflow", "MLflow", "'tlcache[mlflow]'")
        try:
            self.client: Any = mlflow.MlflowClient(tracking_uri=place)
            self.client.search_experiments(max_results=1)
        except Exception as error:  # of MLflow, its database, its requests
            raise TlcacheError(f"MLflow does not take runs at '{place}': {first_line(error)}") from None

    def _experiment(self, entry: Entry) -> str:
        found = self.client.get_experiment_by_name(entry.dataset)
        return str(found.experiment_id if found else self.client.create_experiment(entry.dataset))

    def _own(self, entry: Entry) -> list[Any]:
        asked = f"tags.`{_NAME}` = '{entry.name}' and attributes.status = 'FINISHED'"
        return list(self.client.search_runs([self._experiment(entry)], asked))

    def known(self, entry: Entry) -> str | None:
        """See `Tracker`."""
        digests = [run.data.tags.get(_DIGEST, "") for run in self._own(entry)]
        return entry.digest if entry.digest in digests else next(iter(digests), None)

    def add(self, entry: Entry) -> None:
        """See `Tracker`."""
        from mlflow.entities import Metric, Param

        for old in self._own(entry):
            self.client.delete_run(old.info.run_id)
        began = int(entry.began_s * 1000)
        tags = {_DIGEST: entry.digest, _NAME: entry.name}
        run = self.client.create_run(self._experiment(entry), began, tags, entry.name).info.run_id
        settings = [Param(name, value[:_LONGEST]) for name, value in entry.settings.items()]
        for first in range(0, len(settings), _MOST):
            self.client.log_batch(run, params=settings[first : first + _MOST])
        self.client.log_batch(run, [Metric(name, value, began, 0) for name, value in entry.figures.items()])
        for each in entry.curves:
            step = int(each["epoch"])
            self.client.log_batch(run, [Metric(k, v, began, step) for k, v in each.items() if k != "epoch"])
        self.client.log_artifact(run, entry.record)
        self.client.set_terminated(run, "FINISHED", began)
