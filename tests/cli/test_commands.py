"""Commands from end to end, on the tests' own Spark, which they use and leave running."""

import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from py4j.protocol import Py4JError

from sparknn import NeuralNetClassificationModel

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

Command = Callable[..., Any]

_CSV_JOB = """
[data]
train = "{data}/points.csv"
test = "{data}/points.csv"
features = ["x", "y"]
label = "colour"
validationFraction = 0.1

[network]
hiddenLayers = [8]

[training]
maxIter = 4
seed = 1

[averaging]
numWorkers = 2

[output]
model = "{out}/model"
curve = "{out}/pictures/curve.png"
predictions = "{out}/predictions.csv"
"""


@pytest.fixture(scope="module")
def trained(points: Path, tmp_path_factory: pytest.TempPathFactory, spark: "SparkSession") -> Path:
    """A folder with a job file; trained once, output and all."""
    from sparknn.cli import main

    out = tmp_path_factory.mktemp("trained")
    (out / "job.toml").write_text(_CSV_JOB.format(data=points, out=out))
    assert main(["train", str(out / "job.toml")]) == 0
    return out


def accuracy(text: str) -> float:
    """The percentage that a report states."""
    return float(re.search(r"accuracy ([\d.]+)%", text)[1])


def test_train_reports_and_writes_all_it_was_asked_for(
    trained: Path, points: Path, tmp_path: Path, sparknn: Command, spark: "SparkSession"
) -> None:
    job = tmp_path / "job.toml"
    job.write_text(_CSV_JOB.format(data=points, out=tmp_path))
    ran = sparknn("train", job, "--set", "training.maxIter=3")
    assert ran.status == 0, ran.err
    assert accuracy(ran.out) > 90
    assert "blue" in ran.out
    rounds = [line for line in ran.err.splitlines() if line.startswith("round ")]
    assert [line.split()[1] for line in rounds] == ["1/3", "2/3", "3/3"]
    assert all("accuracy" in line and "rows/s" in line for line in rounds)
    assert "Trained 2-8-3 on " in ran.err
    lines = (f"Reading {points}", "Reading rows and shuffling", "Ingested ", "round 1/3")
    told = [ran.err.index(line) for line in lines]
    assert told == sorted(told)
    assert (tmp_path / "model" / "metadata").is_dir()
    assert (tmp_path / "pictures" / "curve.png").read_bytes().startswith(b"\x89PNG")
    written = spark.read.csv(str(tmp_path / "predictions.csv"), header=True)
    assert written.count() == 300
    assert {"colour", "probability", "prediction", "predictedLabel"} <= set(written.columns)
    assert not spark.sparkContext._jsc.sc().isStopped()


def test_handlers_and_levels_are_put_back(points: Path, sparknn: Command) -> None:
    log = logging.getLogger("sparknn")
    before = (log.level, log.propagate, list(log.handlers))
    sparknn("train", points / "missing.toml")
    assert (log.level, log.propagate, list(log.handlers)) == before


def test_evaluate_a_pipeline(trained: Path, points: Path, sparknn: Command) -> None:
    ran = sparknn("evaluate", "--model", trained / "model", "--data", points / "points.csv")
    assert ran.status == 0, ran.err
    assert accuracy(ran.out) > 90
    assert "blue" in ran.out


def test_predict_needs_no_label(
    trained: Path, points: Path, tmp_path: Path, sparknn: Command, spark: "SparkSession"
) -> None:
    new = tmp_path / "new.csv"
    new.write_text("id;x;y\n7;0.1;-0.2\n8;6.1;0.3\n")
    arguments = ["predict", "--model", trained / "model", "--data", new, "--option", "sep=;"]
    arguments += ["--output", tmp_path / "out.json", "--columns", "id, predictedLabel"]
    ran = sparknn(*arguments)
    assert ran.status == 0, ran.err
    rows = spark.read.json(str(tmp_path / "out.json")).collect()
    assert {(row.id, row.predictedLabel) for row in rows} == {(7, "blue"), (8, "green")}

    again = sparknn(*arguments)
    assert again.status == 2
    assert "--output: the path" in again.err
    assert "exists already" in again.err
    assert "--overwrite" in again.err
    assert sparknn(*arguments, "--overwrite").status == 0


def test_a_model_without_stages_is_a_model(
    points: Path, tmp_path: Path, sparknn: Command, spark: "SparkSession"
) -> None:
    """libsvm has vectors and numbers: nothing stands before or after the network."""
    data, model = points / "points.libsvm", tmp_path / "model"
    job = tmp_path / "job.toml"
    job.write_text(
        f"[data]\ntrain = '{data}'\ntest = '{data}'\n[network]\nhiddenLayers = [8]\n"
        f"[training]\nmaxIter = 4\n[averaging]\nnumWorkers = 2\n[output]\nmodel = '{model}'\n"
    )
    ran = sparknn("train", job)
    assert ran.status == 0, ran.err
    assert accuracy(ran.out) > 90
    loaded = NeuralNetClassificationModel.load(str(model))
    assert loaded.layers == [2, 8, 3]
    few = tmp_path / "few.libsvm"
    few.write_text("0 1:0.5\n")  # the second feature is 0: the file does not tell that it exists
    ran = sparknn("evaluate", "--model", model, "--data", few)
    assert ran.status == 0, ran.err
    assert accuracy(ran.out) == 100


def test_tables_and_a_regression(
    points: Path, tmp_path: Path, sparknn: Command, spark: "SparkSession"
) -> None:
    job = tmp_path / "job.toml"
    job.write_text(
        "task = 'regression'\n[data]\ntrain = 'cli_points'\ntest = 'cli_points'\n"
        "format = 'table'\nfeatures = 'x'\nlabel = 'z'\n[network]\nhiddenLayers = [8]\n"
        "[training]\nmaxIter = 10\n[averaging]\nnumWorkers = 2\n"
        f"[output]\nmodel = '{tmp_path}/model'\npredictions = 'cli_predicted'\n"
        "predictionsFormat = 'table'\n"
    )
    spark.read.csv(str(points / "points.csv"), header=True, inferSchema=True).selectExpr(
        "x", "3 * x + 1 as z"
    ).write.saveAsTable("cli_points")
    try:
        ran = sparknn("train", job)
        assert ran.status == 0, ran.err
        assert float(re.search(r"R2 ([-\d.]+)", ran.out)[1]) > 0.9
        assert spark.table("cli_predicted").count() == 300
        ran = sparknn(
            *("evaluate", "--model", tmp_path / "model", "--data", "cli_points"),
            *("--format", "table"),
        )
        assert ran.status == 0, ran.err
        assert "R2" in ran.out
    finally:
        spark.sql("drop table cli_points")
        spark.sql("drop table if exists cli_predicted")


@pytest.mark.parametrize(
    ("override", "status", "expected"),
    [
        ("data.features=['x','yy']", 2, "data.features: there is no column 'yy' in"),
        ("data.label=color", 2, "did you mean 'colour'?"),
        ("data.weight=w", 2, "data.weight: there is no column 'w'"),
        ("data.features=['x','colour']", 2, "data.features: 'colour' is the label."),
        ("data.train=/nowhere/points.csv", 2, "data.train: there is no /nowhere/points.csv."),
        ("data.test=/nowhere/points.csv", 2, "data.test: there is no /nowhere/points.csv."),
        ("output.overwrite=false", 2, "output.model: the path"),
        ("averaging.numWorkers=-1", 2, "averaging.numWorkers = -1; expected"),
    ],
)
def test_what_is_wrong_is_said_before_the_training(
    override: str, status: int, expected: str, trained: Path, sparknn: Command
) -> None:
    ran = sparknn("train", trained / "job.toml", "--set", "output.overwrite=true", override)
    assert ran.status == status
    assert expected in ran.err
    assert "round" not in ran.err
    assert "Traceback" not in ran.err
    assert ran.out == ""


def test_a_text_feature_is_refused(points: Path, tmp_path: Path, sparknn: Command) -> None:
    job = tmp_path / "job.toml"
    job.write_text(
        f"[data]\ntrain = '{points}/points.csv'\nfeatures = ['x', 'colour']\nlabel = 'id'\n"
        f"[output]\nmodel = '{tmp_path}/model'\n"
    )
    ran = sparknn("train", job)
    assert ran.status == 2
    assert "column 'colour' is of type string" in ran.err
    assert "OneHotEncoder" in ran.err


def test_rows_that_cannot_be_trained_on_are_one_line(
    points: Path, tmp_path: Path, sparknn: Command
) -> None:
    data, job = tmp_path / "holes.csv", tmp_path / "job.toml"
    data.write_text("x,y,c\n1,2,0\n,3,1\n2,1,1\n1,1,0\n")
    job.write_text(
        f"[data]\ntrain = '{data}'\nfeatures = ['x', 'y']\nlabel = 'c'\n"
        f"[output]\nmodel = '{tmp_path}/model'\noverwrite = true\n"
    )
    ran = sparknn("train", job)
    assert ran.status == 1
    (line,) = [line for line in ran.err.splitlines() if line.startswith("sparknn: ")]
    assert "data.train: column 'x' is null" in line
    assert "Traceback" not in ran.err
    assert sparknn("train", job, "--set", "data.handleInvalid=skip").status == 0
    assert "Traceback" in sparknn("train", job, "--verbose").err


@pytest.mark.parametrize(
    ("arguments", "status", "expected"),
    [
        (["evaluate", "--model", "/nowhere", "--data", "x.csv"], 2, "--model: there is no model"),
        (["evaluate", "--model", "m", "--data", "x", "--format", "cvs"], 2, "did you mean 'csv'?"),
        (["evaluate", "--model", "m", "--data", "x", "--option", "a"], 2, "expected KEY=VALUE"),
        (["evaluate", "--model", "m"], 2, "required: --data"),
        (["predict", "--model", "m"], 2, "required: --data, --output"),
        (
            ["predict", "--model", "m", "--data", "x", "--output", "y", "--output-format", "svm"],
            2,
            "expected one of parquet, csv",
        ),
        (["trian"], 2, "invalid choice"),
        ([], 2, "required: COMMAND"),
    ],
)
def test_bad_usage(
    arguments: list[str], status: int, expected: str, sparknn: Command, spark: "SparkSession"
) -> None:
    ran = sparknn(*arguments)
    assert ran.status == status
    assert expected in ran.err
    assert "Traceback" not in ran.err


def test_a_folder_that_is_no_network(
    tmp_path: Path, sparknn: Command, spark: "SparkSession"
) -> None:
    from pyspark.ml import PipelineModel

    PipelineModel([]).save(str(tmp_path / "empty"))
    ran = sparknn("evaluate", "--model", tmp_path / "empty", "--data", "x.csv")
    assert ran.status == 1
    assert "holds a PipelineModel without a neural network" in ran.err


def test_data_without_the_label_or_a_column(
    trained: Path, tmp_path: Path, sparknn: Command
) -> None:
    new = tmp_path / "new.csv"
    new.write_text("id,x,y\n7,0.1,-0.2\n")
    ran = sparknn("evaluate", "--model", trained / "model", "--data", new)
    assert ran.status == 2
    assert "no label column" in ran.err
    arguments = ["--data", new, "--output", tmp_path / "o", "--columns", "id,predicted"]
    ran = sparknn("predict", "--model", trained / "model", *arguments)
    assert ran.status == 2
    assert "there is no column 'predicted'; did you mean" in ran.err


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"], ["predict", "-h"]])
def test_help_teaches(arguments: list[str], sparknn: Command) -> None:
    ran = sparknn(*arguments)
    assert ran.status == 0
    assert "sparknn" in ran.out
    assert len(ran.out.splitlines()) > 10


def test_keys_lists_every_section(sparknn: Command) -> None:
    ran = sparknn("keys")
    assert ran.status == 0
    assert "[averaging]\n  numWorkers: " in ran.out


@pytest.mark.parametrize("hidden", [False, True])
def test_an_interrupt_is_one_line(
    hidden: bool, trained: Path, sparknn: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt:
            if hidden:
                raise Py4JError("Gateway must be connected to send cancel cmd.")  # noqa: B904
            raise

    monkeypatch.setattr("sparknn.cli.stages.fit", interrupt)
    ran = sparknn("train", trained / "job.toml", "--set", "output.overwrite=true")
    assert ran.status == 130
    assert ran.err.splitlines()[-1] == "sparknn: interrupted"


def test_a_curve_without_matplotlib_is_one_line(
    trained: Path, sparknn: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "matplotlib" else find(name)
    )
    from sparknn.cli import curve

    line = curve.draw(None, "curve.png")
    assert "matplotlib is not installed" in line
