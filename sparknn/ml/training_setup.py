"""From Params and ingested rows to a fit that is ready to run, and from its end to theta."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from sparknn.core.config import AveragingConfig, Standardizer, TrainConfig
from sparknn.core.nn.network import Network
from sparknn.core.training.fit_state import FitState
from sparknn.core.training.history import RoundRecord
from sparknn.core.types import Float32Array, Float64Array
from sparknn.engine.interface import DataError, DatasetInfo, FeatureStatistics
from sparknn.ml.defaults import resolve_defaults
from sparknn.ml.params import NetworkParams
from sparknn.ml.standardize import fold, robust_standardizer, unfold

# A mistyped size would end in numpy's word for no memory, or in the machine's having none.
_MOST_PARAMS = 1 << 31


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
    info: DatasetInfo,
    statistics: Callable[[], FeatureStatistics],
    target: Target,
    initial: tuple[Network, Float32Array] | None,
    on_round_end: Callable[[FitState, RoundRecord], None],
) -> FitState:
    """A fit that is ready to run.

    Parameters
    ----------
    params : NetworkParams
    info : DatasetInfo
    statistics : callable
        Called only if something is standardised.
    target : Target
    initial : (Network, theta), optional
        Where to start.
    on_round_end : callable
        See ``FitState``.

    Raises
    ------
    ValueError
        If the initial network is of another shape.
    """
    n_workers = sum(n_rows > 0 for n_rows in info.rows_per_worker)
    chosen = resolve_defaults(
        params,
        n_workers,
        info.n_rows,
        info.weight_sum,
        has_validation=info.n_validation > 0,
        classifies=target.standardizer is None,
        continues=initial is not None,
    )
    if info.n_validation == 0 and _wants_validation(params):
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
    layers = (info.n_features, *hidden, target.n_outputs)
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
        standardizer = robust_standardizer(statistics(), keep_constant=initial is not None)
    config = TrainConfig(
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
    averaging = AveragingConfig(
        rule=chosen.averaging,
        momentum=chosen.averagingMomentum,
        rate=chosen.averagingRate,
        final=chosen.finalWeights,
        patience=params.getPatience(),
        tol=params.getTol(),
    )
    theta = None if initial is None else _start(network, *initial, config)
    return FitState(
        config,
        averaging,
        n_workers,
        theta=theta,
        on_round_end=on_round_end,
        adapt_round_length=params.getPeriod() == "auto",
    )


def _wants_validation(params: NetworkParams) -> str | None:
    """The param, and its value, that makes no sense without validation rows."""
    if params.getPatience() > 0:
        return f"patience={params.getPatience()}"
    if params.getFinalWeights() in ("best", "combine"):
        return f"finalWeights='{params.getFinalWeights()}'"
    return None


def _start(
    network: Network, old: Network, theta: Float32Array, config: TrainConfig
) -> Float32Array:
    """``theta`` as a network that sees standardised rows must have it to be the same function."""
    if (old.layers, old.activation) != (network.layers, network.activation):
        raise ValueError(
            f"The initial model has layers {list(old.layers)} and activation '{old.activation}'; "
            f"this fit has layers {list(network.layers)} and activation '{network.activation}'. "
            f"Sizes come from the features, hiddenLayers and the labels: make them agree, or clear "
            f"initialModel."
        )
    return unfold(network, theta, config.standardizer, config.target_standardizer)


def fitted_theta(fit: FitState) -> Float32Array:
    """The parameters of a fit that has run, for rows as they come. Shape (P,), float32.

    Raises
    ------
    DataError
        If they are beyond float32.
    """
    assert fit.theta is not None
    config = fit.config
    with np.errstate(over="ignore"):
        theta = fold(config.network, fit.theta, config.standardizer, config.target_standardizer)
    if not np.isfinite(theta).all():
        raise DataError(
            "The network's weights do not fit into float32, which ends at 3e38: the labels are too "
            "large for it, or features differ by too little. Multiply them by a constant."
        )
    return center_logits(config.network, theta) if config.network.loss_fn.classifies else theta


def center_logits(network: Network, theta: Float32Array) -> Float32Array:
    """The same classifier, with logits whose mean over the classes is 0. Shape (P,), float32.

    Softmax does not see what is added to all logits of a row, but whoever looks at one logit does:
    BinaryClassificationEvaluator and OneVsRest rank rows by the second of two. Centred, as in
    Spark's logistic regression, that is half the log-odds.
    """
    moved = theta.astype(np.float64)
    last = network.blocks(moved)[-1].both
    last -= last.mean(axis=1, keepdims=True)
    return moved.astype(np.float32)


def in_target_units(record: RoundRecord, config: TrainConfig) -> RoundRecord:
    """A record whose ``validation_metric`` is the mean squared error of the label itself.

    A fit sees standardised targets. Losses stay as the fit saw them; so does the squared error of
    several targets, which is summed over targets of different units.
    """
    targets = config.target_standardizer
    if targets is None or len(targets.factor) != 1:
        return record
    metric = record.validation_metric / float(targets.factor[0]) ** 2
    return replace(record, validation_metric=metric)
