"""Encode the features of tables for the first layer: numbers by pieces, categories by value.

    number      1 input, or one per piece between knots: clip((x - start) * slope, low, high)
    missing     1 input per feature that has missing values; the number itself is replaced
    category    1 input per value (one-hot), or, with many values, one row of weights per value

A number's pieces make the first layer a piecewise linear function of it (Gorishniy et al. 2022,
arXiv:2203.05556, eq. 1): a network on plain numbers needs many steps to bend as sharply.
Encoding has nothing to learn and no state besides the numbers below. Inputs that the encoding
computes are dense; a category with many values is the sparse block of ``input_layer``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from sparknn.core.entries import Entries
from sparknn.core.types import BoolArray, Float32Array, FloatArray, IntArray


@dataclass(frozen=True, eq=False)
class Encoding:
    """How a row of d features becomes the inputs of a network.

    Inputs are ordered: rows of weights (the sparse block), numbers, missing, one-hot.

    Parameters
    ----------
    n_features : int
    feature : ndarray, shape (m,), intp
        The feature of each input of a number.
    start, slope, low, high : ndarray, shape (m,), float32
        See above; a plain number has 0, 1 and no bounds.
    fill : ndarray, shape (d,), float32, optional
        What replaces a missing number; without it, a row with a missing value is invalid.
    missing : ndarray, shape (p,), intp
        Features with an input that is 1 where the number is missing.
    onehot, embedded : ndarray, shape (c, 2), intp
        Feature and number of values of each category. Values are 0, 1, ...; a missing or any other
        value is none of them, and adds nothing.
    """

    n_features: int
    feature: IntArray
    start: Float32Array
    slope: Float32Array
    low: Float32Array
    high: Float32Array
    fill: Float32Array | None
    missing: IntArray
    onehot: IntArray
    embedded: IntArray

    @property
    def n_dense(self) -> int:
        """Inputs that are computed for every row."""
        return len(self.feature) + len(self.missing) + int(self.onehot[:, 1].sum())

    @property
    def n_embedded(self) -> int:
        """Rows of weights for the values of categories."""
        return int(self.embedded[:, 1].sum())

    @property
    def has_pieces(self) -> bool:
        """Whether a number is cut into pieces."""
        return bool((self.low == 0).any())

    @property
    def changes(self) -> bool:
        """Whether inputs are not simply the features."""
        plain = np.isinf(self.low).all() and len(self.feature) == self.n_features
        return not plain or self.fill is not None

    @property
    def categories(self) -> IntArray:
        """Features that are categories."""
        return np.concatenate([self.onehot[:, 0], self.embedded[:, 0]])

    def moved(self, gap: FloatArray) -> Encoding:
        """Return the same encoding of features from which ``gap``, shape (d,), was subtracted."""
        start = self.start.astype(np.float64) - gap[self.feature]
        fill = None if self.fill is None else (self.fill - gap).astype(np.float32)
        return replace(self, start=start.astype(np.float32), fill=fill)

    def valid(self, X: FloatArray) -> BoolArray:
        """Return which rows of ``X``, shape (n, d), can be encoded."""
        usable = np.isfinite(X)
        usable[:, self.categories] = True
        if self.fill is not None:
            usable |= np.isnan(X)
        return np.asarray(usable.all(axis=1))

    def rows_of_weights(self, X: FloatArray) -> tuple[IntArray, BoolArray]:
        """Return which rows of the sparse block the categories of rows of features use.

        Returns
        -------
        numbers, known : ndarray, shape (n, categories)
            Only numbers of ``known`` values mean anything.
        """
        which, n_values = self.embedded.T
        values = X[:, which]
        known = (values >= 0) & (values < n_values) & (values == np.floor(values))
        first = np.cumsum(n_values) - n_values
        return np.where(known, values, 0).astype(np.intp) + first, known

    def entries(self, X: FloatArray) -> Entries:
        """Return the sparse block's entries, all 1, for rows of features, shape (n, d)."""
        numbers, known = self.rows_of_weights(X)
        columns = numbers[known]
        return Entries(np.ones(len(columns), dtype=np.float32), columns, known.sum(axis=1))

    def to_json(self) -> dict[str, Any]:
        """Return plain values that ``from_json`` takes."""
        return {
            item.name: value.tolist() if isinstance(value, np.ndarray) else value
            for item in fields(self)
            for value in [getattr(self, item.name)]
        }

    @classmethod
    def from_json(cls, saved: Mapping[str, Any]) -> Encoding:
        """Return the encoding whose ``to_json`` this is; ValueError if it is not consistent."""

        def numbers(name: str) -> Float32Array:
            return np.asarray(saved[name], dtype=np.float32)

        def whole(name: str, *shape: int) -> IntArray:
            return np.asarray(saved[name], dtype=np.intp).reshape(-1, *shape)

        encoding = cls(
            int(saved["n_features"]),
            whole("feature"),
            numbers("start"),
            numbers("slope"),
            numbers("low"),
            numbers("high"),
            None if saved["fill"] is None else numbers("fill"),
            whole("missing"),
            whole("onehot", 2),
            whole("embedded", 2),
        )
        encoding._check()
        return encoding

    def _check(self) -> None:
        d, m = self.n_features, len(self.feature)
        used = np.concatenate([self.feature, self.missing, self.categories])
        if len(used) and not 0 <= used.min() <= used.max() < d:
            raise ValueError(f"the encoding uses features {used.min()} to {used.max()} of {d}")
        shapes = {each.shape for each in (self.start, self.slope, self.low, self.high)}
        if shapes != {(m,)} or (self.fill is not None and self.fill.shape != (d,)):
            raise ValueError("the encoding's arrays have different lengths")
        fill = np.empty(0) if self.fill is None else self.fill
        if not np.isfinite(np.concatenate([self.start, self.slope, fill])).all():
            raise ValueError("the encoding has numbers that are not finite")
        if not (self.low <= self.high).all():
            raise ValueError("the encoding has a lower bound above the upper one")
        sizes = np.concatenate([self.onehot[:, 1], self.embedded[:, 1]])
        if len(sizes) and sizes.min() < 1:
            raise ValueError("a category has no values")


class Encoder:
    """Encodes batches of rows and standardises the inputs: ``(input - shift) * factor``.

    Parameters
    ----------
    encoding : Encoding
    shift, factor : ndarray, shape (n_dense,), optional
    """

    def __init__(
        self,
        encoding: Encoding,
        shift: FloatArray | None = None,
        factor: FloatArray | None = None,
    ) -> None:
        m, n_dense = len(encoding.feature), encoding.n_dense
        shift = np.zeros(n_dense) if shift is None else shift.astype(np.float64)
        factor = np.ones(n_dense) if factor is None else factor.astype(np.float64)
        self.encoding = encoding
        # Standardising is part of a piece: clip((x - start) slope, low, high) becomes
        #     clip((x - start) slope factor, low factor, high factor) - shift factor
        # A plain number starts at its shift, so that a large one keeps its digits.
        plain = np.isinf(encoding.low) & np.isinf(encoding.high)
        start = encoding.start + np.where(plain, shift[:m] / encoding.slope, 0)
        offset = np.where(plain, 0, shift[:m] * factor[:m])
        self._start, self._slope, self._low, self._high, self._offset = (
            each[:, None].astype(np.float32)
            for each in (
                start,
                encoding.slope * factor[:m],
                _scaled(encoding.low, factor[:m]),
                _scaled(encoding.high, factor[:m]),
                offset,
            )
        )
        self._has_bounds, self._has_offset = not plain.all(), bool(offset.any())
        which, n_values = encoding.onehot.T
        self._value_feature = np.repeat(which, n_values)
        self._value = np.concatenate([np.empty(0), *map(np.arange, n_values)])[:, None]
        self._value = self._value.astype(np.float32)
        self._shift, self._factor = (each[m:, None].astype(np.float32) for each in (shift, factor))

    def encode(self, X: FloatArray, out: Float32Array) -> Float32Array:
        """Write the dense inputs of rows of features, shape (n, d), into ``out``.

        Parameters
        ----------
        out : ndarray, shape (at least n, n_dense), float32, contiguous

        Returns
        -------
        ndarray, shape (n, n_dense), in Fortran order
            A view of ``out``. In this order, numpy repeats a number for its pieces in half the
            time, and a matrix product takes as long.
        """
        encoding, n = self.encoding, len(X)
        m, p, n_dense = len(encoding.feature), len(encoding.missing), encoding.n_dense
        inputs = out.reshape(-1)[: n_dense * n].reshape(n_dense, n)
        rows = np.array(X.T, dtype=np.float32, order="C")
        if n_dense > m:
            flags = inputs[m:]
            np.isnan(rows[encoding.missing], out=flags[:p])
            np.equal(rows[self._value_feature], self._value, out=flags[p:])
            flags -= self._shift
            flags *= self._factor
        if encoding.fill is not None:
            np.copyto(rows, encoding.fill[:, None], where=np.isnan(rows))
        numbers = inputs[:m]
        np.take(rows, encoding.feature, axis=0, out=numbers, mode="clip")
        # A difference beyond float32 is outside the bounds anyway.
        with np.errstate(over="ignore"):
            numbers -= self._start
            numbers *= self._slope
        if self._has_bounds:
            np.maximum(numbers, self._low, out=numbers)
            np.minimum(numbers, self._high, out=numbers)
        if self._has_offset:
            numbers -= self._offset
        return inputs.T


def _scaled(bound: Float32Array, factor: FloatArray) -> FloatArray:
    """``bound * factor``, and an infinite bound as it is."""
    return np.where(np.isinf(bound), bound, np.where(np.isinf(bound), 0, bound) * factor)
