"""Lazy steps of rows: what untouched rows catch up on, against steps of the whole matrix."""

import numpy as np
import pytest
from toys import Array

from sparknn.core.nn import row_solvers
from sparknn.core.nn.input_layer import SparseBatch
from sparknn.core.nn.row_solvers import TrainedRows, rule_of
from sparknn.core.nn.solvers import SOLVERS

D, H, STEPS = 12, 3, 40
MOMENTUM = 0.8


def some_steps(touch: float) -> list[tuple[Array, Array, float]]:
    """Of each step: the columns that it touches, their gradients, the step size."""
    rng = np.random.default_rng(2)
    steps = []
    for number in range(STEPS):
        columns = np.flatnonzero(rng.random(D) < touch)
        steps.append((columns, rng.normal(size=(len(columns), H)), 0.1 / (1 + number)))
    return steps


def lazily(solver: str, steps: list[tuple[Array, Array, float]], l2: float) -> tuple[Array, Array]:
    """Weights after the steps, and after what is left of the velocity is spent."""
    W = np.random.default_rng(1).normal(size=(D, H))
    chosen = SOLVERS[solver]
    rows = TrainedRows(W, rule_of(chosen, W.shape, W.dtype, MOMENTUM, l2))
    for columns, gradient, step_size in steps:
        rows.start(SparseBatch(columns, []))
        scale = -step_size if chosen.scaled else 1.0
        rows.gradient[...] = scale * gradient
        if l2 and not chosen.decoupled_l2:
            rows.penalise(scale * l2)
        rows.step(step_size, step_size * l2)
    rows.catch_up()
    after = rows.W.copy()
    rows.catch_up(spend=True)
    return after, rows.W


def densely(solver: str, steps: list[tuple[Array, Array, float]], l2: float) -> tuple[Array, Array]:
    W = np.random.default_rng(1).normal(size=(D, H))
    chosen = SOLVERS[solver]
    theta, buffers = W.reshape(-1), np.zeros((chosen.n_buffers, W.size))
    for number, (columns, gradient, step_size) in enumerate(steps, start=1):
        whole = np.zeros((D, H))
        whole[columns] = gradient
        scale = -step_size if chosen.scaled else 1.0
        whole *= scale
        if l2 and chosen.decoupled_l2:
            W *= 1 - step_size * l2
        elif l2:
            whole += scale * l2 * W
        chosen.update(theta, whole.reshape(-1), buffers, step_size, MOMENTUM, number)
    after = W.copy()
    if chosen.scaled and chosen.n_buffers:
        W += buffers[0].reshape(D, H) * MOMENTUM / (1 - MOMENTUM)
    return after, W


@pytest.mark.parametrize("l2", [0.0, 0.3])
@pytest.mark.parametrize("touch", [0.1, 0.5, 1.0])
@pytest.mark.parametrize("solver", ["sgd", "momentum", "ngsgd"])
def test_linear_solvers_catch_up_exactly(solver: str, touch: float, l2: float) -> None:
    steps = some_steps(touch)
    for got, expected in zip(lazily(solver, steps, l2), densely(solver, steps, l2), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("solver", ["adam", "adamw"])
@pytest.mark.parametrize("l2", [0.0, 0.3])
def test_adam_of_rows_that_every_step_touches_is_adam(solver: str, l2: float) -> None:
    steps = some_steps(1.0)
    np.testing.assert_allclose(
        lazily(solver, steps, l2)[0], densely(solver, steps, l2)[0], rtol=1e-9
    )


def test_adam_of_a_row_counts_the_steps_that_touch_it() -> None:
    steps = some_steps(0.4)
    got, _ = lazily("adam", steps, 0.0)
    for row in range(D):
        mine = [
            (np.arange(D), np.tile(gradient[columns == row], (D, 1)), step_size)
            for columns, gradient, step_size in steps
            if row in columns
        ]
        np.testing.assert_allclose(got[row], densely("adam", mine, 0.0)[0][row], rtol=1e-9)


def test_the_decoupled_penalty_is_caught_up_on_exactly() -> None:
    steps = [(c[:0], g[:0], step_size) for c, g, step_size in some_steps(0.5)]
    got, _ = lazily("adamw", steps, 0.3)
    np.testing.assert_allclose(got, densely("adamw", steps, 0.3)[0], rtol=1e-12)


@pytest.mark.parametrize("solver", sorted(SOLVERS))
@pytest.mark.parametrize("l2", [0.0, 0.3])
def test_bringing_all_rows_up_to_date_now_and_then_changes_nothing(
    solver: str, l2: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = some_steps(0.2)
    expected = lazily(solver, steps, l2)
    monkeypatch.setattr(row_solvers, "_MOST_STEPS", 7)
    monkeypatch.setattr(row_solvers, "_ROWS", 5)
    for got, other in zip(lazily(solver, steps, l2), expected, strict=True):
        np.testing.assert_allclose(got, other, rtol=1e-10)


def test_same_bytes_as_a_plain_loop() -> None:
    steps = [(c, g.astype(np.float32), float(np.float32(s))) for c, g, s in some_steps(0.3)]
    W = np.random.default_rng(1).normal(size=(D, H)).astype(np.float32)
    rows = TrainedRows(W.copy(), rule_of(SOLVERS["momentum"], W.shape, W.dtype, MOMENTUM, 0.0))
    for columns, gradient, step_size in steps:
        rows.start(SparseBatch(columns, []))
        rows.gradient[...] = gradient * np.float32(-step_size)
        rows.step(step_size, 0.0)
    rows.catch_up()

    V, last, momentum = np.zeros_like(W), [0] * D, np.float32(MOMENTUM)

    def catch_up(row: int, now: int) -> None:
        power = MOMENTUM ** np.float64(now - last[row])
        reach = np.float32(MOMENTUM * (1 - power) / (1 - MOMENTUM))
        for unit in range(H):
            W[row, unit] += V[row, unit] * reach
            V[row, unit] *= np.float32(power)
        last[row] = now

    for number, (columns, gradient, step_size) in enumerate(steps):
        for row, mine in zip(columns, gradient, strict=True):
            catch_up(row, number)
            for unit in range(H):
                V[row, unit] = V[row, unit] * momentum + mine[unit] * np.float32(-step_size)
                W[row, unit] += V[row, unit]
            last[row] = number + 1
    for row in range(D):
        catch_up(row, STEPS)
    assert rows.W.tobytes() == W.tobytes()
