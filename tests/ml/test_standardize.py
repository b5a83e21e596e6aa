"""Check that scaling can be folded into a network without changing its function."""

import numpy as np
import pytest

from sparknn.core.config import Standardizer
from sparknn.core.nn.network import Network
from sparknn.engine.interface import FeatureStatistics
from sparknn.ml.standardize import (
    fold,
    robust_standardizer,
    sparse_standardizer,
    target_standardizer,
    unfold,
)


def statistics(X: np.ndarray, Y: np.ndarray) -> FeatureStatistics:
    return FeatureStatistics(X.mean(0), X.std(0), X.min(0), X.max(0), Y.mean(0), Y.std(0))


def data(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(200, 6)) * [1, 0.1, 30, 1, 2, 0] + [0, 1, -100, 3, 0, 7]
    return X, rng.normal(size=(200, 2)) * [3, 1000] + [1, -5000]


@pytest.mark.parametrize("layers", [(6, 2), (6, 8, 2), (6, 8, 5, 2)])
@pytest.mark.parametrize("activation", ["relu", "tanh", "gelu"])
def test_folded_is_the_same_function(layers: tuple[int, ...], activation: str) -> None:
    X, Y = data()
    network = Network(layers, activation, "squared")
    theta = network.init(np.random.default_rng(1)).astype(np.float64)
    theta += 0.1
    known = statistics(X, Y)
    features, targets = robust_standardizer(known), target_standardizer(known)
    scaled = (X - features.shift) * features.factor
    expected = network.logits(theta, scaled) / targets.factor + targets.shift

    folded = fold(network, theta, features, targets).astype(np.float64)

    # In units of the targets' deviations; the folded parameters are float32.
    assert np.abs((network.logits(folded, X) - expected) / Y.std(0)).max() < 1e-5


@pytest.mark.parametrize("layers", [(6, 2), (6, 8, 2)])
def test_unfolding_undoes_folding(layers: tuple[int, ...]) -> None:
    X, Y = data()
    network = Network(layers, "relu", "squared")
    theta = network.init(np.random.default_rng(1))
    known = statistics(X, Y)
    features, targets = robust_standardizer(known, keep_constant=True), target_standardizer(known)
    again = unfold(network, fold(network, theta, features, targets), features, targets)
    np.testing.assert_allclose(again, theta, rtol=1e-4, atol=1e-4)


def test_nothing_to_standardise_changes_nothing() -> None:
    network = Network((3, 4, 2))
    theta = network.init(np.random.default_rng(0))
    assert np.array_equal(fold(network, theta, None, None), theta)
    assert np.array_equal(unfold(network, theta, None, None), theta)


def standardised(X: np.ndarray) -> np.ndarray:
    standardizer = robust_standardizer(statistics(X, X))
    scaled = X.astype(np.float32)
    standardizer.apply(scaled)
    return scaled


def test_features_of_different_kinds_come_to_a_common_scale() -> None:
    X = np.random.default_rng(0).normal(size=(500, 3)) * [1, 50, 0.001] + [0, 3, 9]
    scaled = standardised(X)
    np.testing.assert_allclose(scaled.mean(0), 0, atol=1e-3)
    assert ((scaled.std(0) > 0.6) & (scaled.std(0) < 1.01)).all()


def test_a_rare_value_stays_small() -> None:
    """A pixel that is set in one image of 10,000 would be 100 deviations from its mean."""
    X = np.random.default_rng(0).uniform(0, 255, size=(10_000, 20))
    X[:, 3] = 0
    X[0, 3] = 255
    assert np.abs(standardised(X)).max() <= 10


@pytest.mark.parametrize(
    "ranges",
    [(60, 60_000), (60, 60_000, 30_000), (60, 4, 60_000, 30_000, 40_000), (1, *[1000] * 20)],
    ids=str,
)
def test_a_small_unit_beside_large_ones_is_not_lost(ranges: tuple[float, ...]) -> None:
    """An age and an income, or many incomes."""
    X = np.random.default_rng(0).uniform(size=(500, len(ranges))) * ranges
    assert standardised(X).std(0).min() > 0.4


def test_pixels_share_a_scale_also_those_at_the_edge() -> None:
    rng = np.random.default_rng(0)
    X = rng.uniform(0, 255, size=(1000, 20))
    X[:, 0] = 0
    X[5, 0] = 40
    factor = robust_standardizer(statistics(X, X)).factor
    assert (factor == factor[0]).all()


def test_constant_features_are_ignored() -> None:
    X = np.full((10, 3), [0.0, 1e30, 0.1])
    known = statistics(X, X)
    assert robust_standardizer(known).factor.tolist() == [0, 0, 0]
    assert robust_standardizer(known, keep_constant=True).factor.tolist() == [1, 1, 1]
    assert target_standardizer(known).factor.tolist() == [0, 1, 1]
    assert target_standardizer(known, keep_constant=True).factor.tolist() == [1, 1, 1]


@pytest.mark.parametrize("scale", [1e-42, 1e38])
def test_extreme_scales_stay_finite(scale: float) -> None:
    X = np.array([[0.0], [scale]])
    standardizer = robust_standardizer(statistics(X, X))
    assert isinstance(standardizer, Standardizer)
    assert np.isfinite(standardizer.factor).all()


def sparse_statistics(X: np.ndarray) -> FeatureStatistics:
    moments = (X.mean(axis=0), X.std(axis=0), X.min(axis=0), X.max(axis=0))
    return FeatureStatistics(*moments, np.zeros(1), np.zeros(1), (X != 0).mean(axis=0))


def test_sparse_columns_are_scaled_and_the_dense_among_them_centred() -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(4000, 30)) * (rng.random((4000, 30)) < 0.01 * np.arange(30))
    X[:, 7] = 2000 + rng.normal(size=4000)
    X[:, 8] = 3
    found = sparse_standardizer(sparse_statistics(X))
    assert np.flatnonzero(found.shift).tolist() == [7, 8]
    assert np.flatnonzero(found.factor == 0).tolist() == [0, 8]
    Z = (X - found.shift) * found.factor
    assert np.square(Z).sum(axis=1).mean() == pytest.approx(10, rel=1e-3)
    # Units do not matter.
    scaled = sparse_standardizer(sparse_statistics(X * np.arange(1, 31)))
    np.testing.assert_allclose(scaled.factor * np.arange(1, 31), found.factor, rtol=1e-4)
    kept = sparse_standardizer(sparse_statistics(X), keep_constant=True)
    assert (kept.factor > 0).all()
