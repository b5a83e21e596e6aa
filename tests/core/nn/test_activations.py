"""Each activation against its textbook formula, its derivative, and where it saturates."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from toys import Array

from sparknn.core.nn.activations import ACTIVATIONS

REFERENCE: dict[str, Callable[[float], float]] = {
    "relu": lambda z: max(z, 0.0),
    "tanh": math.tanh,
    "sigmoid": lambda z: 1 / (1 + math.exp(-z)),
    "gelu": lambda z: 0.5 * z * (1 + math.tanh(math.sqrt(2 / math.pi) * (z + 0.044715 * z**3))),
    "identity": lambda z: z,
}

NAMES = sorted(ACTIVATIONS)


def forward(name: str, Z: Array) -> Array:
    A = np.empty_like(Z)
    ACTIVATIONS[name].forward(Z.copy(), A)
    return A


def slope(name: str, Z: Array) -> Array:
    dA = np.ones_like(Z)
    ACTIVATIONS[name].backward(dA, Z, forward(name, Z))
    return dA


def test_every_activation_has_a_reference() -> None:
    assert ACTIVATIONS.keys() == REFERENCE.keys()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_forward_is_the_formula(name: str, dtype: type) -> None:
    Z = np.linspace(-12, 12, 241).reshape(-1, 1).astype(dtype)
    expected = [[REFERENCE[name](float(z))] for z in Z[:, 0]]
    A = forward(name, Z)
    assert A.dtype == dtype
    np.testing.assert_allclose(A, expected, rtol=1e-6 if dtype == np.float32 else 1e-12, atol=2e-7)


@pytest.mark.parametrize("name", NAMES)
def test_backward_is_the_derivative(name: str) -> None:
    # None of these is 0, where relu has no derivative.
    Z = np.linspace(-9.99, 10.01, 400).reshape(20, 20)
    step = 1e-6
    numeric = (forward(name, Z + step) - forward(name, Z - step)) / (2 * step)
    np.testing.assert_allclose(slope(name, Z), numeric, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("name", NAMES)
def test_backward_multiplies_the_gradient(name: str) -> None:
    Z = np.linspace(-3, 3, 50).reshape(5, 10)
    dA = np.arange(50.0).reshape(5, 10)
    got = dA.copy()
    ACTIVATIONS[name].backward(got, Z, forward(name, Z))
    np.testing.assert_allclose(got, dA * slope(name, Z), rtol=1e-14)


@pytest.mark.parametrize("name", [name for name in NAMES if not ACTIVATIONS[name].keeps_input])
def test_works_in_place_where_it_says_so(name: str) -> None:
    Z = np.linspace(-3, 3, 50).reshape(5, 10)
    A = Z.copy()
    ACTIVATIONS[name].forward(A, A)
    np.testing.assert_array_equal(A, forward(name, Z))
    dA = np.ones_like(Z)
    ACTIVATIONS[name].backward(dA, A, A)
    np.testing.assert_array_equal(dA, slope(name, Z))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_saturates_without_overflow(name: str, dtype: type) -> None:
    sizes = [20.0, 100.0, 1e4, 1e13, 1e20, 1e37]
    Z = np.array([[-z for z in sizes], sizes], dtype=dtype)
    with np.errstate(all="raise", under="ignore"):
        A, dA = forward(name, Z), slope(name, Z)
    linear = name in {"relu", "gelu", "identity"}
    np.testing.assert_allclose(A[1], Z[1] if linear else 1, rtol=1e-6)
    below = {"tanh": -1, "identity": Z[0]}.get(name, 0)
    np.testing.assert_allclose(A[0], np.broadcast_to(below, 6), rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(dA[1], 1 if linear else 0, atol=1e-8)
    np.testing.assert_allclose(dA[0], 1 if name == "identity" else 0, atol=1e-8)


@pytest.mark.parametrize("name", NAMES)
def test_nan_is_not_hidden(name: str) -> None:
    assert np.isnan(forward(name, np.array([[np.nan]]))).all()


def test_gelu_is_close_to_the_one_with_erf() -> None:
    Z = np.linspace(-6, 6, 601).reshape(-1, 1)
    exact = [[z * 0.5 * (1 + math.erf(z / math.sqrt(2)))] for z in Z[:, 0]]
    np.testing.assert_allclose(forward("gelu", Z), exact, atol=5e-4)
