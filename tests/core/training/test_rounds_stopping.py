"""Scoring, callbacks, early stopping and final weights, on a scripted engine."""

import numpy as np
import pytest
from scripted import ScriptedEngine, rounds_seen, scripted_fit

from sparknn.core.config import AveragingConfig
from sparknn.core.training.fit_state import FitState
from sparknn.core.training.history import RoundRecord
from sparknn.core.training.rounds import run

# Of the network after 0, 1, 2, ... updates: the best has had three.
LOSSES = [9.0, 5, 4, 3, 3.5, 3.25, 3.125, 3.75, 8, 8, 8]


def test_a_record_has_the_score_of_its_own_network() -> None:
    fit = scripted_fit(6)
    engine = ScriptedEngine(LOSSES)
    run(engine, [fit])
    assert [record.round for record in fit.history] == list(range(6))
    assert [record.validation_loss for record in fit.history] == LOSSES[1:7]
    assert [record.validation_metric for record in fit.history] == [0.5] * 6
    assert [record.loss for record in fit.history] == [3.0] * 6
    assert all(record.broadcast_s == 0.25 and record.job_s == 0.5 for record in fit.history)
    assert all(record.seconds > 0 for record in fit.history)
    assert fit.ended


def test_the_last_network_is_scored_by_one_request_that_does_not_train() -> None:
    engine = ScriptedEngine(LOSSES)
    run(engine, [scripted_fit(4)])
    assert [round_ for round_, _ in engine.asked] == [0, 1, 2, 3, 4]
    assert [[request.train for request in requests] for _, requests in engine.asked] == [
        [True]
    ] * 4 + [[False]]
    assert engine.asked[-1][1][0].state[0, 0] == 4


def test_without_validation_rows_there_is_no_such_request() -> None:
    engine = ScriptedEngine()
    fit = scripted_fit(4)
    run(engine, [fit])
    assert len(engine.asked) == 4
    assert np.isnan([record.validation_loss for record in fit.history]).all()
    assert rounds_seen(fit) == 4


def test_on_round_end_gets_each_complete_record_once_in_order() -> None:
    called = []
    engine = ScriptedEngine(LOSSES)
    fit = scripted_fit(
        4, on_round_end=lambda fit, record: called.append((len(engine.asked), record))
    )
    run(engine, [fit])
    assert [record for _, record in called] == fit.history
    assert [record.validation_loss for _, record in called] == LOSSES[1:5]
    # Scored by the tasks of the next round, or by the last request.
    assert [asked for asked, _ in called] == [2, 3, 4, 5]


def test_without_validation_rows_on_round_end_is_called_at_once() -> None:
    called = []
    engine = ScriptedEngine()
    fit = scripted_fit(
        4, on_round_end=lambda fit, record: called.append((len(engine.asked), record))
    )
    run(engine, [fit])
    assert called == [(r + 1, record) for r, record in enumerate(fit.history)]


@pytest.mark.parametrize(("final", "kept"), [("best", 3), ("last", 5)])
def test_patience_ends_a_fit(final: str, kept: int) -> None:
    called = []
    fit = scripted_fit(
        10,
        AveragingConfig(final=final, patience=2),
        on_round_end=lambda fit, record: called.append(record),
    )
    engine = ScriptedEngine(LOSSES)
    run(engine, [fit])
    assert rounds_seen(fit) == kept
    # Networks 4 and 5 are no better than 3; the sixth round scored 5, and its training is unused.
    assert [record.validation_loss for record in fit.history] == LOSSES[1:6]
    assert len(engine.asked) == 6
    assert called == fit.history
    assert fit.ended


def test_patience_counts_rounds_in_a_row() -> None:
    losses = [9.0, 5, 6, 4, 6, 3, 6, 2, 6, 6, 6]
    fit = scripted_fit(10, AveragingConfig(final="best", patience=2))
    run(ScriptedEngine(losses), [fit])
    assert len(fit.history) == 9
    assert rounds_seen(fit) == 7


def test_patience_may_end_with_the_last_round() -> None:
    fit = scripted_fit(5, AveragingConfig(final="best", patience=2))
    engine = ScriptedEngine(LOSSES)
    run(engine, [fit])
    assert [record.validation_loss for record in fit.history] == LOSSES[1:6]
    assert len(engine.asked) == 6
    assert rounds_seen(fit) == 3


def test_without_patience_a_fit_goes_on() -> None:
    fit = scripted_fit(10, AveragingConfig(final="best"))
    run(ScriptedEngine(LOSSES), [fit])
    assert len(fit.history) == 10
    assert rounds_seen(fit) == 3


@pytest.mark.parametrize(("tol", "n_rounds"), [(0.0, 8), (0.15, 4), (0.6, 3)])
def test_tol_is_what_a_loss_must_fall_by(tol: float, n_rounds: int) -> None:
    losses = [9.0, 2.0, 1.5, 1.4, 1.36, 1.355, 1.35, 1.35, 1.35, 1.35, 1.35]
    fit = scripted_fit(10, AveragingConfig(patience=2, tol=tol))
    run(ScriptedEngine(losses), [fit])
    assert len(fit.history) == n_rounds


@pytest.mark.parametrize("loss", [np.nan, np.inf])
def test_losses_that_are_not_finite_count_against_patience(loss: float) -> None:
    fit = scripted_fit(10, AveragingConfig(final="best", patience=3))
    run(ScriptedEngine([9.0, 5] + [loss] * 9), [fit])
    assert len(fit.history) == 4
    assert rounds_seen(fit) == 1


def test_a_fit_that_ends_takes_no_part_in_later_rounds() -> None:
    short, stops, long = (
        scripted_fit(2),
        scripted_fit(10, AveragingConfig(final="best", patience=2)),
        scripted_fit(8),
    )
    engine = ScriptedEngine(LOSSES)
    run(engine, [short, stops, long])
    training = [(r, len(requests)) for r, requests in engine.asked if requests[0].train]
    assert training == [(0, 3), (1, 3), (2, 2), (3, 2), (4, 2), (5, 2), (6, 1), (7, 1)]
    assert [rounds_seen(fit) for fit in (short, stops, long)] == [2, 3, 8]
    assert [len(fit.history) for fit in (short, stops, long)] == [2, 5, 8]


def test_when_all_have_ended_no_round_follows() -> None:
    engine = ScriptedEngine(LOSSES)
    fits = [scripted_fit(10, AveragingConfig(patience=2)) for _ in range(2)]
    run(engine, fits)
    assert max(round_ for round_, _ in engine.asked) == 5


def test_final_weights_do_not_change_the_rounds() -> None:
    plain, kept = scripted_fit(6), scripted_fit(6, AveragingConfig(final="best"))
    for fit in (plain, kept):
        run(ScriptedEngine(LOSSES), [fit])
    losses = [[record.validation_loss for record in fit.history] for fit in (plain, kept)]
    assert losses[0] == losses[1]


@pytest.mark.parametrize("losses", [None, LOSSES])
def test_no_rounds_end_where_they_start(losses: list[float] | None) -> None:
    fit, other = scripted_fit(0), scripted_fit(2)
    run(ScriptedEngine(losses), [fit, other])
    assert (rounds_seen(fit), rounds_seen(other)) == (0, 2)
    assert fit.history == []
    assert fit.ended


def test_no_fits_are_no_rounds() -> None:
    engine = ScriptedEngine()
    run(engine, [])
    assert engine.asked == []


@pytest.mark.parametrize("losses", [None, LOSSES])
def test_on_round_end_ends_its_own_fit(losses: list[float] | None) -> None:
    """By True with the network of its round, by an error without one."""
    failure = RuntimeError("in a callback")

    def fail(fit: FitState, record: RoundRecord) -> None:
        if record.round == 1:
            raise failure

    final = AveragingConfig(final="last")
    stopped = scripted_fit(6, final, on_round_end=lambda fit, record: record.round == 2)
    failed = scripted_fit(6, final, on_round_end=fail)
    other = scripted_fit(6, final)
    run(ScriptedEngine(losses), [stopped, failed, other])
    assert stopped.error is None
    assert [record.round for record in stopped.history][:3] == [0, 1, 2]
    assert rounds_seen(stopped) == 3
    assert failed.error is failure
    assert failed.ended
    assert rounds_seen(other) == 6


def test_the_accuracy_may_decide() -> None:
    """The least loss comes with the third network, the best accuracy with the fifth."""
    accuracies = [0.0, 0.5, 0.5, 0.75, 0.5, 1.0, 0.5, 0.5, 0.5, 0.5]
    fit = scripted_fit(9, AveragingConfig(final="best", patience=2, metric="accuracy"))
    run(ScriptedEngine(LOSSES, accuracies=accuracies), [fit])
    assert rounds_seen(fit) == 5
    assert len(fit.history) >= 7
    assert fit.history[4].validation_metric == 1
