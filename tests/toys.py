"""Small data, rows and engines for the tests of the core."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle, pairwise
from typing import Any

import numpy as np

from sparknn.core.config import RoundRequest, TrainConfig
from sparknn.core.data.batches import Batch, allocate_buffers, mini_batches, rng_for
from sparknn.core.data.inputs import Inputs
from sparknn.core.data.rows import ArrayRows, Rows, SparseSlice
from sparknn.core.nn.network import Network
from sparknn.core.nn.solvers import SOLVERS
from sparknn.core.training.aggregation import weight_scale_for
from sparknn.engine.local import LocalEngine

Array = np.ndarray[Any, Any]


def blobs(n: int, d: int = 4, k: int = 3, seed: int = 0) -> tuple[Array, Array]:
    """``n`` rows of ``k`` classes that a small network can separate; classes as float64."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(k, d)) * 1.5
    y = rng.integers(k, size=n)
    return (centres[y] + rng.normal(size=(n, d))).astype(np.float32), y.astype(np.float64)


def curve(n: int, d: int = 4, k: int = 1, seed: int = 0) -> tuple[Array, Array]:
    """``n`` rows with ``k`` smooth targets, shape (n, k), float64."""
    rng = np.random.default_rng(seed)
    slopes = np.random.default_rng(99).normal(size=(d, k))
    X = rng.normal(size=(n, d)).astype(np.float32)
    return X, np.sin(X.astype(np.float64) @ slopes)


def data_for(network: Network, n: int, seed: int = 0) -> tuple[Array, Array]:
    """Rows that ``network`` may be trained on."""
    make = blobs if network.loss_fn.classifies else curve
    return make(n, network.layers[0], network.layers[-1], seed)


def central_differences(function: Callable[[Array], float], theta: Array) -> Array:
    """The gradient of a function of float64 at ``theta``, numerically."""
    numeric = np.empty_like(theta)
    for i in range(theta.size):
        up, down = theta.copy(), theta.copy()
        up[i] += 1e-6
        down[i] -= 1e-6
        numeric[i] = (function(up) - function(down)) / 2e-6
    return numeric


def empty_rows(d: int, k: int = 0) -> ArrayRows:
    """No rows; ``k`` targets, 0 for classes."""
    return ArrayRows(np.empty((0, d), np.float32), np.empty((0, k) if k else 0))


def one_by_one(
    rows: Rows,
    config: TrainConfig,
    round_: int,
    rng: np.random.Generator,
    weight_scale: float | None = None,
) -> Iterator[Batch]:
    """The mini-batches of a round; each overwrites the ``X`` of the one before."""
    buffers = allocate_buffers(rows, config, 1)
    inputs = Inputs(config, buffers.shape[1])
    return mini_batches(rows, config, round_, rng, cycle(buffers), inputs, weight_scale)


def full_batch(network: Network, **changes: Any) -> TrainConfig:
    """One plain step over all rows per round: no schedule, no clipping, no momentum."""
    plain: dict[str, Any] = {
        "solver": "sgd",
        "schedule": "constant",
        "batch_size": 10**6,
        "max_change": 0.0,
        "shuffle": False,
    }
    return TrainConfig(network, **(plain | changes))


def request_of(config: TrainConfig, theta: Array | None = None, **changes: Any) -> RoundRequest:
    """A request at the start of a fit; its state is read-only."""
    if theta is None:
        theta = config.network.init(rng_for(config.seed, 9))
    n_buffers = SOLVERS[config.solver].n_buffers if config.local_state == "average" else 0
    rows = None
    if config.n_sparse:
        rows, theta = config.input_layer.split(theta.astype(np.float32))
        rows.flags.writeable = False
    state = np.vstack([theta[None], np.zeros((n_buffers, theta.size))]).astype(np.float32)
    state.flags.writeable = False
    return RoundRequest(config, state, rows=rows, **changes)


def engine_of(
    X: Array,
    y: Array,
    sizes: Sequence[int],
    sample_weight: Array | None = None,
    validation: tuple[Array, Array] | None = None,
    drop: Callable[[int, int], bool] | None = None,
) -> LocalEngine:
    """Workers with the next ``sizes`` rows each; the first holds the validation rows."""
    edges = np.cumsum([0, *sizes])
    assert edges[-1] == len(X)
    none = ArrayRows(X[:0], y[:0])
    shards = []
    for worker, (a, b) in enumerate(pairwise(edges)):
        weight = None if sample_weight is None else sample_weight[a:b]
        scored = ArrayRows(*validation) if validation is not None and worker == 0 else none
        shards.append((ArrayRows(X[a:b], y[a:b], weight), scored))
    total = float(len(X) if sample_weight is None else sample_weight.sum())
    return LocalEngine(shards, weight_scale_for(total), drop)


@dataclass
class CsrRows:
    """The rows of a dense matrix, kept and read in compressed sparse row form."""

    X: Array
    y: Array
    sample_weight: Array

    @property
    def n_rows(self) -> int:
        return len(self.X)

    @property
    def n_features(self) -> int:
        return self.X.shape[1]

    @property
    def n_targets(self) -> int:
        return 1 if self.y.ndim == 1 else self.y.shape[1]

    @property
    def n_entries(self) -> int:
        return int(np.count_nonzero(self.X))

    def read(self, start: int, stop: int) -> SparseSlice:
        X = self.X[start:stop]
        rows, columns = np.nonzero(X)
        starts = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=len(X)))])
        return SparseSlice(
            values=X[rows, columns],
            columns=columns.astype(np.int32),
            starts=starts.astype(np.int64),
            y=self.y[start:stop],
            sample_weight=self.sample_weight[start:stop],
        )
