"""The record of a round, made from the workers' reports."""

import math
from functools import reduce
from typing import Any

import numpy as np
import pytest

from sparknn.core.training.aggregation import LossSum, WorkerReport, WorkerSum
from sparknn.core.training.averaging import AveragingState
from sparknn.core.training.history import (
    RoundRecord,
    loss_at_start,
    make_record,
)

START = AveragingState.start(np.zeros(2, np.float32))


def total_of(moves: list[list[float]], shares: list[float], **more: list[Any]) -> WorkerSum:
    """Workers that moved from 0 by ``moves``."""
    totals = []
    for partition, (move, share) in enumerate(zip(moves, shares, strict=True)):
        extra = {"weight": share} | {name: values[partition] for name, values in more.items()}
        state = np.array([move], np.float32)
        report = WorkerReport(
            partition, share=share, squared_update_norm=float(state[0] @ state[0]), **extra
        )
        totals.append(WorkerSum.from_worker(state, report))
    return reduce(WorkerSum.merge, totals)


def after(theta: list[float]) -> AveragingState:
    return AveragingState.start(np.array(theta, np.float32))


def record_of(
    total: WorkerSum, round_: int, before: AveragingState, after: AveragingState, factor: float
) -> RoundRecord:
    mean = None if total.values is None else total.mean()
    return make_record(total, round_, before, after, factor, mean)


def test_counts_and_losses_add_up() -> None:
    total = total_of(
        [[1, 0], [0, 1]],
        [0.25, 0.75],
        weight=[2.0, 6.0],
        n_rows=[3, 7],
        n_steps=[1, 2],
        n_skipped=[4, 5],
        loss_sum=[8.0, 24.0],
        seconds=[0.5, 2.0],
    )
    record = record_of(total, 5, START, after([3, 4]), 0.5)
    assert record.round == 5
    assert record.loss == 4.0
    assert (record.n_rows, record.n_steps, record.n_skipped) == (10, 3, 9)
    assert record.compute_s == 2.0
    assert record.step_norm == 5.0
    assert record.step_factor == 0.5
    assert record.workers_left_out == 0
    assert math.isnan(record.validation_loss)


def test_losses_around_averaging_are_of_the_last_batches_and_of_the_first() -> None:
    """Loss sums over sums of weights, of the workers whose networks are averaged."""
    total = total_of(
        [[1, 0], [0, 1], [9, 9]],
        [0.25, 0.75, 0.0],
        weight=[10.0, 30.0, 10.0],
        loss_sum=[90.0, 110.0, 1e9],
        first=[LossSum(12.0, 2.0), LossSum(52.0, 6.0), LossSum(1e9, 1.0)],
        last=[LossSum(4.0, 2.0), LossSum(12.0, 6.0), LossSum(1e9, 1.0)],
    )
    record = record_of(total, 0, START, START, 1)
    assert record.loss == 5.0
    assert record.loss_before == 2.0
    assert loss_at_start(total) == 8.0
    # The first batches of the next round are still unknown.
    assert math.isnan(record.loss_after)


def test_workers_that_move_alike_agree() -> None:
    record = record_of(total_of([[3, 4]] * 3, [0.2, 0.3, 0.5]), 0, START, after([3, 4]), 1)
    assert record.drift == pytest.approx(5)
    assert record.agreement == pytest.approx(1)


def test_workers_that_move_apart_do_not() -> None:
    record = record_of(total_of([[3, 0], [-3, 0]], [0.5, 0.5]), 0, START, after([0, 0]), 1)
    assert record.drift == pytest.approx(3)
    assert record.agreement == 0


def test_orthogonal_moves_agree_by_one_in_the_number_of_workers() -> None:
    record = record_of(total_of([[2, 0], [0, 2]], [0.5, 0.5]), 0, START, after([1, 1]), 1)
    assert record.agreement == pytest.approx(0.5)


def test_drift_is_measured_from_where_the_workers_started() -> None:
    before = AveragingState(np.array([1, 1], np.float32), START.running)
    total = WorkerSum.from_worker(
        np.array([[-2, -3]], np.float32),
        WorkerReport(0, weight=1.0, share=1.0, squared_update_norm=25.0),
    )
    record = record_of(total, 0, before, after([1, 0]), 1)
    assert record.drift == 5
    assert record.agreement == 1
    assert record.step_norm == 1


def test_workers_that_are_left_out_are_counted_and_empty_ones_are_not() -> None:
    good = total_of([[1, 0]], [0.5], weight=[1.0], loss_sum=[2.0])
    bad = WorkerSum.from_worker(
        np.array([[np.nan, 0]], np.float32), WorkerReport(1, share=0.5, weight=9.0, loss_sum=1e9)
    )
    lost = WorkerSum.from_worker(None, WorkerReport(2, left_out="missing"))
    empty = WorkerSum.from_worker(None, WorkerReport(3))
    record = record_of(reduce(WorkerSum.merge, [good, bad, lost, empty]), 0, START, START, 1)
    assert record.workers_left_out == 2
    assert record.loss == 2.0


def test_a_round_without_a_usable_worker() -> None:
    total = WorkerSum.from_worker(None, WorkerReport(0, left_out="missing"))
    record = record_of(total, 0, START, START, 1)
    assert math.isnan(record.loss)
    assert math.isnan(record.drift)
    assert math.isnan(record.agreement)
    assert record.step_norm == 0
    assert record.workers_left_out == 1


def test_a_round_in_which_nothing_moved_has_no_agreement() -> None:
    record = record_of(total_of([[0, 0]], [1.0], weight=[1.0]), 0, START, START, 1)
    assert record.drift == 0
    assert math.isnan(record.agreement)


def test_a_record_does_not_depend_on_the_order_of_the_reports() -> None:
    rng = np.random.default_rng(0)
    losses = rng.normal(size=20) * 10.0 ** rng.integers(-8, 8, size=20)
    totals = [
        WorkerSum.from_worker(
            np.ones((1, 2), np.float32),
            WorkerReport(
                p,
                share=1 / 32,
                weight=1 / 3,
                loss_sum=float(losses[p]),
                squared_update_norm=0.1 * p,
            ),
        )
        for p in range(20)
    ]
    forward = record_of(reduce(WorkerSum.merge, totals), 0, START, START, 1)
    backward = record_of(reduce(WorkerSum.merge, totals[::-1]), 0, START, START, 1)
    assert forward == backward
