"""Build a fit from Params and ingested rows, and get the model's theta from a finished fit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from sparknn.core.config import AveragingConfig, Standardizer, TrainConfig
from sparknn.core.nn.encoding import Encoding
from sparknn.core.nn.network import MAX_PARAMS, Network
from sparknn.core.predictor import LocalPredictor
from sparknn.core.training.fit_state import FitState
from sparknn.core.training.history import RoundRecord
from sparknn.core.training.validation import METRICS
from sparknn.core.types import Float32Array, Float64Array
from sparknn.engine.interface import DataError, Engine
from sparknn.ml.checked_params import AUTO
from sparknn.ml.defaults import resolve_defaults
from sparknn.ml.encode import (
    MOST_ENCODED,
    SAMPLE_ROWS,
    choose_encoding,
    encoded_standardizer,
    encodes_numbers,
    number_of_pieces,
)
from sparknn.ml.params import NetworkParams
from sparknn.ml.standardize import (
    Folding,
    difference,
    fold,
    robust_standardizer,
    sparse_standardizer,
    unfold,
    unfolding,
)


@dataclass(frozen=True)
class Target:
    """Describe what a network predicts, as classifier and regressor define it.

    Parameters
    ----------
    n_outputs : int
        Classes or targets.
    loss : str
        A key of ``LOSSES``.
    standardizer : Standardizer, optional
        Of the targets of a regression, shape (k,).
    class_weight : ndarray, shape (k,), optional
    null_loss : float
        Training loss of the best constant prediction.
    """

    n_outputs: int
    loss: str
    standardizer: Standardizer | None = None
    class_weight: Float64Array | None = None
    null_loss: float = 0.0


def make_fit(
    params: NetworkParams,
    engine: Engine,
    target: Target,
    initial: LocalPredictor | None,
    on_round_end: Callable[[FitState, RoundRecord], bool | None],
    feature_names: Mapping[int, str] | None = None,
) -> FitState:
    """Return a fit that is ready to run.

    Parameters
    ----------
    params : NetworkParams
    engine : Engine
        Its statistics and its sample are computed only if they are needed.
    target : Target
    initial : LocalPredictor, optional
        Network to continue from, with its encoding and its offsets.
    on_round_end : callable
        See ``FitState``.
    feature_names : mapping of int to str, optional
        Names of features, for messages.

    Raises
    ------
    ValueError
        If the initial network is of another shape.
    """
    info = engine.info
    encoding, sample = _encode(params, engine, initial, feature_names or {})
    pieces = encoding is not None and encoding.has_pieces
    n_workers = sum(n_rows > 0 for n_rows in info.rows_per_worker)
    chosen = resolve_defaults(
        params,
        n_workers,
        info.n_rows,
        info.weight_sum,
        has_validation=info.n_validation > 0,
        classifies=target.standardizer is None,
        continues=initial is not None,
        sparse=info.sparse,
        pieces=pieces,
        wide=info.n_features > MOST_ENCODED and not info.sparse,
    )
    if info.n_validation == 0 and (names := params_that_need_validation(params)):
        values = " and ".join(f"{name}={params.getOrDefault(name)!r}" for name in names)
        raise DataError(
            f"There are no validation rows, but {values} needs some: no row of the "
            "validationIndicatorCol is true, or there is just one row."
        )
    hidden, activation = params.getHiddenLayers(), params.getActivation()
    if initial is not None:
        # Params that are not set come from the initial network.
        old = initial.network
        hidden = hidden if params.isSet("hiddenLayers") else list(old.layers[1:-1])
        activation = activation if params.isSet("activation") else old.activation
    n_sparse = info.n_features if info.sparse else 0
    n_inputs = info.n_features
    if encoding is not None:
        n_sparse, n_inputs = encoding.n_embedded, encoding.n_embedded + encoding.n_dense
    layers = (n_inputs, *hidden, target.n_outputs)
    network = Network(layers, activation, target.loss)
    if network.n_params > MAX_PARAMS:
        raise DataError(
            f"A network {'-'.join(map(str, layers))} (inputs, hiddenLayers, outputs) has "
            f"{network.n_params:.2g} parameters; expected at most {MAX_PARAMS:.2g}, which take "
            f"{4 * MAX_PARAMS >> 30} GiB. Set smaller hiddenLayers, or check why there are so "
            "many features or classes."
        )
    standardizer = None
    if params.getStandardization():
        keep_constant = initial is not None
        if encoding is not None:
            standardizer = encoded_standardizer(encoding, sample, keep_constant=keep_constant)
        else:
            choose = sparse_standardizer if info.sparse else robust_standardizer
            standardizer = choose(engine.statistics(), keep_constant=keep_constant)
    config = TrainConfig(
        network=network,
        seed=params.getSeed(),
        max_iter=chosen.maxIter,
        solver=chosen.solver,
        step_size=chosen.stepSize,
        momentum=params.getMomentum(),
        schedule=params.getStepSizeSchedule(),
        l2=chosen.regParam,
        null_loss=target.null_loss if chosen.adaptsPenalty else 0.0,
        dropout=params.getDropout(),
        batch_size=chosen.batchSize,
        local_epochs=chosen.localEpochs,
        mini_batch_fraction=params.getMiniBatchFraction(),
        shuffle=params.getShuffle(),
        local_state=chosen.localState,
        max_change=params.getMaxChange(),
        n_sparse=n_sparse,
        encoding=encoding,
        standardizer=standardizer,
        target_standardizer=target.standardizer,
        class_weight=target.class_weight,
    )
    averaging = AveragingConfig(
        rule=chosen.averaging,
        momentum=chosen.averagingMomentum,
        final=chosen.finalWeights,
        patience=params.getPatience(),
        tol=params.getTol(),
        metric=params.getValidationMetric(),
    )
    theta = None if initial is None else _initial_theta(initial, config, info.input_offset)
    return FitState(
        config,
        averaging,
        n_workers,
        theta=theta,
        on_round_end=on_round_end,
        adapt_round_length=params.getPeriod() == "auto",
    )


def _encode(
    params: NetworkParams,
    engine: Engine,
    initial: LocalPredictor | None,
    names: Mapping[int, str],
) -> tuple[Encoding | None, Float32Array]:
    """Return the encoding, None if features are the inputs, and the sample that it comes from."""
    info, nothing = engine.info, np.empty((0, 0), dtype=np.float32)
    keeps_missing = params.getHandleInvalid() == "keep"
    if keeps_missing:
        _check_replaces_missing(engine, initial)
    if initial is not None:
        if initial.encoding is None or initial.encoding.n_features != info.n_features:
            return None, nothing
        gap = difference(info.input_offset, initial.input_offset)
        encoding = initial.encoding if gap is None else initial.encoding.moved(gap)
        return encoding, engine.sample(SAMPLE_ROWS)
    if info.sparse:
        return None, nothing
    wanted, categories = params.getNumericEncoding(), dict(info.categories)
    for feature, n_values in info.categories:
        if not n_values:
            high = engine.statistics().high[feature]
            # A category without any value has one, which no row has.
            categories[feature] = 1 if np.isnan(high) else int(high) + 1
    cuts = wanted == "piecewise" or (
        wanted == AUTO
        and params.getStandardization()
        and encodes_numbers(info.n_features, info.n_rows)
    )
    if not (cuts or categories or keeps_missing):
        return None, nothing
    sample = engine.sample(SAMPLE_ROWS)
    if np.isnan(sample).all(axis=0).any():
        empty = np.flatnonzero(np.isnan(engine.statistics().high))
        if len(empty):
            shown = ", ".join(str(names.get(number, number)) for number in empty[:10])
            raise DataError(f"Features {shown} have no value in any training row. Leave them out.")
    encoding = choose_encoding(
        sample,
        categories,
        pieces=number_of_pieces(info.n_rows, info.n_features) if cuts else 0,
        keeps_missing=keeps_missing,
    )
    return (encoding if encoding.changes else None), sample


def _check_replaces_missing(engine: Engine, initial: LocalPredictor | None) -> None:
    """Raise DataError if rows have missing features that no encoding would replace."""
    encoding = None if initial is None else initial.encoding
    replaces = encoding is not None and encoding.fill is not None
    if replaces or (initial is None and not engine.info.sparse):
        return
    # The mean of a feature with missing values is NaN.
    missing = np.isnan(engine.statistics().mean)
    if encoding is not None and encoding.n_features == len(missing):
        missing[encoding.categories] = False
    if missing.any():
        why = "features are sparse" if initial is None else "the initial model does not expect them"
        raise DataError(
            f"{int(missing.sum())} features have missing values (feature {int(missing.argmax())} "
            f"is the first), which handleInvalid='keep' does not replace here: {why}. Impute them, "
            "or set handleInvalid='skip'."
        )


def params_that_need_validation(params: NetworkParams) -> list[str]:
    """Return the names of the params whose values have no effect without validation rows."""
    needs = {
        "patience": params.getPatience() > 0,
        "tol": params.getTol() > 0,
        "finalWeights": params.getFinalWeights() == "best",
        "validationMetric": params.getValidationMetric() != "loss",
    }
    return [name for name, needed in needs.items() if needed]


def _initial_theta(
    initial: LocalPredictor, config: TrainConfig, input_offset: Float64Array | None
) -> Float32Array:
    """Convert a model's ``theta`` to the same function of standardised rows."""
    network, old = config.network, initial.network
    if (old.layers, old.activation) != (network.layers, network.activation):
        raise ValueError(
            f"The initial model has layers {list(old.layers)} and activation '{old.activation}'; "
            f"this fit has layers {list(network.layers)} and activation '{network.activation}'. "
            "Sizes come from the features, hiddenLayers and the labels: make them equal, or clear "
            "initialModel."
        )
    if old.loss != network.loss and "poisson" in (old.loss, network.loss):
        raise ValueError(
            f"The initial model has loss '{old.loss}'; this fit has loss '{network.loss}'. With "
            "'poisson', outputs are logarithms of the predictions: train both with the same loss, "
            "or clear initialModel."
        )
    return unfold(network, initial.theta, *unfolding(config, input_offset, initial))


def fitted_network(fit: FitState, input_offset: Float64Array | None = None) -> LocalPredictor:
    """Return the network of a finished fit, for unscaled rows.

    Parameters
    ----------
    fit : FitState
    input_offset : ndarray, shape (d,), optional
        What was subtracted from the features at ingest.

    Raises
    ------
    DataError
        If they exceed the range of float32.
    """
    assert fit.theta is not None
    network, folding = fit.config.network, Folding.of(fit.config, input_offset)
    with np.errstate(over="ignore"):
        theta = fold(network, fit.theta, folding.features, folding.targets)
    if not np.isfinite(theta).all():
        raise DataError(
            "The network's weights exceed the range of float32 (3e38): labels are too large, or "
            "features vary too little. Multiply them by a constant."
        )
    if network.loss_fn.classifies:
        theta = center_logits(network, theta)
    return LocalPredictor(
        network,
        theta,
        encoding=fit.config.encoding,
        input_offset=folding.input_offset,
        output_offset=folding.output_offset,
    )


def center_logits(network: Network, theta: Float32Array) -> Float32Array:
    """Return the same classifier, with logits of mean 0 over the classes. Shape (P,), float32.

    Adding a number to all logits of a row does not change its softmax, but it changes each logit:
    BinaryClassificationEvaluator and OneVsRest rank rows by the second of two. Centered, as in
    Spark's logistic regression, that logit is half the log-odds.
    """
    moved = theta.astype(np.float64)
    last = network.blocks(moved)[-1].both
    last -= last.mean(axis=1, keepdims=True)
    return moved.astype(np.float32)


def in_target_units(record: RoundRecord, fit: FitState) -> RoundRecord:
    """Return the record with ``validation_metric`` as an error in the label's units.

    A fit sees standardised targets. Losses keep those units; so does the squared error of several
    targets, which is a sum over targets of different units.
    """
    targets = fit.config.target_standardizer
    if targets is None or len(targets.factor) != 1 or fit.averaging.metric in METRICS:
        return record
    factor = float(targets.factor[0]) ** fit.config.network.loss_fn.metric_power
    # A constant target, of factor 0, is predicted as it is.
    metric = record.validation_metric / factor if factor else 0.0 * record.validation_metric
    return replace(record, validation_metric=metric)
