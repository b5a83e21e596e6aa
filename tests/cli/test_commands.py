"""Commands from end to end, on the tests' own Spark, which they use and leave running."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from sparknn import NeuralNetClassificationModel, NeuralNetClassifier

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

Command = Callable[..., Any]


def accuracy(text: str) -> float:
    """The percentage that a report states."""
    return float(re.search(r"accuracy ([\d.]+)%", text)[1])


def written(path: Path) -> dict[int, dict[str, Any]]:
    """Rows written as JSON, by id."""
    lines = [line for part in path.glob("part-*") for line in part.read_text().splitlines()]
    return {row["id"]: row for row in map(json.loads, lines)}


def line_of(ran: Any) -> str:
    """The one line that says why a command failed."""
    (line,) = [line for line in ran.err.splitlines() if line.startswith("sparknn: ")]
    assert "Traceback" not in ran.err
    return line


def test_train_reports_and_writes_all_it_was_asked_for(
    job: Path, points: Path, tmp_path: Path, sparknn: Command, spark: "SparkSession"
) -> None:
    more = [f"output.curve={tmp_path}/pictures/curve.png", f"data.test={points}/points.csv"]
    more += [f"output.predictions={tmp_path}/predictions.csv", "data.validationFraction=0.1"]
    ran = sparknn("train", "--set", *more, job)
    assert ran.status == 0, ran.err
    assert accuracy(ran.out) > 90
    assert "blue" in ran.out
    rounds = [line for line in ran.err.splitlines() if line.startswith("round ")]
    assert [line.split()[1] for line in rounds] == ["1/3", "2/3", "3/3"]
    assert all("accuracy" in line and "rows/s" in line for line in rounds)
    assert "Trained 2-8-3 on " in ran.err
    lines = ("Starting Spark", f"Reading {points}", "round 1/3", "Saved the model", "Testing on")
    places = [ran.err.index(line) for line in lines]
    assert places == sorted(places)
    assert (tmp_path / "model" / "metadata").is_dir()
    found = spark.read.csv(str(tmp_path / "predictions.csv"), header=True)
    assert found.count() == 300
    assert {"colour", "probability", "prediction", "predictedLabel"} <= set(found.columns)
    assert not spark.sparkContext._jsc.sc().isStopped()
    pytest.importorskip("matplotlib")
    assert (tmp_path / "pictures" / "curve.png").read_bytes().startswith(b"\x89PNG")


def test_what_is_wrong_with_paths_is_reported_before_the_training(
    job: Path, trained: Path, sparknn: Command
) -> None:
    ran = sparknn(
        *("train", job, "--set", "data.train=/nowhere/points.csv", "data.test=/nowhere/t.csv"),
        *(f"output.model={trained}", "output.predictions=/proc/x/p.csv"),
    )
    assert ran.status == 2
    for expected in (
        "job.toml with --set: 4 mistakes",
        "data.train: there is no /nowhere/points.csv.",
        "data.test: there is no /nowhere/t.csv.",
        f"output.model: {trained} exists already.",
        "output.predictions: /proc/x/p.csv cannot be written (",
    ):
        assert expected in ran.err
    assert "round" not in ran.err
    ran = sparknn("train", job, "--set", "output.model=/nowhere/m", "data.label=color")
    assert ran.status == 2


def test_columns_are_checked_before_the_training(
    job: Path, tmp_path: Path, sparknn: Command
) -> None:
    ran = sparknn("train", job, "--set", "data.features=['x','yy']", "data.weight=w")
    assert ran.status == 2
    assert "job.toml with --set: 2 mistakes\n  data.features: There is no column 'yy'" in ran.err
    (tmp_path / "test.csv").write_text("x,colour\n1,red\n")
    ran = sparknn("train", job, "--set", f"data.test={tmp_path}/test.csv")
    assert ran.status == 2
    assert "data.test: There is no column 'y'" in line_of(ran)
    (tmp_path / "test.csv").write_text("x,y,colour\n")
    ran = sparknn("train", job, "--set", f"data.test={tmp_path}/test.csv")
    assert ran.status == 2
    assert "data.test: there are no rows in" in line_of(ran)
    assert "round" not in ran.err
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "x,y,colour\n1,,red\n,,blue\n1,2,red\nNaN,1,blue\n",
            "column 'x' is null, NaN or infinite in 2 of 4 rows; column 'y' is null, NaN or "
            "infinite in 2 of 4 rows. Set handleInvalid='skip' to skip rows",
        ),
        (
            "x,y,colour\n1,1,red\n2,1,\n1,2,blue\n",
            "data.train: column 'colour' is null in 1 of 3 rows. data.handleInvalid = 'skip'",
        ),
        (
            "x,y,colour\n1,1,red\n2,1,red\n",
            "data.label: column 'colour' holds one class only ('red')",
        ),
        ("x,y,colour\n1,1,-1\n,1,0\n", "column 'colour' is negative in 1 of 2 rows"),
    ],
)
def test_training_rows_are_named_in_their_own_columns(
    text: str, expected: str, job: Path, tmp_path: Path, sparknn: Command
) -> None:
    (tmp_path / "train.csv").write_text(text)
    ran = sparknn("train", job, "--set", f"data.train={tmp_path}/train.csv")
    assert ran.status == 1
    assert expected in line_of(ran)
    assert "labelIndex" not in ran.err.split("sparknn: ")[1]


def test_missing_features_are_kept_and_missing_labels_are_not(
    job: Path, tmp_path: Path, sparknn: Command
) -> None:
    train = tmp_path / "train.csv"
    train.write_text("x,y,colour\n1,,red\n2,1,\n1,2,blue\n")
    more = [f"data.train={train}", "data.handleInvalid=keep"]
    ran = sparknn("train", job, "--set", *more)
    assert ran.status == 1
    assert "data.train: column 'colour' is null in 1 of 3 rows." in line_of(ran)
    # A text that is missing is a category.
    train.write_text("x,y,kind,colour\n1,,a,red\n2,1,,red\n1,2,b,blue\n")
    more += ["data.features=['x','y','kind']", f"data.test={train}"]
    ran = sparknn("train", job, "--set", *more)
    assert ran.status == 0, ran.err
    assert "Text, whose values become categories: kind." in ran.err
    assert "on 3 rows" in ran.err
    assert "of 3 rows wrong" in ran.out
    # What a model replaces is not named as missing.
    data, arguments = tmp_path / "new.csv", ["evaluate", "--model", tmp_path / "model", "--data"]
    data.write_text("x,y,kind,colour\n1,,c,red\n2,1,,pink\n")
    ran = sparknn(*arguments, data, "--invalid", "error")
    assert ran.status == 1
    assert "--data: column 'colour' is none of the labels that the model knows" in line_of(ran)


def test_a_saved_pipeline_can_be_continued_from(
    job: Path, points: Path, trained: Path, tmp_path: Path, sparknn: Command
) -> None:
    """Of the three colours two are left, and would be numbered from 0 again."""
    rows = (points / "points.csv").read_text().splitlines()
    two = tmp_path / "two.csv"
    two.write_text("\n".join(row for row in rows if "blue" not in row) + "\n")
    more = [f"training.initialModel={trained}", f"data.train={two}", "training.stepSize=1e-9"]
    ran = sparknn("train", job, "--set", *more, f"data.test={points}/points.csv")
    assert ran.status == 0, ran.err
    assert accuracy(ran.out) > 90
    more.append("output.overwrite=true")
    ran = sparknn("train", job, "--set", *more, "data.features=['y','x']")
    assert ran.status == 2
    assert "data.features = ['y', 'x']; the initial model was trained on ['x', " in line_of(ran)
    ran = sparknn("train", job, "--set", *more, "task=regression", "data.label=id")
    assert ran.status == 2
    assert "training.initialModel is a NeuralNetClassificationModel; expected" in line_of(ran)
    two.write_text("\n".join(row.replace("red", "pink") for row in rows) + "\n")
    ran = sparknn("train", job, "--set", *more)
    assert ran.status == 1
    assert (
        "column 'colour' is none of the labels that the model knows (blue, green, red) in 115 "
        in (line_of(ran))
    )


def test_predict_needs_no_label(trained: Path, tmp_path: Path, sparknn: Command) -> None:
    new, out = tmp_path / "new.csv", tmp_path / "out.json"
    new.write_text("id;x;y;colour\n7;0.1;-0.2;mauve\n8;6.1;0.3;\n")
    arguments = ["predict", "--model", trained, "--data", new, "--option", "sep=;"]
    arguments += ["--output", out, "--columns", "id, predictedLabel"]
    ran = sparknn(*arguments)
    assert ran.status == 0, ran.err
    assert {i: row["predictedLabel"] for i, row in written(out).items()} == {7: "blue", 8: "green"}
    assert "left out" not in ran.err
    again = sparknn(*arguments)
    assert again.status == 2
    assert f"--output: {out} exists already. Name another path, or use --overwrite." in again.err
    ran = sparknn(*arguments[:-1], "id,predicted", "--overwrite")
    assert ran.status == 2
    assert "There is no column 'predicted' (needed); did you mean" in line_of(ran)
    ran = sparknn(*arguments[:7], "--output", tmp_path, "--overwrite")
    assert ran.status == 2
    assert f"--output: {tmp_path} would replace --data." in line_of(ran)


def test_predict_treats_missing_values_as_it_is_told(
    trained: Path, tmp_path: Path, sparknn: Command
) -> None:
    new, out = tmp_path / "new.csv", tmp_path / "out.json"
    new.write_text("id,x,y\n1,0.1,-0.2\n2,,0.3\n3,6.1,0.3\n4,Infinity,0.3\n")
    arguments = ["predict", "--model", trained, "--data", new, "--output", out]
    ran = sparknn(*arguments)
    assert ran.status == 1
    expected = "--data: column 'x' is null, NaN or infinite in 2 of 4 rows. --invalid skip leaves"
    assert expected in line_of(ran)
    assert not out.exists()
    ran = sparknn(*arguments, "--invalid", "keep")
    assert ran.status == 0, ran.err
    kept = {i: row.get("predictedLabel") for i, row in written(out).items()}
    assert kept == {1: "blue", 2: None, 3: "green", 4: None}
    ran = sparknn(*arguments, "--invalid", "skip", "--overwrite")
    assert ran.status == 0, ran.err
    assert set(written(out)) == {1, 3}
    assert "2 of 4 rows were left out: their values are null, NaN or infinite." in ran.err


def test_evaluate(trained: Path, points: Path, tmp_path: Path, sparknn: Command) -> None:
    ran = sparknn("evaluate", "--model", trained, "--data", points / "points.csv")
    assert ran.status == 0, ran.err
    assert accuracy(ran.out) > 90
    assert "blue" in ran.out
    data = tmp_path / "data.csv"
    data.write_text("x,y,colour\n0.1,-0.2,blue\n,0.3,red\n6.1,0.3,green\n1,1,pink\n")
    ran = sparknn("evaluate", "--model", trained, "--data", data)
    assert ran.status == 1
    line = line_of(ran)
    assert "--data: column 'x' is null, NaN or infinite in 1 of 4 rows; column 'colour' is" in line
    assert "none of the labels that the model knows (blue, green, red) in 1 of 4 rows." in line
    ran = sparknn("evaluate", "--model", trained, "--data", data, "--invalid", "skip")
    assert ran.status == 0, ran.err
    assert "of 2 rows wrong" in ran.out
    assert "2 of 4 rows were left out: their values are null, NaN or infinite, or " in ran.err
    data.write_text("id,x,y\n7,0.1,-0.2\n")
    ran = sparknn("evaluate", "--model", trained, "--data", data)
    assert ran.status == 2
    assert "--data: There is no column 'colour' (needed). Columns: id, x, y" in line_of(ran)


def test_the_pipeline_of_the_readme(
    tmp_path: Path, sparknn: Command, spark: "SparkSession"
) -> None:
    """One indexer for a feature and the label: only the label is not needed, or unknown."""
    from pyspark.ml import Pipeline
    from pyspark.ml.feature import OneHotEncoder, StringIndexer, VectorAssembler

    index = StringIndexer(inputCols=["country", "bought"], outputCols=["countryIndex", "label"])
    encode = OneHotEncoder(inputCol="countryIndex", outputCol="countryVector")
    assemble = VectorAssembler(inputCols=["age", "income", "countryVector"], outputCol="features")
    network = NeuralNetClassifier(hiddenLayers=[2], maxIter=1, numWorkers=1)
    rows = [("CH", 30.0, 5e4, "yes"), ("CN", 40.0, 1e3, "no"), ("CN", 50.0, 2e3, "no")]
    train = spark.createDataFrame(rows, "country string, age double, income double, bought string")
    Pipeline(stages=[index, encode, assemble, network]).fit(train).save(str(tmp_path / "model"))
    data, out = tmp_path / "new.csv", tmp_path / "out.json"
    data.write_text("id,country,age,income,bought\n1,CH,30,50000,maybe\n2,CN,40,1000,\n")
    arguments = ["--model", tmp_path / "model", "--data", data, "--invalid", "skip"]
    ran = sparknn("predict", *arguments, "--output", out, "--columns", "id,prediction")
    assert ran.status == 0, ran.err
    assert set(written(out)) == {1, 2}
    data.write_text("id,country,age,income,bought\n1,CH,30,50000,maybe\n2,CN,40,1000,no\n")
    ran = sparknn("evaluate", *arguments)
    assert ran.status == 0, ran.err
    assert "of 1 row wrong" in ran.out
    assert "1 of 2 rows were left out" in ran.err


def test_a_model_without_stages_is_a_model(
    points: Path, job: Path, tmp_path: Path, sparknn: Command, spark: "SparkSession"
) -> None:
    """libsvm has vectors and numbers: nothing stands before or after the network."""
    data = points / "points.libsvm"
    more = [f"data.train={data}", f"data.test={data}", "data.label=label", "data.features=features"]
    ran = sparknn("train", job, "--set", *more)
    assert ran.status == 0, ran.err
    assert accuracy(ran.out) > 90
    model = NeuralNetClassificationModel.load(str(tmp_path / "model"))
    assert (model.numFeatures, model.layers[1:]) == (2, [8, 3])
    few = tmp_path / "few.libsvm"
    few.write_text("0 1:0.5\n")  # the second feature is 0: the file does not show that it exists
    ran = sparknn("evaluate", "--model", tmp_path / "model", "--data", few)
    assert ran.status == 0, ran.err
    assert accuracy(ran.out) == 100


def test_tables_and_a_regression(
    points: Path, tmp_path: Path, sparknn: Command, spark: "SparkSession"
) -> None:
    job = tmp_path / "job.toml"
    job.write_text(
        "task = 'regression'\n[data]\ntrain = 'cli_points'\ntest = 'cli_points'\n"
        "format = 'table'\nfeatures = 'x'\nlabel = 'z'\n[network]\nhiddenLayers = [8]\n"
        "[training]\nmaxIter = 10\n[averaging]\nnumWorkers = 1\n"
        "[output]\npredictions = 'cli_predicted'\npredictionsFormat = 'table'\n"
    )
    spark.read.csv(str(points / "points.csv"), header=True, inferSchema=True).selectExpr(
        "x", "3 * x + 1 as z"
    ).write.saveAsTable("cli_points")
    try:
        ran = sparknn("train", job)
        assert ran.status == 0, ran.err
        assert "warning: There is no output.model" in ran.err
        assert float(re.search(r"R2 ([-\d.]+)", ran.out)[1]) > 0.9
        assert spark.table("cli_predicted").count() == 300
    finally:
        spark.sql("drop table cli_points")
        spark.sql("drop table if exists cli_predicted")


@pytest.mark.parametrize("stage", ["", "stages/1_*"])
@pytest.mark.parametrize("kept", ["", "{"])
def test_a_model_whose_metadata_are_cut_off(
    kept: str, stage: str, trained: Path, points: Path, tmp_path: Path, sparknn: Command
) -> None:
    model = shutil.copytree(trained, tmp_path / "model")
    (folder,) = model.glob(f"{stage}/metadata" if stage else "metadata")
    for path in folder.iterdir():
        path.unlink()
    if kept:
        (folder / "part-00000").write_text(kept)
    ran = sparknn("evaluate", "--model", model, "--data", points / "points.csv")
    assert ran.status == 1
    assert f"--model: the model at {model} cannot be read (" in line_of(ran)


def test_what_is_no_model(tmp_path: Path, points: Path, sparknn: Command, spark: object) -> None:
    from pyspark.ml import PipelineModel

    arguments = ["--data", points / "points.csv"]
    ran = sparknn("evaluate", "--model", "/nowhere", *arguments)
    assert ran.status == 2
    assert "--model: there is no model at /nowhere." in line_of(ran)
    PipelineModel([]).save(str(tmp_path / "empty"))
    ran = sparknn("evaluate", "--model", tmp_path / "empty", *arguments)
    assert ran.status == 1
    assert "holds a PipelineModel without a neural network" in line_of(ran)
