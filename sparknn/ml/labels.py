"""How many classes there are, and how much each one weighs."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass

import numpy as np
from pyspark.sql.types import StructField

from sparknn.core.types import Float64Array
from sparknn.engine.interface import DataError

log = logging.getLogger("sparknn")

# More classes than this, or many more than there are different labels, are an identifier.
_MOST_CLASSES = 10_000
_MOST_GAPS = 10
_FEW_CLASSES = 100
# Rows a class, below which many classes are hardly meant.
_FEW_ROWS = 3

# The columns of 0.0 and 1.0 that pyspark's OneVsRest makes, a class each and without metadata.
_ONE_VS_REST = re.compile(r"mc2b\$\d+")


@dataclass(frozen=True)
class DeclaredClasses:
    """A number of classes that holds whether or not the rows have all of them.

    Parameters
    ----------
    n_classes : int
    by : str
        What declares it.
    hint : str
        What to do if it is wrong.
    """

    n_classes: int
    by: str
    hint: str = ""


def declared_classes(label: StructField) -> DeclaredClasses | None:
    """How many classes a label column itself declares; None if it does not.

    StringIndexer and VectorIndexer put the number in its metadata (``ml_attr``). A column of
    OneVsRest's has two classes; its rows are all of one where a fold lacks the class.
    """
    if n_classes := _in_metadata(label):
        return DeclaredClasses(
            n_classes,
            "its metadata",
            "The metadata is from another indexing: index the labels again with StringIndexer, or "
            "drop the metadata with a cast to double.",
        )
    if _ONE_VS_REST.fullmatch(label.name):
        hint = "If OneVsRest did not make the column, rename it."
        return DeclaredClasses(2, "its name, as OneVsRest gives it,", hint)
    return None


def _in_metadata(label: StructField) -> int | None:
    attributes = (label.metadata or {}).get("ml_attr", {})
    if attributes.get("type") not in ("nominal", "binary"):
        return None
    if "vals" in attributes:
        return len(attributes["vals"])
    if "num_vals" in attributes:
        return int(attributes["num_vals"])
    return 2 if attributes["type"] == "binary" else None


def count_classes(label: str, seen: dict[int, float], declared: DeclaredClasses | None) -> int:
    """The number of classes to train for, 2 or more.

    Parameters
    ----------
    label : str
        The column's name.
    seen : dict of int to float
        Weight of each class in the data.
    declared : DeclaredClasses, optional
        If the number does not come from the rows.

    Raises
    ------
    DataError
        If the labels are of one class only, beyond the declared ones, or look like an identifier.
    """
    largest = max(seen, default=-1)
    if declared is not None and largest >= declared.n_classes:
        raise DataError(
            f"Label column '{label}' holds class {largest:g}, but {declared.by} declares "
            f"{declared.n_classes} classes (0 to {declared.n_classes - 1}). {declared.hint}"
        )
    n_classes = largest + 1 if declared is None else declared.n_classes
    sparse = n_classes > max(_FEW_CLASSES, _MOST_GAPS * len(seen))
    if declared is None and (n_classes > _MOST_CLASSES or sparse):
        raise DataError(
            f"Label column '{label}' holds {len(seen)} different values up to {largest:g}: it "
            f"looks like an identifier or a target, not like class numbers 0, 1, 2, ... Number the "
            f"classes with StringIndexer, or predict a number with NeuralNetRegressor."
        )
    if len(seen) < 2:
        only = f"Label column '{label}' holds one class only ({largest:g})"
        if declared is None or n_classes < 2:
            raise DataError(
                f"{only}: there is nothing to tell apart. Look for a filter that took the other "
                f"classes away; labels indexed by StringIndexer keep their number of classes, and "
                f"numClasses tells it of others.",
                reason="one class",
            )
        log.warning(
            "%s of the %d that %s declares; the model will predict it.",
            only,
            n_classes,
            declared.by,
        )
    return n_classes


def warn_of_identifier(label: str, n_classes: int, n_rows: int) -> None:
    """Say so where labels are numbered texts of which hardly two are the same."""
    if n_classes > _FEW_CLASSES and n_rows < _FEW_ROWS * n_classes:
        log.warning(
            "Label column '%s' has %d classes for %d training rows: is it an identifier?",
            label,
            n_classes,
            n_rows,
        )


def balanced_weights(seen: dict[int, float], n_classes: int) -> Float64Array:
    """Factors that give all classes of the data the same weight and keep the sum of all weights.

        factor_c = total / (k weight_c),  k the number of classes in the data

    Returns
    -------
    ndarray, shape (n_classes,), float64
        1 for a class that no row has.
    """
    present = {label: weight for label, weight in seen.items() if weight > 0}
    total = sum(present.values())
    factors = np.ones(n_classes)
    for label, weight in present.items():
        factors[label] = total / (len(present) * weight)
    return factors
