"""Losses: from a network's outputs to one number, its gradient, and predictions.

A loss takes the outputs of the last layer before any non-linearity (``logits``, shape (n, k)), the
targets or the numbers of the classes, and a weight per row. It returns the *weighted sum* over the
rows and, in place of the logits, the gradient of that sum: sums add up over batches and workers,
means do not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

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
        ``(logits, y) -> ndarray, shape (n,)``: what the validation metric averages over rows:
        1 for a right answer (its mean is the accuracy), or the squared error.
    classifies : bool
        Whether ``y`` holds class numbers, shape (n,), or targets, shape (n, k).
    """

    value_and_gradient: Callable[[FloatArray, TargetArray, FloatArray, IntArray | None], float]
    values: Callable[[FloatArray, TargetArray], FloatArray]
    metrics: Callable[[FloatArray, TargetArray], FloatArray]
    classifies: bool


def softmax(logits: FloatArray) -> FloatArray:
    """Probabilities of the classes, shape (n, k).

    The largest logit is taken off first, so that ``exp`` cannot overflow.
    """
    P = np.exp(logits - _largest(logits))
    P /= P.sum(axis=1, keepdims=True)
    return P


def _weighted_sum(values: FloatArray, sample_weight: FloatArray) -> float:
    return float(np.dot(values.astype(np.float64), sample_weight.astype(np.float64)))


# Probabilities below it are 0. Of a network that is sure of its rows they would make derivatives
# below 1e-38, with which processors are slow: such rounds took two to seven times as long.
_NOTHING = 1e-20


def _largest(logits: FloatArray) -> FloatArray:
    """The largest logit of each row, shape (n, 1): by columns, in a quarter of the time by rows."""
    return np.asarray(logits.T.copy().max(axis=0))[:, None]


def _cross_entropy_values(logits: FloatArray, y: TargetArray) -> FloatArray:
    shifted = logits - _largest(logits)
    label_index = shifted[np.arange(len(y)), y.astype(np.intp)]
    values: FloatArray = np.log(np.exp(shifted).sum(axis=1)) - label_index
    return values


def flat_label_index(y: TargetArray) -> IntArray:
    """Where each row's class stands in an array of shape (k, n) made flat, whatever k is.

    ``y`` must hold numbers of classes, 0 to k - 1, which is not looked at: ingest has.
    """
    return y.astype(np.intp, copy=False) * len(y) + np.arange(len(y))


def _cross_entropy(
    logits: FloatArray, y: TargetArray, sample_weight: FloatArray, label_index: IntArray | None
) -> float:
    """Softmax cross-entropy, ``-log p[y]``; its gradient is ``p - onehot(y)``."""
    if label_index is None:
        label_index = flat_label_index(y)
    # Class by class: sums and maxima over rows of memory take a quarter of the time. And few calls:
    # each costs more than its arithmetic on a mini-batch.
    P = logits.T.copy()
    flat = P.reshape(-1)
    P -= np.maximum.reduce(P)
    log_own = flat[label_index]
    np.exp(P, out=P)
    P[P < _NOTHING] = 0
    total = np.add.reduce(P)
    loss = float(np.dot(np.log(total) - log_own, sample_weight))
    weight = sample_weight.astype(P.dtype, copy=False)
    P *= weight / total
    flat[label_index] -= weight
    logits[...] = P.T
    return loss


def _is_right(logits: FloatArray, y: TargetArray) -> FloatArray:
    right: FloatArray = (logits.argmax(axis=1) == y).astype(np.float64)
    return right


def _squared_error(logits: FloatArray, y: TargetArray) -> FloatArray:
    errors: FloatArray = ((logits - y) ** 2).sum(axis=1)
    return errors


def _squared_values(logits: FloatArray, y: TargetArray) -> FloatArray:
    return 0.5 * _squared_error(logits, y)


def _squared(
    logits: FloatArray, y: TargetArray, sample_weight: FloatArray, label_index: IntArray | None
) -> float:
    """Half the squared distance to the targets; its gradient is the difference."""
    loss = _weighted_sum(_squared_values(logits, y), sample_weight)
    logits -= y
    logits *= sample_weight[:, None]
    return loss


def _absolute_values(logits: FloatArray, y: TargetArray) -> FloatArray:
    values: FloatArray = np.abs(logits - y).sum(axis=1)
    return values


def _absolute(
    logits: FloatArray, y: TargetArray, sample_weight: FloatArray, label_index: IntArray | None
) -> float:
    """The sum of absolute errors; its gradient is their sign."""
    loss = _weighted_sum(_absolute_values(logits, y), sample_weight)
    logits -= y
    np.sign(logits, out=logits)
    logits *= sample_weight[:, None]
    return loss


def _huber_values(logits: FloatArray, y: TargetArray) -> FloatArray:
    errors = np.abs(logits - y)
    inside = np.minimum(errors, 1)
    values: FloatArray = (inside * (errors - 0.5 * inside)).sum(axis=1)
    return values


def _huber(
    logits: FloatArray, y: TargetArray, sample_weight: FloatArray, label_index: IntArray | None
) -> float:
    """Squared up to an error of 1, absolute beyond (Huber 1964, eq. 2.1, with k = 1).

    TargetArray are standardised inside a fit, so 1 means one standard deviation of the target.
    """
    loss = _weighted_sum(_huber_values(logits, y), sample_weight)
    logits -= y
    np.clip(logits, -1, 1, out=logits)
    logits *= sample_weight[:, None]
    return loss


LOSSES = {
    "crossEntropy": Loss(_cross_entropy, _cross_entropy_values, _is_right, classifies=True),
    "squared": Loss(_squared, _squared_values, _squared_error, classifies=False),
    "absolute": Loss(_absolute, _absolute_values, _squared_error, classifies=False),
    "huber": Loss(_huber, _huber_values, _squared_error, classifies=False),
}
