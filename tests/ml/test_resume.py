"""A fit whose driver died continues where it stopped, and ends with the same bytes."""

import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from models import classifier
from pyspark.ml.evaluation import MulticlassClassificationEvaluator
from pyspark.ml.tuning import CrossValidator
from pyspark.sql import DataFrame, SparkSession
from tables import table
from toys import blobs, curve
from watching import Interrupted, rounds

import sparknn.ml.fit as train_module
from sparknn import NeuralNetClassificationModel, NeuralNetClassifier, NeuralNetRegressor
from sparknn.core.config import AveragingConfig, Standardizer, TrainConfig
from sparknn.core.nn.network import Network
from sparknn.core.training.fit_state import FitState
from sparknn.engine.interface import DataSpec
from sparknn.ml.checkpoint import CheckpointError
from sparknn.ml.encode import choose_encoding
from sparknn.ml.resume import fingerprint

ROOT = Path(__file__).resolve().parents[2]
N_ROUNDS = 6


@pytest.fixture(scope="module")
def rows(spark: SparkSession) -> Iterator[DataFrame]:
    X, y = blobs(120)
    frame = table(spark, X, y, held_out=np.arange(120) % 5 == 0).cache()
    yield frame
    frame.unpersist()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "checkpoints"


def small(folder: Path | None = None, **params: Any) -> NeuralNetClassifier:
    kept = {} if folder is None else {"checkpointDir": str(folder), "checkpointInterval": 1}
    few = {"hiddenLayers": [5], "maxIter": N_ROUNDS, "numWorkers": 2, "batchSize": 8}
    return NeuralNetClassifier(**{**few, **kept, **params})


def seldom(folder: Path, **params: Any) -> NeuralNetClassifier:
    """An estimator that resumes and writes nothing more: the interval does not change a fit."""
    return small(folder, **{"checkpointInterval": 100, **params})


def interrupt(estimator: Any, df: DataFrame, die_at: int = 4) -> None:
    with rounds(die_at), pytest.raises(Interrupted):
        estimator.fit(df)


def checkpoints_in(folder: Path) -> list[list[str]]:
    """Return the checkpoints of every fit."""
    return [sorted(path.name for path in fit.iterdir()) for fit in sorted(folder.iterdir())]


def same(one: Any, other: Any) -> bool:
    """Compare theta by bytes and histories without their times."""
    mine, yours = (
        model.summary.history.drop(
            columns=[c for c in model.summary.history if c.endswith("_s")]
        ).drop(columns="seconds")
        for model in (one, other)
    )
    assert mine.equals(yours)
    assert list(mine["round"]) == list(range(len(mine)))
    return bool(one.theta.tobytes() == other.theta.tobytes())


@pytest.fixture(scope="module")
def uninterrupted(rows: DataFrame) -> Any:
    """The model of ``small``, by a fit that nothing happened to."""
    return small().fit(rows)


@pytest.fixture(scope="module")
def begun(rows: DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What ``small`` left when it died, to be copied: checkpoints after rounds 2 and 3."""
    path = tmp_path_factory.mktemp("begun") / "checkpoints"
    interrupt(small(path), rows)
    assert checkpoints_in(path) == [["round-2", "round-3"]]
    return path


@pytest.fixture
def left(begun: Path, folder: Path) -> Path:
    """A test's own copy of those checkpoints."""
    return Path(shutil.copytree(begun, folder))


def first_round(estimator: Any, df: DataFrame) -> int:
    """The round that a fit begins with; the fit dies in it."""
    with rounds(die_at=1) as run, pytest.raises(Interrupted):
        estimator.fit(df)
    return run[0]


def test_interrupted_fits_continue_together(
    rows: DataFrame, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """One map for each kind of state; one has ended before the driver dies, and two train alike."""
    estimator = small(folder, validationIndicatorCol="held_out")
    settings: list[dict[str, Any]] = [
        {"solver": "ngsgd", "averaging": "nesterov", "averagingMomentum": 0.5, "dropout": 0.1},
        {"solver": "adam"},
        {"solver": "momentum", "finalWeights": "best", "patience": 5},
        {"averaging": "mean"},
        {"thresholds": [0.2, 0.3, 0.5]},
        {},
        {"maxIter": 2},
    ]
    maps = [{estimator.getParam(k): v for k, v in each.items()} for each in settings]
    expected = estimator.copy({estimator.checkpointDir: ""}).fit(rows, maps)
    # A round is logged when the next one's tasks have scored it: rounds 0 and 1 of 7, 2 of 6.
    with rounds(die_at=20), pytest.raises(Interrupted):
        estimator.fit(rows, maps)
    assert sorted(checkpoints_in(folder)) == [["round-1"], *6 * [["round-2", "round-3"]]]
    with caplog.at_level(logging.INFO, logger="sparknn"), rounds() as run:
        again = estimator.copy({estimator.checkpointInterval: 100}).fit(rows, maps)
    assert [same(mine, yours) for mine, yours in zip(again, expected, strict=True)] == [True] * 7
    # The last round of a checkpoint has no score yet; the one that had ended has its second again.
    assert run == [0, 1, *6 * [2], *6 * [3], *6 * [4], *6 * [5]]
    assert caplog.text.count(f"Continuing from round 4 of {N_ROUNDS}, checkpoint {folder}") == 6
    assert checkpoints_in(folder) == []


def test_a_regression_continues(spark: SparkSession, folder: Path) -> None:
    """With the penalty of encoded numbers, which depends on the rounds before."""
    df = table(spark, *curve(80, k=2))
    kept = {"checkpointDir": str(folder), "checkpointInterval": 2}
    few = {"hiddenLayers": [4], "maxIter": 5, "numWorkers": 2, "numericEncoding": "piecewise"}
    interrupt(NeuralNetRegressor(**few, **kept), df)
    assert checkpoints_in(folder) == [["round-2"]]
    with rounds() as run:
        model = NeuralNetRegressor(**few, **kept).fit(df)
    assert same(model, NeuralNetRegressor(**few).fit(df))
    assert run == [2, 3, 4]


@pytest.mark.parametrize("interval", [-1, 10])
def test_no_checkpoint_is_written_before_its_interval(
    interval: int, rows: DataFrame, folder: Path
) -> None:
    interrupt(small(folder, checkpointInterval=interval), rows, die_at=2)
    assert not folder.exists() or checkpoints_in(folder) == []


def test_other_settings_start_from_scratch(rows: DataFrame, left: Path) -> None:
    """And leave the checkpoints of these alone."""
    with rounds() as run:
        seldom(left, seed=1, maxIter=1).fit(rows)
    assert run == [0]
    assert checkpoints_in(left) == [["round-2", "round-3"]]
    # What does not decide a fit may change.
    assert first_round(seldom(left, aggregationDepth=3, predictionCol="p"), rows) == 3


def test_another_validation_split_starts_from_scratch(rows: DataFrame, folder: Path) -> None:
    """Otherwise validation rows would be rows that the first fit has trained on."""
    settings: dict[str, Any] = {"standardization": False, "regParam": 0.0, "solver": "adam"}
    interrupt(small(folder, validationFraction=0.2, **settings), rows)
    for fraction, first in ((0.25, 0), (0.2, 3)):
        estimator = seldom(folder, validationFraction=fraction, **settings)
        assert first_round(estimator, rows) == first


def test_other_rows_start_from_scratch(spark: SparkSession, left: Path) -> None:
    """Also where counts, means and deviations are the same."""
    X, y = blobs(120)
    other = y.copy()
    other[[0, 1, 2]] = y[[2, 0, 1]]
    for labels, first in ((other, 0), (y, 3)):
        assert first_round(seldom(left), table(spark, X, labels)) == first


@pytest.mark.parametrize("encoding", ["plain", "piecewise"])
def test_rows_in_another_order_are_the_same_rows(
    spark: SparkSession, folder: Path, encoding: str
) -> None:
    """Behind a shuffle, Spark returns rows as they are fetched.

    The sum of their weights, on which the penalty depends, then has other last bits.
    """
    estimator = small(folder, weightCol="w", numericEncoding=encoding)
    X, y = blobs(60)
    w = np.random.default_rng(1).uniform(2, 3, size=60)
    assert w.sum() != w[::-1].sum()
    interrupt(estimator, table(spark, X, y, w=w), die_at=2)
    other = table(spark, X[::-1], y[::-1], w=w[::-1])
    assert first_round(estimator.copy().setCheckpointInterval(100), other) == 1


_FIT = FitState(TrainConfig(Network((2, 3))), AveragingConfig(), 2)
_SPEC = DataSpec("features", "label", classifies=True, n_workers=2, seed=0)
_CONFIG: dict[str, Any] = {
    "network": Network((2, 3), "tanh"),
    "seed": 1,
    "max_iter": 3,
    "solver": "adam",
    "step_size": 0.2,
    "momentum": 0.5,
    "schedule": "cosine",
    "l2": 0.1,
    "null_loss": 0.5,
    "dropout": 0.1,
    "batch_size": 5,
    "local_epochs": 2,
    "mini_batch_fraction": 0.5,
    "shuffle": False,
    "local_state": "reset",
    "max_change": 0.0,
    "n_sparse": 1,
    "encoding": choose_encoding(np.eye(2, dtype=np.float32), {}, pieces=0, keeps_missing=True),
    "standardizer": Standardizer(np.zeros(2, np.float32), np.ones(2, np.float32)),
    "target_standardizer": Standardizer(np.zeros(3), np.ones(3)),
    "class_weight": np.array([1.0, 2.0, 0.5]),
}
_AVERAGING: dict[str, Any] = {
    "rule": "nesterov",
    "momentum": 0.5,
    "final": "best",
    "metric": "accuracy",
    "patience": 2,
    "tol": 0.1,
}


@pytest.mark.parametrize(
    "other",
    [
        *(
            replace(_FIT, config=replace(_FIT.config, **{k: v}), theta=None)
            for k, v in _CONFIG.items()
        ),
        *(
            replace(_FIT, averaging=replace(AveragingConfig(), **{k: v}))
            for k, v in _AVERAGING.items()
        ),
        replace(_FIT, n_workers=3),
        replace(_FIT, adapt_round_length=True),
        replace(_FIT, theta=_FIT.current + np.float32(1e-6)),
    ],
)
def test_everything_that_decides_a_fit_is_in_its_fingerprint(other: FitState) -> None:
    assert fingerprint(other, _SPEC, "rows") != fingerprint(_FIT, _SPEC, "rows")


@pytest.mark.parametrize(
    "changes",
    [{"validation_fraction": 0.2}, {"validation_indicator": "held_out"}, {"n_workers": 3}],
)
def test_the_split_is_in_a_fingerprint(changes: dict[str, Any]) -> None:
    other = replace(_SPEC, **changes)
    assert fingerprint(_FIT, other, "rows") != fingerprint(_FIT, _SPEC, "rows")


def test_rows_and_version_are_in_a_fingerprint_and_last_bits_are_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert {item.name for item in fields(TrainConfig)} == set(_CONFIG)
    assert {item.name for item in fields(AveragingConfig)} == set(_AVERAGING)
    found = fingerprint(_FIT, _SPEC, "rows")
    assert fingerprint(replace(_FIT), _SPEC, "rows") == found
    assert fingerprint(_FIT, _SPEC, "other rows") != found
    weights = np.array([1.0, 2.0, 0.5])
    near, far = (
        fingerprint(replace(_FIT, config=replace(_FIT.config, class_weight=w)), _SPEC, "rows")
        for w in (weights * (1 + 1e-15), weights)
    )
    assert near == far
    monkeypatch.setattr("sparknn.ml.resume.__version__", "0.0.0")
    assert fingerprint(_FIT, _SPEC, "rows") != found


def test_a_full_disk_costs_a_checkpoint_and_not_the_fit(
    rows: DataFrame,
    uninterrupted: Any,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def full(*_: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr("sparknn.ml.checkpoint.write_weights", full)
    with rounds() as run:
        model = small(folder).fit(rows)
    assert len(run) == N_ROUNDS
    assert "Could not write the checkpoint after round 1" in caplog.text
    assert "No space left on device" in caplog.text
    assert "there is no checkpoint" in caplog.text
    assert same(model, uninterrupted)
    assert checkpoints_in(folder) == []


def test_a_checkpoint_wins_over_the_model_it_started_from(rows: DataFrame, folder: Path) -> None:
    start = classifier(4, 5, 3)
    other = NeuralNetClassificationModel(start.network, 2 * start.theta)
    interrupt(small(folder, initialModel=start), rows)
    assert first_round(seldom(folder, initialModel=other), rows) == 0
    with rounds() as run:
        model = seldom(folder, initialModel=start).fit(rows)
    assert run[0] == 3
    assert same(model, small(initialModel=start).fit(rows))


def test_a_damaged_checkpoint_costs_a_round(
    rows: DataFrame, uninterrupted: Any, left: Path
) -> None:
    (fit,) = left.iterdir()
    (values,) = (fit / "round-3" / "float64").glob("part-*")
    values.write_bytes(values.read_bytes()[:-8])
    with rounds() as run:
        assert same(seldom(left).fit(rows), uninterrupted)
    assert run == [2, 3, 4, 5]
    assert checkpoints_in(left) == []


def test_fits_that_train_alike_at_the_same_time(rows: DataFrame, folder: Path) -> None:
    """As Spark's tuning fits pipelines whose maps differ in what a network does not see."""
    estimators = [small(folder, maxIter=3, thresholds=[0.2, 0.3, share]) for share in (0.5, 0.4)]
    with ThreadPoolExecutor(2) as threads, rounds() as run:
        models = list(threads.map(lambda estimator: estimator.fit(rows), estimators))
    assert same(*models)
    assert len(run) == 2 * 3
    assert checkpoints_in(folder) == []


def test_what_failed_leaves_its_checkpoints(rows: DataFrame, folder: Path) -> None:
    estimator = small(folder, maxIter=5)
    maps = [{estimator.stepSize: 0.1}, {estimator.stepSize: 1e30, estimator.maxChange: 0.0}]
    with pytest.raises(RuntimeError, match="diverged"):
        estimator.fit(rows, maps)
    assert len(checkpoints_in(folder)) == 1


def test_folds_share_a_folder(rows: DataFrame, folder: Path) -> None:
    def search(folder: Path | None) -> CrossValidator:
        estimator = small(folder, maxIter=3)
        return CrossValidator(
            estimator=estimator,
            estimatorParamMaps=[{estimator.stepSize: 0.05}],
            evaluator=MulticlassClassificationEvaluator(),
            numFolds=2,
            seed=5,
        )

    expected = search(None).fit(rows)
    # In the second round of the second fold, in a thread of a pool, which waits for ever for what
    # ends with another error than an Exception.
    with rounds(die_at=5, error=ZeroDivisionError), pytest.raises(ZeroDivisionError):
        search(folder).fit(rows)
    assert checkpoints_in(folder) == [["round-1"]]
    with rounds() as run:
        again = search(folder).fit(rows)
    assert again.avgMetrics == expected.avgMetrics
    assert same(again.bestModel, expected.bestModel)
    assert run == [0, 1, 2, 1, 2, 0, 1, 2]
    assert checkpoints_in(folder) == []


def test_a_folder_that_cannot_be_written_to_is_an_error_before_any_work(
    rows: DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("rows were taken in")

    monkeypatch.setattr(train_module, "open_engine", refuse)
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CheckpointError, match=r"checkpointDir = '.*' cannot be used"):
        small(tmp_path / "file").fit(rows)


KILLED = """
import sys
from pyspark.sql import SparkSession
rows, folder, scratch = sys.argv[1:]
spark = (SparkSession.builder.master('local[2]').config('spark.ui.enabled', 'false')
    .config('spark.driver.bindAddress', '127.0.0.1').config('spark.driver.host', '127.0.0.1')
    .config('spark.local.dir', scratch).getOrCreate())
from sparknn import NeuralNetClassifier
NeuralNetClassifier(hiddenLayers=[5], maxIter=10, numWorkers=2, batchSize=8, checkpointDir=folder,
    checkpointInterval=1, validationFraction=0.2).fit(spark.read.parquet(rows))
"""


def wait_for(happened: Callable[[], bool], timeout_s: float) -> bool:
    end = time.monotonic() + timeout_s
    while not happened() and time.monotonic() < end:
        time.sleep(0.01)
    return happened()


@pytest.mark.slow
def test_a_killed_driver_is_no_loss(
    rows: DataFrame, spark: SparkSession, folder: Path, tmp_path: Path
) -> None:
    """Killed in the middle of a round, and continued by another process."""
    path = str(tmp_path / "rows")
    rows.coalesce(1).write.parquet(path)
    df = spark.read.parquet(path)
    driver = subprocess.Popen(
        [sys.executable, "-c", KILLED, path, str(folder), str(tmp_path / "scratch")],
        cwd=ROOT,
        # The JVM is in the same group, and dies with it.
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        reached = wait_for(
            lambda: any(folder.glob("*/round-3/metadata/part-*")) or driver.poll() is not None,
            timeout_s=200,
        )
    finally:
        os.killpg(driver.pid, signal.SIGKILL)
        _, stderr = driver.communicate()
    assert reached, stderr
    assert driver.returncode == -signal.SIGKILL, stderr
    settings: dict[str, Any] = {"validationFraction": 0.2, "maxIter": 10}
    with rounds() as run:
        model = seldom(folder, **settings).fit(df)
    assert 2 <= run[0] < 9
    assert same(model, small(**settings).fit(df))
    assert checkpoints_in(folder) == []
