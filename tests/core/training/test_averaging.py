"""Averaging rules: worked examples, and cases in which they equal the mean."""

from typing import Any

import numpy as np
import pytest
from toys import Array

from sparknn.core.training.averaging import AVERAGING_RULES, AveragingState

MEANS = np.array([[3.0, -1.0], [5.0, 0.0], [4.0, 2.0]])


def states(rule: str, momentum: float, rate: float, n_workers: int, means: Any = MEANS) -> Any:
    """The states after each round, from x = (1, 1); ``means`` are the workers' means."""
    state = AveragingState.start(np.ones(2, np.float32))
    passed = []
    for average in means:
        state = AVERAGING_RULES[rule](state, average, momentum, rate, n_workers)
        assert state.theta.dtype == state.broadcast.dtype == np.float32
        assert state.running.dtype == np.float64
        passed.append(state)
    return passed


def thetas(rule: str, momentum: float, rate: float, n_workers: int = 4) -> Array:
    return np.stack([state.theta for state in states(rule, momentum, rate, n_workers)])


def test_every_rule_is_tested() -> None:
    assert AVERAGING_RULES.keys() == {"mean", "momentum", "nesterov", "bmuf"}


def test_mean_is_the_mean() -> None:
    np.testing.assert_array_equal(thetas("mean", 0.9, 0.1), MEANS)


def test_mean_of_one_worker_is_its_network_to_the_byte() -> None:
    worker = np.random.default_rng(0).normal(size=50).astype(np.float32)
    state = AVERAGING_RULES["mean"](AveragingState.start(np.ones(50, np.float32)), worker, 0, 1, 1)
    assert state.theta.tobytes() == state.broadcast.tobytes() == worker.tobytes()
    assert not np.shares_memory(state.theta, worker)


def test_momentum_by_hand() -> None:
    # x = 1: D = 2, u = 2, x = 1 + .5 * 2 = 2. D = 3, u = .25 * 2 + 3 = 3.5, x = 3.75.
    # D = .25, u = .875 + .25 = 1.125, x = 4.3125.
    np.testing.assert_array_equal(thetas("momentum", 0.25, 0.5)[:, 0], [2, 3.75, 4.3125])


def test_nesterov_by_hand() -> None:
    # D = 2, u = 2, x = 1 + .5 (.25 * 2 + 2) = 2.25. D = 2.75, u = .5 + 2.75 = 3.25,
    # x = 2.25 + .5 (.8125 + 2.75) = 4.03125. D = -.03125, u = .8125 - .03125 = .78125,
    # x = 4.03125 + .5 (.1953125 - .03125) = 4.11328125.
    np.testing.assert_array_equal(thetas("nesterov", 0.25, 0.5)[:, 0], [2.25, 4.03125, 4.11328125])


def test_bmuf_by_hand() -> None:
    # Gain (1 - .5) * 4 * .25 = .5. Round 1: D = 3 - 1, u = 1, x = 2; workers start at 2.5.
    # Round 2: D = 5 - 2.5, u = .5 + 1.25 = 1.75, x = 3.75; workers start at 4.625.
    # Round 3: D = 4 - 4.625, u = .875 - .3125 = .5625, x = 4.3125; workers start at 4.59375.
    passed = states("bmuf", 0.5, 0.25, 4)
    np.testing.assert_array_equal([state.theta[0] for state in passed], [2, 3.75, 4.3125])
    np.testing.assert_array_equal([state.broadcast[0] for state in passed], [2.5, 4.625, 4.59375])


@pytest.mark.parametrize("rule", ["momentum", "nesterov"])
def test_without_momentum_it_is_the_mean(rule: str) -> None:
    means = np.random.default_rng(0).normal(size=(5, 2))
    for mine, plain in zip(
        states(rule, 0, 1, 4, means), states("mean", 0, 1, 4, means), strict=True
    ):
        np.testing.assert_allclose(mine.theta, plain.theta, rtol=1e-6)
        np.testing.assert_array_equal(mine.broadcast, mine.theta)


@pytest.mark.parametrize(("n_workers", "rate"), [(1, 1.0), (4, 0.25)])
def test_bmuf_without_momentum_of_one_worker_is_the_mean(n_workers: int, rate: float) -> None:
    np.testing.assert_allclose(thetas("bmuf", 0, rate, n_workers), MEANS, rtol=1e-6)


@pytest.mark.parametrize("rule", ["momentum", "nesterov", "bmuf"])
def test_without_a_displacement_the_network_stays(rule: str) -> None:
    (state,) = states(rule, 0.9, 1.0, 4, means=np.ones((1, 2)))
    np.testing.assert_array_equal(state.theta, 1)
    np.testing.assert_array_equal(state.broadcast, 1)


def test_bmuf_converges_to_the_displacement_of_the_workers() -> None:
    """With (1 - b) K a = 1 - b, equal displacements converge to one displacement per round."""
    state = AveragingState.start(np.zeros(1, np.float32))
    for _ in range(200):
        before = state.theta
        state = AVERAGING_RULES["bmuf"](state, state.broadcast + 0.125, 0.9, 1 / 8, 8)
    np.testing.assert_allclose(state.theta - before, 0.125, rtol=1e-4)


@pytest.mark.parametrize("rule", sorted(AVERAGING_RULES))
def test_a_state_is_never_written_to(rule: str) -> None:
    start = AveragingState.start(np.ones(2, np.float32))
    for array in (start.theta, start.broadcast, start.running):
        array.flags.writeable = False
    AVERAGING_RULES[rule](start, MEANS[0], 0.9, 1.0, 4)
