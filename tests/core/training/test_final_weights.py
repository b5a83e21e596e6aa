"""The final weights of a fit."""

import math

import numpy as np
import pytest
from toys import Array

from sparknn.core.training.final_weights import COMBINE_MOST, EMA_DECAY, FINAL_WEIGHTS, FinalWeights


def network(value: float) -> Array:
    return np.full(3, value, dtype=np.float32)


def never(thetas: list[Array]) -> list[float]:
    raise AssertionError("Nothing should be scored.")


def rounds(
    kind: str, losses: list[float], tol: float = 0.0, error: float = 0.0
) -> tuple[FinalWeights, list[bool]]:
    """Round r ends with a network of values r and the r-th of the losses."""
    final, better = FinalWeights(kind), []
    for r, loss in enumerate(losses):
        final.add(network(r))
        better.append(final.record_loss(network(r), loss, tol, error))
    return final, better


def test_every_kind_is_tested() -> None:
    assert set(FINAL_WEIGHTS) == {"last", "best", "ema", "combine"}


@pytest.mark.parametrize("kind", FINAL_WEIGHTS)
def test_without_rounds_it_is_the_last(kind: str) -> None:
    np.testing.assert_array_equal(FinalWeights(kind).select(network(7), never), network(7))


def test_last() -> None:
    final, _ = rounds("last", [3, 1, 2])
    np.testing.assert_array_equal(final.select(network(2), never), network(2))


@pytest.mark.parametrize("tol", [0.0, 0.5])
def test_best_has_the_least_loss_for_any_tol(tol: float) -> None:
    final, _ = rounds("best", [3, 1.2, 1.1, 2, math.nan], tol)
    np.testing.assert_array_equal(final.select(network(4), never), network(2))
    assert final.best_loss == 1.1


@pytest.mark.parametrize(("error", "kept"), [(0.89, 1), (0.91, 3)])
def test_best_is_the_last_if_that_is_as_good(error: float, kept: int) -> None:
    final, _ = rounds("best", [3, 1.1, 1.5, 2], error=error)
    np.testing.assert_array_equal(final.select(network(3), never), network(kept))


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_best_of_nothing_finite_is_the_last(loss: float) -> None:
    final, better = rounds("best", [loss, loss])
    assert better == [False, False]
    np.testing.assert_array_equal(final.select(network(1), never), network(1))


def test_better_means_by_more_than_tol() -> None:
    assert rounds("last", [3, 2.5, 2.5, 2.9, 2.4])[1] == [True, True, False, False, True]
    assert rounds("last", [3, 2.5, 2.2, 2.0, 1.9], tol=0.4)[1] == [True, True, False, True, False]


def test_small_gains_add_up() -> None:
    losses = [1 - 0.04 * r for r in range(10)]
    assert rounds("last", losses, tol=0.1)[1] == [r % 3 == 0 for r in range(10)]


def test_ema_is_the_weighted_average_of_all_rounds() -> None:
    final, _ = rounds("ema", [1, 1, 1, 1])
    weights = EMA_DECAY ** np.arange(3, -1, -1.0)
    expected = weights @ np.arange(4) / weights.sum()
    got = final.select(network(3), never)
    np.testing.assert_allclose(got, expected, rtol=1e-6)
    assert got.dtype == np.float32


def test_ema_of_one_round_is_that_round() -> None:
    final, _ = rounds("ema", [1])
    np.testing.assert_allclose(final.select(network(9), never), network(0))


@pytest.mark.parametrize("n_best", [1, 3, 5])
def test_combine_averages_as_many_of_the_last_as_score_best(n_best: int) -> None:
    final, _ = rounds("combine", [1] * 5)
    asked: list[float] = []

    def score(thetas: list[Array]) -> list[float]:
        asked.extend(float(theta[0]) for theta in thetas)
        return [abs(n - n_best) for n in range(1, len(thetas) + 1)]

    got = final.select(network(4), score)
    # The last one, the last two, ...
    assert asked == [4, 3.5, 3, 2.5, 2]
    np.testing.assert_array_equal(got, np.mean(range(5 - n_best, 5)))
    assert got.dtype == np.float32


def test_combine_remembers_the_last_few_only() -> None:
    final, _ = rounds("combine", [1] * (COMBINE_MOST + 3))
    got = final.select(network(0), lambda thetas: [-float(n) for n in range(len(thetas))])
    np.testing.assert_array_equal(got, np.mean(np.arange(COMBINE_MOST) + 3))


@pytest.mark.parametrize("scores", [[math.inf] * 3, [math.nan] * 3])
def test_combine_without_a_score_is_the_last(scores: list[float]) -> None:
    final, _ = rounds("combine", [1] * 3)
    np.testing.assert_array_equal(final.select(network(2), lambda _: scores), network(2))


def test_combine_ignores_a_loss_of_nan() -> None:
    final, _ = rounds("combine", [1] * 3)
    got = final.select(network(2), lambda _: [math.nan, 0.5, 0.7])
    np.testing.assert_array_equal(got, network(1.5))
