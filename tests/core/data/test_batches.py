"""Mini-batches: every row once an epoch, equal sizes, the same in every run."""

import itertools
import tracemalloc
from copy import deepcopy
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toys import CsrRows, one_by_one

from sparknn.core.config import RoundRequest, Standardizer, TrainConfig
from sparknn.core.data import batches as module
from sparknn.core.data.batches import (
    Batch,
    allocate_buffers,
    count_batches,
    group_by_batches,
    mini_batches,
    rng_for,
    sampled_ranges,
    split_range,
)
from sparknn.core.data.inputs import Inputs
from sparknn.core.data.rows import ArrayRows, DenseSlice
from sparknn.core.nn.encoding import Encoding
from sparknn.core.nn.network import Network

D = 3


def numbered(n: int) -> ArrayRows:
    """Rows whose features, label and weight are their index."""
    number = np.arange(n)
    X = np.repeat(number[:, None], D, axis=1).astype(np.float32)
    return ArrayRows(X, number.astype(float), number + 1.0)


def config_of(**changes: Any) -> TrainConfig:
    return TrainConfig(Network((D, 2)), **changes)


def drawn(
    rows: Any, config: TrainConfig, round_: int = 0, seed: int = 0, together: int = 1
) -> list[Batch]:
    """Copies of one round's batches, ``together`` at a time, as these share their buffers."""
    arrays = allocate_buffers(rows, config, together)
    buffers, inputs = itertools.cycle(arrays), Inputs(config, arrays.shape[1])
    batches = mini_batches(rows, config, round_, rng_for(seed, round_, 0), buffers, inputs)
    found: list[Batch] = []
    while some := list(itertools.islice(batches, together)):
        found += [batch._replace(X=batch.X.copy()) for batch in some]
    return found


@pytest.fixture
def small_windows(monkeypatch: pytest.MonkeyPatch) -> int:
    """Windows of 10 rows, so that a few rows make several."""
    monkeypatch.setattr(module, "WINDOW_BYTES", 10 * module.row_bytes(numbered(1)))
    return 10


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("n", [1, 2, 7, 8, 9, 10, 11, 47])
@pytest.mark.parametrize("batch_size", [1, 4, 64])
@pytest.mark.parametrize("together", [1, 3])
@pytest.mark.usefixtures("small_windows")
def test_every_row_once_an_epoch_in_equal_batches(
    n: int, batch_size: int, together: int, shuffle: bool
) -> None:
    config = config_of(batch_size=batch_size, local_epochs=3, shuffle=shuffle)
    rows = numbered(n)
    got = drawn(rows, config, together=together)
    assert len(got) == count_batches(rows, config, 0)
    for X, y, sample_weight, weight, label_index, _ in got:
        np.testing.assert_array_equal(X, np.repeat(y[:, None], D, axis=1))
        np.testing.assert_array_equal(sample_weight, y + 1)
        assert weight == sample_weight.sum()
        np.testing.assert_array_equal(label_index, y * len(y) + np.arange(len(y)))
    per_epoch = len(got) // 3
    for epoch in range(3):
        part = got[epoch * per_epoch : (epoch + 1) * per_epoch]
        seen = np.concatenate([batch.y for batch in part])
        np.testing.assert_array_equal(np.sort(seen), np.arange(n))
    sizes = [len(batch.y) for batch in got]
    assert max(sizes) <= batch_size
    # Windows of equal size are cut into equal batches: two roundings.
    assert max(sizes) - min(sizes) <= (2 if n > 10 else 1)


def test_no_rows_are_no_batches() -> None:
    config = config_of()
    assert drawn(numbered(0), config) == []
    assert count_batches(numbered(0), config, 0) == 0


def test_without_shuffle_rows_come_in_order() -> None:
    seen = [batch.y for batch in drawn(numbered(10), config_of(batch_size=4, shuffle=False))]
    np.testing.assert_array_equal(np.concatenate(seen), np.arange(10))
    assert [len(y) for y in seen] == [4, 3, 3]


@pytest.mark.usefixtures("small_windows")
def test_shuffle_mixes_windows_and_epochs() -> None:
    got = drawn(numbered(40), config_of(batch_size=5, local_epochs=2))
    order = [batch.y.tolist() for batch in got]
    # Within a batch, rows come in the order in which they are stored.
    assert all(y == sorted(y) for y in order)
    epochs = order[:8], order[8:]
    for epoch in epochs:
        windows = [sorted(a + b) for a, b in zip(epoch[::2], epoch[1::2], strict=True)]
        # Rows stay within their window: only it is in memory.
        assert all(y == list(range(y[0], y[0] + 10)) for y in windows)
        assert windows != sorted(windows)
        # But each epoch assigns them to batches at random.
        assert any(max(y) - min(y) > 4 for y in epoch)
    parts = [{tuple(y) for y in epoch} for epoch in epochs]
    assert parts[0] != parts[1]


@pytest.mark.usefixtures("small_windows")
def test_the_same_position_draws_the_same_batches() -> None:
    config = config_of(batch_size=4, local_epochs=2)

    def order(seed: int, *where: int) -> list[float]:
        stream = rng_for(seed, *where)
        return [v for batch in one_by_one(numbered(50), config, where[0], stream) for v in batch.y]

    assert order(1, 2, 3) == order(1, 2, 3)
    others = [order(2, 2, 3), order(1, 3, 3), order(1, 2, 4)]
    assert all(order(1, 2, 3) != other for other in others)


def test_streams_of_different_positions_differ() -> None:
    words = [0, 1, 2, 2**31, 2**32 - 1]
    seeds = [0, 1, 2**32, 2**32 + 1, 2**33, 2**63, -1, -2]
    wheres = [*itertools.product(words, words), *itertools.product(words, words, [1])]
    positions = [(seed, *where) for seed in seeds for where in wheres]
    first = {tuple(rng_for(*position).integers(2**63, size=2)) for position in positions}
    assert len(first) == len(positions)


@pytest.mark.parametrize("seed", [-1, 2**64 - 1, 2**64 + 5, -(2**63)])
def test_any_whole_number_is_a_seed(seed: int) -> None:
    same = rng_for(seed % 2**64, 1, 2)
    assert rng_for(seed, 1, 2).integers(2**63) == same.integers(2**63)


@settings(max_examples=100)
@given(n_rows=st.integers(1, 300), fraction=st.floats(0.001, 1.0))
def test_draws_go_round_and_use_every_row_equally(n_rows: int, fraction: float) -> None:
    used = np.zeros(n_rows, dtype=int)
    n_drawn = min(n_rows, max(1, round(fraction * n_rows)))
    for round_ in range(12):
        ranges = sampled_ranges(n_rows, fraction, round_)
        assert sum(stop - start for start, stop in ranges) == n_drawn
        for start, stop in ranges:
            assert 0 <= start < stop <= n_rows
            used[start:stop] += 1
    assert used.max() - used.min() <= 1


@pytest.mark.usefixtures("small_windows")
@pytest.mark.parametrize("round_", range(5))
def test_a_fraction_is_the_next_part_of_the_rows(round_: int) -> None:
    config = config_of(batch_size=4, mini_batch_fraction=0.3, local_epochs=2)
    rows = numbered(50)
    got = drawn(rows, config, round_)
    assert len(got) == count_batches(rows, config, round_)
    seen, counts = np.unique(np.concatenate([batch.y for batch in got]), return_counts=True)
    expected = sorted((round_ * 15 + i) % 50 for i in range(15))
    np.testing.assert_array_equal(seen, expected)
    np.testing.assert_array_equal(counts, 2)


@settings(max_examples=100)
@given(
    start=st.integers(0, 10**6),
    n=st.integers(0, 10**6),
    n_bytes=st.integers(1, 10**6),
    batch_size=st.integers(1, 5000),
)
def test_windows_cover_the_rows_and_fit(start: int, n: int, n_bytes: int, batch_size: int) -> None:
    cut = split_range(start, start + n, n_bytes, batch_size)
    assert [a for a, _ in cut[1:]] == [b for _, b in cut[:-1]]
    sizes = [b - a for a, b in cut]
    assert sum(sizes) == n
    if n:
        assert (cut[0][0], cut[-1][1]) == (start, start + n)
        assert max(sizes) - min(sizes) <= 1
        assert max(sizes) <= max(module.WINDOW_BYTES // n_bytes, batch_size)


@pytest.mark.parametrize("n_targets", [1, 50])
def test_a_window_holds_fewer_rows_of_many_targets(
    n_targets: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = []

    class Watched(ArrayRows):
        def read(self, start: int, stop: int) -> DenseSlice:
            read.append(stop - start)
            return super().read(start, stop)

    monkeypatch.setattr(module, "WINDOW_BYTES", 10_000)
    rows = Watched(np.zeros((600, D), np.float32), np.zeros((600, n_targets)), np.ones(600))
    drawn(rows, config_of(batch_size=4))
    assert sum(read) == 600
    # A row as stored, and its label, weight, index and label index as drawn.
    assert max(read) * (4 * D + 2 * 8 * (n_targets + 1) + 2 * 8) <= 10_000
    assert max(read) >= (5 if n_targets > 1 else 150)


@pytest.mark.usefixtures("small_windows")
def test_sparse_batches_are_the_dense_ones() -> None:
    rng = np.random.default_rng(0)
    X = (rng.normal(size=(35, D)) * (rng.random((35, D)) < 0.4)).astype(np.float32)
    y, weight = np.arange(35.0), rng.random(35)
    standardizer = Standardizer(np.ones(D, np.float32), np.full(D, 2, np.float32))
    config = config_of(batch_size=6, local_epochs=2, standardizer=standardizer)
    dense = drawn(ArrayRows(X, y, weight), config)
    sparse = drawn(CsrRows(X, y, weight), config)
    assert len(dense) == len(sparse)
    for mine, yours in zip(dense, sparse, strict=True):
        for a, b in zip(mine, yours, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.usefixtures("small_windows")
@pytest.mark.parametrize("together", [2, 3, 100])
def test_batches_held_together_are_those_gathered_one_by_one(together: int) -> None:
    scale = Standardizer(np.ones(D, np.float32), np.full(D, 2, np.float32))
    # Windows of 9 or 10 rows, and so 3 or 4 batches each.
    config = config_of(batch_size=3, local_epochs=2, standardizer=scale)
    for mine, alone in zip(
        drawn(numbered(37), config, together=together), drawn(numbered(37), config), strict=True
    ):
        for a, b in zip(mine, alone, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("batch_size", [1, 8])
def test_many_small_batches_hold_no_more_than_their_window(
    batch_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "WINDOW_BYTES", 1 << 20)
    rows = ArrayRows(np.zeros((50_000, 1), np.float32), np.zeros(50_000), np.ones(50_000))
    config = TrainConfig(Network((1, 2)), batch_size=batch_size)
    drawn = one_by_one(rows, config, 0, rng_for(0, 0, 0), weight_scale=1.0)
    tracemalloc.start()
    next(drawn)
    held, peak = tracemalloc.get_traced_memory()
    for _ in drawn:
        pass
    _, peak_of_all = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # The rows themselves are held by `rows`.
    assert held < 1 << 20
    assert peak < 1.05 * (1 << 20)
    # A window is released once the next one is there.
    assert peak_of_all < 1.35 * (1 << 20)


def test_fewer_buffers_for_large_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    def at_most_8(n_rows: int, n_bytes: int) -> tuple[int, ...]:
        monkeypatch.setattr(module, "_BUFFERS_BYTES", n_bytes)
        return allocate_buffers(numbered(n_rows), config_of(batch_size=10), 8).shape

    row = 4 * D
    assert at_most_8(40, 80 * row) == (8, 10, D)
    assert at_most_8(40, 1000 * row) == (8, 10, D)
    assert at_most_8(40, 30 * row) == (3, 10, D)
    assert at_most_8(40, 20 * row - 1) == (1, 10, D)
    assert at_most_8(40, 1) == (1, 10, D)
    # Batches are no larger than the number of rows.
    assert at_most_8(5, 30 * row) == (6, 5, D)
    assert at_most_8(0, 30 * row) == (8, 0, D)
    fifth = config_of(batch_size=10, mini_batch_fraction=0.2)
    assert allocate_buffers(numbered(40), fifth, 1).shape == (1, 8, D)


ENCODING = Encoding(
    n_features=D,
    feature=np.arange(D),
    start=np.zeros(D, np.float32),
    slope=np.ones(D, np.float32),
    low=np.zeros(D, np.float32),
    high=np.ones(D, np.float32),
    fill=None,
    missing=np.empty(0, np.intp),
    onehot=np.empty((0, 2), np.intp),
    embedded=np.empty((0, 2), np.intp),
)
OTHERS: dict[str, Any] = {
    "encoding": ENCODING,
    "null_loss": 0.5,
    "n_sparse": D,
    "network": Network((D, 5, 2)),
    "seed": 9,
    "max_iter": 7,
    "solver": "adam",
    "step_size": 0.9,
    "momentum": 0.3,
    "schedule": "constant",
    "l2": 0.1,
    "dropout": 0.5,
    "batch_size": 3,
    "local_epochs": 2,
    "mini_batch_fraction": 0.5,
    "shuffle": False,
    "local_state": "reset",
    "max_change": 0.0,
    "standardizer": Standardizer(np.ones(D, np.float32), np.ones(D, np.float32)),
    "target_standardizer": Standardizer(np.ones(1), np.ones(1)),
    "class_weight": np.arange(1.0, 13),
}


@pytest.mark.parametrize("name", [field.name for field in fields(TrainConfig)])
def test_configs_share_their_batches_where_these_are_the_same(name: str) -> None:
    config = config_of(batch_size=4)
    other = replace(config, **{name: OTHERS[name]})
    state = np.zeros((1, 1), np.float32)
    together = group_by_batches(
        [RoundRequest(config, state), RoundRequest(other, state), RoundRequest(config, state)]
    )
    mine, yours = (
        [part for batch in drawn(numbered(12), each, seed=each.seed) for part in batch]
        for each in (config, other)
    )
    same = len(mine) == len(yours) and all(map(np.array_equal, mine, yours))
    assert together == ([[0, 1, 2]] if same else [[0, 2], [1]])


@pytest.mark.parametrize("name", ["standardizer", "class_weight"])
def test_configs_with_equal_arrays_share_their_batches(name: str) -> None:
    config = config_of(**{name: OTHERS[name]})
    state = np.zeros((1, 1), np.float32)
    assert group_by_batches(
        [RoundRequest(config, state), RoundRequest(deepcopy(config), state)]
    ) == [[0, 1]]


@pytest.mark.parametrize("change", [{"units_ahead": 1}, {"n_units": 2}, {"train": False}], ids=str)
def test_requests_at_other_positions_of_their_fits_do_not_share_batches(
    change: dict[str, Any],
) -> None:
    request = RoundRequest(config_of(), np.zeros((1, 1), np.float32))
    assert group_by_batches([request, replace(request, **change)]) == [[0], [1]]


def test_features_are_standardised_and_the_source_is_not_touched() -> None:
    rows = numbered(6)
    kept = rows.X.copy()
    shift, factor = np.array([1, 2, 3], np.float32), np.array([2, 0.5, 0], np.float32)
    config = config_of(shuffle=False, standardizer=Standardizer(shift, factor), local_epochs=2)
    for X, *_ in drawn(rows, config):
        np.testing.assert_array_equal(X, (kept - shift) * factor)
    np.testing.assert_array_equal(rows.X, kept)


def test_targets_are_standardised_and_the_source_is_not_touched() -> None:
    y = np.arange(12.0).reshape(6, 2)
    rows = ArrayRows(np.zeros((6, D), np.float32), y.copy())
    scale = Standardizer(np.array([1, 2], np.float32), np.array([2, 0.5], np.float32))
    config = config_of(shuffle=False, target_standardizer=scale, local_epochs=2)
    for batch in drawn(rows, config):
        np.testing.assert_array_equal(batch.y, (y - [1, 2]) * [2, 0.5])
    np.testing.assert_array_equal(rows.y, y)


def test_class_weights_multiply_the_rows_weights() -> None:
    y = np.array([0.0, 1, 2, 1])
    rows = ArrayRows(np.zeros((4, D), np.float32), y, np.array([1.0, 2, 3, 4]))
    config = config_of(shuffle=False, class_weight=np.array([0.5, 1, 10]))
    (batch,) = drawn(rows, config)
    np.testing.assert_array_equal(batch.sample_weight, [0.5, 2, 30, 4])
    assert batch.weight == 36.5
    np.testing.assert_array_equal(rows.sample_weight, [1, 2, 3, 4])
