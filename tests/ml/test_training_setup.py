"""Build a fit from params and data, and get the model's parameters from it."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from sparknn import NeuralNetClassifier
from sparknn.core.nn.network import Network
from sparknn.engine.interface import DatasetInfo
from sparknn.ml.defaults import resolve_defaults
from sparknn.ml.training_setup import Target, center_logits, make_fit


@pytest.mark.parametrize("layers", [(5, 2), (5, 7, 3)])
def test_centred_logits_are_the_same_classifier(layers: tuple[int, ...]) -> None:
    network = Network(layers)
    rng = np.random.default_rng(0)
    theta = rng.normal(size=network.n_params).astype(np.float32)
    X = rng.normal(size=(50, 5)).astype(np.float32)

    moved = center_logits(network, theta)

    logits, before = network.logits(moved, X), network.logits(theta, X)
    assert moved.dtype == np.float32
    np.testing.assert_allclose(logits.mean(axis=1), 0, atol=1e-5)
    # Softmax sees differences only.
    np.testing.assert_allclose(logits - logits[:, :1], before - before[:, :1], atol=1e-4)
    np.testing.assert_allclose(center_logits(network, moved), moved, atol=1e-6)


@pytest.mark.parametrize(
    ("n_rows", "n_workers", "passes"),
    [(60_000, 1, 1), (60_000, 16, 1), (1_200, 2, 1), (280, 2, 1), (1_200, 8, 2), (150, 32, 8)],
)
def test_few_rows_are_passed_over_several_times(n_rows: int, n_workers: int, passes: int) -> None:
    def passes_of(net: NeuralNetClassifier) -> int:
        chosen = resolve_defaults(
            net, n_workers, n_rows, float(n_rows), has_validation=False, classifies=True
        )
        return chosen.localEpochs

    assert passes_of(NeuralNetClassifier()) == passes
    assert passes_of(NeuralNetClassifier(localEpochs=3)) == 3
    assert passes_of(NeuralNetClassifier(miniBatchFraction=0.5)) == 1


@pytest.mark.parametrize(
    ("n_rows", "n_workers", "rounds"),
    [(100, 2, 20), (20_000, 2, 20), (60_000, 2, 7), (60_000, 8, 20), (10**9, 8, 6)],
)
def test_wide_classifiers_of_many_rows_need_fewer_rounds(
    n_rows: int, n_workers: int, rounds: int
) -> None:
    def rounds_of(*, wide: bool = True, classifies: bool = True, **params: Any) -> int:
        return resolve_defaults(
            NeuralNetClassifier(**params),
            n_workers,
            n_rows,
            float(n_rows),
            has_validation=False,
            classifies=classifies,
            wide=wide,
        ).maxIter

    assert rounds_of() == rounds
    assert rounds_of(wide=False) == rounds_of(classifies=False) == 20
    assert rounds_of(maxIter=30) == 30
    # A round that trains on fewer rows counts as one of fewer rows.
    assert rounds_of(miniBatchFraction=min(1.0, 10_000 * n_workers / n_rows)) == 20


@pytest.mark.parametrize(
    ("n_rows", "weight_sum", "penalty"),
    [
        (200, 1.0, 1 / 200),
        (200, 200.0, 1 / 200),
        (200, 300.0, 1 / 300),
        (200, 1e4, 1e-4),
        (15_000, 1.0, 5e-5),
        (200, 2e4, 0),
        (60_000, 1.0, 0),
        (4, 4.0, 0.01),
    ],
)
def test_the_penalty_fades_with_the_rows(n_rows: int, weight_sum: float, penalty: float) -> None:
    """Weights are counts of rows, but for those that add up to fewer than there are."""

    def penalty_of(net: NeuralNetClassifier, *, continues: bool = False) -> float:
        chosen = resolve_defaults(
            net,
            2,
            n_rows,
            weight_sum,
            has_validation=False,
            classifies=True,
            continues=continues,
        )
        return chosen.regParam

    assert penalty_of(NeuralNetClassifier()) == np.float32(penalty)
    assert penalty_of(NeuralNetClassifier(regParam=0.0)) == 0
    assert penalty_of(NeuralNetClassifier(regParam=0.1), continues=True) == 0.1
    # What the network learned elsewhere is not in these rows.
    assert penalty_of(NeuralNetClassifier(), continues=True) == 0


@pytest.mark.parametrize(
    ("n_rows", "classifies", "penalty"),
    [(6_000, True, 0.01), (6_000, False, 1 / 150), (300, True, 0.2), (150, False, 0.2)],
)
def test_numbers_in_pieces_have_a_penalty_that_adapts(
    n_rows: int, classifies: bool, penalty: float
) -> None:
    def chosen(regParam: float | str = "auto", **changes: bool) -> tuple[float, bool]:
        found = resolve_defaults(
            NeuralNetClassifier(regParam=regParam),
            2,
            n_rows,
            float(n_rows),
            has_validation=False,
            classifies=classifies,
            pieces=True,
            **changes,
        )
        return found.regParam, found.adaptsPenalty

    assert chosen() == (pytest.approx(penalty), True)
    assert chosen(regParam=0.1) == (0.1, False)
    assert chosen(continues=True) == (0, False)


@pytest.mark.parametrize(
    ("n_workers", "solver", "averaging", "momentum"),
    [
        (1, "momentum", "mean", 0.0),
        (2, "momentum", "nesterov", 0.2421),
        (4, "ngsgd", "nesterov", 0.4257),
        (8, "ngsgd", "nesterov", 0.5647),
        (16, "ngsgd", "nesterov", 0.6701),
    ],
)
def test_what_is_chosen_by_the_number_of_workers(
    n_workers: int, solver: str, averaging: str, momentum: float
) -> None:
    """As tests/benchmarks/averaging.md has it: momentum is 1 - K^-0.4."""
    chosen = resolve_defaults(
        NeuralNetClassifier(), n_workers, 60_000, 6e4, has_validation=False, classifies=True
    )
    assert (chosen.solver, chosen.averaging) == (solver, averaging)
    assert chosen.averagingMomentum == pytest.approx(momentum, abs=1e-4)
    assert (chosen.localState, chosen.finalWeights) == ("average", "last")


@pytest.mark.parametrize(
    ("params", "adapts"), [({}, False), ({"period": "fixed"}, False), ({"period": "auto"}, True)]
)
def test_the_period_decides_whether_rounds_grow(params: dict[str, Any], adapts: bool) -> None:
    info = DatasetInfo(
        n_features=3,
        n_targets=1,
        n_rows=100,
        n_validation=0,
        n_skipped=0,
        weight_sum=100.0,
        rows_per_worker=(50, 50),
    )
    # Nothing is standardised or encoded, so nothing else is asked of the engine.
    engine: Any = SimpleNamespace(info=info)
    fit = make_fit(
        NeuralNetClassifier(standardization=False, **params),
        engine,
        Target(2, "crossEntropy"),
        initial=None,
        on_round_end=lambda fit, record: None,
    )
    assert fit.adapt_round_length is adapts
