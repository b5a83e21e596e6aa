"""From params and facts to a fit of the core: defaults, plan, averaging, and back to a network."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from sparknn.core.fit import Averaging, Fit
from sparknn.core.history import RoundRecord
from sparknn.core.network import Network
from sparknn.core.plan import Plan, Standardizer
from sparknn.core.types import Float32Array, Float64Array
from sparknn.engine.base import DataError, Facts, Moments
from sparknn.ml.declare import AUTO
from sparknn.ml.params import NetworkParams
from sparknn.ml.standardize import fold, robust_standardizer, unfold
from sparknn.ml.together import LoneFit


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
# A mistyped size would end in numpy's word for no memory, or in the machine's having none.
_MOST_PARAMS = 1 << 31


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


@dataclass(frozen=True)
class Target:
    """What a network is to predict, as classifier and regressor see it.

    Parameters
    ----------
    n_outputs : int
        Classes or targets.
    loss : str
        A key of ``LOSSES``.
    standardizer : Standardizer, optional
        Of a regression's targets, shape (k,).
    class_weight : ndarray, shape (k,), optional
    """

    n_outputs: int
    loss: str
    standardizer: Standardizer | None = None
    class_weight: Float64Array | None = None


def make_fit(
    params: NetworkParams,
    facts: Facts,
    moments: Callable[[], Moments],
    target: Target,
    initial: tuple[Network, Float32Array] | None,
    on_round: Callable[[Fit, RoundRecord], None],
) -> LoneFit:
    """A fit that is ready to run.

    Parameters
    ----------
    params : NetworkParams
    facts : Facts
    moments : callable
        Called only if something is standardised.
    target : Target
    initial : (Network, theta), optional
        Where to start.
    on_round : callable
        See ``Fit``.

    Raises
    ------
    ValueError
        If the initial network is of another shape.
    """
    n_workers = sum(n_rows > 0 for n_rows in facts.rows_per_worker)
    chosen = resolve_defaults(
        params,
        n_workers,
        facts.n_rows,
        facts.weight_sum,
        has_validation=facts.n_validation > 0,
        classifies=target.standardizer is None,
        continues=initial is not None,
    )
    if facts.n_validation == 0 and _wants_validation(params):
        raise DataError(
            f"There is no validation row, but {_wants_validation(params)} needs some. No row of "
            f"the validationIndicatorCol is true, or validationFraction drew none."
        )
    hidden, activation = params.getHiddenLayers(), params.getActivation()
    if initial is not None:
        # What is not set is as it was.
        old, _ = initial
        hidden = hidden if params.isSet("hiddenLayers") else list(old.layers[1:-1])
        activation = activation if params.isSet("activation") else old.activation
    layers = (facts.n_features, *hidden, target.n_outputs)
    network = Network(layers, activation, target.loss)
    if network.n_params > _MOST_PARAMS:
        raise DataError(
            f"A network {'-'.join(map(str, layers))} (features, hiddenLayers, outputs) has "
            f"{network.n_params:.2g} parameters; expected at most {_MOST_PARAMS:.2g}, which take "
            f"{4 * _MOST_PARAMS >> 30} GiB. Set smaller hiddenLayers, or look why there are so "
            "many features or classes."
        )
    standardizer = None
    if params.getStandardization():
        standardizer = robust_standardizer(moments(), keep_constant=initial is not None)
    plan = Plan(
        network=network,
        seed=params.getSeed(),
        max_iter=params.getMaxIter(),
        solver=chosen.solver,
        step_size=chosen.stepSize,
        momentum=params.getMomentum(),
        schedule=params.getStepSizeSchedule(),
        l2=chosen.regParam,
        dropout=params.getDropout(),
        batch_size=chosen.batchSize,
        local_epochs=chosen.localEpochs,
        mini_batch_fraction=params.getMiniBatchFraction(),
        shuffle=params.getShuffle(),
        local_state=chosen.localState,
        max_change=params.getMaxChange(),
        standardizer=standardizer,
        target_standardizer=target.standardizer,
        class_weight=target.class_weight,
    )
    averaging = Averaging(
        rule=chosen.averaging,
        momentum=chosen.averagingMomentum,
        rate=chosen.averagingRate,
        final=chosen.finalWeights,
        patience=params.getPatience(),
        tol=params.getTol(),
    )
    theta = None if initial is None else _start(network, *initial, plan)
    return LoneFit(
        plan,
        averaging,
        n_workers,
        theta=theta,
        on_round=on_round,
        adapt_period=params.getPeriod() == "auto",
    )


def _wants_validation(params: NetworkParams) -> str | None:
    """The param, and its value, that makes no sense without validation rows."""
    if params.getPatience() > 0:
        return f"patience={params.getPatience()}"
    if params.getFinalWeights() in ("best", "combine"):
        return f"finalWeights='{params.getFinalWeights()}'"
    return None


def _start(network: Network, old: Network, theta: Float32Array, plan: Plan) -> Float32Array:
    """``theta`` as a network that sees standardised rows must have it to be the same function."""
    if (old.layers, old.activation) != (network.layers, network.activation):
        raise ValueError(
            f"The initial model has layers {list(old.layers)} and activation '{old.activation}'; "
            f"this fit has layers {list(network.layers)} and activation '{network.activation}'. "
            f"Sizes come from the features, hiddenLayers and the labels: make them agree, or clear "
            f"initialModel."
        )
    return unfold(network, theta, plan.standardizer, plan.target_standardizer)


def fitted_theta(fit: Fit) -> Float32Array:
    """The parameters of a fit that has run, for rows as they come. Shape (P,), float32.

    Raises
    ------
    DataError
        If they are beyond float32.
    """
    assert fit.theta is not None
    plan = fit.plan
    with np.errstate(over="ignore"):
        theta = fold(plan.network, fit.theta, plan.standardizer, plan.target_standardizer)
    if not np.isfinite(theta).all():
        raise DataError(
            "The network's weights do not fit into float32, which ends at 3e38: the labels are too "
            "large for it, or features differ by too little. Multiply them by a constant."
        )
    return centred(plan.network, theta) if plan.network.objective.classifies else theta


def centred(network: Network, theta: Float32Array) -> Float32Array:
    """The same classifier, with logits whose mean over the classes is 0. Shape (P,), float32.

    Softmax does not see what is added to all logits of a row, but whoever looks at one logit does:
    BinaryClassificationEvaluator and OneVsRest rank rows by the second of two. Centred, as in
    Spark's logistic regression, that is half the log-odds.
    """
    moved = theta.astype(np.float64)
    last = network.blocks(moved)[-1].both
    last -= last.mean(axis=1, keepdims=True)
    return moved.astype(np.float32)


def in_label_units(record: RoundRecord, plan: Plan) -> RoundRecord:
    """A record whose ``validation_metric`` is the mean squared error of the label itself.

    A fit sees standardised targets. Losses stay as the fit saw them; so does the squared error of
    several targets, which is summed over targets of different units.
    """
    targets = plan.target_standardizer
    if targets is None or len(targets.factor) != 1:
        return record
    metric = record.validation_metric / float(targets.factor[0]) ** 2
    return replace(record, validation_metric=metric)
