"""A worker's round: its sums and reports, also for extreme rows."""

import time
import tracemalloc
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from toys import Array, CsrRows, blobs, curve, data_for, empty_rows, request_of

from sparknn.core.config import RoundRequest, TrainConfig
from sparknn.core.data import batches
from sparknn.core.data.rows import ArrayRows, DenseSlice
from sparknn.core.nn.network import Network
from sparknn.core.training import worker_round as training
from sparknn.core.training.aggregation import WorkerSum, weight_scale_for
from sparknn.core.training.local_trainer import (
    LocalResult,
    LocalTrainer,
    ScheduledBatch,
    working_bytes,
)
from sparknn.core.training.worker_round import run_worker, score, train_locally

NETWORK = Network((4, 6, 3), "tanh")
REGRESSION = Network((4, 6, 2), "tanh", "squared")
PLAIN_SOLVERS = ["sgd", "momentum", "adam", "adamw"]


def trained(config: TrainConfig, X: Array, y: Array, weight: Array | None = None) -> LocalResult:
    return train_locally(request_of(config), ArrayRows(X, y, weight), 0, 0)


def work_on(
    config: TrainConfig, X: Array, y: Array, weight: Array | None = None, **changes: Any
) -> WorkerSum:
    total_weight = float(len(X) if weight is None else weight.sum())
    rows, none = ArrayRows(X, y, weight), ArrayRows(X[:0], y[:0])
    (total,) = run_worker(
        [request_of(config, **changes)], rows, none, 0, 7, weight_scale_for(total_weight)
    )
    return total


def test_a_report_has_the_counts_of_the_round() -> None:
    X, y = blobs(50)
    config = TrainConfig(NETWORK, batch_size=8, local_epochs=2)
    total = work_on(config, X, y)
    alone = train_locally(request_of(config), ArrayRows(X, y), 0, 7)
    (report,) = total.reports
    assert total.values is not None
    assert total.values.tobytes() == alone.state.tobytes()
    assert (report.partition, report.n_rows, report.n_steps) == (7, 100, 14)
    assert report.weight == 100
    assert report.share == 50 / 64
    assert report.loss_sum == alone.loss_sum
    moved = alone.state[0].astype(np.float64) - request_of(config).state[0]
    assert report.squared_update_norm == pytest.approx(moved @ moved)
    assert report.score is None
    assert report.left_out == ""


@pytest.mark.parametrize("units_ahead", [0, 3])
def test_losses_at_the_ends_of_a_round_are_of_its_first_and_last_unit(units_ahead: int) -> None:
    X, y = blobs(100, d=4)
    # 30 mini-batches of 10 rows; either loss is over a tenth of them.
    total = work_on(TrainConfig(NETWORK, batch_size=10), X, y, n_units=3, units_ahead=units_ahead)
    (report,) = total.reports
    assert (report.first.weight, report.last.weight) == (30, 30)
    assert report.last.loss < report.first.loss


def test_a_worker_scores_the_broadcast_network_even_without_training_rows() -> None:
    X, y = blobs(30)
    request = request_of(TrainConfig(NETWORK))
    empty, full = empty_rows(4), ArrayRows(X, y)
    for rows, train in [(empty, True), (full, False), (full, True)]:
        (total,) = run_worker(
            [RoundRequest(request.config, request.state, train=train)], rows, full, 0, 0, 32.0
        )
        assert total.reports[0].score == score(request, full)
        assert (total.values is None) == (not train or rows.n_rows == 0)


def differing_requests() -> list[RoundRequest]:
    """Networks of different sizes and solvers; two of them see different mini-batches."""
    other = Network((5, 9, 4, 3))
    network = Network((5, 6, 3), "tanh")
    return [
        request_of(config)
        for config in [
            TrainConfig(network, batch_size=7, l2=0.1, solver="sgd"),
            TrainConfig(other, batch_size=7, dropout=0.4, step_size=0.01, solver="adam"),
            TrainConfig(network, batch_size=7, seed=3),
            TrainConfig(other, batch_size=7, solver="ngsgd", schedule="constant"),
            TrainConfig(network, batch_size=11, local_epochs=2),
            TrainConfig(network, batch_size=7, dropout=0.2, local_state="reset"),
        ]
    ]


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("n_units", [1, 2])
def test_networks_of_one_round_are_independent(n_units: int, train: bool) -> None:
    X, y = blobs(103, d=5)
    rows, validation = ArrayRows(X, y), ArrayRows(X[:9], y[:9])
    requests = [replace(request, n_units=n_units, train=train) for request in differing_requests()]
    together = run_worker(requests, rows, validation, 3, 1, 128.0)
    for request, total in zip(requests, together, strict=True):
        (alone,) = run_worker([request], rows, validation, 3, 1, 128.0)
        mine, theirs = (replace(each.reports[0], seconds=0.0) for each in (alone, total))
        assert mine == theirs
        assert (alone.values is None) == (total.values is None) == (not train)
        if alone.values is not None and total.values is not None:
            assert alone.values.tobytes() == total.values.tobytes()


def test_networks_with_the_same_mini_batches_gather_them_once() -> None:
    n_picked = 0

    class Counted(DenseSlice):
        def take(self, index: Array, out: Array) -> None:
            nonlocal n_picked
            n_picked += len(index)
            super().take(index, out)

    class CountedRows(ArrayRows):
        def read(self, start: int, stop: int) -> DenseSlice:
            return Counted(**vars(super().read(start, stop)))

    X, y = blobs(103, d=5)
    # Four share theirs; one has another seed, and one makes two passes over its rows.
    run_worker(differing_requests(), CountedRows(X, y), empty_rows(5), 0, 0, 128.0)
    assert n_picked == (1 + 1 + 2) * 103
    # The same holds for scoring.
    n_picked = 0
    requests = [replace(request, train=False) for request in differing_requests()]
    run_worker(requests, empty_rows(5), CountedRows(X, y), 0, 0, 128.0)
    assert n_picked == 3 * 103


@pytest.mark.parametrize(("n_bytes", "size"), [(10**9, 8), (3 * 10 * 4 * 5, 3), (1, 1)])
def test_networks_train_interleaved_in_chunks_of_mini_batches(
    n_bytes: int, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []

    class Watched(LocalTrainer):
        def train(self, batches: Iterable[ScheduledBatch]) -> None:
            chunk = list(batches)
            sizes.append(len(chunk))
            super().train(chunk)

    monkeypatch.setattr(training, "LocalTrainer", Watched)
    monkeypatch.setattr(batches, "_BUFFERS_BYTES", n_bytes)
    X, y = blobs(100, d=5)
    config = TrainConfig(Network((5, 4, 3)), batch_size=10)
    # 20 mini-batches, in two units of local work: a chunk may have some of both.
    requests = [request_of(replace(config, step_size=step), n_units=2) for step in (0.1, 0.2)]
    run_worker(requests, ArrayRows(X, y), empty_rows(5), 0, 0, 128.0)
    whole, rest = divmod(20, size)
    assert sizes == [size] * 2 * whole + [rest] * 2 * (rest > 0)


@pytest.mark.parametrize("n_networks", [1, 2])
def test_units_of_local_work_share_their_buffers(n_networks: int) -> None:
    X, y = blobs(320, d=800)
    config = TrainConfig(Network((800, 1, 3)), batch_size=32, mini_batch_fraction=0.1)
    requests = [
        request_of(replace(config, step_size=step), n_units=16) for step in (0.1, 0.2)[:n_networks]
    ]
    tracemalloc.start()
    run_worker(requests, ArrayRows(X, y), empty_rows(800), 0, 0, 512.0)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    buffers = 4 * 32 * 800 * (8 if n_networks > 1 else 1)
    assert buffers < peak < 1.5 * buffers


def test_networks_that_need_much_memory_train_one_after_the_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    X, y = blobs(103, d=5)
    rows, requests = ArrayRows(X, y), differing_requests()
    together = run_worker(requests, rows, empty_rows(5), 0, 0, 128.0)
    at_a_time = []

    def watched(requests: Sequence[RoundRequest], *where: Any) -> list[LocalResult]:
        at_a_time.append(len(requests))
        return original(requests, *where)

    original = training._train_group
    monkeypatch.setattr(training, "_train_group", watched)
    for n_bytes, expected in [(1, [1] * 6), (10**9, [4, 1, 1])]:
        monkeypatch.setattr(training, "_WORKING_BYTES", n_bytes)
        in_groups = run_worker(requests, rows, empty_rows(5), 0, 0, 128.0)
        assert at_a_time == expected
        at_a_time.clear()
        for one, other in zip(in_groups, together, strict=True):
            assert one.values is not None
            assert other.values is not None
            assert one.values.tobytes() == other.values.tobytes()


@pytest.mark.parametrize(("fraction", "expected"), [(1.0, [[0], [1]]), (0.1, [[0, 1]])])
def test_working_memory_is_that_of_the_rows_that_a_round_draws(
    fraction: float, expected: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = TrainConfig(Network((5, 50, 3)), batch_size=1000, mini_batch_fraction=fraction)
    requests = [request_of(replace(config, step_size=step)) for step in (0.1, 0.2)]
    monkeypatch.setattr(training, "_WORKING_BYTES", working_bytes(requests[0], 1000))
    assert list(training._group_by_memory(requests, 1000)) == expected


@pytest.mark.parametrize(
    ("network", "changes"),
    [
        (Network((5, 7, 3)), {"class_weight": np.array([0.5, 1, 3]), "shuffle": False}),
        (Network((5, 7, 2), loss="huber"), {"mini_batch_fraction": 0.4}),
    ],
    ids=["classes", "targets"],
)
def test_networks_trained_together_on_weighted_and_sparse_rows(
    network: Network, changes: dict[str, Any]
) -> None:
    X, y = data_for(network, 90)
    X[X < 0.5] = 0
    weight = np.random.default_rng(1).uniform(0, 2, 90)
    # Unshuffled, some batches between others have weight 0.
    weight[30:60] = 0
    rows, none = CsrRows(X, y, weight), empty_rows(5, 0 if network.loss_fn.classifies else 2)
    config = TrainConfig(network, batch_size=8, **changes)
    requests = [
        request_of(replace(config, step_size=step_size), units_ahead=2)
        for step_size in (0.1, 0.01, 0.05)
    ]
    weight_scale = weight_scale_for(float(weight.sum()))
    for request, total in zip(
        requests, run_worker(requests, rows, none, 1, 0, weight_scale), strict=True
    ):
        (alone,) = run_worker([request], rows, none, 1, 0, weight_scale)
        assert alone.values is not None
        assert total.values is not None
        assert alone.values.tobytes() == total.values.tobytes()


def test_the_time_of_a_round_is_divided_among_its_networks() -> None:
    X, y = blobs(500, d=5)
    started = time.perf_counter()
    totals = run_worker(differing_requests(), ArrayRows(X, y), empty_rows(5), 0, 0, 512.0)
    elapsed = time.perf_counter() - started
    seconds = [total.reports[0].seconds for total in totals]
    assert min(seconds) > 0
    assert sum(seconds) <= elapsed


def test_a_diverging_worker_is_left_out_without_a_warning() -> None:
    X, y = curve(40, k=2)
    network = Network((4, 5, 2), "relu", "squared")
    config = TrainConfig(network, solver="sgd", step_size=1e4, max_change=0, batch_size=4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        total = work_on(config, X, y)
    assert total.values is None
    assert total.reports[0].left_out in {"not finite", "out of range"}
    assert total.reports[0].share == 0


# -- extremes -----------------------------------------------------------------------------------


@pytest.mark.parametrize("solver", PLAIN_SOLVERS)
@pytest.mark.parametrize("network", [NETWORK, REGRESSION], ids=lambda n: n.loss)
def test_one_row(network: Network, solver: str) -> None:
    X, y = data_for(network, 1)
    total = work_on(TrainConfig(network, solver=solver, local_epochs=2), X, y)
    assert total.reports[0].n_steps == 2
    assert total.reports[0].share == 1
    assert np.isfinite(total.mean()).all()


def test_no_rows() -> None:
    X, y = blobs(1)
    total = work_on(TrainConfig(NETWORK), X[:0], y[:0])
    assert total.values is None
    assert total.reports[0].left_out == "no rows"
    assert train_locally(request_of(TrainConfig(NETWORK)), empty_rows(4), 0, 0).n_steps == 0


def test_rows_that_weigh_nothing_take_no_step() -> None:
    X, y = blobs(20)
    result = trained(TrainConfig(NETWORK, batch_size=4), X, y, np.zeros(20))
    assert (result.n_steps, result.n_rows, result.weight) == (0, 0, 0)
    np.testing.assert_array_equal(result.state, request_of(TrainConfig(NETWORK)).state)
    assert work_on(TrainConfig(NETWORK), X, y, np.zeros(20)).reports[0].left_out == "no rows"


@pytest.mark.parametrize("activation", ["relu", "gelu", "tanh", "sigmoid", "identity"])
def test_huge_features_never_leave_anything_that_is_not_finite(activation: str) -> None:
    X, y = blobs(40)
    network = Network((4, 6, 3), activation)
    total = work_on(TrainConfig(network, batch_size=8), X * np.float32(1e30), y)
    if total.values is not None:
        assert np.isfinite(total.values).all()
    else:
        assert total.reports[0].left_out in {"not finite", "out of range"}
