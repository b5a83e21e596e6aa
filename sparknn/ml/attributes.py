"""Read the ``ml_attr`` metadata of columns: names and categories of features, numbers of values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from pyspark.sql.types import StructField

from sparknn.ml.schema import SchemaError, SchemaProblem
from sparknn.ml.validators import did_you_mean


@dataclass(frozen=True)
class FeatureAttributes:
    """The ``ml_attr`` metadata of a features column, as VectorAssembler writes it.

    Parameters
    ----------
    size : int, optional
        Number of features.
    names : dict of int to str
    categories : dict of int to int
        Nominal features and their number of values.
    """

    size: int | None = None
    names: dict[int, str] = field(default_factory=dict)
    categories: dict[int, int] = field(default_factory=dict)

    @property
    def name_list(self) -> list[str] | None:
        """The name of every feature, or None if one has none."""
        if not self.size or set(self.names) != set(range(self.size)):
            return None
        return [self.names[index] for index in range(self.size)]


def feature_attributes(column: StructField) -> FeatureAttributes:
    """Return the attributes of a features column; empty if it has no metadata."""
    attributes = (column.metadata or {}).get("ml_attr", {})
    groups = attributes.get("attrs", {})
    size = attributes.get("num_attrs")
    if size is None and "attrs" in attributes:
        size = sum(len(group) for group in groups.values())
    names, categories = {}, {}
    for kind, group in groups.items():
        for each in group:
            index = int(each["idx"])
            if "name" in each:
                names[index] = str(each["name"])
            if kind == "nominal" and (n_values := _n_values(each)):
                categories[index] = n_values
    return FeatureAttributes(None if size is None else int(size), names, categories)


def n_values_of(column: StructField, *, binary: bool = False) -> int:
    """Return the number of values of a column that is itself nominal, as StringIndexer's; or 0.

    With ``binary``, a column that is declared binary has two values by default.
    """
    attribute = (column.metadata or {}).get("ml_attr", {})
    kind = attribute.get("type")
    if kind == "nominal" or (binary and kind == "binary"):
        return _n_values(attribute) or 2 * (kind == "binary")
    return 0


def _n_values(attribute: dict[str, Any]) -> int:
    if "vals" in attribute:
        return len(attribute["vals"])
    return int(attribute.get("num_vals", 0))


def categories_of(
    column: StructField, chosen: Sequence[str | int], *, use_metadata: bool
) -> dict[int, int]:
    """Return the features that are categories, and their number of values: 0 if unknown.

    Parameters
    ----------
    column : StructField
    chosen : sequence of str or int
        ``categoricalFeatures``.
    use_metadata : bool

    Raises
    ------
    SchemaError
        If a chosen feature does not exist.
    """
    found = feature_attributes(column)
    categories = dict(found.categories) if use_metadata else {}
    indices = {name: index for index, name in found.names.items()}
    for each in chosen:
        index = indices.get(each) if isinstance(each, str) else each
        if index is None or index < 0 or (found.size is not None and index >= found.size):
            guess = did_you_mean(each, list(indices)) if isinstance(each, str) else ""
            message = (
                f"Column '{column.name}' has no feature {each!r}{guess or '.'} Names come from the "
                f"column's metadata; indices start at 0."
            )
            raise SchemaError(SchemaProblem(column.name, "categoricalFeatures", message))
        categories.setdefault(index, found.categories.get(index, 0))
    return categories
