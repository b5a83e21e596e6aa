"""The reference engine: a loop over workers, and workers whose results are lost."""

import numpy as np
import pytest
from toys import Array, CsrRows, blobs, engine_of

from sparknn.core.config import AveragingConfig, TrainConfig
from sparknn.core.data.rows import ArrayRows
from sparknn.core.nn.network import Network
from sparknn.core.training.aggregation import weight_scale_for
from sparknn.core.training.fit_state import DivergedError, FitState
from sparknn.core.training.rounds import run
from sparknn.core.training.worker_round import run_worker
from sparknn.engine.local import LocalEngine

NETWORK = Network((4, 5, 3))
CONFIG = TrainConfig(NETWORK, max_iter=4, batch_size=8)


def theta_of(engine: LocalEngine, config: TrainConfig = CONFIG) -> Array:
    fit = FitState(config, AveragingConfig(), engine.n_workers)
    run(engine, [fit])
    if fit.error is not None:
        raise fit.error
    assert fit.theta is not None
    return fit.theta


def test_a_round_is_every_workers_work_added_up() -> None:
    X, y = blobs(50)
    engine = engine_of(X, y, [20, 30], validation=blobs(10, seed=3))
    request = FitState(CONFIG, AveragingConfig(), 2).request()
    (total,) = engine.run_round([request], 1).totals
    none = ArrayRows(X[:0], y[:0])
    (first,) = run_worker(
        [request],
        ArrayRows(X[:20], y[:20]),
        ArrayRows(*blobs(10, seed=3)),
        1,
        0,
        weight_scale_for(50),
    )
    (second,) = run_worker([request], ArrayRows(X[20:], y[20:]), none, 1, 1, weight_scale_for(50))
    np.testing.assert_array_equal(total.values, second.merge(first).values)
    assert [report.n_rows for report in total.ordered()] == [20, 30]
    assert [report.score for report in total.ordered()] == [first.reports[0].score, None]


def test_workers_differ_in_their_shuffles() -> None:
    """Equal rows on two workers are shuffled differently."""
    X, y = blobs(40)
    request = FitState(CONFIG, AveragingConfig(), 2).request()
    (total,) = (
        engine_of(np.vstack([X, X]), np.hstack([y, y]), [40, 40]).run_round([request], 0).totals
    )
    assert total.reports[0].squared_update_norm != total.reports[1].squared_update_norm


def test_a_round_changes_nothing_and_repeats_itself() -> None:
    X, y = blobs(50)
    engine = engine_of(X, y, [20, 30])
    request = FitState(CONFIG, AveragingConfig(), 2).request()
    request.state.flags.writeable = False
    once, again = (engine.run_round([request], 2).totals[0] for _ in range(2))
    np.testing.assert_array_equal(once.values, again.values)


def test_validation_rows_of_any_worker_count() -> None:
    X, y = blobs(20)
    rows, none = ArrayRows(X, y), ArrayRows(X[:0], y[:0])
    assert not LocalEngine([(rows, none)], 32.0).has_validation
    assert LocalEngine([(rows, none), (none, rows)], 32.0).has_validation


def test_sparse_shards_train_like_dense_ones() -> None:
    X, y = blobs(60)
    X[np.random.default_rng(0).random(X.shape) < 0.5] = 0
    ones = np.ones(60)
    sparse = [
        (CsrRows(X[a:b], y[a:b], ones[a:b]), CsrRows(X[:9], y[:9], ones[:9]))
        for a, b in [(0, 25), (25, 60)]
    ]
    dense = [(ArrayRows(X[a:b], y[a:b]), ArrayRows(X[:9], y[:9])) for a, b in [(0, 25), (25, 60)]]
    mine, yours = (
        theta_of(LocalEngine(shards, weight_scale_for(60))) for shards in (sparse, dense)
    )
    assert mine.tobytes() == yours.tobytes()


def test_a_worker_that_is_always_lost_might_as_well_not_be_there() -> None:
    X, y = blobs(60)
    lossy = engine_of(X, y, [20, 25, 15], drop=lambda round_, partition: partition == 2)
    none = ArrayRows(X[:0], y[:0])
    others = [(ArrayRows(X[a:b], y[a:b]), none) for a, b in [(0, 20), (20, 45)]]
    assert (
        theta_of(lossy).tobytes() == theta_of(LocalEngine(others, weight_scale_for(60))).tobytes()
    )


def test_a_lost_result_is_counted_in_its_round() -> None:
    X, y = blobs(60)
    lossy = engine_of(X, y, [30, 30], drop=lambda round_, partition: (round_, partition) == (1, 0))
    fit = FitState(CONFIG, AveragingConfig(), 2)
    run(lossy, [fit])
    assert [record.workers_left_out for record in fit.history] == [0, 1, 0, 0]
    assert [record.n_rows for record in fit.history] == [60, 30, 60, 60]
    complete = theta_of(engine_of(X, y, [30, 30]))
    assert fit.theta is not None
    assert fit.theta.tobytes() != complete.tobytes()


def test_a_lost_result_takes_its_score_along() -> None:
    X, y = blobs(60)
    lossy = engine_of(
        X, y, [30, 30], validation=blobs(9), drop=lambda round_, partition: partition == 0
    )
    (total,) = lossy.run_round([FitState(CONFIG, AveragingConfig(), 2).request()], 0).totals
    assert all(report.score is None for report in total.reports)
    assert [report.left_out for report in total.ordered()] == ["missing", ""]


def test_losing_everybody_again_and_again_is_an_error() -> None:
    X, y = blobs(60)
    with pytest.raises(DivergedError, match=r"3 consecutive rounds .*no worker's result arrived"):
        theta_of(engine_of(X, y, [30, 30], drop=lambda round_, partition: True))
