"""Rows without a label, and rows with holes: what the commands make of them, and say."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from sparknn import NeuralNetClassifier

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

Command = Callable[..., Any]

_JOB = """
[data]
train = "{data}/points.csv"
features = ["x", "y"]
label = "colour"
[network]
hiddenLayers = [8]
[training]
maxIter = 1
seed = 1
[averaging]
numWorkers = 1
[output]
model = "{out}/{name}"
"""


@pytest.fixture(scope="module")
def models(points: Path, tmp_path_factory: pytest.TempPathFactory, spark: "SparkSession") -> Path:
    """A folder with one model that refuses rows with holes, and one that leaves them out."""
    from sparknn.cli import main

    out = tmp_path_factory.mktemp("models")
    for name in ("error", "skip"):
        job = out / f"{name}.toml"
        job.write_text(_JOB.format(data=points, out=out, name=name))
        assert main(["train", str(job), "--set", f"data.handleInvalid={name}"]) == 0
    return out


@pytest.fixture
def holes(tmp_path: Path) -> Path:
    """Four rows without a label, of which one has a hole and one is infinite."""
    path = tmp_path / "holes.csv"
    path.write_text("id,x,y\n1,0.1,-0.2\n2,,0.3\n3,6.1,0.3\n4,Infinity,0.3\n")
    return path


def written(path: Path) -> dict[int, float | None]:
    """Predictions in JSON, by id."""
    lines = [line for part in path.glob("part-*") for line in part.read_text().splitlines()]
    return {row["id"]: row.get("prediction") for row in map(json.loads, lines)}


def test_a_model_that_skips_predicts_rows_without_a_label(
    models: Path, holes: Path, tmp_path: Path, sparknn: Command
) -> None:
    out = tmp_path / "out.json"
    ran = sparknn("predict", "--model", models / "skip", "--data", holes, "--output", out)
    assert ran.status == 0, ran.err
    assert set(written(out)) == {1, 3}
    assert "2 of 4 rows were left out: their values are null, NaN or infinite." in ran.err


def test_predict_does_not_mind_labels_that_it_does_not_know(
    models: Path, tmp_path: Path, sparknn: Command
) -> None:
    new, out = tmp_path / "new.csv", tmp_path / "out.json"
    new.write_text("id,x,y,colour\n1,0.1,-0.2,mauve\n2,0,0.3,\n3,6.1,0.3,red\n")
    for name in ("error", "skip"):
        arguments = ["--data", new, "--output", out, "--overwrite"]
        ran = sparknn("predict", "--model", models / name, *arguments)
        assert ran.status == 0, ran.err
        assert set(written(out)) == {1, 2, 3}
        assert "left out" not in ran.err


@pytest.mark.parametrize("name", ["error", "skip"])
def test_evaluate_names_the_label_that_is_missing(
    name: str, models: Path, holes: Path, sparknn: Command
) -> None:
    ran = sparknn("evaluate", "--model", models / name, "--data", holes)
    assert ran.status == 2
    assert "--data: there is no label column 'colour'; there are id, x, y." in ran.err


@pytest.mark.parametrize("name", ["error", "skip"])
def test_predict_does_with_holes_what_it_is_told(
    name: str, models: Path, holes: Path, tmp_path: Path, sparknn: Command
) -> None:
    out = tmp_path / "out.json"
    arguments = ["predict", "--model", models / name, "--data", holes, "--output", out]
    ran = sparknn(*arguments, "--invalid", "error")
    assert ran.status == 1
    assert "--invalid skip leaves such rows out, --invalid keep" in ran.err
    assert "--data: column 'x' is null, NaN or infinite in 2 of 4 rows. " in ran.err
    assert len([line for line in ran.err.splitlines() if line.startswith("sparknn: ")]) == 1
    assert not out.exists()

    ran = sparknn(*arguments, "--invalid", "keep")
    assert ran.status == 0, ran.err
    kept = written(out)
    assert set(kept) == {1, 2, 3, 4}
    assert [kept[2], kept[4]] == [None, None]
    assert None not in (kept[1], kept[3])

    ran = sparknn(*arguments, "--invalid", "skip", "--overwrite")
    assert ran.status == 0, ran.err
    assert set(written(out)) == {1, 3}
    assert "2 of 4 rows were left out" in ran.err


def test_evaluate_leaves_holes_out_and_counts_them(
    models: Path, tmp_path: Path, sparknn: Command
) -> None:
    data = tmp_path / "labelled.csv"
    data.write_text("x,y,colour\n0.1,-0.2,blue\n,0.3,red\n6.1,0.3,green\n")
    arguments = ["evaluate", "--model", models / "error", "--data", data]
    ran = sparknn(*arguments)
    assert ran.status == 1
    assert "--data: column 'x' is null, NaN or infinite in 1 of 3 rows. --invalid skip" in ran.err
    ran = sparknn(*arguments, "--invalid", "skip")
    assert ran.status == 0, ran.err
    assert "of 2 rows wrong" in ran.out
    assert "1 of 3 rows were left out: their values are null, NaN or infinite" in ran.err
    assert sparknn(*arguments, "--invalid", "keep").status == 2


def test_the_test_after_a_training_counts_them_too(
    points: Path, tmp_path: Path, sparknn: Command
) -> None:
    job, data = tmp_path / "job.toml", tmp_path / "test.csv"
    job.write_text(_JOB.format(data=points, out=tmp_path, name="model"))
    data.write_text("x,y,colour\n0.1,-0.2,blue\n,0.3,red\n6.1,0.3,green\n")
    ran = sparknn("train", job, "--set", "data.handleInvalid=skip", f"data.test={data}")
    assert ran.status == 0, ran.err
    assert "1 of 3 rows were left out" in ran.err
    (line,) = [line for line in ran.err.splitlines() if line.startswith("Trained ")]
    assert ": 1 round; of which " in line
    assert line.endswith(" s to take the rows in.")


def test_predict_names_the_columns_that_are_missing(
    models: Path, tmp_path: Path, sparknn: Command
) -> None:
    data = tmp_path / "data.csv"
    data.write_text("id,x,yy\n1,0.1,-0.2\n")
    arguments = ["--model", models / "error", "--data", data, "--output", tmp_path / "out"]
    ran = sparknn("predict", *arguments)
    assert ran.status == 2
    assert "--data: there is no column 'y'; did you mean 'yy'? The model was trained" in ran.err
    assert "on x, y." in ran.err
    data.write_text("x,y,prediction\n1,0.1,-0.2\n")
    ran = sparknn("predict", *arguments)
    assert ran.status == 2
    assert "--data: Output column 'prediction' already exists" in ran.err


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "x,y,colour\n1,,red\n,,blue\n1,2,red\nNaN,1,blue\n",
            "data.train: column 'x' is null, NaN or infinite in 2 of 4 rows; column 'y' is null, "
            "NaN or infinite in 2 of 4 rows. data.handleInvalid = 'skip' leaves such rows out.",
        ),
        (
            "x,y,colour\n1,1,red\n2,1,\n1,2,blue\n",
            "data.train: column 'colour' is null in 1 of 3 rows. data.handleInvalid = 'skip'",
        ),
        (
            "x,y,colour\n1,1,red\n2,1,red\n",
            "data.label: column 'colour' holds one class only ('red'): there is nothing to tell",
        ),
        (
            "x,y,colour\n1,1,0\n2,1,0\n",
            "and data.numClasses tells it of others.",
        ),
    ],
)
def test_training_rows_are_told_of_in_their_own_columns(
    text: str, expected: str, points: Path, tmp_path: Path, sparknn: Command
) -> None:
    job, data = tmp_path / "job.toml", tmp_path / "train.csv"
    job.write_text(_JOB.format(data=points, out=tmp_path, name="model"))
    data.write_text(text)
    ran = sparknn("train", job, "--set", f"data.train={data}")
    assert ran.status == 1
    (line,) = [line for line in ran.err.splitlines() if line.startswith("sparknn: ")]
    assert expected in line
    assert "labelIndex" not in line


@pytest.mark.parametrize(("text", "more"), [("x,y,colour\n", ""), ("", ", nor a header")])
def test_a_csv_without_rows(
    text: str, more: str, points: Path, tmp_path: Path, sparknn: Command
) -> None:
    job, data = tmp_path / "job.toml", tmp_path / "empty.csv"
    job.write_text(_JOB.format(data=points, out=tmp_path, name="model"))
    data.write_text(text)
    for key in ("data.train", "data.test"):
        ran = sparknn("train", job, "--set", f"{key}={data}")
        assert ran.status == 2
        assert f"{key}: there are no rows in {data}{more}." in ran.err


def test_pipelines_of_other_stages(spark: "SparkSession", tmp_path: Path, sparknn: Command) -> None:
    """What a stage calls its features may be what it makes, and an indexer needs no label."""
    from pyspark.ml import Pipeline
    from pyspark.ml.feature import RFormula, StringIndexer, VectorAssembler

    network = NeuralNetClassifier(hiddenLayers=[2], maxIter=1, numWorkers=1)
    formula = RFormula(formula="colour ~ x + y", featuresCol="made", labelCol="index")
    indexer = StringIndexer(inputCols=["kind", "colour"], outputCols=["kindIndex", "index"])
    assembler = VectorAssembler(inputCols=["x", "y", "kindIndex"], outputCol="made")
    rows = "id,x,y,kind,colour\n1,1,2,a,red\n2,2,1,b,blue\n3,0,1,a,red\n"
    data, new = tmp_path / "data.csv", tmp_path / "new.csv"
    data.write_text(rows)
    new.write_text("x,y,kind\n1,2,a\n")
    df = spark.read.csv(str(data), header=True, inferSchema=True)
    network.setParams(featuresCol="made", labelCol="index")
    for name, before in (("formula", [formula]), ("indexer", [indexer, assembler])):
        model = tmp_path / name
        Pipeline(stages=[*before, network]).fit(df).save(str(model))
        ran = sparknn("evaluate", "--model", model, "--data", data)
        assert ran.status == 0, ran.err
        output = tmp_path / f"{name}-out"
        ran = sparknn("predict", "--model", model, "--data", new, "--output", output)
        assert ran.status == 0, ran.err
    new.write_text("x,kind\n1,a\n")
    ran = sparknn("predict", "--model", model, "--data", new, "--output", tmp_path / "none")
    assert ran.status == 2
    assert "--data: there is no column 'y'" in ran.err


def test_evaluate_tells_of_labels_that_the_model_does_not_know(
    models: Path, tmp_path: Path, sparknn: Command
) -> None:
    data = tmp_path / "data.csv"
    data.write_text("x,y,colour\n1,1,pink\n")
    ran = sparknn("evaluate", "--model", models / "error", "--data", data)
    assert ran.status == 1
    assert (
        "--data: there are labels besides those that the model knows, blue, green, red" in ran.err
    )
