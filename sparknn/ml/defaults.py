"""What 'auto' stands for: the one place where a fit chooses defaults."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from sparknn.ml.checked_params import AUTO
from sparknn.ml.params import NetworkParams


@dataclass(frozen=True)
class Defaults:
    """What 'auto' stands for in one fit."""

    solver: str
    stepSize: float
    regParam: float
    batchSize: int
    localEpochs: int
    averaging: str
    averagingMomentum: float
    averagingRate: float
    localState: str
    finalWeights: str


# Measured by tests/benchmarks/averaging.py, for mini-batches of 64 rows.
_STEP_SIZES = {"sgd": 0.3, "momentum": 0.15, "adam": 0.005, "adamw": 0.005, "ngsgd": 0.2}
# Squared errors have no bound on their gradient: momentum diverges at 0.1. Adam's steps have one:
# friedman1 (1,200 rows, 2 and 8 workers) gets to an R2 of 0.94 and 0.93; with momentum, at 0.01,
# to 0.84 and 0.84.
_TARGET_STEP_SIZES = {"sgd": 0.05, "momentum": 0.01, "adam": 0.02, "adamw": 0.02, "ngsgd": 0.01}
_MOST_BATCH, _LEAST_BATCH = 64, 8
# Steps that a round should take, with smaller batches if need be: fewer, and workers of whom each
# sees little of the data have moved too little to be worth averaging.
_STEPS_A_ROUND = 48
# With even the smallest batches, few rows do not make that many: a worker then passes over them
# several times a round, the more so the more workers there are, as averaging takes from their
# progress. With one worker or two, more passes overfit (diabetes).
_STEPS_OF_FEW_ROWS, _MOST_PASSES = 10, 8
# Fewer rows are overfitted without a penalty (digits, noisy classes; diabetes gains 3 points of R2
# with 2 workers, 12 with 8). With more it changes no result, and costs two passes over the weights
# in every step. With a handful of rows, those of XOR for one, more of a penalty learns nothing.
_FEW_ROWS, _HANDFUL = 10_000, 100
# In a shorter round the solver's momentum reaches over rounds already; a second one diverges.
_LEAST_STEPS = 20
# To tell classes apart, natural gradient is worth its costlier step with more workers than these;
# with fewer, momentum is as good. (Other data: tests/benchmarks/averaging.md.)
_MOST_PLAIN_WORKERS = 2


def resolve_defaults(
    params: NetworkParams,
    n_workers: int,
    n_rows: int,
    weight_sum: float,
    *,
    has_validation: bool,
    classifies: bool,
    continues: bool = False,
) -> Defaults:
    """Replace every 'auto' among the params by a value; the one place where defaults are chosen.

    Parameters
    ----------
    params : NetworkParams
    n_workers : int
        Workers that have rows.
    n_rows : int
        Training rows, over all workers.
    weight_sum : float
        Of these rows.
    has_validation, classifies : bool
    continues : bool
        Whether there is an initial network.
    """

    def given(name: str, default: Any) -> Any:
        value = params.getOrDefault(name)
        return default if value == AUTO else value

    plain = "momentum" if n_workers <= _MOST_PLAIN_WORKERS else "ngsgd"
    solver = given("solver", plain if classifies else "adam")
    step_sizes = _STEP_SIZES if classifies else _TARGET_STEP_SIZES
    fraction = params.getMiniBatchFraction()
    n_a_pass = fraction * n_rows / n_workers
    n_drawn = n_a_pass * given("localEpochs", 1)
    most = int(n_drawn) // _STEPS_A_ROUND
    batch_size = given("batchSize", min(_MOST_BATCH, max(_LEAST_BATCH, most)))
    # Who asks for a part of the rows in a round does not want it several times.
    passes = 1 if fraction < 1 else _passes(n_a_pass / batch_size, n_workers)
    local_epochs = given("localEpochs", passes)
    n_drawn = n_a_pass * local_epochs
    momentum = _averaging_momentum(n_workers) if n_drawn >= _LEAST_STEPS * batch_size else 0.0
    rule = given("averaging", "nesterov" if given("averagingMomentum", momentum) else "mean")
    if rule == "bmuf":
        # Its sum over rounds then amounts to the mean (Chen and Huo 2016, section 3).
        momentum = 1 - 1 / n_workers
    return Defaults(
        solver=solver,
        stepSize=given("stepSize", step_sizes[solver] * _for_batches(solver, batch_size)),
        # A penalty draws to 0, and would make a network forget what it has from elsewhere.
        regParam=given("regParam", 0.0 if continues else _penalty(n_rows, weight_sum)),
        batchSize=batch_size,
        localEpochs=local_epochs,
        averaging=rule,
        averagingMomentum=given("averagingMomentum", 0.0 if rule == "mean" else momentum),
        averagingRate=given("averagingRate", 1.0),
        localState=given("localState", "average"),
        finalWeights=given("finalWeights", "best" if has_validation else "last"),
    )


def _averaging_momentum(n_workers: int) -> float:
    """1 - K**(-0.4): 0 for one worker, 0.24 for 2, 0.56 for 8, 0.67 for 16."""
    return 1 - float(n_workers) ** -0.4


def _penalty(n_rows: int, weight_sum: float) -> float:
    """1 / rows, in float32: the last bits of a sum of weights depend on the order of the rows."""
    # A row of weight 2 is two rows; weights that add up to little, say to 1, are relative.
    n = float(np.float32(min(max(n_rows, weight_sum), _FEW_ROWS)))
    return float(np.float32(1 / max(n, _HANDFUL))) if n < _FEW_ROWS else 0.0


def _passes(n_steps: float, n_workers: int) -> int:
    """Passes over a worker's rows, of ``n_steps`` mini-batches each, that make a round."""
    wanted = min(_STEPS_A_ROUND, _STEPS_OF_FEW_ROWS * math.sqrt(n_workers))
    return max(1, min(_MOST_PASSES, math.ceil(wanted / n_steps)))


def _for_batches(solver: str, batch_size: int) -> float:
    """Smaller batches are noisier, and want shorter steps; adam's are of one length anyway."""
    return 1.0 if solver in ("adam", "adamw") else min(1.0, math.sqrt(batch_size / _MOST_BATCH))
