"""Configuration of a fit: how workers train, how networks are averaged, what a round sends."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sparknn.core.nn.encoding import Encoding
from sparknn.core.nn.input_layer import InputLayer
from sparknn.core.nn.network import Network
from sparknn.core.types import Float32Array, Float64Array, FloatArray


@dataclass(frozen=True)
class Standardizer:
    """Standardises rows before the first layer: ``(X - shift) * factor``.

    Parameters
    ----------
    shift, factor : ndarray, shape (d,)
        float32 for features, float64 for targets.
    """

    shift: FloatArray
    factor: FloatArray

    def apply(self, X: Float32Array) -> None:
        """Standardise ``X``, shape (n, d), in place."""
        X -= self.shift
        X *= self.factor


@dataclass(frozen=True)
class TrainConfig:
    """How a network is trained; the same for every worker and round of a fit.

    Parameters
    ----------
    network : Network
    seed : int
        With the round and the partition it determines every random choice.
    max_iter : int
        Rounds of the fit, over which the step-size schedule runs.
    solver : str
        A key of ``SOLVERS``.
    step_size : float
        Largest step size of the schedule.
    momentum : float
        Momentum of ``momentum`` and ``ngsgd``; decay of the first moment in ``adam`` and ``adamw``.
    schedule : str
        A key of ``SCHEDULES``.
    l2 : float
        Penalty ``l2 / 2 * ||W||^2``, without biases.
    null_loss : float
        Loss of the best constant prediction. If it is not 0, a round's penalty is in proportion to
        the last round's training loss, relative to this: see ``FitState.penalty_factor``.
    dropout : float
        Share of hidden units that a step drops.
    batch_size, local_epochs : int
        Rows in a mini-batch; passes over the rows that a round draws.
    mini_batch_fraction : float
        Share of a shard that a round draws.
    shuffle : bool
        Whether each local epoch reorders its rows.
    local_state : str
        ``average``: the solver's buffers are averaged with the weights; ``reset``: they start each
        round at 0.
    max_change : float
        Clips the norm of a step, before momentum (as Kaldi does); 0: no limit.
    n_sparse : int
        Inputs of the sparse block, the first ones; the others are dense.
    encoding : Encoding, optional
        How features become inputs; by default, they are the inputs.
    standardizer : Standardizer, optional
        For inputs. In the sparse block it shifts few columns: each shifted one is dense.
    target_standardizer : Standardizer, optional
        For the targets of a regression, shape (k,).
    class_weight : ndarray, shape (k,), float64, optional
        Multiplies the weights of each class's rows. The sum of all weights must not change.
    """

    network: Network
    seed: int = 0
    max_iter: int = 20
    solver: str = "momentum"
    step_size: float = 0.1
    momentum: float = 0.9
    schedule: str = "linear"
    l2: float = 0.0
    null_loss: float = 0.0
    dropout: float = 0.0
    batch_size: int = 128
    local_epochs: int = 1
    mini_batch_fraction: float = 1.0
    shuffle: bool = True
    local_state: str = "average"
    max_change: float = 2.0
    n_sparse: int = 0
    encoding: Encoding | None = None
    standardizer: Standardizer | None = None
    target_standardizer: Standardizer | None = None
    class_weight: Float64Array | None = None

    @property
    def n_dense(self) -> int:
        """Number of dense inputs."""
        return self.network.layers[0] - self.n_sparse

    @property
    def has_sparse_rows(self) -> bool:
        """Whether rows are sparse themselves, and not encoded."""
        return self.n_sparse > 0 and self.encoding is None

    @property
    def input_layer(self) -> InputLayer:
        """Where the inputs are in ``theta``."""
        return InputLayer(self.network, self.n_sparse)

    def initial_theta(self, rng: np.random.Generator) -> FloatArray:
        """Draw initial parameters, shape (P,), float32: see ``Network.init``.

        Values of embedded categories start at 0, like values that no row has, if other inputs tell
        the hidden units apart.
        """
        if self.encoding is None or not self.n_sparse:
            return self.network.init(rng)
        theta = np.zeros(self.network.n_params, dtype=np.float32)
        W, dense = self.input_layer.split(theta)
        dense[...] = self.input_layer.dense.init(rng)
        if not self.n_dense:
            bound = np.sqrt(3 * 2 / len(self.encoding.embedded))
            W[...] = rng.uniform(-bound, bound, size=W.shape)
        return theta


@dataclass(frozen=True)
class AveragingConfig:
    """How workers' networks are averaged, and which weights a fit ends with.

    Parameters
    ----------
    rule : str
        A key of ``AVERAGING_RULES``.
    momentum : float
        Of the rule.
    final : str
        One of ``FINAL_WEIGHTS``.
    patience : int
        Rounds without a better score before the fit stops; 0: no early stopping.
    tol : float
        Least gain that counts as better.
    metric : str
        One of ``metric_names``: what scores a network on the validation rows.
    """

    rule: str = "mean"
    momentum: float = 0.0
    final: str = "last"
    patience: int = 0
    tol: float = 0.0
    metric: str = "loss"


@dataclass(frozen=True)
class RoundRequest:
    """One network's state at the start of a round, broadcast to the workers.

    Parameters
    ----------
    config : TrainConfig
    state : ndarray, shape (1 + buffers, P), float32
        ``theta``, then the solver's buffers if these are averaged. Of a network with a sparse
        block, without that block's weights (see ``input_layer``).
    n_steps : float
        Steps so far, for bias corrections: a mean over workers, so not always an integer.
    step_factor : float
        Multiplies the step size; halved after each round in which all workers diverged.
    train : bool
        False: only score ``theta``.
    n_units, units_ahead : int
        Units of local work (see ``round_length``) in this round; by how many more units than rounds
        the fit is ahead.
    rows : ndarray, shape (n_sparse, h), float32, optional
        Weights of the sparse block.
    penalty_factor : float
        Multiplies the L2 penalty.
    metric : str
        What to sum over validation rows: see ``AveragingConfig``.
    """

    config: TrainConfig
    state: Float32Array
    n_steps: float = 0.0
    step_factor: float = 1.0
    train: bool = True
    n_units: int = 1
    units_ahead: int = 0
    rows: Float32Array | None = None
    penalty_factor: float = 1.0
    metric: str = "loss"
