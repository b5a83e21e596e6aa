"""Log a fit to MLflow while it runs."""

from __future__ import annotations

import math
import time
from collections import Counter
from threading import Lock
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
    to a new one. Each of several parameter maps, of CrossValidator too, has a child run; so has
    every fit after the first, such as those of OneVsRest and of a Pipeline that is tuned.

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
        self._children: set[str] = set()
        # Fits by the run that they log to, without those of several maps.
        self._n_fits: Counter[str] = Counter()
        # The run that was started for want of another.
        self._started = ""
        self._lock = Lock()

    def __call__(self, ended: FinishedRound) -> None:
        """Log a round."""
        client = MlflowClient()
        key = id(ended.estimator)
        _, run_id, last = self._fits.get(key, (None, "", math.inf))
        if ended.round <= last:
            with self._lock:
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
        if run_id in self._children:
            # Which round is the last one is not known: another callback may stop the fit.
            client.set_terminated(run_id)

    def _begin(self, client: MlflowClient, ended: FinishedRound) -> str:
        # Imported by the fit that calls; a pyfunc needs no Spark.
        from sparknn.ml.progress import map_name

        run_id, is_map = self._run_id or self._active_run(), ended.n_maps > 1
        self._n_fits[run_id] += not is_map
        # A run cannot have two values of a param.
        if is_map or self._n_fits[run_id] > 1:
            name = map_name(ended.map_index, ended.n_maps) or f"fit {self._n_fits[run_id]}"
            tags = {MLFLOW_PARENT_RUN_ID: run_id, MLFLOW_RUN_NAME: name}
            parent = client.get_run(run_id)
            run_id = client.create_run(parent.info.experiment_id, tags=tags).info.run_id
            self._children.add(run_id)
        values = ended.estimator.extractParamMap()
        params = [
            Param(param.name, str(value)[:_MOST_CHARACTERS]) for param, value in values.items()
        ]
        client.log_batch(run_id, params=params)
        return run_id

    def _active_run(self) -> str:
        active = mlflow.active_run()
        if active is None and self._started:
            return self._started
        if active is None:
            active = mlflow.start_run()
            self._started = str(active.info.run_id)
        return str(active.info.run_id)
