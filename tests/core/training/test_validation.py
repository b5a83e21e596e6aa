"""Metrics of validation rows, against scikit-learn's on all rows at once."""

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from sklearn import metrics

from sparknn.core.config import RoundRequest, Standardizer, TrainConfig
from sparknn.core.data.rows import ArrayRows
from sparknn.core.nn.network import Network
from sparknn.core.training.validation import (
    METRICS,
    ValidationScore,
    ValidationSums,
    mean_validation,
)
from sparknn.core.training.worker_round import score

N, D = 3000, 3
FACTOR = 0.02


def request_for(name: str, loss: str = "squared") -> RoundRequest:
    k = 1 if not METRICS[name].classifies else 2 if name == "areaUnderROC" else 4
    network = Network((D, k), loss="crossEntropy" if METRICS[name].classifies else loss)
    targets = Standardizer(np.full(k, 70.0), np.full(k, FACTOR))
    config = TrainConfig(network, target_standardizer=None if METRICS[name].classifies else targets)
    theta = np.random.default_rng(1).normal(size=(1, network.n_params)).astype(np.float32)
    return RoundRequest(config, theta, metric=name)


def rows_for(request: RoundRequest, n: int = N, seed: int = 0) -> ArrayRows:
    """Rows of a teacher near the network, with weights."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, D)).astype(np.float32)
    network = request.config.network
    logits = network.logits(request.state[0], X)
    if network.loss_fn.classifies:
        y = (logits + 3 * rng.gumbel(size=logits.shape)).argmax(axis=1).astype(np.float64)
    else:
        response = network.loss_fn.response or (lambda logits: logits)
        noisy = response(logits) + rng.normal(size=logits.shape)
        y = (np.abs(noisy) if network.loss == "poisson" else noisy) / FACTOR
        y += request.config.target_standardizer.shift
    return ArrayRows(X, y, rng.uniform(0.5, 2, size=n))


def oracle(name: str, request: RoundRequest, rows: ArrayRows) -> float:
    """What scikit-learn says of the predictions, in the labels' units."""
    network = request.config.network
    logits = network.logits(request.state[0], rows.X)
    y, weight = rows.y, rows.sample_weight
    if name == "f1":
        predicted = logits.argmax(axis=1)
        return metrics.f1_score(y, predicted, average="weighted", sample_weight=weight)
    if name == "areaUnderROC":
        return metrics.roc_auc_score(y, logits[:, 1] - logits[:, 0], sample_weight=weight)
    targets = request.config.target_standardizer
    guess = (network.loss_fn.response or (lambda logits: logits))(logits) / FACTOR + targets.shift
    function = {
        "rmse": metrics.root_mean_squared_error,
        "mae": metrics.mean_absolute_error,
        "r2": metrics.r2_score,
    }[name]
    return function(y, guess, sample_weight=weight)


def parts(request: RoundRequest, rows: ArrayRows, cuts: list[int]) -> list[ValidationSums]:
    edges = [0, *cuts, len(rows.y)]
    return [
        score(request, ArrayRows(rows.X[a:b], rows.y[a:b], rows.sample_weight[a:b]))
        for a, b in pairwise(edges)
    ]


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize("loss", ["squared", "poisson"])
def test_workers_add_up_to_the_metric_of_all_rows(name: str, loss: str) -> None:
    request = request_for(name, loss)
    rows = rows_for(request)
    found = mean_validation(parts(request, rows, [100, 101, 2900]), name)
    assert found is not None
    # Rows in a bin of the histogram are ties; the standard error is 0.01.
    tolerance = 1e-4 if name == "areaUnderROC" else 1e-6
    assert found.metric == pytest.approx(oracle(name, request, rows), rel=tolerance)
    better = 1 - found.metric if METRICS[name].maximizes else found.metric
    assert found.objective == better


@pytest.mark.parametrize("name", METRICS)
def test_the_standard_error_is_the_spread_over_samples(name: str) -> None:
    """Of 300 samples the spread is known to about 4 %."""
    request = request_for(name)
    many = [rows_for(request, 400, seed) for seed in range(300)]
    scores = [mean_validation([score(request, rows)], name) for rows in many]
    values = np.array([each.metric for each in scores])
    errors = np.array([each.error for each in scores])
    # Weights between 0.5 and 2 make 400 rows worth 350, which only areaUnderROC knows.
    assert errors.mean() == pytest.approx(values.std(), rel=0.2)


@pytest.mark.parametrize(("name", "y"), [("areaUnderROC", 1.0), ("r2", 3.0)])
def test_rows_may_not_define_a_metric(name: str, y: float) -> None:
    request = request_for(name)
    shape = (5,) if name == "areaUnderROC" else (5, 1)
    rows = ArrayRows(np.ones((5, D), np.float32), np.full(shape, y))
    found = mean_validation([score(request, rows)], name)
    assert found is not None
    assert math.isnan(found.objective)


def test_the_mean_is_over_all_rows() -> None:
    # Sixteen losses of mean 0.5, whose squares have the mean 1.25.
    scores = [ValidationSums(6.0, 2.0, 4.0, 4, 15.0), ValidationSums(2.0, 6.0, 12.0, 12, 5.0)]
    assert mean_validation(scores) == ValidationScore(0.5, 0.5, 0.5, 0.25)
    assert mean_validation(scores, "accuracy") == ValidationScore(0.5, 0.5, 0.5, 0.125)
    lost = [replace(scores[0], loss_sum=math.nan), scores[1]]
    found = mean_validation(lost, "accuracy")
    assert found is not None
    assert found.objective == math.inf


@pytest.mark.parametrize("scores", [[], [ValidationSums(0.0, 0.0, 0.0, 3)]])
def test_without_validation_rows_there_is_no_score(scores: list[ValidationSums]) -> None:
    assert mean_validation(scores) is None
