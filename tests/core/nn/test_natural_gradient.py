"""Natural-gradient SGD: against the direct inverse, and robustness of the estimate."""

from itertools import pairwise

import numpy as np
import pytest

from sparknn.core.config import RoundRequest, TrainConfig
from sparknn.core.data.rows import ArrayRows
from sparknn.core.nn import natural_gradient as ngsgd
from sparknn.core.nn.natural_gradient import RANK_IN, RANK_OUT, NaturalGradient, OnlineFisher
from sparknn.core.nn.network import Backprop, Network
from sparknn.core.training.worker_round import train_locally

LAYERS = (12, 9, 4)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def feed(fisher, batches):
    """Precondition batches in turn; the last result, scaled."""
    result = None
    for X in batches:
        Y, gamma = fisher.precondition(X, np.empty_like(X))
        result = gamma * Y
    return result


def correlated(rng, n, n_dims, dtype=np.float64):
    """Rows whose second moments are far from a multiple of the identity."""
    mix = np.random.default_rng(1).normal(size=(n_dims, n_dims)) * 0.7 ** np.arange(n_dims)
    return (rng.normal(size=(n, n_dims)) @ mix.T).astype(dtype)


def dense(fisher):
    """F itself, shape (D, D)."""
    return fisher.R.T @ (fisher.d[:, None] * fisher.R) + fisher.rho * np.eye(fisher.n_dims)


@pytest.mark.parametrize(("n_dims", "max_rank"), [(2, 1), (10, 20), (30, 4), (61, 20)])
def test_equals_the_direct_inverse_at_the_norm_of_the_rows(rng, n_dims, max_rank):
    fisher = OnlineFisher(n_dims, max_rank)
    feed(fisher, [correlated(rng, 32, n_dims) for _ in range(40)])
    F = dense(fisher)
    G = F + ngsgd.ALPHA / n_dims * np.trace(F) * np.eye(n_dims)
    X = correlated(rng, 32, n_dims)

    direct = X @ np.linalg.inv(G)
    direct *= np.linalg.norm(X) / np.linalg.norm(direct)
    np.testing.assert_allclose(feed(fisher, [X]), direct, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("n", [1, 3, 64])
def test_rows_of_R_stay_orthonormal(rng, n):
    fisher = OnlineFisher(50, 20)
    for _ in range(100):
        feed(fisher, [correlated(rng, n, 50, np.float32) for _ in range(ngsgd.UPDATE_INTERVAL)])
        np.testing.assert_allclose(fisher.R @ fisher.R.T, np.eye(20), atol=1e-6)


def test_recovers_a_covariance_up_to_its_scale(rng):
    basis, _ = np.linalg.qr(rng.normal(size=(40, 6)))
    statistics = basis @ np.diag([90.0, 60, 40, 30, 20, 10]) @ basis.T + 0.5 * np.eye(40)
    root = np.linalg.cholesky(statistics)
    fisher = OnlineFisher(40, 6)
    feed(fisher, [rng.normal(size=(256, 40)) @ root.T for _ in range(60 * ngsgd.UPDATE_INTERVAL)])

    target = statistics * 40 / np.trace(statistics)
    assert np.linalg.norm(dense(fisher) - target) < 0.1 * np.linalg.norm(target)
    assert fisher.rho == pytest.approx(0.5 * 40 / np.trace(statistics), rel=0.1)


def test_a_batch_is_preconditioned_by_earlier_ones(rng):
    mine, other = OnlineFisher(20, 5), OnlineFisher(20, 5)
    seen = [correlated(rng, 16, 20) for _ in range(ngsgd.UPDATE_INTERVAL - 1)]
    X = correlated(rng, 16, 20)
    feed(mine, seen)
    feed(other, seen)
    np.testing.assert_allclose(feed(mine, [X])[:8], feed(other, [X])[:8])
    R, d = other.R.copy(), other.d.copy()
    assert not np.array_equal(R, OnlineFisher(20, 5).R)
    feed(other, [X])
    np.testing.assert_array_equal(R, other.R)
    np.testing.assert_array_equal(d, other.d)


@pytest.mark.parametrize("bad", [0.0, 1e-30, np.nan, np.inf, 1e30])
@pytest.mark.parametrize("first", [True, False])
def test_unusable_rows_pass_through_and_leave_the_estimate(rng, bad, first):
    good = [correlated(rng, 16, 20, np.float32) for _ in range(5 * ngsgd.UPDATE_INTERVAL)]
    spoilt = good[0].copy()
    spoilt[3] = bad
    spoilt = np.full_like(spoilt, bad) if bad in (0.0, 1e-30) else spoilt
    clean, hit = OnlineFisher(20, 5), OnlineFisher(20, 5)
    feed(clean, good)
    n_before = 0 if first else 3
    feed(hit, good[:n_before])
    with np.errstate(over="ignore"):
        Y, gamma = hit.precondition(spoilt, np.empty_like(spoilt))
    assert Y is spoilt
    assert gamma == 1
    feed(hit, good[n_before:])
    np.testing.assert_array_equal(clean.R, hit.R)
    np.testing.assert_array_equal(clean.d, hit.d)


def factors(rng, n=32, dtype=np.float32, layers=LAYERS):
    """Made-up (A, dZ) of every layer."""
    return [
        (correlated(rng, n, n_in, dtype), correlated(rng, n, n_out, dtype))
        for n_in, n_out in pairwise(layers)
    ]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_shapes_dtypes_norm_and_nothing_overwritten(rng, dtype):
    natural = NaturalGradient(LAYERS)
    for n in (32, 31, 33):
        for layer, (A, dZ) in enumerate(factors(rng, n, dtype)):
            before = A.copy(), dZ.copy()
            A_hat, dZ_hat = natural(layer, A, dZ)
            np.testing.assert_array_equal(A, before[0])
            np.testing.assert_array_equal(dZ, before[1])
            assert A_hat.shape == (n, LAYERS[layer] + 1)
            assert dZ_hat.shape == dZ.shape
            assert A_hat.dtype == dZ_hat.dtype == dtype
            norm = np.sqrt(np.linalg.norm(A) ** 2 + n) * np.linalg.norm(dZ)
            assert np.linalg.norm(A_hat) * np.linalg.norm(dZ_hat) == pytest.approx(norm, rel=1e-5)


def test_inputs_and_derivatives_are_each_multiplied_by_an_inverse_of_their_own(rng):
    natural = NaturalGradient(LAYERS)
    sides = [
        (OnlineFisher(n_in + 1, RANK_IN), OnlineFisher(n_out, RANK_OUT))
        for n_in, n_out in pairwise(LAYERS)
    ]
    for _ in range(3 * ngsgd.UPDATE_INTERVAL):
        for layer, (A, dZ) in enumerate(factors(rng, dtype=np.float64)):
            A_hat, dZ_hat = natural(layer, A, dZ)
            inputs, outputs = sides[layer]
            ones = np.column_stack([A, np.ones(len(A))])
            block = feed(inputs, [ones]).T @ feed(outputs, [dZ])
            np.testing.assert_allclose(A_hat.T @ dZ_hat, block, rtol=1e-9, atol=1e-9)


def test_the_scale_of_the_derivatives_only_scales_the_result(rng):
    one, other = NaturalGradient(LAYERS), NaturalGradient(LAYERS)
    for step in range(3 * ngsgd.UPDATE_INTERVAL):
        # A schedule's step sizes, and a sign; powers of two make the comparison exact.
        scale = np.float32(-(2.0 ** -(step % 20)))
        for layer, (A, dZ) in enumerate(factors(rng)):
            A_hat, dZ_hat = one(layer, A, dZ)
            A_same, dZ_scaled = other(layer, A, scale * dZ)
            np.testing.assert_array_equal(A_hat, A_same)
            np.testing.assert_array_equal(scale * dZ_hat, dZ_scaled)


def test_a_step_size_of_zero_gives_a_zero_gradient(rng):
    natural = NaturalGradient(LAYERS)
    for A, dZ in (factors(rng)[0] for _ in range(10)):
        A_hat, dZ_hat = natural(0, A, 0 * dZ)
        assert not (A_hat.T @ dZ_hat).any()
        assert np.isfinite(A_hat).all()


def test_one_output_is_left_as_it_is(rng):
    natural = NaturalGradient((12, 1))
    A, dZ = factors(rng, layers=(12, 1))[0]
    _, dZ_hat = natural(0, A, dZ)
    ratio = dZ_hat / dZ
    np.testing.assert_allclose(ratio, ratio[0, 0], rtol=1e-5)


def test_one_row_and_one_input():
    natural = NaturalGradient((1, 1))
    for _ in range(30):
        A_hat, dZ_hat = natural(0, np.ones((1, 1), np.float32), np.ones((1, 1), np.float32))
        assert np.isfinite(A_hat).all()
        assert np.isfinite(dZ_hat).all()


def test_the_same_batches_give_the_same_bytes(rng):
    batches = [factors(rng)[0] for _ in range(3 * ngsgd.UPDATE_INTERVAL)]
    results = []
    for _ in range(2):
        natural = NaturalGradient(LAYERS)
        results.append(b"".join(part.tobytes() for A, dZ in batches for part in natural(0, A, dZ)))
    assert results[0] == results[1]


def test_a_layers_gradient_is_the_product_of_what_is_returned(rng):
    network = Network((12, 9, 4))
    theta = network.init(rng)
    X = correlated(rng, 32, 12, np.float32)
    y = rng.integers(0, 4, 32).astype(np.float64)
    gradient, plain = np.empty_like(theta), np.empty_like(theta)
    passes, natural, seen = Backprop(network, 32), NaturalGradient(network.layers), {}

    def spy(layer, A, dZ, root_weight):
        A_hat, dZ_hat = natural(layer, A, dZ, root_weight)
        seen[layer] = A_hat.T @ dZ_hat
        return A_hat, dZ_hat

    blocks = network.blocks(theta)
    passes.gradient(blocks, X, y, np.ones(32), network.blocks(gradient), precondition=spy)
    passes.gradient(blocks, X, y, np.ones(32), network.blocks(plain))
    for layer, block in enumerate(network.blocks(gradient)):
        np.testing.assert_array_equal(block.both, seen[layer])
    # The inverse of a positive matrix turns a gradient by less than a right angle.
    for natural_block, block in zip(network.blocks(gradient), network.blocks(plain), strict=True):
        assert np.vdot(natural_block.both, block.both) > 0


def toy_rows(rng, n=1000):
    """Four noisy classes in features of very different scales."""
    centres = rng.normal(size=(4, 12))
    y = rng.integers(0, 4, n)
    X = (centres[y] + 0.3 * rng.normal(size=(n, 12))) * np.geomspace(0.05, 2, 12)
    return ArrayRows(X.astype(np.float32), y.astype(np.float64))


def train(rows, solver, step_size=0.05):
    network = Network((12, 16, 4))
    config = TrainConfig(
        network, seed=3, max_iter=1, solver=solver, step_size=step_size, local_epochs=4
    )
    theta = network.init(np.random.default_rng(0))
    state = np.vstack([theta, np.zeros_like(theta)])
    result = train_locally(RoundRequest(config, state), rows, 0, 0)
    logits = network.logits(result.state[0], rows.X)
    return result, float(network.loss_fn.values(logits, rows.y).mean())


def test_training_reduces_the_loss_and_faster_than_momentum(rng):
    rows = toy_rows(rng)
    _, plain = train(rows, "momentum")
    result, natural = train(rows, "ngsgd")
    assert result.n_skipped == 0
    assert natural < plain < np.log(4)


def test_one_bad_row_costs_its_batch_only(rng):
    rows = toy_rows(rng)
    rows.X[17] = np.nan
    with np.errstate(invalid="ignore"):
        result, _ = train(rows, "ngsgd")
    assert result.n_skipped == 4
    assert result.n_steps == 4 * 8 - 4
    assert np.isfinite(result.state).all()
