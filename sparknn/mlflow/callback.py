"""Log a fit to MLflow while it runs."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

import mlflow
from mlflow.entities import Metric, Param
from mlflow.tracking import MlflowClient
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID, MLFLOW_RUN_NAME

if TYPE_CHECKING:
    from sparknn.ml.callbacks import FinishedRound

_METRICS = ("loss", "validation_loss", "validation_metric", "agreement", "drift", "seconds")
# MLflow refuses longer values.
_MOST_CHARACTERS = 6000


class MlflowCallback:
    """Log params when a fit begins, and metrics with every round: ``setCallbacks([...])``.

    A fit logs to the run that was active when the callback was made, or else to the active run, or
    to a new one. Each of several parameter maps, of CrossValidator too, has a child run.

    Parameters
    ----------
    run_id : str, optional
        The run to log to.
    """

    def __init__(self, run_id: str | None = None) -> None:
        # Active runs belong to a thread, and tuning fits in others.
        active = mlflow.active_run()
        self._run_id = run_id or (active.info.run_id if active else None)
        # Run and last round of each estimator, which is kept so that its id stays its own.
        self._fits: dict[int, tuple[object, str, int]] = {}

    def __call__(self, ended: FinishedRound) -> None:
        """Log a round."""
        client = MlflowClient()
        key = id(ended.estimator)
        _, run_id, last = self._fits.get(key, (None, "", math.inf))
        if ended.round <= last:
            run_id = self._begin(client, ended)
        self._fits[key] = (ended.estimator, run_id, ended.round)
        now = time.time_ns() // 1_000_000
        values = {name: getattr(ended, name) for name in _METRICS}
        metrics = [
            Metric(name, value, now, ended.round)
            for name, value in values.items()
            if not math.isnan(value)
        ]
        client.log_batch(run_id, metrics)
        if ended.n_maps > 1:
            # Which round is the last one is not known: another callback may stop the fit.
            client.set_terminated(run_id)

    def _begin(self, client: MlflowClient, ended: FinishedRound) -> str:
        if self._run_id is None:
            self._run_id = (mlflow.active_run() or mlflow.start_run()).info.run_id
        run_id = self._run_id
        if ended.n_maps > 1:
            parent = client.get_run(run_id)
            tags = {
                MLFLOW_PARENT_RUN_ID: run_id,
                MLFLOW_RUN_NAME: f"map {ended.map_index + 1} of {ended.n_maps}",
            }
            run_id = client.create_run(parent.info.experiment_id, tags=tags).info.run_id
        values = ended.estimator.extractParamMap()
        params = [
            Param(param.name, str(value)[:_MOST_CHARACTERS]) for param, value in values.items()
        ]
        client.log_batch(run_id, params=params)
        return run_id
