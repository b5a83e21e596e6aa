"""What the columns of a job are, and which cannot be used: asked of schemas, without Spark."""

import pytest
from models import classifier
from pyspark.ml import PipelineModel
from pyspark.ml.feature import StringIndexerModel, VectorAssembler
from pyspark.ml.linalg import VectorUDT
from pyspark.sql import SparkSession
from pyspark.sql.types import (
    ArrayType,
    BooleanType,
    DateType,
    DoubleType,
    IntegerType,
    StringType,
    StructField,
    StructType,
)

from sparknn import NeuralNetClassifier, NeuralNetRegressor
from sparknn.cli.pipeline import Columns, column_mistakes
from sparknn.cli.saved_model import SavedModel

_TYPES = {
    "id": IntegerType(),
    "x": DoubleType(),
    "y": DoubleType(),
    "colour": StringType(),
    "v": VectorUDT(),
    "a": ArrayType(DoubleType()),
    "is_test": BooleanType(),
    "day": DateType(),
}


def schema(**changes: object) -> StructType:
    """The columns of the points and some more; with changes, None to leave one out."""
    types = {name: kind for name, kind in {**_TYPES, **changes}.items() if kind is not None}
    return StructType([StructField(name, kind) for name, kind in types.items()])


def test_columns_are_inputs_or_ready_features() -> None:
    def plan(*features: str, label: str = "id") -> Columns:
        return Columns.of(schema(), features, label, classifies=True)

    both = plan("x", "colour", label="colour")
    assert both.params() == {"inputCols": ["x", "colour"], "labelCol": "labelIndex"}
    assert plan("v").params() == {"featuresCol": "v", "labelCol": "id"}
    assert plan("a").params() == {"featuresCol": "a", "labelCol": "id"}
    assert plan("v", "x").params() == {"inputCols": ["v", "x"], "labelCol": "id"}
    assert plan("colour").params() == {"inputCols": ["colour"], "labelCol": "id"}
    taken = Columns.of(schema(LabelIndex=DoubleType()), ["x"], "colour", classifies=True)
    assert taken.index == "labelIndex_"


def mistakes(
    features: list[str] = ["x", "y"],  # noqa: B006
    label: str = "colour",
    *,
    regression: bool = False,
    **params: str,
) -> list[str]:
    estimator = NeuralNetRegressor(**params) if regression else NeuralNetClassifier(**params)
    columns = Columns.of(schema(), features, label, classifies=not regression)
    return column_mistakes(schema(), columns, estimator, case_matters=False)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"features": ["x", "yy"]}, "data.features: There is no column 'yy'"),
        ({"features": ["x", "day"]}, "data.features: Column 'day' has type date; expected"),
        ({"features": ["x", "v"]}, "data.features: Vector column 'v' does not declare its size"),
        ({"features": ["x", "colour"]}, "data.features: Column 'colour' is the label."),
        ({"features": ["x", "id"], "label": "id"}, "data.features: Column 'id' is the label."),
        ({"weightCol": "w"}, "data.weight: There is no column 'w'"),
        ({"weightCol": "colour"}, "data.weight: Column 'colour' has type string; expected numbers"),
        ({"validationIndicatorCol": "id"}, "data.validationIndicator: Column 'id' has type int"),
        ({"predictionCol": "colour"}, "output.predictionCol: Output column 'colour' already exis"),
        (
            {"predictionCol": "ID"},
            "output.predictionCol: Output column 'ID' already exists as 'id'",
        ),
        (
            {"probabilityCol": "prediction"},
            "output.probabilityCol: Output column",
        ),
        ({"regression": True}, "data.label: Column 'colour' has type string; expected a number"),
    ],
)
def test_columns_are_named_by_keys(arguments: dict, expected: str) -> None:
    assert mistakes() == []
    found = mistakes(**arguments)
    assert len(found) == 1
    assert found[0].startswith(expected)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"colour": None}, "data.test: There is no column 'colour'"),
        ({"y": StringType()}, "data.test: Column 'y' has type string; expected a number column"),
        ({"predictedLabel": StringType()}, "data.test: Output column 'predictedLabel' already"),
        ({"is_test": None, "id": None}, ""),
    ],
)
def test_test_rows_are_checked_too(changes: dict, expected: str) -> None:
    net = NeuralNetClassifier(weightCol="id", validationIndicatorCol="is_test")
    columns = Columns.of(schema(), ["x", "y"], "colour", classifies=True)
    test = "data.test", {"x": "number", "y": "number"}
    found = column_mistakes(schema(**changes), columns, net, test, case_matters=False)
    assert [text[: len(expected)] for text in found] == [expected] * bool(expected)


def test_the_labels_indexer_is_found_wherever_it_is(spark: SparkSession) -> None:
    indexer = StringIndexerModel.from_arrays_of_labels(
        [["a", "b"], ["red", "blue"]], ["kind", "colour"], ["kindIndex", "label"]
    )
    inner = PipelineModel([indexer, VectorAssembler(inputCols=["x", "y"], outputCol="features")])
    saved = SavedModel.of(PipelineModel([inner, classifier(2, 2)]))
    assert saved.class_names == ["red", "blue"]
    assert (saved.indexer, saved.text_label) == (indexer, "colour")
    rows = spark.createDataFrame([("b", 1.0, 2.0)], "kind string, x double, y double")
    assert "kindIndex" in saved.transform(rows, labelled=False, key="--data").columns
    # A label that the model does not know is no matter if it is not asked for.
    found = saved.transform(rows.selectExpr("*", "'pink' colour"), labelled=False, key="--data")
    assert found.head().asDict().items() >= {"kindIndex": 1.0, "colour": "pink"}.items()
    with pytest.raises(ValueError, match="without a neural network"):
        SavedModel.of(PipelineModel([]))
