"""Log every fit to MLflow, without a callback in the code."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from mlflow.utils.autologging_utils import autologging_integration
from mlflow.utils.autologging_utils.safety import safe_patch

from sparknn import import_spark_part
from sparknn.mlflow.callback import MlflowCallback
from sparknn.mlflow.model import log_model

log = logging.getLogger("sparknn")


# MLflow's decorator restores what was patched before, and stops here if ``disable`` is True.
@autologging_integration("sparknn")  # type: ignore[untyped-decorator]
def autolog(
    log_models: bool = True,
    registered_model_name: str | None = None,
    disable: bool = False,
    exclusive: bool = False,
    silent: bool = False,
) -> None:
    """Log params, rounds and the model of every fit: to the active run, or else to a new one.

    Parameter maps that are fitted together, as CrossValidator does, have child runs, without
    models. A fit goes on if logging fails.

    Parameters
    ----------
    log_models : bool
    registered_model_name : str, optional
        Registers each model as a version of it.
    disable : bool
        Stop logging.
    exclusive : bool
        Do not log to runs that were started by hand.
    silent : bool
        Keep MLflow's messages and warnings quiet.
    """
    estimator = import_spark_part("sparknn.ml.estimator").NetworkEstimator

    def fit(original: Callable[..., Any], self: Any, dataset: Any) -> Any:
        model = original(_watched(self), dataset)
        if log_models:
            log_model(model, "model", registered_model_name=registered_model_name)
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
