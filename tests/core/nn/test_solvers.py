"""Each solver against its published rule, written out in float64."""

from collections.abc import Callable

import numpy as np
import pytest
from toys import Array

from sparknn.core.nn.solvers import SOLVERS

STEP_SIZE, MOMENTUM, P, N_STEPS = 0.1, 0.7, 30, 6

GRADIENTS = np.random.default_rng(0).normal(size=(N_STEPS, P))
START = np.random.default_rng(1).normal(size=P)


def by_sgd() -> Array:
    return START - STEP_SIZE * GRADIENTS.sum(axis=0)


def by_momentum() -> Array:
    theta, v = START.copy(), np.zeros(P)
    for g in GRADIENTS:
        v = MOMENTUM * v - STEP_SIZE * g
        theta = theta + v
    return theta


def by_adam() -> Array:
    theta, m, s = START.copy(), np.zeros(P), np.zeros(P)
    for t, g in enumerate(GRADIENTS, start=1):
        m = MOMENTUM * m + (1 - MOMENTUM) * g
        s = 0.999 * s + 0.001 * g**2
        m_hat, s_hat = m / (1 - MOMENTUM**t), s / (1 - 0.999**t)
        theta = theta - STEP_SIZE * m_hat / (np.sqrt(s_hat) + 1e-8)
    return theta


# ngsgd's own rule preconditions the gradient; its update is momentum's.
# adamw's own rule is its penalty, tested in test_local_training.py.
REFERENCE: dict[str, Callable[[], Array]] = {
    "sgd": by_sgd,
    "momentum": by_momentum,
    "adam": by_adam,
    "adamw": by_adam,
    "ngsgd": by_momentum,
}


def run(name: str, dtype: type, momentum: float = MOMENTUM) -> tuple[Array, Array]:
    solver = SOLVERS[name]
    theta, buffers = START.astype(dtype), np.zeros((solver.n_buffers, P), dtype)
    for t, g in enumerate(GRADIENTS, start=1):
        scale = -STEP_SIZE if solver.scaled else 1.0
        solver.update(theta, (scale * g).astype(dtype), buffers, STEP_SIZE, momentum, t)
    return theta, buffers


def test_every_solver_has_a_reference() -> None:
    assert SOLVERS.keys() == REFERENCE.keys()


@pytest.mark.parametrize("name", sorted(SOLVERS))
@pytest.mark.parametrize(("dtype", "rtol"), [(np.float64, 1e-10), (np.float32, 2e-5)])
def test_steps_are_the_published_ones(name: str, dtype: type, rtol: float) -> None:
    theta, buffers = run(name, dtype)
    assert theta.dtype == buffers.dtype == dtype
    np.testing.assert_allclose(theta, REFERENCE[name](), rtol=rtol, atol=rtol)


@pytest.mark.parametrize("name", ["momentum", "ngsgd"])
def test_momentum_0_is_sgd(name: str) -> None:
    np.testing.assert_allclose(run(name, np.float64, momentum=0.0)[0], by_sgd(), rtol=1e-12)


@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_first_adam_step_has_the_step_sizes_length(name: str) -> None:
    """Both bias corrections cancel at the first step: theta moves by step_size * sign(g)."""
    solver = SOLVERS[name]
    theta, buffers = np.zeros(4), np.zeros((2, 4))
    g = np.array([1e-3, -5.0, 200.0, 0.0])
    solver.update(theta, g.copy(), buffers, STEP_SIZE, MOMENTUM, 1)
    np.testing.assert_allclose(theta, -STEP_SIZE * np.sign(g), rtol=1e-4)


@pytest.mark.parametrize("name", sorted(SOLVERS))
def test_pack_and_unpack_undo_each_other(name: str) -> None:
    _, buffers = run(name, np.float64)
    packed = buffers.copy()
    SOLVERS[name].pack(packed)
    if SOLVERS[name].rms_buffer is not None:
        np.testing.assert_allclose(packed[1], np.sqrt(buffers[1]))
        np.testing.assert_array_equal(packed[0], buffers[0])
    SOLVERS[name].unpack(packed)
    np.testing.assert_allclose(packed, buffers, rtol=1e-12)


def test_small_squares_survive_packing() -> None:
    """Gradients of 1e-7 have squares of 1e-14, of which fixed point keeps few digits."""
    buffers = np.zeros((2, 1), np.float32)
    buffers[1] = 1e-14
    SOLVERS["adam"].pack(buffers)
    assert buffers[1, 0] == pytest.approx(1e-7)
