"""MLflow: the server in MLFLOW_TRACKING_URI, else a database in the folder of all runs."""

import itertools
import logging
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from inq_ray.tracking.metrics import Scalar, Tracker, numbers

_ADDRESS = "MLFLOW_TRACKING_URI"

_EXPERIMENT = "inq_ray"

# Read by mlflow on import, or for each request; its defaults retry for minutes.
_DEFAULTS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
}

# Limit of one request, by MLflow's interface.
_MOST_PARAMETERS = 100
_LONGEST_VALUE = 5000


def needs() -> tuple[str, ...]:
    """Return the required packages; without a server those of its database too."""
    return ("mlflow",) if os.environ.get(_ADDRESS) else ("mlflow", "sqlalchemy", "alembic")


def start(name: str, parameters: Mapping[str, Scalar], folder: Path) -> Tracker:
    """Start a run in the experiment MLFLOW_EXPERIMENT_NAME, or "inq_ray".

    Without a server the database is mlflow.db in the folder that holds all runs.
    """
    for variable, value in _DEFAULTS.items():
        os.environ.setdefault(variable, value)
    import mlflow

    logging.getLogger("mlflow").setLevel(logging.ERROR)
    storage = folder.parent
    client = mlflow.MlflowClient(tracking_uri=os.environ.get(_ADDRESS) or f"sqlite:///{storage / 'mlflow.db'}")
    run = client.create_run(_experiment(client, storage), run_name=name)
    tracker = _Mlflow(client, run.info.run_id)
    tracker.log_parameters(parameters)
    return tracker


def _experiment(client: Any, storage: Path) -> str:
    """Return the experiment's id; it is created if missing."""
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or _EXPERIMENT
    found = client.get_experiment_by_name(name)
    if found is not None:
        return str(found.experiment_id)
    # A server decides itself where files go. We send none, but MLflow requires an address.
    location = None if os.environ.get(_ADDRESS) else (storage / "mlflow").as_uri()
    return str(client.create_experiment(name, artifact_location=location))


class _Mlflow:
    def __init__(self, client: Any, run_id: str) -> None:
        self._client = client
        self._run_id = run_id
        self._epoch = 0

    def log_parameters(self, parameters: Mapping[str, Scalar]) -> None:
        from mlflow.entities import Param

        params = [Param(name, str(value)[:_LONGEST_VALUE]) for name, value in parameters.items()]
        for first in range(0, len(params), _MOST_PARAMETERS):
            batch = itertools.islice(params, first, first + _MOST_PARAMETERS)
            self._client.log_batch(self._run_id, params=list(batch))

    def log(self, metrics: Mapping[str, float], epoch: int) -> None:
        from mlflow.entities import Metric

        self._epoch = epoch
        now = int(time.time() * 1000)
        self._client.log_batch(
            self._run_id, metrics=[Metric(name, value, now, epoch) for name, value in metrics.items()]
        )

    def finish(self, summary: Mapping[str, Scalar] | None) -> None:
        figures = numbers(summary or {})
        self.log({f"summary/{name}": value for name, value in figures.items()}, self._epoch)
        for name, value in (summary or {}).items():
            if name not in figures:
                self._client.set_tag(self._run_id, name, str(value)[:_LONGEST_VALUE])
        self._client.set_terminated(self._run_id, "FAILED" if summary is None else "FINISHED")
