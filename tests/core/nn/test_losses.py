"""Each loss and its gradient against a naive float64 formula, also where that would overflow."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from toys import Array

from sparknn.core.nn.losses import LOSSES, find_loss, flat_label_index, quantile_loss_name, softmax


def cross_entropy(z: list[float], y: float) -> float:
    return -math.log(math.exp(z[int(y)]) / sum(math.exp(v) for v in z))


def huber(z: list[float], y: list[float]) -> float:
    errors = [abs(a - b) for a, b in zip(z, y, strict=True)]
    return sum(e * e / 2 if e <= 1 else e - 0.5 for e in errors)


def half_deviance(z: float, y: float) -> float:
    return math.exp(z) - y + (y * (math.log(y) - z) if y else 0)


def pinball(z: list[float], y: list[float]) -> float:
    (target,) = y
    errors = zip(LEVELS, (target - guess for guess in z), strict=True)
    return sum(tau * error if error > 0 else (tau - 1) * error for tau, error in errors)


NAIVE: dict[str, Callable[..., float]] = {
    "crossEntropy": cross_entropy,
    "squared": lambda z, y: sum((a - b) ** 2 for a, b in zip(z, y, strict=True)) / 2,
    "absolute": lambda z, y: sum(abs(a - b) for a, b in zip(z, y, strict=True)),
    "huber": huber,
    "poisson": lambda z, y: sum(map(half_deviance, z, y)),
}
LEVELS = [0.1, 0.5, 0.8]
QUANTILES = quantile_loss_name(LEVELS)

NAMES = [*sorted(LOSSES), QUANTILES]
# Of errors alone, whose predictions are the logits.
REGRESSIONS = ["absolute", "huber", "squared"]


def outputs(name: str, n: int = 12, k: int = 3) -> tuple[Array, Array, Array]:
    """Logits, targets and weights of one batch; errors on both sides of huber's corner."""
    rng = np.random.default_rng(5)
    y = (
        rng.integers(k, size=n).astype(float)
        if find_loss(name).classifies
        else rng.normal(size=(n, k))
    )
    logits, sample_weight = rng.normal(size=(n, k)) * 2, rng.uniform(0.1, 3, size=n)
    if name == "poisson":
        y = np.rint(np.abs(2 * y))
        logits /= 4
    return logits, y[:, :1] if name == QUANTILES else y, sample_weight


def gradient(name: str, logits: Array, y: Array, sample_weight: Array) -> tuple[float, Array]:
    logits = logits.copy()
    value = find_loss(name).value_and_gradient(logits, y, sample_weight, None)
    return value, logits


def test_every_loss_has_a_naive_formula() -> None:
    assert LOSSES.keys() == NAIVE.keys()


@pytest.mark.parametrize("name", NAMES)
def test_values_are_the_formula(name: str) -> None:
    logits, y, _ = outputs(name)
    naive = pinball if name == QUANTILES else NAIVE[name]
    expected = [naive(list(z), t) for z, t in zip(logits, y, strict=True)]
    np.testing.assert_allclose(find_loss(name).values(logits, y), expected, rtol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_the_sum_is_of_the_values(name: str) -> None:
    logits, y, sample_weight = outputs(name)
    expected = float(find_loss(name).values(logits, y) @ sample_weight)
    assert gradient(name, logits, y, sample_weight)[0] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_gradient_is_that_of_the_sum(name: str) -> None:
    logits, y, sample_weight = outputs(name)
    _, got = gradient(name, logits, y, sample_weight)
    numeric = np.empty_like(logits)
    for index in np.ndindex(*logits.shape):
        step = np.zeros_like(logits)
        step[index] = 1e-6
        above = find_loss(name).values(logits + step, y) @ sample_weight
        below = find_loss(name).values(logits - step, y) @ sample_weight
        numeric[index] = (above - below) / 2e-6
    np.testing.assert_allclose(got, numeric, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("name", NAMES)
def test_float32_outputs_stay_float32(name: str) -> None:
    logits, y, sample_weight = outputs(name)
    value, wide = gradient(name, logits, y, sample_weight)
    narrow_value, narrow = gradient(name, logits.astype(np.float32), y, sample_weight)
    assert narrow.dtype == np.float32
    np.testing.assert_allclose(narrow, wide, rtol=1e-5, atol=1e-5)
    assert narrow_value == pytest.approx(value, rel=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_a_row_of_weight_0_moves_nothing(name: str) -> None:
    logits, y, sample_weight = outputs(name)
    sample_weight[3] = 0
    value, got = gradient(name, logits, y, sample_weight)
    np.testing.assert_array_equal(got[3], 0)
    others = np.arange(len(y)) != 3
    alone, _ = gradient(name, logits[others], y[others], sample_weight[others])
    assert value == pytest.approx(alone, rel=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_cross_entropy_of_huge_logits(dtype: type) -> None:
    logits = np.array([[1e30, -1e30, 0], [1e30, -1e30, 0], [88, 89, 90]], dtype=dtype)
    y, ones = np.array([0.0, 2.0, 2.0]), np.ones(3)
    with np.errstate(all="raise", under="ignore"):
        values = LOSSES["crossEntropy"].values(logits, y)
        value, got = gradient("crossEntropy", logits, y, ones)
    np.testing.assert_allclose(
        values, [0, 1e30, math.log1p(math.exp(-1) + math.exp(-2))], rtol=1e-6
    )
    assert value == pytest.approx(1e30, rel=1e-6)
    np.testing.assert_allclose(got[:2], [[0, 0, 0], [1, 0, -1]], atol=1e-12)


@pytest.mark.parametrize("name", REGRESSIONS)
def test_only_squared_loss_squares_outliers(name: str) -> None:
    logits = np.array([[1e30]], dtype=np.float32)
    with np.errstate(all="ignore"):
        value, got = gradient(name, logits, np.zeros((1, 1), np.float32), np.ones(1))
    if name == "squared":
        assert value == math.inf
    else:
        assert value == pytest.approx(1e30, rel=1e-6)
        np.testing.assert_array_equal(got, 1)


def test_metrics_of_classes_are_correct_predictions() -> None:
    logits = np.array([[1.0, 2.0], [3.0, 2.0], [0.0, -1.0]])
    np.testing.assert_array_equal(
        LOSSES["crossEntropy"].metrics(logits, np.array([1.0, 1, 0])), [1, 0, 1]
    )


@pytest.mark.parametrize("name", REGRESSIONS)
def test_metrics_of_targets_are_squared_errors(name: str) -> None:
    logits, y = np.array([[1.0, 2.0], [0.0, 0.0]]), np.array([[3.0, 1.0], [0.0, -0.5]])
    np.testing.assert_allclose(find_loss(name).metrics(logits, y), [5, 0.25])


def test_metrics_are_of_predictions() -> None:
    logits, y = np.array([[0.0], [1.0]]), np.array([[1.0], [3.0]])
    np.testing.assert_allclose(LOSSES["poisson"].metrics(logits, y), [0, (math.e - 3) ** 2])
    # Crossed quantiles count in order: 0, 1 and 2.
    crossed = find_loss(QUANTILES).metrics(np.array([[2.0, 0, 1]]), np.array([[1.0]]))
    np.testing.assert_allclose(crossed, (0.1 + 0 + 0.2) / 3)


def test_the_pinball_loss_is_least_at_the_quantile() -> None:
    y = np.random.default_rng(0).normal(size=(501, 1))
    candidates = np.linspace(-2, 2, 401)
    for level in LEVELS:
        loss = find_loss(quantile_loss_name([level]))
        sums = [loss.values(np.full((501, 1), c), y).sum() for c in candidates]
        best = candidates[np.argmin(sums)]
        assert abs(best - np.quantile(y, level)) < 0.02


@pytest.mark.parametrize("name", ["quadratic", "quantile:", "quantile:a", "quantile"])
def test_a_loss_that_is_none(name: str) -> None:
    with pytest.raises((KeyError, ValueError)):
        find_loss(name)


def test_softmax_is_a_distribution_and_ignores_a_shift() -> None:
    logits = np.random.default_rng(1).normal(size=(20, 5)) * 10
    P = softmax(logits)
    np.testing.assert_allclose(P.sum(axis=1), 1, rtol=1e-12)
    np.testing.assert_allclose(softmax(logits + 1000), P, rtol=1e-9)
    naive = np.exp(logits)
    np.testing.assert_allclose(P, naive / naive.sum(axis=1, keepdims=True), rtol=1e-12)


def test_softmax_of_huge_logits() -> None:
    with np.errstate(all="raise", under="ignore"):
        P = softmax(np.array([[1e30, 0, -1e30], [-1e30, -1e30, -1e30]], dtype=np.float32))
    np.testing.assert_allclose(P, [[1, 0, 0], [1 / 3] * 3], rtol=1e-6)


def test_a_given_label_index_is_the_computed_one() -> None:
    logits, y, sample_weight = outputs("crossEntropy")
    value, expected = gradient("crossEntropy", logits, y, sample_weight)
    label_index = flat_label_index(y)
    np.testing.assert_array_equal(
        logits.T.reshape(-1)[label_index], logits[np.arange(12), y.astype(int)]
    )
    assert LOSSES["crossEntropy"].value_and_gradient(logits, y, sample_weight, label_index) == value
    np.testing.assert_array_equal(logits, expected)


def test_gradients_of_a_confident_network_are_0_and_not_denormal() -> None:
    """Arithmetic on numbers below 1e-38 is about a hundred times slower."""
    logits = np.float32([[0, -95, -60, -30], [-95, 0, -100, -44]])
    loss = LOSSES["crossEntropy"].value_and_gradient
    value = loss(logits, np.array([0.0, 0.0]), np.ones(2), None)
    assert value == pytest.approx(95, rel=1e-6)
    assert (np.abs(logits[logits != 0]) > 1e-21).all()
    np.testing.assert_allclose(logits, [[0, 0, 0, np.exp(-30)], [-1, 1, 0, np.exp(-44)]], rtol=1e-5)
