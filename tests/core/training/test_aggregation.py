"""Laws of WorkerSum: exact sums, whatever the order and the tree of the merges."""

import math
from functools import reduce
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toys import Array

from sparknn.core.training.aggregation import (
    VALUE_BITS,
    NoUsableWorkerError,
    WorkerReport,
    WorkerSum,
    merge_sums,
    weight_scale_for,
)

BOUND = 2**VALUE_BITS
BELOW = float(np.nextafter(np.float32(BOUND), np.float32(0)))
WIDTH = 4

values = st.one_of(
    st.floats(-BELOW, BELOW, width=32),
    st.floats(-1, 1, width=32),
    st.sampled_from([0.0, 1e-30, -1e-9, BELOW, -BELOW]),
)
states = st.lists(values, min_size=WIDTH, max_size=WIDTH)
broken = st.sampled_from([math.nan, math.inf, -math.inf, float(BOUND), -float(BOUND), 3e38])
workers = st.tuples(states, st.floats(0.01, 1000), st.none() | broken)


def total_of(
    partition: int, state: list[float] | Array, weight: float, weight_scale: float
) -> WorkerSum:
    report = WorkerReport(partition, weight=weight, n_rows=1, share=weight / weight_scale)
    return WorkerSum.from_worker(np.asarray(state, dtype=np.float32)[None], report)


def totals_of(drawn: list[tuple[list[float], float, float | None]]) -> list[WorkerSum]:
    """One sum per worker; a fault replaces one of its values."""
    weight_scale = weight_scale_for(sum(weight for _, weight, _ in drawn))
    totals = []
    for partition, (state, weight, fault) in enumerate(drawn):
        if fault is not None:
            state = [*state[:-1], fault]
        totals.append(total_of(partition, state, weight, weight_scale))
    return totals


def in_a_random_tree(totals: list[WorkerSum], data: Any) -> WorkerSum:
    """Merge any two until one is left, in an order that hypothesis chooses."""
    left = list(totals)
    while len(left) > 1:
        a = left.pop(data.draw(st.integers(0, len(left) - 1)))
        b = left.pop(data.draw(st.integers(0, len(left) - 1)))
        left.append(a.merge(b))
    return left[0]


def same(mine: WorkerSum, yours: WorkerSum) -> None:
    assert mine.ordered() == yours.ordered()
    if mine.values is None or yours.values is None:
        assert mine.values is yours.values
        return
    assert mine.values.dtype == yours.values.dtype
    assert mine.values.tobytes() == yours.values.tobytes()


@settings(max_examples=150)
@given(drawn=st.lists(workers, min_size=1, max_size=8), data=st.data())
def test_any_tree_of_merges_is_the_same_total(drawn: Any, data: Any) -> None:
    totals = totals_of(drawn)
    same(in_a_random_tree(totals, data), reduce(WorkerSum.merge, totals))


@settings(max_examples=80)
@given(drawn=st.lists(workers, min_size=3, max_size=3))
def test_merge_commutes_and_associates(drawn: Any) -> None:
    a, b, c = totals_of(drawn)
    same(a.merge(b), b.merge(a))
    same(a.merge(b).merge(c), a.merge(b.merge(c)))


@settings(max_examples=80)
@given(drawn=st.lists(workers, min_size=1, max_size=6))
def test_merging_changes_neither_side(drawn: Any) -> None:
    totals = totals_of(drawn)
    kept = [None if total.values is None else total.values.copy() for total in totals]
    pair = totals[0].merge(totals[-1])
    kept_pair = None if pair.values is None else pair.values.copy()
    reduce(WorkerSum.merge, totals, pair)
    np.testing.assert_array_equal(pair.values, kept_pair)
    for total, before in zip(totals, kept, strict=True):
        np.testing.assert_array_equal(total.values, before)


@settings(max_examples=150)
@given(drawn=st.lists(workers, min_size=1, max_size=8))
def test_mean_is_the_weighted_mean_of_the_usable(drawn: Any) -> None:
    total = reduce(WorkerSum.merge, totals_of(drawn))
    usable = [(state, weight) for state, weight, fault in drawn if fault is None]
    left_out = [report for report in total.reports if report.left_out]
    assert len(total.reports) == len(drawn)
    assert len(left_out) == len(drawn) - len(usable)
    assert all(report.share == 0 for report in left_out)
    if not usable:
        with pytest.raises(NoUsableWorkerError, match=f"None of {len(drawn)} workers"):
            total.mean()
        return
    matrix = np.asarray([state for state, _ in usable], dtype=np.float64)
    weights = np.asarray([weight for _, weight in usable])
    share = weights.sum() / weight_scale_for(sum(weight for _, weight, _ in drawn))
    expected = (weights[:, None] * matrix).sum(axis=0) / weights.sum()
    # Half a unit of the fixed point per worker, and float64's own rounding.
    np.testing.assert_allclose(
        total.mean()[0], expected, rtol=1e-12, atol=len(drawn) * 2.0**-48 / share
    )


@pytest.mark.parametrize("n_workers", [2, 3, 100, 1000])
def test_mean_to_nine_digits(n_workers: int) -> None:
    rng = np.random.default_rng(n_workers)
    matrix = rng.normal(size=(n_workers, 50)).astype(np.float32)
    weights = rng.integers(1, 5000, size=n_workers).astype(float)
    weight_scale = weight_scale_for(weights.sum())
    totals = [total_of(i, matrix[i], weights[i], weight_scale) for i in range(n_workers)]
    expected = weights @ matrix.astype(np.float64) / weights.sum()
    np.testing.assert_allclose(reduce(WorkerSum.merge, totals).mean()[0], expected, atol=1e-9)


@settings(max_examples=60)
@given(state=states, weight=st.floats(0.01, 1000), n_broken=st.integers(0, 3), data=st.data())
def test_one_usable_worker_is_its_bytes(
    state: Any, weight: float, n_broken: int, data: Any
) -> None:
    weight_scale = weight_scale_for(weight * (1 + n_broken))
    totals = [total_of(0, state, weight, weight_scale)]
    totals += [total_of(i + 1, [math.nan] * WIDTH, weight, weight_scale) for i in range(n_broken)]
    mean = in_a_random_tree(totals, data).mean()
    assert mean.dtype == np.float32
    assert mean.tobytes() == np.asarray([state], dtype=np.float32).tobytes()


@settings(max_examples=60)
@given(state=states, weights=st.lists(st.floats(0.01, 1000), min_size=2, max_size=6))
def test_workers_that_agree_are_their_bytes(state: Any, weights: list[float]) -> None:
    weight_scale = weight_scale_for(sum(weights))
    totals = [total_of(i, state, weight, weight_scale) for i, weight in enumerate(weights)]
    mean = reduce(WorkerSum.merge, totals).mean().astype(np.float32)[0]
    # Numbers below the fixed point's resolution round to 0, and -0.0 is 0.
    np.testing.assert_allclose(mean, np.asarray(state, np.float32), rtol=1e-7, atol=1e-10)


@pytest.mark.parametrize("n_workers", [4096, 5000])
@pytest.mark.parametrize("value", [BELOW, -BELOW])
def test_thousands_of_workers_at_the_bound_do_not_overflow(n_workers: int, value: float) -> None:
    weight_scale = weight_scale_for(n_workers)
    one = [total_of(i, [value] * 2, 1.0, weight_scale) for i in range(n_workers)]
    total = reduce(WorkerSum.merge, one)
    assert not any(report.left_out for report in total.reports)
    np.testing.assert_allclose(total.mean(), value, rtol=1e-12)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (math.nan, "not finite"),
        (math.inf, "not finite"),
        (-math.inf, "not finite"),
        (float(BOUND), "out of range"),
        (-float(BOUND), "out of range"),
        (BELOW, ""),
        (-BELOW, ""),
    ],
)
@pytest.mark.parametrize("place", [0, 5])
def test_which_values_leave_a_worker_out(value: float, reason: str, place: int) -> None:
    state = np.zeros((2, 3), np.float32)
    state.flat[place] = value
    total = WorkerSum.from_worker(state, WorkerReport(0, weight=1.0, share=0.5))
    (report,) = total.reports
    assert report.left_out == reason
    assert report.share == (0 if reason else 0.5)
    assert (total.values is None) == bool(reason)


@pytest.mark.parametrize("loss_sum", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_leaves_a_worker_out(loss_sum: float) -> None:
    total = WorkerSum.from_worker(
        np.zeros((1, 2), np.float32), WorkerReport(0, share=1.0, loss_sum=loss_sum)
    )
    assert total.values is None
    assert total.reports[0].left_out == "not finite"


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_a_worker_without_rows_or_network(share: float) -> None:
    state = None if share else np.ones((1, 2), np.float32)
    total = WorkerSum.from_worker(state, WorkerReport(0, share=share))
    assert total.values is None
    assert total.reports[0].left_out == "no rows"


def test_a_reason_that_is_given_stays() -> None:
    total = WorkerSum.from_worker(
        np.ones((1, 2), np.float32), WorkerReport(0, share=1.0, left_out="missing")
    )
    assert total.values is None
    assert total.reports[0] == WorkerReport(0, share=0.0, left_out="missing")


def test_an_empty_round_reports_the_reasons() -> None:
    total = WorkerSum.from_worker(None, WorkerReport(1, left_out="missing")).merge(
        WorkerSum.from_worker(None, WorkerReport(0))
    )
    with pytest.raises(NoUsableWorkerError, match=r"None of 2 workers .*missing, no rows"):
        total.mean()


def test_reports_are_ordered_by_partition() -> None:
    totals = [WorkerSum.from_worker(None, WorkerReport(partition)) for partition in (3, 0, 2, 1)]
    assert [r.partition for r in reduce(WorkerSum.merge, totals).ordered()] == [0, 1, 2, 3]


def test_merge_sums_keeps_networks_apart() -> None:
    left, right = ([total_of(p, [10.0 * j + p] * 2, 1.0, 2.0) for j in range(3)] for p in range(2))
    means = [total.mean()[0, 0] for total in merge_sums(left, right)]
    np.testing.assert_allclose(means, [0.5, 10.5, 20.5])


def test_merge_sums_requires_the_same_networks() -> None:
    total = WorkerSum.from_worker(None, WorkerReport(0))
    with pytest.raises(ValueError, match="shorter"):
        merge_sums([total, total], [total])


@settings(max_examples=100)
@given(weight=st.floats(1e-100, 1e100))
def test_weight_scale_is_the_next_power_of_two(weight: float) -> None:
    weight_scale = weight_scale_for(weight)
    assert math.frexp(weight_scale)[0] == 0.5
    # Where the logarithm rounds to a whole number, the scale may be smaller by a few last digits.
    assert weight <= weight_scale * (1 + 1e-13) < 2 * weight * (1 + 1e-12)


@pytest.mark.parametrize(("weight", "weight_scale"), [(0, 1), (1, 1), (3, 4), (4, 4), (0.3, 0.5)])
def test_weight_scales(weight: float, weight_scale: float) -> None:
    assert weight_scale_for(weight) == weight_scale
