"""Describe the columns of a table that features are assembled from, and assemble them in numpy.

Numbers and booleans are features as they are, vectors several; the code of a text is its place
among the values that training rows had.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from sparknn.core.types import Float64Array


@dataclass(frozen=True)
class InputColumn:
    """One column of a table.

    Parameters
    ----------
    name : str
    kind : str
        ``number``, ``category`` (indexed, by its metadata), ``text`` or ``vector``.
    size : int
        Features that it becomes: more than 1 for a vector.
    n_values : int
        Of a category or text, null included if training rows have it; 0 for numbers.
    values : tuple of str
        Of text, in the order of their codes. Null has the next code, any other value none.
    """

    name: str
    kind: str
    size: int = 1
    n_values: int = 0
    values: tuple[str, ...] = ()

    @property
    def code_of_null(self) -> float:
        """The code of a text that is null; NaN if no training row had null."""
        return float(len(self.values)) if self.n_values > len(self.values) else math.nan

    @cached_property
    def _codes(self) -> dict[str, float]:
        return {value: float(code) for code, value in enumerate(self.values)}

    def features(self, values: ArrayLike) -> Float64Array:
        """Return the features of a column's values, shape (n, size); one value is one row."""
        if self.kind == "vector":
            return self._vectors(values)
        found: Any = [values] if np.ndim(values) == 0 else values
        array = np.asarray(found)
        if array.ndim != 1:
            raise self._wrong(f"shape {array.shape}")
        if self.kind != "text" and array.dtype.kind in "biuf":
            return array.astype(np.float64)[:, None]
        if array.dtype.kind not in "OU":
            raise self._wrong(f"type {array.dtype}")
        is_text = self.kind == "text"
        features = np.full(len(array), self.code_of_null if is_text else math.nan)
        for row, value in enumerate(array):
            if _is_null(value):
                continue
            if isinstance(value, str) is not is_text:
                raise self._wrong(repr(value))
            features[row] = self._codes.get(value, math.nan) if is_text else float(value)
        return features[:, None]

    def _vectors(self, values: Any) -> Float64Array:
        rows = [values] if hasattr(values, "toArray") else list(values)
        if rows and all(isinstance(row, int | float | np.number) for row in rows):
            rows = [rows]
        features = np.full((len(rows), self.size), np.nan)
        for number, row in enumerate(rows):
            if row is not None:
                vector = np.asarray(row.toArray() if hasattr(row, "toArray") else row)
                if vector.shape != (self.size,):
                    raise self._wrong(f"shape {vector.shape}")
                features[number] = vector
        return features

    def _wrong(self, found: str) -> ValueError:
        wanted = {"text": "text", "vector": f"vectors of size {self.size}"}.get(
            self.kind, "numbers"
        )
        return ValueError(f"Column '{self.name}' has values of {found}; expected {wanted}.")


@dataclass(frozen=True)
class InputColumns:
    """The columns that features are assembled from, in order."""

    columns: tuple[InputColumn, ...]

    @property
    def names(self) -> list[str]:
        """The names of the columns."""
        return [each.name for each in self.columns]

    @property
    def feature_names(self) -> list[str]:
        """The names of the features; elements of a vector have its name and their number."""
        return [
            each.name if each.size == 1 else f"{each.name}_{number}"
            for each in self.columns
            for number in range(each.size)
        ]

    def features(self, table: Mapping[str, Any]) -> Float64Array:
        """Return the features of a table's rows, shape (n, d).

        Parameters
        ----------
        table : pandas.DataFrame, or mapping of str to array
            Values by the name of the column; or one row's values.

        Raises
        ------
        ValueError
            If columns are missing, or of another kind than in training.
        """
        try:
            values = [table[each.name] for each in self.columns]
        except KeyError:
            missing = [each.name for each in self.columns if each.name not in table]
            raise ValueError(
                f"X has no columns {missing}; the network was trained with them."
            ) from None
        parts = [each.features(found) for each, found in zip(self.columns, values, strict=True)]
        counts = {each.name: len(part) for each, part in zip(self.columns, parts, strict=True)}
        if len(set(counts.values())) > 1:
            raise ValueError(f"The columns of X have different numbers of rows: {counts}.")
        return np.hstack(parts)

    def to_json(self) -> list[dict[str, Any]]:
        """Return plain values that ``from_json`` takes."""
        return [asdict(each) for each in self.columns]

    @classmethod
    def from_json(cls, saved: Sequence[Mapping[str, Any]]) -> InputColumns:
        """Return the columns whose ``to_json`` this is."""
        return cls(
            tuple(InputColumn(**{**each, "values": tuple(each["values"])}) for each in saved)
        )


def _is_null(value: Any) -> bool:
    """Return whether a value is None, NaN, or the NA of pandas, which cannot be compared."""
    return (
        value is None
        or (isinstance(value, float) and value != value)
        or type(value).__name__ == "NAType"
    )
