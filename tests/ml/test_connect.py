"""Spark Connect: fits and models over a server, and with a client that has no JVM at hand."""

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import numpy as np
import pyarrow
import pytest
from conformance import CHECKS, Subject
from conformance.subject import same_model
from models import classifier, regressor, rows
from pyspark.ml import PipelineModel
from pyspark.sql import SparkSession
from remote import connect_mode
from tables import table
from toys import blobs, curve

from sparknn import NeuralNetClassifier, NeuralNetRegressor, __version__, doctor
from sparknn.engine import broadcast
from sparknn.engine.broadcast import SentFile
from sparknn.ml.checked_params import ParamError

pytestmark = pytest.mark.newest_spark

QUICK: dict[str, Any] = {"hiddenLayers": [8], "maxIter": 3, "seed": 5}
# What a session's kind may change; the rest is about params and arithmetic.
CHECKED = [
    "refit_is_idempotent",
    "fit_with_maps_equals_single_fits",
    "predict_equals_transform",
    "it_learns",
    "wrong_columns_fail_before_any_job",
    "rows_that_cannot_be_used_are_counted",
    "pipelines",
    "cross_validator",
    "train_validation_split",
    "round_trip_in_this_process",
]

REMOTE = """
import json, re, sys
from pathlib import Path
from pyspark.sql import SparkSession
folder = Path(sys.argv[1])
spark = SparkSession.builder.remote(sys.argv[2]).getOrCreate()
from pyspark.ml import PipelineModel
from pyspark.ml.evaluation import MulticlassClassificationEvaluator
from sparknn import NeuralNetClassificationModel, NeuralNetClassifier, NeuralNetRegressionModel
from sparknn.ml.checked_params import ParamError

found = {"session": type(spark).__module__}
df = spark.read.parquet(str(folder / "rows"))
for name in ("small", "large"):
    model = NeuralNetClassificationModel.load(str(folder / name))
    scored = model.transform(df).orderBy("id")
    local = model.toLocal()
    X = [row.features.toArray() for row in df.orderBy("id").collect()]
    found[name] = [row.prediction for row in scored.collect()] == local.predict(X).tolist()
    found[name + " calls"] = len(set(re.findall(r"pythonUDF\\d+#\\d+", scored._explain_string())))
    found[name + " bytes"] = scored._plan.to_proto(spark.client).ByteSize()
    if name == "small":
        model.write().overwrite().save(str(folder / "again"))
        model.write().overwrite().save(str(folder / "again"))
        again = NeuralNetClassificationModel.load(str(folder / "again"))
        found[name] &= again.theta.tobytes() == model.theta.tobytes()
evaluator = MulticlassClassificationEvaluator(metricName="accuracy")
found["accuracy"] = evaluator.evaluate(model.transform(df))
found["regressor"] = NeuralNetRegressionModel.load(str(folder / "reg")).transform(df).columns
found["pipeline"] = PipelineModel.load(str(folder / "pipe")).transform(df).columns
NeuralNetClassifier(hiddenLayers=[3], maxIter=2).fit(df).save(str(folder / "fitted"))
print("FOUND", json.dumps(found))
spark.stop()
"""


@pytest.mark.slow
def test_a_client_without_a_jvm(
    spark: SparkSession,
    connect_server: str,
    tmp_path: Path,
    run_python: Callable[..., CompletedProcess[str]],
) -> None:
    d = 6
    X = rows(40, d)
    df = table(spark, X, np.arange(40) % 3 * 1.0, id=np.arange(40))
    df.write.parquet(str(tmp_path / "rows"))
    # Beyond 1 MB, a classic session broadcasts it.
    models = {
        "small": classifier(d, 4, 3),
        "large": classifier(d, 40_000, 3),
        "reg": regressor(d, 1),
    }
    for name, model in models.items():
        model.save(str(tmp_path / name))
    PipelineModel([models["small"]]).save(str(tmp_path / "pipe"))
    said = run_python(REMOTE, str(tmp_path), connect_server).stdout
    (line,) = [line for line in said.splitlines() if line.startswith("FOUND ")]
    found = json.loads(line.removeprefix("FOUND "))
    assert found["session"].startswith("pyspark.sql.connect")
    assert found["small"]
    assert found["large"]
    assert found["small calls"] == found["large calls"] == 1
    # The network travels once, not with every column.
    assert found["large bytes"] < 1.5 * models["large"].theta.nbytes
    assert 0 <= found["accuracy"] <= 1
    assert found["regressor"][-1] == "prediction"
    assert found["pipeline"][-3:] == ["rawPrediction", "probability", "prediction"]
    fitted = NeuralNetClassifier(hiddenLayers=[3], maxIter=2).fit(df)
    assert same_model(type(fitted).load(str(tmp_path / "fitted")), fitted)


@pytest.fixture(scope="module")
def subject(connect_session: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Subject:
    X, y = blobs(240)
    with connect_mode():
        data = table(connect_session, np.rint(8 * X), y)
        estimator = NeuralNetClassifier(numWorkers=2, **QUICK)
        return Subject(estimator, data, tmp_path_factory.mktemp("connect"))


@pytest.mark.parametrize("check", CHECKED)
def test_a_classifier_conforms(subject: Subject, connect: SparkSession, check: str) -> None:
    CHECKS[check](subject)


def test_fits_have_the_bytes_of_a_classic_session(
    spark: SparkSession, connect: SparkSession, tmp_path: Path
) -> None:
    """By default as many workers as there are slots; a warm start; a grid over a regression.

    Knots come from a sample of the rows, too.
    """
    X, y = curve(240)
    path = str(tmp_path / "rows")
    with connect_mode(False):
        table(spark, X, y[:, 0], id=np.arange(240)).coalesce(2).write.parquet(path)

    def fitted(session: SparkSession) -> list[Any]:
        df = session.read.parquet(path)
        estimator = NeuralNetRegressor(
            validationFraction=0.2, finalWeights="best", numericEncoding="piecewise", **QUICK
        )
        first = estimator.fit(df)
        warm = {estimator.initialModel: first, estimator.maxIter: 1}
        return [first, *estimator.fit(df, [warm, {estimator.seed: 6}])]

    found = fitted(connect)
    with connect_mode(False):
        assert all(map(same_model, found, fitted(spark)))


def test_checkpoints_are_refused(connect: SparkSession, tmp_path: Path) -> None:
    df = connect.range(3).selectExpr("array(id) as features", "id as label")
    with pytest.raises(ParamError, match="checkpointDir"):
        NeuralNetClassifier(checkpointDir=str(tmp_path)).fit(df)


def test_a_large_model_travels_as_a_file(
    connect: SparkSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = classifier(4, 20_000, 3)
    df = connect.range(20).selectExpr("array(id, id / 2, -id, 1) as features")
    expected = model.transform(df).collect()
    monkeypatch.setattr(broadcast, "MAX_CLOSURE_BYTES", 10_000)
    for again in (model, model.copy()):
        predicted = again.transform(df)
        assert predicted._plan.to_proto(connect.client).ByteSize() < 100_000  # type: ignore[attr-defined]
        assert predicted.collect() == expected
    assert isinstance(model._broadcast._file, SentFile)


def test_a_session_without_files_is_explained(
    connect: SparkSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*paths: str, file: bool) -> None:
        raise NotImplementedError

    monkeypatch.setattr(broadcast, "MAX_CLOSURE_BYTES", 10_000)
    monkeypatch.setattr(connect, "addArtifacts", refuse)
    with pytest.raises(RuntimeError, match=r"toLocal\(\)"):
        classifier(4, 20_000, 3).transform(connect.range(1).selectExpr("array(id) as features"))


def test_the_doctor_says_where_shards_stay(
    spark: SparkSession, connect: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "find them again" in found_by_doctor(connect)["shards"]
    assert str(tmp_path) in found_by_doctor(connect, str(tmp_path))["shards"]
    assert "No such file" in found_by_doctor(connect, str(tmp_path / "nowhere"))["problem"]

    def refuse(df: object) -> None:
        raise NotImplementedError

    monkeypatch.setattr(type(connect.range(1)), "localCheckpoint", refuse)
    found = found_by_doctor(connect)
    assert "shardDir" in found["shards"]
    assert f"pyarrow {pyarrow.__version__}, sparknn {__version__}" in found["executors"]
    assert found["slots"].startswith("2,")
    assert "GiB free" in found["scratch"]
    with connect_mode(False):
        assert found_by_doctor(spark)["session"].startswith("classic")


def found_by_doctor(session: SparkSession, shard_dir: str = "") -> dict[str, str]:
    lines = str(doctor(session, shard_dir)).splitlines()
    return {subject: text.strip() for subject, _, text in (line.partition(" ") for line in lines)}
