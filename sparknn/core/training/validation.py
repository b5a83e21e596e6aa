"""Metrics of validation rows: what a worker sums, and the score that the driver computes.

A metric is computed from sums over rows, so workers and batches add up to what all rows together
give. Names and definitions are those of Spark's evaluators.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from sparknn.core.config import TrainConfig
from sparknn.core.types import Float64Array, FloatArray, TargetArray

# A histogram of log-odds z: bins of arcsinh(z), 1/128 wide near z = 0 and 0.8 % of z far from it.
_BINS_PER_UNIT, _N_BINS = 128, 2048


@dataclass(frozen=True)
class ValidationSums:
    """Sums over a worker's validation rows.

    Parameters
    ----------
    loss_sum, metric_sum, weight : float
        Weighted sums of losses and of correct predictions (or squared errors); sum of weights.
    n_rows : int
    square_sum : float
        Weighted sum of squared losses.
    more : ndarray, float64, optional
        ``Metric.sums``, if the fit goes by one of ``METRICS``.
    """

    loss_sum: float
    metric_sum: float
    weight: float
    n_rows: int
    square_sum: float = 0.0
    more: Float64Array | None = None


@dataclass(frozen=True)
class Metric:
    """A metric that needs other sums than the loss does.

    Parameters
    ----------
    sums : callable
        ``(config, logits, y, sample_weight) -> ndarray`` of a batch; sums of batches add up.
    score : callable
        ``(sums, weight, n_rows) -> (value, standard error)``; NaN if the rows do not define it.
    classifies, maximizes : bool
    """

    sums: Callable[[TrainConfig, FloatArray, TargetArray, FloatArray], Float64Array]
    score: Callable[[Float64Array, float, int], tuple[float, float]]
    classifies: bool = False
    maximizes: bool = True


def _class_sums(
    config: TrainConfig, logits: FloatArray, y: TargetArray, weight: FloatArray
) -> Float64Array:
    """Return the weight of rows by class: correct, actual, predicted. Shape (3, k)."""
    label, predicted = y.astype(np.intp), logits.argmax(axis=1)
    count = partial(np.bincount, minlength=logits.shape[1])
    correct = count(label, weight * (label == predicted))
    return np.array([correct, count(label, weight), count(predicted, weight)])


def _f1(sums: Float64Array, weight: float, n_rows: int) -> tuple[float, float]:
    """Return the mean F measure of the classes by their weight; its error as if it were a share."""
    correct, actual, predicted = sums
    both = actual + predicted
    f1 = np.divide(2 * correct, both, out=np.zeros_like(both), where=both > 0)
    value = min(1.0, float(np.dot(actual, f1)) / weight)
    return value, math.sqrt(value * (1 - value) / n_rows)


def _histogram(
    config: TrainConfig, logits: FloatArray, y: TargetArray, weight: FloatArray
) -> Float64Array:
    """Return the weight of rows by log-odds, and in the last bin the squared weights.

    Shape (2, bins + 1): rows of class 0, then of class 1.
    """
    log_odds = np.nan_to_num(logits[:, 1].astype(np.float64) - logits[:, 0])
    bins = np.floor(np.arcsinh(log_odds) * _BINS_PER_UNIT).astype(np.intp) + _N_BINS // 2
    np.clip(bins, 0, _N_BINS - 1, out=bins)
    sums = np.empty((2, _N_BINS + 1))
    for label, mine in enumerate(sums):
        own = np.where(y == label, weight, 0.0)
        mine[:-1] = np.bincount(bins, own, minlength=_N_BINS)
        mine[-1] = np.dot(own, own)
    return sums


def _area_under_roc(sums: Float64Array, weight: float, n_rows: int) -> tuple[float, float]:
    """Return the probability that a row of class 1 scores higher; rows in a bin are ties.

    Its variance: DeLong et al. 1988, doi:10.2307/2531595, eq. 6.
    """
    counts, squares = sums[:, :-1], sums[:, -1]
    totals = counts.sum(axis=1)
    if not totals.all():
        return math.nan, 0.0
    shares = counts / totals[:, None]
    # The share of each class that scores lower than a bin, with half of the ties.
    lower = np.cumsum(shares, axis=1) - shares / 2
    area = float(np.dot(shares[1], lower[0]))
    spread = [
        np.dot(shares[1], (lower[0] - area) ** 2),
        np.dot(shares[0], (1 - lower[1] - area) ** 2),
    ]
    # Squared weights by the square of their sum: 1 / rows, if weights are equal.
    variance = np.dot(spread, (squares / totals**2)[::-1])
    return area, math.sqrt(variance)


def _errors(config: TrainConfig, logits: FloatArray, y: TargetArray) -> Float64Array:
    """Return the errors of the predictions, of standardised targets, shape (n, k)."""
    response = config.network.loss_fn.response
    return np.subtract(logits if response is None else response(logits), y, dtype=np.float64)


def _units(config: TrainConfig) -> Float64Array:
    """Return what an error of 1 is in the labels' units; 0 for a constant target. Shape (k,)."""
    targets = config.target_standardizer
    if targets is None:
        return np.ones(1)
    factor = targets.factor.astype(np.float64)
    return np.divide(1.0, factor, out=np.zeros_like(factor), where=factor != 0)


def _error_sums(
    config: TrainConfig,
    logits: FloatArray,
    y: TargetArray,
    weight: FloatArray,
    size: Callable[[Float64Array], Float64Array],
) -> Float64Array:
    """Return the weighted sums of each row's mean size of its errors, and of its square."""
    values = size(_errors(config, logits, y) * _units(config)).mean(axis=1)
    return np.array([np.dot(values, weight), np.dot(values * values, weight)])


def _mean(sums: Float64Array, weight: float, n_rows: int) -> tuple[float, float]:
    mean, square = sums / weight
    return float(mean), math.sqrt(max(0.0, square - mean * mean) / n_rows)


def _root_mean(sums: Float64Array, weight: float, n_rows: int) -> tuple[float, float]:
    mean, error = _mean(sums, weight, n_rows)
    root = math.sqrt(mean)
    return root, error / (2 * root) if root else 0.0


def _variance_sums(
    config: TrainConfig, logits: FloatArray, y: TargetArray, weight: FloatArray
) -> Float64Array:
    """Return weighted sums of squared errors, targets and their squares; then as ``_error_sums``.

    Of standardised targets, whose sums of squares lose no digits. Shape (3k + 2,).
    """
    squares = _errors(config, logits, y) ** 2
    targets = np.broadcast_to(y, squares.shape).astype(np.float64)
    rows = squares.mean(axis=1)
    each = [weight @ squares, weight @ targets, weight @ targets**2]
    return np.concatenate([*each, [np.dot(rows, weight), np.dot(rows * rows, weight)]])


def _r2(sums: Float64Array, weight: float, n_rows: int) -> tuple[float, float]:
    """Return the mean over targets; its error as if their variance were known."""
    square, mean, mean_square = sums[:-2].reshape(3, -1) / weight
    variance = mean_square - mean * mean
    if variance.min() <= 0:
        return math.nan, 0.0
    unexplained = float((square / variance).mean())
    total, error = _mean(sums[-2:], weight, n_rows)
    return 1 - unexplained, unexplained * error / total if total else 0.0


METRICS = {
    "f1": Metric(_class_sums, _f1, classifies=True),
    "areaUnderROC": Metric(_histogram, _area_under_roc, classifies=True),
    "rmse": Metric(partial(_error_sums, size=np.square), _root_mean, maximizes=False),
    "mae": Metric(partial(_error_sums, size=np.abs), _mean, maximizes=False),
    "r2": Metric(_variance_sums, _r2),
}


def metric_names(*, classifies: bool) -> list[str]:
    """Return what a fit can go by: ``loss``, and the metrics of its kind."""
    found = [name for name, metric in METRICS.items() if metric.classifies == classifies]
    return ["loss", *(["accuracy"] if classifies else []), *found]


@dataclass(frozen=True)
class ValidationScore:
    """What the validation rows say of a network.

    Parameters
    ----------
    loss, metric : float
        Mean loss; the metric that the fit goes by, or the loss's own if it goes by the loss.
    objective, error : float
        What the fit minimizes, and its standard error: the loss, the metric, or 1 less the metric
        if that should be large. NaN if the rows do not define it, infinite if the loss is not
        finite.
    """

    loss: float
    metric: float
    objective: float
    error: float


def mean_validation(scores: Sequence[ValidationSums], by: str = "loss") -> ValidationScore | None:
    """Return the score of all validation rows, by the loss or a metric; None without any rows.

    ``scores`` are in the order of the partitions, so that sums are the same in every run.
    """
    weight = math.fsum(score.weight for score in scores)
    if weight <= 0:
        return None
    loss = math.fsum(score.loss_sum for score in scores) / weight
    metric = math.fsum(score.metric_sum for score in scores) / weight
    n_rows = sum(score.n_rows for score in scores)
    if by == "loss":
        square = math.fsum(score.square_sum for score in scores) / weight
        error = math.sqrt(max(0.0, square - loss * loss) / n_rows)
        return ValidationScore(loss, metric, loss, error)
    if by == "accuracy":
        objective, error = 1 - metric, math.sqrt(metric * max(0.0, 1 - metric) / n_rows)
    else:
        found = METRICS[by]
        sums = np.sum([score.more for score in scores if score.more is not None], axis=0)
        metric, error = found.score(sums, weight, n_rows)
        objective = 1 - metric if found.maximizes else metric
    if not math.isfinite(loss):
        objective, error = math.inf, 0.0
    return ValidationScore(loss, metric, objective, error)
