"""Losses of a network's outputs, with their gradients and metrics.

A loss takes the outputs of the last layer (``logits``, shape (n, k)), targets or class indices, and
a weight per row. It returns the *weighted sum* over the rows and overwrites the logits with the
gradient of that sum. Sums, unlike means, add up over batches and workers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from sparknn.core.types import FloatArray, IntArray, TargetArray


@dataclass(frozen=True)
class Loss:
    """One loss.

    Parameters
    ----------
    value_and_gradient : callable
        ``(logits, y, sample_weight, label_index) -> float``: the weighted sum of the rows' losses;
        ``logits`` is overwritten with its gradient, shape (n, k). ``label_index`` is
        ``flat_label_index(y)``, or None to have it computed.
    values : callable
        ``(logits, y) -> ndarray, shape (n,)``: the loss of each row.
    metrics : callable
        ``(logits, y) -> ndarray, shape (n,)``: the validation metric of each row: 1 for a correct
        prediction and 0 otherwise, so that the mean is the accuracy; or an error of predictions.
    classifies : bool
        Whether ``y`` holds class indices, shape (n,), or targets, shape (n, k).
    metric_name : str
    metric_power : int
        The metric is in units of the targets to this power.
    response : callable, optional
        Convert logits, shape (n, k), to predictions; by default they are the predictions.
    """

    value_and_gradient: Callable[[FloatArray, TargetArray, FloatArray, IntArray | None], float]
    values: Callable[[FloatArray, TargetArray], FloatArray]
    metrics: Callable[[FloatArray, TargetArray], FloatArray]
    classifies: bool
    metric_name: str = "accuracy"
    metric_power: int = 0
    response: Callable[[FloatArray], FloatArray] | None = None


# Smaller probabilities are set to 0: confident networks would otherwise produce denormal gradients,
# which made rounds two to seven times slower.
_MIN_PROBABILITY = 1e-20


def softmax(logits: FloatArray) -> FloatArray:
    """Compute the probabilities of the classes, shape (n, k).

    Subtracting the largest logit keeps ``exp`` from overflowing.
    """
    P = np.exp(logits - _row_max(logits))
    P /= P.sum(axis=1, keepdims=True)
    return P


def flat_label_index(y: TargetArray) -> IntArray:
    """Return the index of each row's class in a flattened array of shape (k, n), for any k.

    ``y`` must hold class indices, 0 to k - 1; ingest has checked this.
    """
    return y.astype(np.intp, copy=False) * len(y) + np.arange(len(y))


def _row_max(logits: FloatArray) -> FloatArray:
    """Return the largest logit of each row, shape (n, 1); by columns, which is 4 times as fast."""
    return np.asarray(logits.T.copy().max(axis=0))[:, None]


def _cross_entropy_values(logits: FloatArray, y: TargetArray) -> FloatArray:
    shifted = logits - _row_max(logits)
    of_label = shifted[np.arange(len(y)), y.astype(np.intp)]
    return np.asarray(np.log(np.exp(shifted).sum(axis=1)) - of_label)


def _cross_entropy(
    logits: FloatArray, y: TargetArray, sample_weight: FloatArray, label_index: IntArray | None
) -> float:
    """Softmax cross-entropy, ``-log p[y]``; its gradient is ``p - onehot(y)``."""
    if label_index is None:
        label_index = flat_label_index(y)
    # Reducing over classes in the transposed array takes a quarter of the time. On a mini-batch, a
    # numpy call costs more than its arithmetic, so there are few of them.
    P = logits.T.copy()
    flat = P.reshape(-1)
    P -= np.maximum.reduce(P)
    of_label = flat[label_index]
    np.exp(P, out=P)
    P[P < _MIN_PROBABILITY] = 0
    total = np.add.reduce(P)
    loss = float(np.dot(np.log(total) - of_label, sample_weight))
    weight = sample_weight.astype(P.dtype, copy=False)
    P *= weight / total
    flat[label_index] -= weight
    logits[...] = P.T
    return loss


def _is_correct(logits: FloatArray, y: TargetArray) -> FloatArray:
    return np.asarray(logits.argmax(axis=1) == y, dtype=np.float64)


def _squared_error(logits: FloatArray, y: TargetArray) -> FloatArray:
    return np.asarray(((logits - y) ** 2).sum(axis=1))


def _squared(errors: FloatArray) -> FloatArray:
    return 0.5 * errors**2


def _squared_gradient(errors: FloatArray) -> None:
    """Leave the errors: they are the gradient."""


def _absolute_gradient(errors: FloatArray) -> None:
    np.sign(errors, out=errors)


def _huber(errors: FloatArray) -> FloatArray:
    """Squared up to an error of 1, absolute beyond (Huber 1964, eq. 2.1, with k = 1).

    Targets are standardised in a fit, so 1 means one standard deviation of the target.
    """
    errors = np.abs(errors)
    inside = np.minimum(errors, 1)
    return inside * (errors - 0.5 * inside)


def _huber_gradient(errors: FloatArray) -> None:
    np.clip(errors, -1, 1, out=errors)


def _half_deviance(logits: FloatArray, y: TargetArray) -> FloatArray:
    """Half the Poisson deviance of the means ``exp(logits)``: 0 if these are ``y``."""
    log_y = np.log(y, out=np.zeros_like(y), where=y > 0)
    return np.asarray((np.exp(logits) - y - y * (logits - log_y)).sum(axis=1))


def _poisson(
    logits: FloatArray, y: TargetArray, sample_weight: FloatArray, _: IntArray | None
) -> float:
    """Half the deviance; its gradient is ``exp(logits) - y``."""
    row_losses = _half_deviance(logits, y).astype(np.float64)
    np.exp(logits, out=logits)
    logits -= y
    logits *= sample_weight[:, None]
    return float(np.dot(row_losses, sample_weight.astype(np.float64)))


def _squared_error_of_means(logits: FloatArray, y: TargetArray) -> FloatArray:
    return _squared_error(np.exp(logits), y)


def _sorted(raw: FloatArray) -> FloatArray:
    """Quantiles that cross, in order: Chernozhukov et al. 2010, doi:10.3982/ECTA7880."""
    return np.sort(raw, axis=1)


def quantile_loss_name(quantiles: Sequence[float]) -> str:
    """Return the name by which ``find_loss`` finds the pinball loss of some quantiles."""
    return "quantile:" + ",".join(str(float(each)) for each in quantiles)


def quantiles_of(name: str) -> list[float]:
    """Return the quantiles of a ``quantile_loss_name``; none for another loss."""
    quantiles = name.partition(":")[2]
    return [float(each) for each in quantiles.split(",")] if quantiles else []


@lru_cache
def find_loss(name: str) -> Loss:
    """Return a loss: a key of ``LOSSES``, or a ``quantile_loss_name``.

    Raises
    ------
    KeyError, ValueError
        If there is no such loss.
    """
    quantiles = quantiles_of(name)
    return _quantile(np.array(quantiles)) if quantiles else LOSSES[name]


def _quantile(levels: FloatArray) -> Loss:
    """Return the pinball loss, one output per level (Koenker and Bassett 1978, eq. 3.1).

    Targets have shape (n, 1). Its sum over the levels is minimal if each output is the quantile of
    its level.
    """

    def pinball(errors: FloatArray) -> FloatArray:
        tau = levels.astype(errors.dtype)
        return np.maximum(-tau * errors, (1 - tau) * errors)

    def gradient(errors: FloatArray) -> None:
        tau = levels.astype(errors.dtype)
        np.subtract(errors > 0, tau, out=errors)

    loss = _regression(pinball, gradient)
    return replace(
        loss,
        metrics=lambda logits, y: pinball(_sorted(logits) - y).mean(axis=1),
        metric_name="pinball loss",
        metric_power=1,
        response=_sorted,
    )


def _regression(
    elementwise: Callable[[FloatArray], FloatArray], gradient: Callable[[FloatArray], None]
) -> Loss:
    """Sum a function of the errors ``logits - y`` over targets; ``gradient`` works in place."""

    def values(logits: FloatArray, y: TargetArray) -> FloatArray:
        return np.asarray(elementwise(logits - y).sum(axis=1))

    def value_and_gradient(
        logits: FloatArray, y: TargetArray, sample_weight: FloatArray, _: IntArray | None
    ) -> float:
        row_losses = values(logits, y).astype(np.float64)
        logits -= y
        gradient(logits)
        logits *= sample_weight[:, None]
        return float(np.dot(row_losses, sample_weight.astype(np.float64)))

    return Loss(value_and_gradient, values, _squared_error, False, "squared error", 2)


LOSSES = {
    "crossEntropy": Loss(_cross_entropy, _cross_entropy_values, _is_correct, classifies=True),
    "squared": _regression(_squared, _squared_gradient),
    "absolute": _regression(np.abs, _absolute_gradient),
    "huber": _regression(_huber, _huber_gradient),
    "poisson": Loss(
        _poisson,
        _half_deviance,
        _squared_error_of_means,
        classifies=False,
        metric_name="squared error",
        metric_power=2,
        response=np.exp,
    ),
}
