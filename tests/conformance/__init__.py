"""Check an estimator instance for everything that users of Spark ML may expect of any estimator.

In the spirit of scikit-learn's ``check_estimator``:

    check_spark_estimator(estimator, data, folder)

runs every check and reports all that fail; under pytest, ``CHECKS`` makes a test of each. Fits are
shared where a check allows it, so that the whole suite takes about a minute on two cores.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from pyspark.sql import DataFrame

from conformance import (
    composites,
    errors,
    fits,
    inputs,
    leftovers,
    params,
    persistence,
    predictions,
    weights,
)
from conformance.subject import Subject

__all__ = ["CHECKS", "LABEL_FREE", "Subject", "check_spark_estimator"]

Check = Callable[[Subject], None]

_MODULES = (
    params,
    fits,
    weights,
    inputs,
    predictions,
    errors,
    leftovers,
    composites,
    persistence,
)

#: From a check's name to the check.
CHECKS: dict[str, Check] = {
    name.removeprefix("check_"): check
    for module in _MODULES
    for name, check in vars(module).items()
    if name.startswith("check_")
}

#: Checks of what all estimators share, and the label has no part in.
LABEL_FREE = {
    "fit_leaves_params_alone",
    "params_are_overridden_in_fit",
    "more_workers_than_rows",
    "one_feature_and_a_linear_model",
    "transform_keeps_rows_and_columns",
    "transform_starts_no_job",
    "nothing_is_left_by_fit_and_transform",
    "nothing_is_left_by_errors",
    "nothing_is_left_by_a_cancelled_job",
    "pipelines",
    "cross_validator",
    "train_validation_split",
    "continuation",
    "one_vs_rest",
}


def check_spark_estimator(estimator: Any, data: DataFrame, folder: Path) -> None:
    """Run every check.

    Parameters
    ----------
    estimator : Estimator
        A classifier or regressor of this project, with params that make a fit quick.
    data : DataFrame
        Some hundred rows with the estimator's features (dense vectors) and label; it is collected.
        Whole numbers as features, so that every type of column can hold them.
    folder : Path
        Empty; what is saved goes here.

    Raises
    ------
    ExceptionGroup
        Of all checks that failed, each with a note that names it.
    """
    subject = Subject(estimator, data, folder)
    failures = []
    for name, check in CHECKS.items():
        try:
            check(subject)
        except Exception as error:
            error.add_note(f"In the check '{name}' of {type(estimator).__name__}.")
            failures.append(error)
    if failures:
        raise ExceptionGroup(f"{type(estimator).__name__} does not conform", failures)
