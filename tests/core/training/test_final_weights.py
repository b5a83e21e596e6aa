"""The final weights of a fit."""

import math

import numpy as np
import pytest
from toys import Array

from sparknn.core.training.final_weights import FINAL_WEIGHTS, FinalWeights


def network(value: float) -> Array:
    return np.full(3, value, dtype=np.float32)


def rounds(
    kind: str, losses: list[float], tol: float = 0.0, error: float = 0.0
) -> tuple[FinalWeights, list[bool]]:
    """Round r ends with a network of values r and the r-th of the losses."""
    final, better = FinalWeights(kind), []
    for r, loss in enumerate(losses):
        better.append(final.record_loss(network(r), loss, tol, error))
    return final, better


def test_every_kind_is_tested() -> None:
    assert set(FINAL_WEIGHTS) == {"last", "best"}


@pytest.mark.parametrize("kind", FINAL_WEIGHTS)
def test_without_rounds_it_is_the_last(kind: str) -> None:
    np.testing.assert_array_equal(FinalWeights(kind).select(network(7)), network(7))


def test_last() -> None:
    final, _ = rounds("last", [3, 1, 2])
    np.testing.assert_array_equal(final.select(network(2)), network(2))


@pytest.mark.parametrize("tol", [0.0, 0.5])
def test_best_has_the_least_loss_for_any_tol(tol: float) -> None:
    final, _ = rounds("best", [3, 1.2, 1.1, 2, math.nan], tol)
    np.testing.assert_array_equal(final.select(network(4)), network(2))
    assert final.best_loss == 1.1


@pytest.mark.parametrize(("error", "kept"), [(0.89, 1), (0.91, 3)])
def test_best_is_the_last_if_that_is_as_good(error: float, kept: int) -> None:
    final, _ = rounds("best", [3, 1.1, 1.5, 2], error=error)
    np.testing.assert_array_equal(final.select(network(3)), network(kept))


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_best_of_nothing_finite_is_the_last(loss: float) -> None:
    final, better = rounds("best", [loss, loss])
    assert better == [False, False]
    np.testing.assert_array_equal(final.select(network(1)), network(1))


def test_better_means_by_more_than_tol() -> None:
    assert rounds("last", [3, 2.5, 2.5, 2.9, 2.4])[1] == [True, True, False, False, True]
    assert rounds("last", [3, 2.5, 2.2, 2.0, 1.9], tol=0.4)[1] == [True, True, False, True, False]


def test_small_gains_add_up() -> None:
    losses = [1 - 0.04 * r for r in range(10)]
    assert rounds("last", losses, tol=0.1)[1] == [r % 3 == 0 for r in range(10)]
