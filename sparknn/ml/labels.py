"""Count the classes of a label column, and weight them."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass

import numpy as np
from pyspark.sql.types import StructField

from sparknn.core.types import Float64Array
from sparknn.engine.interface import DataError, FeatureStatistics
from sparknn.ml.attributes import n_values_of

log = logging.getLogger("sparknn")

# More classes than this, or many more than there are different labels, indicate an identifier.
_MAX_CLASSES = 10_000
_MAX_GAPS = 10
_FEW_CLASSES = 100
# With fewer rows per class, many classes are hardly intended.
_MIN_ROWS_PER_CLASS = 3

# With fewer rows, one may well have most of the variance.
_ROWS_TO_STAND_OUT = 30

# The columns of 0.0 and 1.0 that pyspark's OneVsRest makes for each class, without metadata.
_ONE_VS_REST = re.compile(r"mc2b\$\d+")


@dataclass(frozen=True)
class DeclaredClasses:
    """A number of classes that does not depend on which labels the rows have.

    Parameters
    ----------
    n_classes : int
    source : str
        What declares it.
    hint : str
        What to do if it is wrong.
    """

    n_classes: int
    source: str
    hint: str = ""


def declared_classes(label: StructField) -> DeclaredClasses | None:
    """Return the number of classes that a label column itself declares, or None.

    StringIndexer and VectorIndexer store it as metadata (``ml_attr``). A column that OneVsRest made
    has two classes, even if the rows of a fold have only one of them.
    """
    if n_classes := n_values_of(label, binary=True):
        return DeclaredClasses(
            n_classes,
            "its metadata",
            "If the metadata is wrong, index the labels again with StringIndexer, or cast them to "
            "double, which drops the metadata.",
        )
    if _ONE_VS_REST.fullmatch(label.name):
        hint = "If OneVsRest did not make the column, rename it."
        return DeclaredClasses(2, "its name, which OneVsRest uses,", hint)
    return None


def count_classes(label: str, seen: dict[int, float], declared: DeclaredClasses | None) -> int:
    """Return the number of classes to train for, 2 or more.

    Parameters
    ----------
    label : str
        Name of the column.
    seen : dict of int to float
        Weight of each class in the rows.
    declared : DeclaredClasses, optional
        By default, the largest label decides.

    Raises
    ------
    DataError
        If there is one class only, a label exceeds the declared classes, or the labels look like an
        identifier.
    """
    largest = max(seen, default=-1)
    if declared is not None and largest >= declared.n_classes:
        raise DataError(
            f"Label column '{label}' has class {largest:g}, but {declared.source} declares "
            f"{declared.n_classes} classes (0 to {declared.n_classes - 1}). {declared.hint}"
        )
    n_classes = largest + 1 if declared is None else declared.n_classes
    has_gaps = n_classes > max(_FEW_CLASSES, _MAX_GAPS * len(seen))
    if declared is None and (n_classes > _MAX_CLASSES or has_gaps):
        raise DataError(
            f"Label column '{label}' has {len(seen)} different values up to {largest:g}, like an "
            "identifier or a target; expected class numbers 0, 1, 2, ... Index the classes with "
            "StringIndexer, or predict a number with NeuralNetRegressor."
        )
    if len(seen) < 2:
        only = f"Label column '{label}' has one class only ({largest:g})"
        if declared is None or n_classes < 2:
            raise DataError(
                f"{only}; expected two or more. If a filter removed the others, set numClasses, or "
                "index the label with StringIndexer before filtering.",
                reason="one class",
            )
        log.warning(
            "%s of the %d that %s declares; the model will predict it.",
            only,
            n_classes,
            declared.source,
        )
    return n_classes


def warn_of_identifier(label: str, n_classes: int, n_rows: int) -> None:
    """Warn if hardly two rows have the same label, as with an indexed identifier."""
    if n_classes > _FEW_CLASSES and n_rows < _MIN_ROWS_PER_CLASS * n_classes:
        log.warning(
            "Label column '%s' has %d classes for %d training rows: is it an identifier?",
            label,
            n_classes,
            n_rows,
        )


def warn_of_one_class(label: str, weights: dict[int, float]) -> None:
    """Warn if the validation rows, or those of weight 0, took all rows of the other classes."""
    known = [number for number, weight in weights.items() if weight > 0]
    if len(known) == 1 < len(weights):
        log.warning(
            "All training rows have class %d in column '%s'; only validation rows, or rows of "
            "weight 0, have others. The model will predict that class.",
            known[0],
            label,
        )


def warn_of_outlier(label: str, found: FeatureStatistics, n_rows: int) -> None:
    """Warn if one row has most of the targets' variance: the others then all look alike."""
    low, high, mean = found.target_low, found.target_high, found.target_mean
    if low is None or high is None or n_rows < _ROWS_TO_STAND_OUT:
        return
    extreme = np.where(high - mean > mean - low, high, low)
    alone = (extreme - mean) ** 2 > 0.5 * n_rows * found.target_deviation**2
    if alone.any():
        log.warning(
            "One row's label in column '%s', %.3g, has more than half of the variance of all %s "
            "labels. If it is an error, remove the row; otherwise try loss='huber'.",
            label,
            extreme[alone][0],
            f"{n_rows:,}",
        )


def balanced_weights(seen: dict[int, float], n_classes: int) -> Float64Array:
    """Return factors that give all classes the same weight, and keep the sum of all weights.

        factor_c = total / (k weight_c),  k the number of classes in the rows

    Returns
    -------
    ndarray, shape (n_classes,), float64
        1 for a class without rows.
    """
    present = {label: weight for label, weight in seen.items() if weight > 0}
    total = sum(present.values())
    factors = np.ones(n_classes)
    for label, weight in present.items():
        factors[label] = total / (len(present) * weight)
    return factors


def entropy(weights: Float64Array) -> float:
    """Return the cross entropy of the best constant prediction, for the weights of the classes.

    As float32: a weight sum's last bits depend on the order of the rows.
    """
    shares = weights[weights > 0] / weights.sum()
    return float(np.float32(-(shares * np.log(shares)).sum()))
