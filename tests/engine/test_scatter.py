"""Blocks reach Spark in few record batches, whatever the number of workers."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from sparknn.engine import scatter
from sparknn.engine.decode import IngestTask

N, D = 200, 3


def batch(sparse: bool) -> pa.RecordBatch:
    """Dense rows as arrays, or vectors with one entry each."""
    rng = np.random.default_rng(0)
    width = 1 if sparse else D
    columns = {"x": pa.array(rng.normal(size=(N, width)).astype(np.float32).tolist())}
    columns["x"] = columns["x"].cast(pa.list_(pa.float32()))
    if sparse:
        columns["type"] = pa.array(np.zeros(N, np.int8))
        columns["size"] = pa.array(np.full(N, 50, np.int32))
        columns["indices"] = pa.array([[i % 50] for i in range(N)], pa.list_(pa.int32()))
    columns["y"] = pa.array(np.arange(N) % 2.0)
    return pa.RecordBatch.from_pydict(columns)


def scattered(
    monkeypatch: pytest.MonkeyPatch,
    sparse: bool,
    n_workers: int,
    block_bytes: int,
    batch_rows: int = N,
) -> list[pa.RecordBatch]:
    context = SimpleNamespace(partitionId=lambda: 1)
    monkeypatch.setattr(scatter, "TaskContext", SimpleNamespace(get=lambda: context))
    monkeypatch.setattr(scatter, "freeze_gc", lambda: None)
    monkeypatch.setattr(scatter, "_BLOCK_BYTES", block_bytes)
    task = IngestTask(
        fit_id="f",
        keys=tuple(range(n_workers)),
        classifies=True,
        vectors=sparse,
        has_weight=False,
        has_indicator=False,
        seed=3,
        shuffle=True,
        validation_fraction=0.3,
    )
    whole = batch(sparse)
    parts = [whole.slice(start, batch_rows) for start in range(0, N, batch_rows)]
    return list(scatter.scatter(task, iter(parts)))


def rows_of(batches: list[pa.RecordBatch]) -> list[dict[str, Any]]:
    for part in batches:
        part.validate(full=True)
    return [row for part in batches for row in part.to_pylist()]


@pytest.mark.parametrize("sparse", [True, False])
def test_the_blocks_of_a_batch_travel_together(
    monkeypatch: pytest.MonkeyPatch, sparse: bool
) -> None:
    batches = scattered(monkeypatch, sparse, 64, 4 << 20)
    *blocks, counts = rows_of(batches)
    # One of rows, one of counts.
    assert len(batches) == 2
    assert len(blocks) > 64
    assert counts["role"] == scatter.COUNTS
    assert sum(block["n_rows"] for block in blocks) == N
    for block in blocks:
        n = block["n_rows"]
        sizes = [len(block[name]) for name in ("x", "y", "w", "columns", "counts")]
        assert sizes == (
            [4 * n, 8 * n, 8 * n, 4 * n, 8 * n] if sparse else [4 * n * D, 8 * n, 8 * n, 0, 0]
        )


@pytest.mark.parametrize("sparse", [True, False])
def test_large_blocks_travel_apart(monkeypatch: pytest.MonkeyPatch, sparse: bool) -> None:
    together = scattered(monkeypatch, sparse, 2, 4 << 20)
    # No smaller than a block, so that the blocks are the same.
    apart = scattered(monkeypatch, sparse, 2, 200)
    assert len(apart) > len(together)
    assert rows_of(apart) == rows_of(together)


@pytest.mark.parametrize("batch_rows", [1, 3])
def test_batches_smaller_than_the_number_of_workers_reach_all_of_them(
    monkeypatch: pytest.MonkeyPatch, batch_rows: int
) -> None:
    """Each batch continues with the worker after the last one's."""
    rows = [0] * 8
    for block in rows_of(scattered(monkeypatch, False, 8, 4 << 20, batch_rows)):
        if block["role"] != scatter.COUNTS:
            rows[block["key"]] += block["n_rows"]
    assert sum(rows) == N
    assert max(rows) - min(rows) <= 2


@pytest.mark.parametrize(
    ("odd", "size"), [(7, 1), (255, 1), (256, 4), (-1, 4), (0.5, 4), (-0.0, 4), (np.nan, 4)]
)
def test_small_whole_numbers_travel_as_bytes(odd: float, size: int) -> None:
    X = np.arange(250, dtype=np.float32).reshape(50, 5)
    X[40, 2] = odd
    sent = scatter.narrow(X)
    assert sent.itemsize == size
    received = scatter.widen(sent.reshape(-1).view(np.uint8).data, X.size)
    assert bytes(received) == X.tobytes()
