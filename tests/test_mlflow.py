"""MLflow: models as python_function and as Spark models, and fits that log their rounds."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import mlflow.pyspark.ml
import mlflow.spark
import numpy as np
import pandas as pd
import pytest
from conformance.subject import same_model
from models import regressor
from pyspark.ml import Pipeline, PipelineModel
from pyspark.ml.feature import StringIndexer
from pyspark.sql import DataFrame, SparkSession
from tables import table
from toys import blobs

import sparknn.mlflow
from sparknn import NeuralNetClassificationModel, NeuralNetClassifier


@pytest.fixture(scope="module", autouse=True)
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A store of files, for this module only."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
        patch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
        before = mlflow.get_tracking_uri()
        mlflow.set_tracking_uri((tmp_path_factory.mktemp("mlflow") / "runs").as_uri())
        yield
        mlflow.set_tracking_uri(before)


FRAME = pd.DataFrame(
    {
        "age": np.arange(20, 80),
        "city": ["Oslo", "Rome", None] * 20,
        "label": (np.arange(60) > 30) * 1.0,
    }
)


@pytest.fixture(scope="module")
def people(spark: SparkSession) -> DataFrame:
    return spark.createDataFrame(FRAME).cache()


@pytest.fixture(scope="module")
def model(people: DataFrame) -> NeuralNetClassificationModel:
    network = NeuralNetClassifier(inputCols=["age", "city"], hiddenLayers=[4], maxIter=2)
    return network.setNumWorkers(2).fit(people)


def test_a_logged_model_takes_raw_columns(
    model: NeuralNetClassificationModel, people: DataFrame
) -> None:
    with mlflow.start_run():
        logged = sparknn.mlflow.log_model(
            PipelineModel([model]), "model", pyfunc_predict_fn="predict_proba", input_example=people
        )
    assert logged.signature.inputs.input_names() == ["age", "city"]
    loaded = mlflow.pyfunc.load_model(logged.model_uri)
    expected = [row.probability.tolist() for row in model.transform(people).collect()]
    assert loaded.predict(FRAME).tolist() == expected
    assert same_model(sparknn.mlflow.load_model(logged.model_uri), model)


def test_without_an_example_the_signature_comes_from_the_model(
    model: NeuralNetClassificationModel, tmp_path: Path
) -> None:
    sparknn.mlflow.save_model(model, tmp_path / "raw")
    raw = mlflow.pyfunc.load_model(str(tmp_path / "raw"))
    assert raw.metadata.signature.inputs.input_names() == ["age", "city"]
    assert raw.predict(FRAME).tolist() == model.toLocal().predict(FRAME).tolist()
    several = regressor(3, 2)
    sparknn.mlflow.save_model(several, tmp_path / "vectors")
    vectors = mlflow.pyfunc.load_model(str(tmp_path / "vectors"))
    X = np.random.default_rng(0).normal(size=(4, 3))
    assert vectors.predict(X).tolist() == several.toLocal().predict(X).tolist()
    assert vectors.predict(pd.DataFrame(X)).tolist() == several.toLocal().predict(X).tolist()


def test_a_saved_model_predicts_without_pyspark(
    model: NeuralNetClassificationModel,
    tmp_path: Path,
    run_python: Callable[..., "CompletedProcess[str]"],
) -> None:
    sparknn.mlflow.save_model(model, tmp_path / "model")
    done = run_python(
        "import json, sys\n"
        "for name in ('pyspark', 'py4j', 'pyarrow'):\n"
        "    sys.modules[name] = None\n"
        "import mlflow\n"
        "loaded = mlflow.pyfunc.load_model(sys.argv[1])\n"
        "print(loaded.predict({'age': [30, 70], 'city': ['Oslo', None]}).tolist())\n"
        "import sparknn.mlflow\n"
        "try:\n"
        "    sparknn.mlflow.load_model(sys.argv[1])\n"
        "except ImportError as error:\n"
        "    assert 'sparknn[spark]' in str(error), error\n"
        "else:\n"
        "    raise AssertionError\n",
        str(tmp_path / "model"),
    )
    expected = model.toLocal().predict({"age": [30, 70], "city": ["Oslo", None]})
    assert json.loads(done.stdout) == expected.tolist()


def test_what_cannot_be_saved(tmp_path: Path, model: NeuralNetClassificationModel) -> None:
    with pytest.raises(TypeError, match=r"mlflow\.spark"):
        sparknn.mlflow.save_model(PipelineModel([model, model]), tmp_path / "a")
    with pytest.raises(ValueError, match="pyfunc_predict_fn = 'proba'"):
        sparknn.mlflow.save_model(model, tmp_path / "b", pyfunc_predict_fn="proba")


def metrics_of(run: Any, name: str) -> list[tuple[int, float]]:
    found = mlflow.MlflowClient().get_metric_history(run.info.run_id, name)
    return [(each.step, each.value) for each in found]


def test_a_fit_logs_its_params_and_rounds(spark: SparkSession) -> None:
    rows = table(spark, *blobs(200))
    network = NeuralNetClassifier(maxIter=2, hiddenLayers=[3], numWorkers=2, validationFraction=0.3)
    with mlflow.start_run() as run:
        network.setCallbacks([sparknn.mlflow.MlflowCallback()])
        fitted = network.fit(rows)
        maps = [{network.stepSize: 0.1}, {network.maxIter: 1}]
        models = dict(network.fitMultiple(rows, maps))
    history = fitted.summary.history
    assert metrics_of(run, "validation_loss") == list(enumerate(history["validation_loss"]))
    assert mlflow.get_run(run.info.run_id).data.params["hiddenLayers"] == "[3]"
    children = mlflow.MlflowClient().search_runs(
        [run.info.experiment_id], f"tags.mlflow.parentRunId = '{run.info.run_id}'"
    )
    named = {child.info.run_name: child for child in children}
    assert sorted(named) == ["map 1 of 2", "map 2 of 2"]
    for index, found in models.items():
        child = named[f"map {index + 1} of 2"]
        assert child.info.status == "FINISHED"
        assert metrics_of(child, "loss") == list(enumerate(found.summary.objectiveHistory))
    assert named["map 1 of 2"].data.params["stepSize"] == "0.1"


def test_autolog_logs_every_fit_until_it_is_disabled(spark: SparkSession) -> None:
    rows = table(spark, *blobs(60))
    network = NeuralNetClassifier(maxIter=2, hiddenLayers=[2], numWorkers=2)
    client, experiment = mlflow.MlflowClient(), mlflow.create_experiment("autolog")
    mlflow.set_experiment(experiment_id=experiment)

    def runs() -> list[Any]:
        return client.search_runs([experiment], order_by=["attributes.start_time ASC"])

    sparknn.mlflow.autolog()
    try:
        fitted = network.fit(rows)
        assert mlflow.active_run() is None
        (run,) = runs()
        assert run.info.status == "FINISHED"
        assert run.data.params["hiddenLayers"] == "[2]"
        # A logged model repeats the last metrics of its run.
        assert dict(metrics_of(run, "loss")) == dict(enumerate(fitted.summary.objectiveHistory))
        assert same_model(sparknn.mlflow.load_model(f"runs:/{run.info.run_id}/model"), fitted)
        with mlflow.start_run() as mine:
            list(network.fitMultiple(rows, [{network.maxIter: 1}, {network.stepSize: 0.1}]))
        assert len(runs()) == 4
        parents = [each.data.tags.get("mlflow.parentRunId") for each in runs()]
        assert parents.count(mine.info.run_id) == 2
        assert network.getCallbacks() == []
    finally:
        sparknn.mlflow.autolog(disable=True)
    network.fit(rows)
    assert len(runs()) == 4


def test_fits_with_other_params_have_runs_of_their_own(spark: SparkSession) -> None:
    """A tuned Pipeline and OneVsRest fit one by one, with other params."""
    rows = table(spark, *blobs(60))
    network = NeuralNetClassifier(maxIter=1, hiddenLayers=[2], numWorkers=2)
    network.setCallbacks([sparknn.mlflow.MlflowCallback()])
    pipeline, maps = Pipeline(stages=[network]), [{network.stepSize: 0.1}, {network.stepSize: 0.2}]
    with mlflow.start_run() as run:
        pipeline.fit(rows, maps)
    with mlflow.start_run() as other:
        network.fit(rows)
    children = mlflow.MlflowClient().search_runs(
        [run.info.experiment_id], f"tags.mlflow.parentRunId = '{run.info.run_id}'"
    )
    runs = [mlflow.get_run(run.info.run_id), *children]
    assert [each.data.params["stepSize"] for each in runs] == ["0.1", "0.2"]
    assert children[0].info.run_name == "fit 2"
    assert mlflow.get_run(other.info.run_id).data.params["stepSize"] == "auto"


def test_examples_are_of_any_columns_that_a_fit_takes(spark: SparkSession, tmp_path: Path) -> None:
    rows = spark.createDataFrame(
        [(([float(i), 1.0], i % 3), i % 2) for i in range(20)],
        "a struct<numbers: array<double>, n: int>, label int",
    )
    for params in ({"featuresCol": "a.numbers"}, {"inputCols": ["a.n"]}):
        network = NeuralNetClassifier(maxIter=1, hiddenLayers=[2], numWorkers=2, **params)
        fitted, path = network.fit(rows), tmp_path / "".join(params)
        sparknn.mlflow.save_model(fitted, path, input_example=rows)
        assert (path / "input_example.json").exists()


def test_mlflows_own_flavor_and_autologging_take_pipelines(
    people: DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    # It would start a second Spark to see what is imported.
    monkeypatch.setattr("mlflow.models.infer_pip_requirements", lambda *_, **__: ["pyspark"])
    index = StringIndexer(inputCol="label", outputCol="target")
    network = NeuralNetClassifier(
        inputCols=["age"], labelCol="target", hiddenLayers=[2], maxIter=1, numWorkers=2
    )
    mlflow.pyspark.ml.autolog(
        log_model_allowlist=["pyspark.ml.*", "sparknn.ml.*"], log_datasets=False
    )
    try:
        with mlflow.start_run() as run:
            fitted = Pipeline(stages=[index, network]).fit(people)
    finally:
        mlflow.pyspark.ml.autolog(disable=True)
    assert mlflow.get_run(run.info.run_id).data.params["NeuralNetClassifier.maxIter"] == "1"
    again = mlflow.spark.load_model(f"runs:/{run.info.run_id}/model")
    assert again.transform(people).collect() == fitted.transform(people).collect()
