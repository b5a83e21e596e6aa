"""Workers that diverge or get lost: excluded and counted; and rounds in which all do."""

import logging

import numpy as np
import pytest
from scripted import ScriptedEngine, rounds_seen, scripted_fit
from toys import blobs, curve, engine_of, full_batch

from sparknn.core.config import AveragingConfig, RoundRequest, TrainConfig
from sparknn.core.nn.network import Network
from sparknn.core.training.aggregation import WorkerReport, WorkerSum
from sparknn.core.training.fit_state import DivergedError, FitState
from sparknn.core.training.rounds import run


def test_a_worker_that_is_excluded_is_counted_and_reported(
    caplog: pytest.LogCaptureFixture,
) -> None:
    engine = ScriptedEngine(fails=lambda request, round_, partition: (round_, partition) == (1, 1))
    fit = scripted_fit(3)
    with caplog.at_level(logging.WARNING, "sparknn"):
        run(engine, [fit])
    assert [record.workers_left_out for record in fit.history] == [0, 1, 0]
    assert rounds_seen(fit) == 3
    assert caplog.messages == ["Round 2: excluded 1 of 2 workers (not finite: 1)."]


def test_an_excluded_worker_does_not_influence_the_others() -> None:
    X, y = blobs(60)
    X[25] = np.inf
    network = Network((4, 6, 3))
    config = TrainConfig(network, max_iter=3)
    engine = engine_of(X, y, [20, 20, 20])
    fit = FitState(config, AveragingConfig(), 3)
    run(engine, [fit])
    assert [record.workers_left_out for record in fit.history] == [1, 1, 1]
    whole = engine_of(X, y, [20, 20, 20], drop=lambda round_, partition: partition == 1)
    without = FitState(config, AveragingConfig(), 3)
    run(whole, [without])
    assert fit.theta is not None
    assert without.theta is not None
    assert fit.theta.tobytes() == without.theta.tobytes()


def test_all_left_out_halves_the_step_and_keeps_the_network(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Workers diverge from round 2 until the step is a quarter; the network stays at 2."""
    engine = ScriptedEngine(
        [9.0] * 10,
        fails=lambda request, round_, partition: round_ >= 2 and request.step_factor > 0.25,
    )
    fit = scripted_fit(6)
    with caplog.at_level(logging.WARNING, "sparknn"):
        run(engine, [fit])
    sent = [
        (float(requests[0].state[0, 0]), requests[0].step_factor) for _, requests in engine.asked
    ]
    assert sent == [(0, 1), (1, 1), (2, 1), (2, 0.5), (2, 0.25), (3, 0.25), (4, 0.25)]
    assert [record.step_factor for record in fit.history] == [1, 1, 1, 0.5, 0.25, 0.25]
    assert [record.workers_left_out for record in fit.history] == [0, 0, 2, 2, 0, 0]
    assert np.isnan([record.loss for record in fit.history[2:4]]).all()
    assert [record.step_norm for record in fit.history[2:4]] == [0, 0]
    assert [record.validation_loss for record in fit.history] == [9.0] * 6
    assert "Round 3: all 2 workers diverged" in caplog.text
    assert "halved the step size to 0.05" in caplog.text


def raise_error(fit: FitState) -> None:
    assert fit.ended
    if fit.error is not None:
        raise fit.error


def test_three_in_a_row_are_an_error() -> None:
    engine = ScriptedEngine(fails=lambda request, round_, partition: round_ >= 1)
    fit = scripted_fit(10)
    run(engine, [fit])
    with pytest.raises(DivergedError, match=r"3 consecutive rounds .*round 4.*stepSize=0\.1"):
        raise_error(fit)
    assert [round_ for round_, _ in engine.asked] == [0, 1, 2, 3]


@pytest.mark.parametrize("n_rounds", [1, 2])
def test_a_fit_in_which_no_round_succeeded_is_an_error(n_rounds: int) -> None:
    """It does not return the initial network."""
    engine = ScriptedEngine(fails=lambda request, round_, partition: True)
    fit = scripted_fit(n_rounds)
    run(engine, [fit])
    with pytest.raises(DivergedError, match="the only round" if n_rounds == 1 else "2 consecutive"):
        raise_error(fit)


def test_the_last_round_may_fail() -> None:
    engine = ScriptedEngine(fails=lambda request, round_, partition: round_ >= 1)
    fit = scripted_fit(3)
    run(engine, [fit])
    assert rounds_seen(fit) == 1


def test_a_good_round_resets_the_count() -> None:
    engine = ScriptedEngine(fails=lambda request, round_, partition: round_ % 3 != 2)
    fit = scripted_fit(9)
    run(engine, [fit])
    assert rounds_seen(fit) == 3
    assert fit.history[-1].step_factor == 2.0**-6


def test_divergence_of_one_fit_does_not_slow_another() -> None:
    def fails(request: RoundRequest, round_: int, partition: int) -> bool:
        return request.config.solver == "momentum" and round_ == 0

    fits = [scripted_fit(3), scripted_fit(3, solver="momentum")]
    run(ScriptedEngine(fails=fails), fits)
    assert [rounds_seen(fit) for fit in fits] == [3, 2]
    assert [fit.history[-1].step_factor for fit in fits] == [1, 0.5]


def test_divergence_resets_the_state_of_solver_and_averaging() -> None:
    """After divergence the workers start from the network itself, with empty buffers."""
    engine = ScriptedEngine(fails=lambda request, round_, partition: round_ == 2)
    averaging = AveragingConfig("nesterov", momentum=0.5)
    fit = scripted_fit(4, averaging, solver="momentum")
    run(engine, [fit])
    before, after = engine.asked[2][1][0], engine.asked[3][1][0]
    assert before.n_steps == 8
    assert before.state[1].any()
    assert after.n_steps == 0
    assert not after.state[1].any()
    # From there on it behaves like a new fit.
    fresh = scripted_fit(1, averaging, solver="momentum")
    fresh_engine = ScriptedEngine()
    run(fresh_engine, [fresh])
    assert rounds_seen(fit) - after.state[0, 0] == rounds_seen(fresh)


def test_a_step_size_that_is_far_too_large_recovers() -> None:
    """A linear fit with curvature 1: steps above 2 diverge, and a quarter of 4.5 converges."""
    X, y = curve(300, k=1)
    config = full_batch(
        Network((4, 1), loss="squared"), max_iter=5, step_size=4.5, local_epochs=40, solver="sgd"
    )
    engine = engine_of(X, y, [100, 100, 100])
    fit = FitState(config, AveragingConfig(), 3)
    run(engine, [fit])
    assert fit.theta is not None
    assert [record.step_factor for record in fit.history] == [1, 0.5, 0.25, 0.25, 0.25]
    assert [record.workers_left_out for record in fit.history] == [3, 3, 0, 0, 0]
    weights = np.linalg.lstsq(np.hstack([X, np.ones((300, 1))]), y, rcond=None)[0]
    np.testing.assert_allclose(fit.theta, weights[:, 0], atol=0.05)


def test_reports_of_a_lost_worker_are_counted() -> None:
    good = WorkerSum.from_worker(
        np.ones((1, 2), np.float32), WorkerReport(0, weight=1.0, share=0.5, n_steps=3)
    )
    lost = WorkerSum.from_worker(None, WorkerReport(1, left_out="missing"))
    merged = good.merge(lost)
    assert [report.left_out for report in merged.ordered()] == ["", "missing"]
    np.testing.assert_array_equal(merged.mean(), 1)


def test_one_bad_mini_batch_is_skipped_and_the_worker_is_not() -> None:
    X, y = blobs(60)
    X[25] = np.inf
    config = TrainConfig(Network((4, 6, 3)), max_iter=2, batch_size=5)
    fit = FitState(config, AveragingConfig(), 3)
    run(engine_of(X, y, [20, 20, 20]), [fit])
    assert [record.workers_left_out for record in fit.history] == [0, 0]
    assert [record.n_skipped for record in fit.history] == [1, 1]
    assert [record.n_rows for record in fit.history] == [55, 55]
    assert np.isfinite([record.loss for record in fit.history]).all()


def test_a_step_size_with_which_no_step_is_finite_is_an_error() -> None:
    X, y = blobs(60)
    config = TrainConfig(Network((4, 6, 3)), max_iter=9, step_size=1e30, batch_size=5)
    fit = FitState(config, AveragingConfig(), 2)
    run(engine_of(X, y, [30, 30]), [fit])
    with pytest.raises(DivergedError, match="stepSize=1e\\+30"):
        raise_error(fit)
