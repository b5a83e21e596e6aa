"""Coarse columns are found whatever the partitions, also among the entries of sparse rows."""

from collections.abc import Sequence

import numpy as np
import pytest
from engines import Array, shards, spec, vectors
from hypothesis import given
from hypothesis import strategies as st
from pyspark.sql import SparkSession

from sparknn.engine.offsets import CoarseRanges, find_offset
from sparknn.engine.rdd import RddEngine


def coarse(parts: Sequence[Array]) -> list[int]:
    """The coarse columns of some partitions, each in three batches."""
    reports = []
    for part in parts:
        ranges = CoarseRanges()
        for rows in np.array_split(part.astype(np.float32), 3):
            ranges.update(rows, np.arange(len(rows)))
        reports.append(ranges.to_json())
    offset = find_offset(reports, parts[0].shape[1])
    return [] if offset is None else np.flatnonzero(offset).tolist()


def columns() -> Array:
    """Ranges just above and just below the limit, and ordinary ones."""
    x = np.linspace(0, 1, 200)[:, None]
    return np.hstack([1e6 + 244 * x, 1e6 + 245 * x, x, -1e9 + 9 * x, 0 * x, 0 * x + 7])


@given(st.lists(st.integers(0, 200), max_size=5), st.permutations(range(200)))
def test_partitions_do_not_matter(edges: list[int], order: list[int]) -> None:
    X = columns()[order]
    assert coarse(np.split(X, sorted(edges))) == coarse([X]) == [0, 3]


def test_a_column_that_a_batch_lacks_is_not_coarse() -> None:
    ranges = CoarseRanges()
    X = np.float32(1e9) + 100 * np.arange(6, dtype=np.float32).reshape(3, 2)
    ranges.update(X, np.arange(3), np.array([2, 5]))
    ranges.update(X, np.arange(3), np.array([1, 5]))
    offset = find_offset([ranges.to_json()], 7)
    assert offset is not None
    assert np.flatnonzero(offset).tolist() == [5]
    ranges.update(X, np.arange(3), np.array([1, 2]))
    assert ranges.none_left


@pytest.mark.parametrize("d", [60, 3000])
def test_a_time_beside_one_hot_columns(spark: SparkSession, d: int) -> None:
    """What VectorAssembler makes: sparse vectors."""
    rng = np.random.default_rng(0)
    X = np.zeros((80, d))
    X[np.arange(80), rng.integers(3, d, size=80)] = 1
    X[:, 0] = 1e9 + np.arange(80) / 8
    # Coarse as well, but for a row that has no entry.
    X[:, 1] = 1e9 + np.arange(80)
    X[33, 1] = 0
    df = vectors(spark, X, np.arange(80) % 2.0, sizes=[30, 0, 50], sparse=lambda row: True)
    with RddEngine(df, spec(center=True)) as engine:
        offset = engine.info.input_offset
        assert engine.info.sparse == (d == 3000)
        assert offset is not None
        assert np.flatnonzero(offset).tolist() == [0]
        stored = np.vstack([rows.X for rows, _ in shards(engine)])
    order = np.argsort(stored[:, 0])
    assert np.array_equal(stored[order], (X - offset).astype(np.float32))
