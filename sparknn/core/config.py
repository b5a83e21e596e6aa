"""What a fit is told: how workers train, how their networks are averaged, what a round sends."""

from __future__ import annotations

from dataclasses import dataclass

from sparknn.core.nn.network import Network
from sparknn.core.types import Float32Array, Float64Array, FloatArray


@dataclass(frozen=True)
class Standardizer:
    """What is done to every row before the first layer: ``(X - shift) * factor``.

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
    """How one network is trained; the same for every worker and round of a fit.

    Parameters
    ----------
    network : Network
    seed : int
        With the round and the partition it decides every random choice.
    max_iter : int
        Rounds of the fit; the step-size schedule spans them.
    solver : str
        A key of ``SOLVERS``.
    step_size : float
        The peak of the schedule.
    momentum : float
        Of ``momentum`` and ``ngsgd``; the decay of the first moment in ``adam`` and ``adamw``.
    schedule : str
        A key of ``SCHEDULES``.
    l2 : float
        Penalty ``l2 / 2 * ||W||^2``; biases are free.
    dropout : float
        The share of hidden units left out of a step.
    batch_size, local_epochs : int
        Rows in a mini-batch; passes over a round's draw.
    mini_batch_fraction : float
        The share of a shard that a round draws.
    shuffle : bool
        Whether each local epoch reorders its rows.
    local_state : str
        ``average``: the solver's buffers are averaged with the weights; ``reset``: they start at 0.
    max_change : float
        The largest norm of a step before momentum (Kaldi's guard); 0 turns it off.
    standardizer : Standardizer, optional
        Of the features.
    target_standardizer : Standardizer, optional
        Of the targets of a regression, shape (k,).
    class_weight : ndarray, shape (k,), float64, optional
        Multiplies the weights of a class's rows. It must keep the sum of all weights.
    """

    network: Network
    seed: int = 0
    max_iter: int = 20
    solver: str = "momentum"
    step_size: float = 0.1
    momentum: float = 0.9
    schedule: str = "linear"
    l2: float = 0.0
    dropout: float = 0.0
    batch_size: int = 128
    local_epochs: int = 1
    mini_batch_fraction: float = 1.0
    shuffle: bool = True
    local_state: str = "average"
    max_change: float = 2.0
    standardizer: Standardizer | None = None
    target_standardizer: Standardizer | None = None
    class_weight: Float64Array | None = None


@dataclass(frozen=True)
class AveragingConfig:
    """How workers' networks become one.

    Parameters
    ----------
    rule : str
        A key of ``AVERAGING_RULES``.
    momentum, rate : float
    final : str
        Which weights a fit ends with: ``last``, ``best``, ``ema``, ``combine``.
    patience : int
        Rounds without a better validation loss after which the fit stops; 0: never.
    tol : float
        By how much a validation loss must fall to be better.
    """

    rule: str = "mean"
    momentum: float = 0.0
    rate: float = 1.0
    final: str = "last"
    patience: int = 0
    tol: float = 0.0


@dataclass(frozen=True)
class RoundRequest:
    """One network's state at the start of a round, as it is broadcast.

    Parameters
    ----------
    config : TrainConfig
    state : ndarray, shape (1 + buffers, P), float32
        Row 0 is ``theta``; the others are the solver's buffers, if they are averaged.
    n_steps : float
        Steps that the buffers have seen (a mean over workers, so not always whole).
    step_factor : float
        Multiplies the step size; halved after a round in which every worker diverged.
    train : bool
        False to score ``theta`` only.
    n_units, units_ahead : int
        Stints (see ``period``) in this round, and how many more than rounds there were before it.
    """

    config: TrainConfig
    state: Float32Array
    n_steps: float = 0.0
    step_factor: float = 1.0
    train: bool = True
    n_units: int = 1
    units_ahead: int = 0
