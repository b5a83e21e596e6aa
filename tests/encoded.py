"""Make encodings and rows of tables for tests."""

import numpy as np
from toys import Array

from sparknn.core.nn.encoding import Encoding

INF = float("inf")
PLAIN = (0.0, 1.0, -INF, INF)


def encoding_of(
    n_features: int,
    numbers: list[tuple[int, float, float, float, float]],
    *,
    fill: list[float] | None = None,
    missing: list[int] | None = None,
    onehot: list[tuple[int, int]] | None = None,
    embedded: list[tuple[int, int]] | None = None,
) -> Encoding:
    """An encoding of (feature, start, slope, low, high)."""
    table = np.array(numbers, dtype=np.float64).reshape(-1, 5)
    start, slope, low, high = table[:, 1:].T.astype(np.float32)
    return Encoding(
        n_features,
        table[:, 0].astype(np.intp),
        start,
        slope,
        low,
        high,
        None if fill is None else np.array(fill, dtype=np.float32),
        np.array(missing or [], dtype=np.intp),
        np.array(onehot or [], dtype=np.intp).reshape(-1, 2),
        np.array(embedded or [], dtype=np.intp).reshape(-1, 2),
    )


def mixed() -> Encoding:
    """A cut number, a plain one, a category each one-hot and embedded, a second embedded one."""
    return encoding_of(
        5,
        [
            (0, -1.0, 1.0, 0.0, 1.0),
            (0, 0.0, 0.5, 0.0, 1.0),
            (0, 2.0, 4.0, 0.0, 1.0),
            (0, 0.5, 0.25, -3.0, 3.0),
            (2, *PLAIN),
        ],
        fill=[0.25, 0.0, 7.0, 0.0, 0.0],
        missing=[0, 2],
        onehot=[(1, 3)],
        embedded=[(3, 70), (4, 2)],
    )


def rows_of_mixed(n: int, seed: int = 0) -> Array:
    rng = np.random.default_rng(seed)
    X = np.empty((n, 5), dtype=np.float32)
    X[:, 0], X[:, 2] = rng.normal(size=n) * 2, rng.normal(size=n) * 10
    X[:, 1], X[:, 3], X[:, 4] = (rng.integers(k, size=n) for k in (4, 72, 2))
    X[rng.random(X.shape) < 0.2] = np.nan
    return X
