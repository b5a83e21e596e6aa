"""From raw columns to a tuned pipeline: what the conformance suite does not put together."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from pyspark.ml import Pipeline
from pyspark.ml.evaluation import (
    BinaryClassificationEvaluator,
    MulticlassClassificationEvaluator,
    RegressionEvaluator,
)
from pyspark.ml.feature import (
    Imputer,
    IndexToString,
    OneHotEncoder,
    StandardScaler,
    StringIndexer,
    VectorAssembler,
)
from pyspark.ml.tuning import CrossValidator, ParamGridBuilder, TrainValidationSplit
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

import sparknn.ml.fit as train_module
from sparknn import NeuralNetClassifier, NeuralNetRegressor

QUICK: dict[str, Any] = {"hiddenLayers": [8], "maxIter": 4, "numWorkers": 2, "batchSize": 16}


@pytest.fixture(scope="module")
def raw(spark: SparkSession) -> Iterator[DataFrame]:
    """Colours decide the kind of a thing and add to its price; sizes are missing here and there."""
    rng = np.random.default_rng(4)
    colours = rng.choice(["red", "green", "blue"], 300)
    sizes, ages = rng.normal(5, 2, 300), rng.integers(0, 50, 300)
    kinds = np.where(colours == "red", "new", np.where(ages > 25, "old", "fair"))
    prices = 10 * sizes + 30 * (colours == "red") - ages
    rows = [
        (i, str(colour), None if i % 10 == 3 else size, age, str(kind), price)
        for i, (colour, size, age, kind, price) in enumerate(
            zip(colours, sizes.tolist(), ages.tolist(), kinds, prices.tolist(), strict=True)
        )
    ]
    columns = "id long, colour string, size double, age int, kind string, price double"
    frame = spark.createDataFrame(rows, columns).cache()
    yield frame
    frame.unpersist()


def features() -> list[Any]:
    """Raw columns to a scaled vector."""
    return [
        Imputer(inputCols=["size"], outputCols=["known size"]),
        StringIndexer(inputCol="colour", outputCol="colour index", handleInvalid="keep"),
        OneHotEncoder(inputCol="colour index", outputCol="colour vector"),
        VectorAssembler(inputCols=["known size", "age", "colour vector"], outputCol="raw"),
        StandardScaler(inputCol="raw", outputCol="features", withMean=True),
    ]


def kinds() -> StringIndexer:
    return StringIndexer(inputCol="kind", outputCol="label", stringOrderType="alphabetAsc")


def test_from_raw_columns_to_words(raw: DataFrame) -> None:
    """Classes are named by the label's metadata; every evaluator finds its columns."""
    classifier = NeuralNetClassifier(**QUICK)
    pipeline = Pipeline(stages=[*features(), kinds(), classifier])
    model = pipeline.fit(raw, {classifier.maxIter: 8, classifier.probabilityCol: "chances"})
    words = IndexToString(inputCol="prediction", outputCol="word", labels=model.stages[-2].labels)
    predicted = words.transform(model.transform(raw)).cache()
    assert model.stages[-1].summary.totalIterations == 8
    assert predicted.where("word = kind").count() > 240
    evaluators = MulticlassClassificationEvaluator(probabilityCol="chances")
    for metric, least in (("f1", 0.8), ("accuracy", 0.8), ("weightedRecall", 0.8)):
        assert evaluators.setMetricName(metric).evaluate(predicted) > least
    assert evaluators.setMetricName("logLoss").evaluate(predicted) < np.log(3)
    predicted.unpersist()


def test_two_classes_in_the_binary_evaluator(raw: DataFrame) -> None:
    """Which ranks rows by the second of two columns, whether logits or probabilities."""
    hard = (F.col("age") + 8 * F.col("size") > F.randn(1) * 30 + 65).cast("int")
    frame = raw.where("size is not null").withColumn("above", hard)
    classifier = NeuralNetClassifier(**{**QUICK, "hiddenLayers": []}, labelCol="above")
    predicted = Pipeline(stages=[*features(), classifier]).fit(frame).transform(frame)
    areas = [
        BinaryClassificationEvaluator(rawPredictionCol=column, labelCol="above").evaluate(predicted)
        for column in ("rawPrediction", "probability")
    ]
    assert areas[0] == pytest.approx(areas[1], abs=1e-3)
    assert 0.7 < areas[0] < 0.99


def test_a_tuned_stage_in_a_pipeline(raw: DataFrame, monkeypatch: pytest.MonkeyPatch) -> None:
    """Features are computed once, and the search ingests once per fold."""
    opened = []
    original = train_module.open_engine

    def counted(*arguments: Any) -> Any:
        opened.append(arguments)
        return original(*arguments)

    monkeypatch.setattr(train_module, "open_engine", counted)
    regressor = NeuralNetRegressor(**QUICK, labelCol="price")
    grid = ParamGridBuilder().addGrid(regressor.stepSize, [1e-4, 0.02]).build()
    evaluator = RegressionEvaluator(labelCol="price")
    search = CrossValidator(
        estimator=regressor, estimatorParamMaps=grid, evaluator=evaluator, numFolds=2, seed=3
    )
    model = Pipeline(stages=[*features(), search]).fit(raw)
    assert len(opened) == 3
    assert model.stages[-1].bestModel.getStepSize() == 0.02


def test_a_grid_over_columns(raw: DataFrame) -> None:
    """Features, labels and outputs may differ from map to map; the evaluator follows one name."""
    frame = Pipeline(stages=[*features(), kinds()]).fit(raw).transform(raw)
    classifier = NeuralNetClassifier(**QUICK)
    grid = [
        {classifier.featuresCol: "features", classifier.probabilityCol: "p"},
        {classifier.featuresCol: "raw", classifier.rawPredictionCol: "r"},
    ]
    search = TrainValidationSplit(
        estimator=classifier,
        estimatorParamMaps=grid,
        evaluator=MulticlassClassificationEvaluator(metricName="accuracy"),
        parallelism=2,
        collectSubModels=True,
        seed=3,
    )
    model = search.fit(frame.select("id", "label", "features", "raw"))
    assert [m.getProbabilityCol() for m in model.subModels] == ["p", "probability"]
    assert [m.getFeaturesCol() for m in model.subModels] == ["features", "raw"]
    assert min(model.validationMetrics) > 0.5


def test_folds_that_lack_a_class(raw: DataFrame) -> None:
    """The metadata that StringIndexer leaves survives folds: every model knows all classes."""
    rare = raw.where("kind <> 'new'").limit(100).union(raw.where("kind = 'new'").limit(1))
    frame = Pipeline(stages=[*features(), kinds()]).fit(rare).transform(rare)
    classifier = NeuralNetClassifier(**QUICK)
    search = CrossValidator(
        estimator=classifier,
        estimatorParamMaps=[{classifier.maxIter: 1}, {classifier.maxIter: 2}],
        evaluator=MulticlassClassificationEvaluator(metricName="accuracy"),
        numFolds=2,
        parallelism=2,
        collectSubModels=True,
        seed=3,
    )
    model = search.fit(frame)
    assert {m.numClasses for fold in model.subModels for m in fold} == {3}
