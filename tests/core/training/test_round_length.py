"""Units of local work per round, and the hint that averaging does not pay."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from functools import reduce

import numpy as np
import pytest
from scripted import ScriptedEngine

from sparknn.core.config import AveragingConfig, RoundRequest, TrainConfig
from sparknn.core.data.rows import ArrayRows
from sparknn.core.nn.network import Network
from sparknn.core.training.aggregation import WorkerReport, WorkerSum, merge_sums, weight_scale_for
from sparknn.core.training.fit_state import FitState
from sparknn.core.training.round_length import next_round_length
from sparknn.core.training.rounds import _RoundCost, _warn_if_overhead_dominates, run
from sparknn.core.training.runner import RoundResult
from sparknn.core.training.worker_round import train_locally
from sparknn.engine.local import LocalEngine

NETWORK = Network((4, 5, 3))
CONFIG = TrainConfig(NETWORK, max_iter=20, solver="sgd")


def rows(n: int, seed: int = 0) -> ArrayRows:
    rng = np.random.default_rng(seed)
    return ArrayRows(rng.random((n, 4), np.float32), rng.integers(3, size=n) * 1.0)


def start(config: TrainConfig) -> np.ndarray:
    theta = NETWORK.init(np.random.default_rng(1))
    return np.vstack([theta, np.zeros_like(theta)])


def test_cheap_rounds_stay_short() -> None:
    assert next_round_length(1, 10.0, 0.2, n_done=1, n_units=40) == 1


def test_expensive_rounds_double_up_to_a_fifth_of_the_fit() -> None:
    lengths = [1]
    while sum(lengths) < 40:
        lengths.append(next_round_length(lengths[-1], 0.01, 0.2, sum(lengths), 40))
    assert lengths[:4] == [1, 2, 4, 8]
    assert max(lengths) == 8
    assert sum(lengths) == 40


def test_a_disturbed_round_makes_the_next_one_longer_and_no_more() -> None:
    disturbed = next_round_length(2, 2.0, 60.0, n_done=4, n_units=40)
    assert disturbed == 4
    # 4 units took 4 s, and the overhead is 1.2 s: 2.4 s of training are needed, 3 units of 1 s.
    assert next_round_length(disturbed, 4.0, 1.2, n_done=8, n_units=40) == 3


@pytest.mark.parametrize("last", [1, 4])
def test_an_unknown_cost_changes_nothing(last: int) -> None:
    assert next_round_length(last, 0.01, None, n_done=1, n_units=40) == last
    assert next_round_length(last, 0.0, 0.0, n_done=1, n_units=40) == last


def test_never_more_than_is_left() -> None:
    assert next_round_length(8, 0.0, 1.0, n_done=97, n_units=100) == 3


def test_several_units_are_rounds_without_an_average() -> None:
    config = TrainConfig(
        NETWORK, batch_size=8, max_iter=6, mini_batch_fraction=0.5, dropout=0.2, seed=3
    )
    mine = rows(50)
    at_once = train_locally(
        RoundRequest(config, start(config), n_units=3, units_ahead=1), mine, 1, 7
    )
    state, n_steps = start(config), 0
    for unit in (2, 3, 4):
        result = train_locally(RoundRequest(config, state, n_steps=n_steps), mine, unit, 7)
        state, n_steps = result.state, n_steps + result.n_steps
    np.testing.assert_array_equal(at_once.state, state)
    assert at_once.n_steps == n_steps


class Clock:
    """A clock that advances a little per call; tests advance it further."""

    now = 0.0

    def __call__(self) -> float:
        self.now += 1e-3
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("sparknn.core.training.rounds.time.perf_counter", clock)
    return clock


class SlowRounds:
    """A local engine whose rounds seem to take an hour, little of it training."""

    def __init__(self, n_workers: int, clock: Clock) -> None:
        self._clock = clock
        none = rows(0)
        shards = [(rows(40, seed), none) for seed in range(n_workers)]
        self._engine = LocalEngine(shards, weight_scale_for(40 * n_workers))
        self.n_workers = self.n_slots = n_workers
        self.has_validation = False
        self.lengths: list[int] = []

    def run_round(self, requests: list[RoundRequest], round_: int) -> RoundResult:
        self.lengths.append(requests[0].n_units)
        self._clock.now += 3600
        return self._engine.run_round(requests, round_)


def test_a_fit_of_long_rounds_does_all_its_work(clock: Clock) -> None:
    engine = SlowRounds(2, clock)
    fit = FitState(
        TrainConfig(NETWORK, batch_size=8, max_iter=20),
        AveragingConfig(),
        2,
        adapt_round_length=True,
    )
    run(engine, [fit])
    assert sum(engine.lengths) == 20
    assert len(engine.lengths) < 10
    assert [record.round for record in fit.history] == list(range(len(engine.lengths)))
    assert sum(record.n_rows for record in fit.history) == 20 * 80


class TakingTurns(ScriptedEngine):
    """Eight workers on two cores; a second of training per unit, and 0.1 s of overhead."""

    n_workers, n_slots = 8, 2

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.lengths: list[int] = []

    def run_round(self, requests: Sequence[RoundRequest], round_: int) -> RoundResult:
        self.lengths.append(requests[0].n_units)
        took = float(requests[0].n_units)
        self.now += 8 / 2 * took * len(requests) + 0.1
        report = WorkerReport(0, weight=1.0, n_rows=1, n_steps=1, share=0.1, seconds=took)
        state = requests[0].state
        workers = [
            [WorkerSum.from_worker(state, replace(report, partition=p)) for _ in requests]
            for p in range(8)
        ]
        return RoundResult(reduce(merge_sums, workers))


@pytest.mark.parametrize("n_fits", [1, 3])
def test_waiting_for_a_core_or_for_other_networks_is_no_cost(
    n_fits: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = TakingTurns()
    monkeypatch.setattr("sparknn.core.training.rounds.time.perf_counter", lambda: engine.now)
    run(
        engine,
        [FitState(CONFIG, AveragingConfig(), 8, adapt_round_length=True) for _ in range(n_fits)],
    )
    assert engine.lengths == [1] * 20


def test_the_start_of_workers_is_no_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = TakingTurns()
    later = iter([0.0, 1e6])
    monkeypatch.setattr(
        "sparknn.core.training.rounds.time.perf_counter", lambda: engine.now + next(later, 1e6)
    )
    run(engine, [FitState(CONFIG, AveragingConfig(), 8, adapt_round_length=True)])
    assert engine.lengths == [1] * 20


def test_logs_once_that_one_worker_would_be_faster(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "sparknn"):
        run(
            SlowRounds(2, clock),
            [FitState(TrainConfig(NETWORK, batch_size=8, max_iter=6), AveragingConfig(), 2)],
        )
        assert sum("Spark overhead dominates" in message for message in caplog.messages) == 1
        assert "period='auto'" in caplog.text
        caplog.clear()
        # A short fit logs it at its end; so does one with adapting rounds.
        run(
            SlowRounds(2, clock),
            [FitState(TrainConfig(NETWORK, batch_size=8, max_iter=2), AveragingConfig(), 2)],
        )
        assert sum("Spark overhead dominates" in message for message in caplog.messages) == 1
        caplog.clear()
        config = TrainConfig(NETWORK, batch_size=8, max_iter=20)
        run(SlowRounds(2, clock), [FitState(config, AveragingConfig(), 2, adapt_round_length=True)])
        assert "period='auto'" not in caplog.text
        assert len(caplog.messages) == 1
        caplog.clear()
        run(
            SlowRounds(1, clock),
            [FitState(TrainConfig(NETWORK, batch_size=8, max_iter=6), AveragingConfig(), 1)],
        )
        assert not caplog.messages


def test_a_delayed_round_does_not_count(caplog: pytest.LogCaptureFixture) -> None:
    """The fastest round counts, and there two workers paid."""
    quick, disturbed = _RoundCost(1.0, 1.5, 2), _RoundCost(30.0, 12.0, 2)
    with caplog.at_level(logging.INFO, "sparknn"):
        _warn_if_overhead_dominates([disturbed, quick])
        assert not caplog.messages
        # Nor does the last adapting round, which only did the remaining units.
        _warn_if_overhead_dominates([_RoundCost(2.1, 3.0, 2), _RoundCost(1.1, 1.0, 2)])
        assert not caplog.messages
        _warn_if_overhead_dominates([disturbed])
    assert (
        "a round took 30.00 s with 2 workers, of which training would take one worker 12.00 s"
        in caplog.text
    )


def test_losses_around_averaging() -> None:
    config = TrainConfig(NETWORK, batch_size=8, max_iter=3, step_size=0.5)
    engine = LocalEngine([(rows(80, seed), rows(0)) for seed in (1, 2)], weight_scale_for(160))
    fit = FitState(config, AveragingConfig(), 2)
    run(engine, [fit])
    for before, after in zip(fit.history, fit.history[1:], strict=False):
        # A round starts from the average: its first tenth gives the loss after averaging.
        assert np.isfinite([before.loss_before, before.loss_after, after.loss]).all()
        assert before.loss_after != before.loss_before
    assert np.isnan(fit.history[-1].loss_after)
    (report,) = _only_report(config)
    assert report.first.weight == report.last.weight == 8
    assert report.first.loss + report.last.loss < report.loss_sum
    # Training reduces it.
    assert report.last.loss < report.first.loss


def _only_report(config: TrainConfig) -> tuple[WorkerReport, ...]:
    engine = LocalEngine([(rows(80), rows(0))], weight_scale_for(80))
    request = RoundRequest(config, start(config))
    total: WorkerSum = engine.run_round([request], 0).totals[0]
    return total.reports
