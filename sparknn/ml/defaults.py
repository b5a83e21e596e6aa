"""Choose the values of params that are 'auto', from the rows and workers of a fit."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from sparknn.ml.checked_params import AUTO
from sparknn.ml.params import NetworkParams


@dataclass(frozen=True)
class Defaults:
    """The values of these params in one fit, with every 'auto' replaced."""

    maxIter: int
    solver: str
    stepSize: float
    regParam: float
    batchSize: int
    localEpochs: int
    averaging: str
    averagingMomentum: float
    localState: str
    finalWeights: str
    adaptsPenalty: bool


# Measured by tests/benchmarks/averaging.py, for mini-batches of 64 rows.
_STEP_SIZES = {"sgd": 0.3, "momentum": 0.15, "adam": 0.005, "adamw": 0.005, "ngsgd": 0.2}
# The gradient of squared errors is unbounded: momentum diverges at 0.1. Adam's steps are bounded:
# friedman1 (1,200 rows, 2 and 8 workers) reaches an R2 of 0.94 and 0.93; with momentum, at 0.01,
# 0.84 and 0.84.
_TARGET_STEP_SIZES = {"sgd": 0.05, "momentum": 0.01, "adam": 0.02, "adamw": 0.02, "ngsgd": 0.01}
# Texts of 20,000 rows, 16 and 8 classes, 2^16 columns: with 2 workers adam reaches 79.1 and 59.2 %,
# momentum 78.0 and 57.1 %; with 8 workers 79.1 and 58.8 %, momentum 77.6 and 57.2 %, ngsgd 77.7 and
# 56.5 %. (Steps of 0.002 and 0.005: the smaller one has the lower log loss, the larger one suits
# more workers.)
_SPARSE_STEP_SIZES = {"adam": 0.003, "adamw": 0.003}
_MAX_BATCH, _MIN_BATCH = 64, 8
# Steps per round to aim at, with smaller batches if necessary: after fewer, workers that each see
# little of the data have moved too little to be worth averaging.
_STEPS_PER_ROUND = 48
# Few rows do not make that many steps even with the smallest batches: a worker then passes over
# them several times per round. More workers need more passes, as averaging cancels part of their
# progress. With one worker or two, more passes overfit (diabetes).
_STEPS_OF_FEW_ROWS, _MAX_PASSES = 10, 8
# Fewer rows are overfitted without a penalty (digits, noisy classes; diabetes gains 3 points of R2
# with 2 workers, 12 with 8). With more rows a penalty changes no result, and costs two passes over
# the weights in every step. With a handful of rows, such as XOR, a larger penalty learns nothing.
_FEW_ROWS, _HANDFUL = 10_000, 100
# Where numbers are cut into pieces: the penalty of a round is this, by the rows, times the relative
# training loss (see ``FitState.penalty_factor``). Over nine tables (see ``choose_encoding``), log
# losses are 0.92 of XGBoost's; with a fixed 10 / rows 1.00, and 0.3 points less accurate. For
# targets, 40 instead of 20 takes diabetes (331 rows, noisy) from an R2 of 37 to 41, six splits.
_CLASS_PENALTY, _TARGET_PENALTY, _MOST_PENALTY = 60.0, 40.0, 0.2
# A network of many inputs learns classes by heart: with more rows per worker than these, a fit has
# fewer rounds, as many steps. 60,000 rows, 2 workers, 7 rounds instead of 20, two seeds: MNIST
# 98.28 and 98.30 % instead of 98.32 and 98.25 %, log loss 0.066 instead of 0.11; 300 cosines of
# flights, noisy, 76.3 % instead of 74.8 % (and 75.9 % after 9 instead of 74.3 %). Elsewhere fewer
# rounds lose: tables in pieces 0.1 to 0.3 points (30,000 rows, 16 rounds), a regression 0.3 points
# of R2 (40,000 rows, 10 rounds).
_ROUNDS, _FEWEST_ROUNDS, _ROWS_OF_ALL_ROUNDS = 20, 6, 10_000
# In a shorter round the solver's momentum lasts over several rounds already; a second one diverges.
_MIN_STEPS = 20
# For classifiers, natural gradient is worth its costlier step with more workers than this; with
# fewer, momentum is as good. (Other data: tests/benchmarks/averaging.md.)
_MAX_PLAIN_WORKERS = 2


def resolve_defaults(
    params: NetworkParams,
    n_workers: int,
    n_rows: int,
    weight_sum: float,
    *,
    has_validation: bool,
    classifies: bool,
    continues: bool = False,
    sparse: bool = False,
    pieces: bool = False,
    wide: bool = False,
) -> Defaults:
    """Replace every 'auto' among the params by a value.

    Parameters
    ----------
    params : NetworkParams
    n_workers : int
        Workers with rows.
    n_rows : int
        Training rows, over all workers.
    weight_sum : float
        Sum of the weights of these rows.
    has_validation, classifies : bool
    continues : bool
        Whether there is an initial network.
    sparse : bool
        Whether the features are columns of sparse rows.
    pieces : bool
        Whether numbers are encoded by pieces.
    wide : bool
        Whether dense rows have too many features to be encoded by default.
    """

    def given(name: str, default: Any) -> Any:
        value = params.getOrDefault(name)
        return default if value == AUTO else value

    plain = "momentum" if n_workers <= _MAX_PLAIN_WORKERS else "ngsgd"
    solver = given("solver", plain if classifies and not sparse else "adam")
    step_sizes = _STEP_SIZES if classifies else _TARGET_STEP_SIZES
    if sparse:
        step_sizes = step_sizes | _SPARSE_STEP_SIZES
    fraction = params.getMiniBatchFraction()
    rows_per_pass = fraction * n_rows / n_workers
    rows_per_round = rows_per_pass * given("localEpochs", 1)
    fitting = int(rows_per_round) // _STEPS_PER_ROUND
    batch_size = given("batchSize", min(_MAX_BATCH, max(_MIN_BATCH, fitting)))
    # With a fraction set, a round is meant to see part of the rows, once.
    passes = 1 if fraction < 1 else _passes(rows_per_pass / batch_size, n_workers)
    local_epochs = given("localEpochs", passes)
    rows_per_round = rows_per_pass * local_epochs
    long_enough = rows_per_round >= _MIN_STEPS * batch_size
    momentum = _averaging_momentum(n_workers) if long_enough else 0.0
    rule = given("averaging", "nesterov" if given("averagingMomentum", momentum) else "mean")
    penalty = _penalty(n_rows, weight_sum)
    if pieces:
        most = (_CLASS_PENALTY if classifies else _TARGET_PENALTY) / max(n_rows, 1)
        penalty = min(most, _MOST_PENALTY)
    return Defaults(
        maxIter=given(
            "maxIter", _rounds(rows_per_pass) if classifies and wide and not pieces else _ROUNDS
        ),
        solver=solver,
        stepSize=given("stepSize", step_sizes[solver] * _batch_factor(solver, batch_size)),
        # A penalty shrinks weights, and would undo what the initial model has learned.
        regParam=given("regParam", 0.0 if continues else penalty),
        batchSize=batch_size,
        localEpochs=local_epochs,
        averaging=rule,
        averagingMomentum=given("averagingMomentum", 0.0 if rule == "mean" else momentum),
        localState=given("localState", "average"),
        finalWeights=given("finalWeights", "best" if has_validation else "last"),
        adaptsPenalty=pieces and params.getOrDefault("regParam") == AUTO and not continues,
    )


def _rounds(rows_per_round: float) -> int:
    """Return the rounds of a classifier with many inputs, by the rows of a worker in each."""
    rounds = round(_ROUNDS * _ROWS_OF_ALL_ROUNDS / max(rows_per_round, _ROWS_OF_ALL_ROUNDS))
    return max(_FEWEST_ROUNDS, rounds)


def _averaging_momentum(n_workers: int) -> float:
    """Return 1 - K**(-0.4): 0 for one worker, 0.24 for 2, 0.56 for 8, 0.67 for 16."""
    return 1 - float(n_workers) ** -0.4


def _penalty(n_rows: int, weight_sum: float) -> float:
    """Return 1 / rows as float32: a weight sum's last bits depend on the order of the rows.

    From ``_FEW_ROWS`` on it goes straight down, with the slope that 1 / rows has there.
    """
    # A row of weight 2 counts as two rows; weights with a small sum, such as 1, are relative.
    n = float(np.float32(min(max(n_rows, weight_sum), 2 * _FEW_ROWS)))
    penalty = 1 / max(n, _HANDFUL) if n < _FEW_ROWS else max(0.0, 2 - n / _FEW_ROWS) / _FEW_ROWS
    return float(np.float32(penalty))


def _passes(n_steps: float, n_workers: int) -> int:
    """Return the passes per round over a worker's rows, each of ``n_steps`` mini-batches."""
    wanted = min(_STEPS_PER_ROUND, _STEPS_OF_FEW_ROWS * math.sqrt(n_workers))
    return max(1, min(_MAX_PASSES, math.ceil(wanted / n_steps)))


def _batch_factor(solver: str, batch_size: int) -> float:
    """Shorten steps for small, noisy batches; not those of adam, whose length is fixed anyway."""
    return 1.0 if solver in ("adam", "adamw") else min(1.0, math.sqrt(batch_size / _MAX_BATCH))
