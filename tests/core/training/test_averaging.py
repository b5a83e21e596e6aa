"""Averaging rules: worked examples, and cases in which they equal the mean."""

from typing import Any

import numpy as np
import pytest
from toys import Array

from sparknn.core.training.averaging import AVERAGING_RULES, AveragingState

MEANS = np.array([[3.0, -1.0], [5.0, 0.0], [4.0, 2.0]])


def thetas(rule: str, momentum: float, means: Any = MEANS) -> Array:
    """The networks after each round, from x = (1, 1); ``means`` are the workers' means."""
    state = AveragingState.start(np.ones(2, np.float32))
    passed = []
    for average in means:
        state = AVERAGING_RULES[rule](state, average, momentum)
        assert state.theta.dtype == np.float32
        assert state.running.dtype == np.float64
        passed.append(state.theta)
    return np.stack(passed)


def test_every_rule_is_tested() -> None:
    assert AVERAGING_RULES.keys() == {"mean", "nesterov"}


def test_mean_is_the_mean() -> None:
    np.testing.assert_array_equal(thetas("mean", 0.9), MEANS)


def test_mean_of_one_worker_is_its_network_to_the_byte() -> None:
    worker = np.random.default_rng(0).normal(size=50).astype(np.float32)
    state = AVERAGING_RULES["mean"](AveragingState.start(np.ones(50, np.float32)), worker, 0)
    assert state.theta.tobytes() == worker.tobytes()
    assert not np.shares_memory(state.theta, worker)


def test_nesterov_by_hand() -> None:
    # D = 2, u = 2, x = 1 + .25 * 2 + 2 = 3.5. D = 1.5, u = .5 + 1.5 = 2, x = 3.5 + .5 + 1.5 = 5.5.
    # D = -1.5, u = .5 - 1.5 = -1, x = 5.5 - .25 - 1.5 = 3.75.
    np.testing.assert_array_equal(thetas("nesterov", 0.25)[:, 0], [3.5, 5.5, 3.75])


def test_nesterov_without_momentum_is_the_mean() -> None:
    means = np.random.default_rng(0).normal(size=(5, 2))
    np.testing.assert_allclose(thetas("nesterov", 0, means), thetas("mean", 0, means), rtol=1e-6)


def test_without_a_displacement_the_network_stays() -> None:
    np.testing.assert_array_equal(thetas("nesterov", 0.9, np.ones((1, 2))), 1)


@pytest.mark.parametrize("rule", sorted(AVERAGING_RULES))
def test_a_state_is_never_written_to(rule: str) -> None:
    start = AveragingState.start(np.ones(2, np.float32))
    for array in (start.theta, start.running):
        array.flags.writeable = False
    AVERAGING_RULES[rule](start, MEANS[0], 0.9)
