"""From the columns of a table to predictions in one stage."""

import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pyspark.ml.feature import StringIndexer, VectorAssembler
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from sparknn import NeuralNetClassificationModel, NeuralNetClassifier
from sparknn.engine.interface import DataError
from sparknn.ml import input_columns
from sparknn.ml.checked_params import ParamError
from sparknn.ml.schema import SchemaError

COLUMNS = ["age", "member", "city", "plan", "point"]


@pytest.fixture(scope="module")
def people(spark: SparkSession) -> DataFrame:
    rng = np.random.default_rng(0)
    n = 400
    frame = pd.DataFrame(
        {
            "age": rng.integers(18, 90, n),
            "member": rng.random(n) < 0.5,
            "city": rng.choice(["Oslo", "Rome", 'Kyoto "x"', ""], n),
            "plan": rng.choice(["a", "b"], n),
            "x": rng.normal(size=n),
        }
    )
    frame["label"] = ((frame.age > 50) ^ (frame.city == "Rome")).astype(float)
    frame.loc[::40, "city"] = None
    rows = spark.createDataFrame(frame.astype({"city": object}))
    rows = rows.withColumn("city", F.when(F.col("city") != "NaN", F.col("city")))
    rows = VectorAssembler(inputCols=["x"], outputCol="point").transform(rows)
    indexer = StringIndexer(inputCol="plan", outputCol="planIndex").fit(rows)
    return indexer.transform(rows).drop("plan").withColumnRenamed("planIndex", "plan").cache()


def classifier(**params: object) -> NeuralNetClassifier:
    given = {"inputCols": COLUMNS, "maxIter": 4, "numWorkers": 2, "hiddenLayers": [8]}
    return NeuralNetClassifier(**{**given, **params})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def model(people: DataFrame) -> NeuralNetClassificationModel:
    return classifier().fit(people)


def predictions(model: NeuralNetClassificationModel, rows: DataFrame) -> list[list[float]]:
    found = model.transform(rows).select("probability").collect()
    return [row.probability.tolist() for row in found]


def test_a_fit_takes_raw_columns(model: NeuralNetClassificationModel, people: DataFrame) -> None:
    assert model.featureNames == COLUMNS
    assert model.encoding is not None
    # Four cities and null; two plans.
    assert model.encoding.onehot.tolist() == [[2, 5], [3, 2]]
    out = model.transform(people)
    assert out.columns == [*people.columns, "rawPrediction", "probability", "prediction"]
    right = out.where("prediction = label").count()
    assert right > 0.9 * people.count()


def test_it_is_the_fit_of_the_features_that_it_assembles(
    model: NeuralNetClassificationModel, people: DataFrame
) -> None:
    codes = {city: code for code, city in enumerate(["", 'Kyoto "x"', "Oslo", "Rome", None])}
    rows = [
        [row.age, float(row.member), codes[row.city], row.plan, row.point[0]]
        for row in people.collect()
    ]
    local = pickle.loads(pickle.dumps(model.toLocal()))
    assert local.predict_proba(rows).tolist() == predictions(model, people)
    assert local.predict_proba(people.toPandas()).tolist() == predictions(model, people)


def test_new_values_and_null_are_predicted(
    model: NeuralNetClassificationModel, people: DataFrame
) -> None:
    new = people.withColumn("city", F.lit("Lima"))
    none = people.withColumn("city", F.lit(None).cast("string"))
    assert np.isfinite(predictions(model, new)).all()
    assert np.isfinite(predictions(model, none)).all()
    assert predictions(model, new) != predictions(model, none)


def test_a_saved_model_has_its_columns(
    model: NeuralNetClassificationModel, people: DataFrame, tmp_path: Path
) -> None:
    model.save(str(tmp_path / "model"))
    again = NeuralNetClassificationModel.load(str(tmp_path / "model"))
    assert predictions(again, people) == predictions(model, people)
    assert again.getInputCols() == COLUMNS


def test_a_fit_continues_with_the_codes_of_the_initial_model(
    model: NeuralNetClassificationModel, people: DataFrame, tmp_path: Path
) -> None:
    """Without a city, the others would have other codes."""
    fewer = people.where("city != 'Kyoto \"x\"'")
    estimator = classifier(initialModel=model, maxIter=1, stepSize=1e-9)
    model.save(str(tmp_path / "model"))
    saved = {estimator.initialModel: str(tmp_path / "model")}
    for continued in estimator.fit(fewer, [{}, saved]):
        assert np.allclose(predictions(continued, people), predictions(model, people), atol=1e-4)
    with pytest.raises(ParamError, match="the initial model was trained on"):
        estimator.fit(people, {estimator.inputCols: COLUMNS[::-1]})


def test_maps_share_an_ingest_and_may_differ_in_columns(people: DataFrame) -> None:
    estimator = classifier(maxIter=1)
    maps = [{}, {estimator.stepSize: 0.01}, {estimator.inputCols: ["age", "city"]}]
    models = dict(estimator.fitMultiple(people, maps))
    assert [models[number].numFeatures for number in range(3)] == [5, 5, 2]
    assert models[0].theta.tobytes() == estimator.fit(people).theta.tobytes()


def test_maps_with_inputs_and_with_features_of_the_same_name(people: DataFrame) -> None:
    estimator = classifier(maxIter=1, featuresCol="point")
    maps = [{estimator.inputCols: ["point"]}, {estimator.inputCols: []}]
    models = dict(estimator.fitMultiple(people, maps))
    assert [models[number].toLocal().inputs is None for number in (0, 1)] == [False, True]


def test_missing_numbers(people: DataFrame) -> None:
    holes = people.withColumn("age", F.when(F.col("age") < 80, F.col("age")))
    with pytest.raises(DataError, match=r"column 'age' is null, NaN or inf.* in .* Set handle"):
        classifier().fit(holes)
    beyond = holes.withColumn("plan", F.lit(2.0)).withMetadata(
        "plan", people.schema["plan"].metadata
    )
    with pytest.raises(DataError, match="column 'plan' is none of its 2 categories in 400 of 400"):
        classifier(handleInvalid="keep").fit(beyond)
    empty = people.withColumn("age", F.lit(None).cast("double"))
    with pytest.raises(DataError, match="Features age have no value"):
        classifier(handleInvalid="keep").fit(empty)
    kept = classifier(handleInvalid="keep", maxIter=1).fit(holes)
    assert kept.encoding is not None
    assert kept.encoding.missing.tolist() == [0]
    assert np.isfinite(predictions(kept, holes)).all()


def test_columns_that_do_not_do(
    model: NeuralNetClassificationModel, people: DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ParamError, match="'age' is named twice"):
        classifier(inputCols=["age", "age"])
    with pytest.raises(ParamError, match="labelCol is 'label'"):
        classifier(inputCols=["age", "label"]).fit(people)
    with pytest.raises(SchemaError, match=r"no column 'agee'.*did you mean 'age'"):
        classifier(inputCols=["agee"]).fit(people)
    dated = people.withColumn("day", F.current_date())
    with pytest.raises(SchemaError, match="'day' has type date"):
        classifier(inputCols=["age", "day"]).fit(dated)
    bare = people.withColumn("point", F.expr("point"))
    sizeless = bare.withMetadata("point", {})
    with pytest.raises(SchemaError, match="'point' does not declare its size"):
        classifier().fit(sizeless)
    with pytest.raises(SchemaError, match="expected a text column, as in training"):
        model.transform(people.withColumn("city", F.lit(1.0)))
    with pytest.raises(SchemaError, match="no column 'city'"):
        model.transform(people.drop("city"))
    monkeypatch.setattr(input_columns, "_MOST_VALUES", 3)
    with pytest.raises(DataError, match="'city' has more than 3 values"):
        classifier().fit(people)
