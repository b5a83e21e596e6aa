"""Log every fit to MLflow, without a callback in the code."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from mlflow.utils.autologging_utils.safety import safe_patch

from sparknn import import_spark_part
from sparknn.mlflow.callback import MlflowCallback

log = logging.getLogger("sparknn")


def watch_fits(log_model: Callable[[Any, str], Any] | None) -> None:
    """Patch the estimators until ``autolog`` is called again; MLflow then restores them.

    Parameters
    ----------
    log_model : callable, optional
        Called with each fitted model and a name.
    """
    estimator = import_spark_part("sparknn.ml.estimator").NetworkEstimator

    def fit(original: Callable[..., Any], self: Any, dataset: Any) -> Any:
        model = original(_watched(self), dataset)
        if log_model is not None:
            log_model(model, "model")
        return model

    def fit_multiple(original: Callable[..., Any], self: Any, *args: Any, **kwargs: Any) -> Any:
        return original(_watched(self), *args, **kwargs)

    safe_patch("sparknn", estimator, "_fit", fit, manage_run=True)
    safe_patch("sparknn", estimator, "fitMultiple", fit_multiple, manage_run=True)


def _watched(estimator: Any) -> Any:
    """Return a copy of an estimator that logs to the run that is active now."""
    callback, failed = MlflowCallback(), False

    def watch(ended: Any) -> None:
        nonlocal failed
        if failed:
            return
        try:
            callback(ended)
        except Exception as error:
            failed = True
            log.warning("Autologging to MLflow failed, the fit continues: %s", error)

    return estimator.copy().setCallbacks([*estimator.getCallbacks(), watch])
