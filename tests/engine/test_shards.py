"""Shard files: what is written is read, a range at a time, in bounded memory."""

import tempfile
from collections.abc import Callable
from itertools import cycle, pairwise
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import numpy as np
import pytest
from engines import (
    handles_of,
    network_for,
    outcome,
    plain_engine,
    spec,
    stored,
    trained,
    vectors,
)
from hypothesis import given
from hypothesis import strategies as st
from pyspark.sql import SparkSession
from toys import CsrRows, blobs, one_by_one

from sparknn.core.config import TrainConfig
from sparknn.core.data import batches
from sparknn.core.data.rows import SparseSlice
from sparknn.core.training.aggregation import weight_scale_for
from sparknn.engine import open_engine, shards
from sparknn.engine.local import LocalEngine
from sparknn.engine.shards import Block, ShardRows, ShardWriter, scratch_folder

Array = np.ndarray[Any, Any]


def view(array: Array) -> memoryview:
    return memoryview(np.ascontiguousarray(array).tobytes())


def write(folder: Path, X: Array, y: Array, w: Array, cuts: list[int], kinds: list[bool]) -> float:
    """In blocks, of entries where ``kinds`` says so; the share of rows that are in such."""
    n_sparse = 0
    writer = ShardWriter(folder)
    edges = sorted({0, len(X), *(cut % (len(X) + 1) for cut in cuts)})
    for (a, b), sparse in zip(pairwise(edges), cycle(kinds)):
        if sparse:
            n_sparse += b - a
            part = CsrRows(X[a:b], y[a:b], w[a:b]).read(0, b - a)
            x, columns, counts = part.values, part.columns, np.diff(part.starts)
        else:
            x, columns, counts = X[a:b], np.empty(0, np.int32), np.empty(0, np.int64)
        parts = (x, y[a:b], w[a:b], columns, counts)
        writer.append(Block(b - a, X.shape[1], *map(view, parts)))
    writer.finish()
    assert writer.n_rows == len(X)
    return n_sparse / max(len(X), 1)


@given(
    n=st.integers(0, 30),
    d=st.integers(1, 9),
    k=st.integers(0, 3),
    kinds=st.lists(st.booleans(), min_size=1, max_size=3),
    seed=st.integers(0, 2**31),
    cuts=st.lists(st.integers(0, 100), max_size=4),
)
def test_what_is_written_is_read(
    tmp_path_factory: pytest.TempPathFactory,
    n: int,
    d: int,
    k: int,
    kinds: list[bool],
    seed: int,
    cuts: list[int],
) -> None:
    """Of dense blocks, blocks of entries, and both: most rows' kind is the shard's."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, d)).astype(np.float32) * (rng.random((n, d)) < 0.5)
    y = rng.normal(size=(n, k) if k else n)
    w = rng.random(n)
    folder = tmp_path_factory.mktemp("shard")
    share = write(folder, X, y, w, cuts, kinds)
    rows = ShardRows(folder, n, d, k)
    assert isinstance(rows.read(0, n), SparseSlice) == (share > 0.5)
    start, stop = sorted(rng.integers(0, n + 1, size=2).tolist())
    chunk = rows.read(start, stop)
    index = rng.permutation(stop - start)
    out = np.full((len(index), d), np.nan, np.float32)
    chunk.take(index, out)
    np.testing.assert_array_equal(out, X[start:stop][index])
    np.testing.assert_array_equal(chunk.y, y[start:stop])
    np.testing.assert_array_equal(chunk.sample_weight, w[start:stop])


@pytest.mark.parametrize("first", [True, False])
def test_only_the_first_megabytes_choose(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: bool
) -> None:
    """What comes later is converted, whichever kind it is, and however many rows it has."""
    monkeypatch.setattr(shards, "_HELD_BYTES", 8)
    monkeypatch.setattr(shards, "_DENSE_BYTES", 40)
    X, y, w = np.eye(20, 5, dtype=np.float32), np.arange(20.0), np.ones(20)
    write(tmp_path, X, y, w, [3, 9], [first, not first, not first])
    chunk = ShardRows(tmp_path, 20, 5, 0).read(0, 20)
    assert isinstance(chunk, SparseSlice) == first
    out = np.empty_like(X)
    chunk.take(np.arange(20), out)
    np.testing.assert_array_equal(out, X)
    np.testing.assert_array_equal(chunk.y, y)


def test_rows_without_entries_are_not_held_for_ever(tmp_path: Path) -> None:
    """Labels and weights count among the bytes that are held back, too."""
    writer = ShardWriter(tmp_path)
    n = 2000
    parts = (np.empty(0, np.float32), np.zeros(n), np.ones(n), np.empty(0, np.int32))
    block = Block(n, 5, *map(view, parts), view(np.zeros(n, np.int64)))
    for _ in range(100):
        writer.append(block)
    assert (tmp_path / "y").stat().st_size > 0
    writer.finish()
    assert (tmp_path / "y").stat().st_size == 100 * n * 8


@pytest.mark.parametrize("sparse", [True, False])
def test_small_windows_on_shards_are_small_windows_on_arrays(
    spark: SparkSession, monkeypatch: pytest.MonkeyPatch, sparse: bool
) -> None:
    """Workers are other processes, so the shards are read here, with a window of a few rows."""
    X, y = blobs(150, d=30)
    X[np.random.default_rng(0).random(X.shape) < 0.95] = 0
    df = vectors(spark, X, y, sizes=[70, 80], sparse=lambda row: sparse)
    with open_engine(df, spec(validation_fraction=0.2)) as engine:
        shape = (engine.info.n_features, engine.info.n_targets)
        mapped = LocalEngine(
            [handle.rows(*shape) for handle in handles_of(engine)],
            weight_scale_for(engine.info.weight_sum),
        )
        network = network_for(engine.info)
        configs = [
            TrainConfig(network, max_iter=3, batch_size=8, seed=2),
            TrainConfig(network, max_iter=3, batch_size=8, mini_batch_fraction=0.3, seed=3),
        ]
        rows, _ = handles_of(engine)[0].rows(*shape)
        monkeypatch.setattr(batches, "WINDOW_BYTES", 20 * batches.row_bytes(rows))
        assert len(batches.split_range(0, rows.n_rows, batches.row_bytes(rows), 8)) >= 3
        assert outcome(trained(mapped, configs)) == outcome(trained(plain_engine(engine), configs))
        drawn = one_by_one(rows, configs[0], 0, np.random.default_rng(0))
        seen = np.concatenate([np.array(X) for X, *_ in drawn])
        everything = stored(rows).X
        assert sorted(map(tuple, seen.tolist())) == sorted(map(tuple, everything.tolist()))


def test_training_needs_far_less_memory_than_the_shard(
    run_python: Callable[..., CompletedProcess[str]], tmp_path: Path
) -> None:
    """A worker under Spark's limit (``spark.executor.pyspark.memory`` is RLIMIT_AS) of 1/4 shard.

    The files have holes, so they cost neither disk nor time to write.
    """
    run_python(
        """
import resource, sys
from pathlib import Path
import numpy as np
from sparknn.core.nn.network import Network
from sparknn.core.config import RoundRequest, TrainConfig
from sparknn.core.training.worker_round import run_worker
from sparknn.engine.statistics import measure
from sparknn.engine.shards import ShardRows

def address_space():
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()

d = 2000
folder = Path(sys.argv[1])
config = TrainConfig(Network((d, 2, 2)), max_iter=1, batch_size=512, local_state="reset")
theta = config.network.init(np.random.default_rng(0))
np.ones((300, d), np.float32) @ np.ones((d, 300), np.float32)
# Two windows of 64 MB, the one in use and the next, and as much again for all else.
limit = address_space() + (256 << 20)
n = 4 * limit // (4 * d)
for name, row_bytes in (("x", 4 * d), ("y", 8), ("w", 8)):
    with (folder / name).open("wb") as file:
        file.truncate(n * row_bytes)
np.ones(n).tofile(folder / "w")
(folder / "counts").touch()
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
rows = ShardRows(folder, n, d, 0)
assert (folder / "x").stat().st_size >= 3.9 * limit
(total,) = run_worker([RoundRequest(config, theta[None])], rows, rows, 0, 0, 2.0**30)
assert total.reports[0].n_rows == total.reports[0].score.n_rows == n
assert measure(rows).weight == n
""",
        str(tmp_path),
        timeout_s=300,
    )


def test_scratch_folders_are_spread_over_the_disks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPARK_LOCAL_DIRS", "/disk1,/disk2")
    assert [str(scratch_folder("f", n)) for n in range(3)] == [
        "/disk1/sparknn-f",
        "/disk2/sparknn-f",
        "/disk1/sparknn-f",
    ]
    assert str(scratch_folder("f", 1, "/shared,too")) == "/shared,too/sparknn-f"
    monkeypatch.delenv("SPARK_LOCAL_DIRS")
    assert scratch_folder("f", 0).parent == Path(tempfile.gettempdir())
