"""What would go wrong after a training is said before it, by the keys of the job file."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from models import classifier
from pyspark.ml import PipelineModel
from pyspark.ml.feature import StringIndexerModel, VectorAssembler

from sparknn.cli import curve
from sparknn.cli.columns import Columns
from sparknn.cli.places import why_not_writable
from sparknn.cli.stages import class_names, continue_as
from sparknn.cli.tables import Target

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

Command = Callable[..., Any]

_JOB = """
[data]
train = "{data}/points.csv"
features = ["x", "y"]
label = "colour"
[network]
hiddenLayers = [4]
[training]
maxIter = 1
[averaging]
numWorkers = 1
[output]
model = "{out}/model"
"""


@pytest.fixture
def job(points: Path, tmp_path: Path) -> Path:
    path = tmp_path / "job.toml"
    path.write_text(_JOB.format(data=points, out=tmp_path))
    return path


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x,colour\n1,red\n", "data.test: there is no column 'y' in"),
        ("x,y\n1,2\n", "data.test: there is no column 'colour' in"),
        ("x,y,colour\n1,many,red\n", "data.test: column 'y' is of type string; expected numbers"),
        ("x,y,colour,prediction\n1,2,red,1\n", "data.test: the rows have a column 'prediction'"),
        ("x,y,colour,Features\n1,2,red,1\n", "data.test: the rows have a column 'features' alre"),
    ],
)
def test_test_rows_are_looked_at_before_the_training(
    text: str, expected: str, job: Path, tmp_path: Path, sparknn: Command
) -> None:
    (tmp_path / "test.csv").write_text(text)
    ran = sparknn("train", job, "--set", f"data.test={tmp_path}/test.csv")
    assert ran.status == 2
    assert expected in ran.err
    assert "round" not in ran.err


def test_text_is_no_class_number(points: Path, job: Path, tmp_path: Path, sparknn: Command) -> None:
    train, test = tmp_path / "train.csv", tmp_path / "test.csv"
    train.write_text("x,y,c\n1,2,0\n2,1,1\n")
    test.write_text("x,y,c\n1,2,red\n")
    ran = sparknn("train", job, "--set", f"data.train={train}", f"data.test={test}", "data.label=c")
    assert ran.status == 2
    assert "data.test: column 'c' is of type string; expected class numbers" in ran.err


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["data.weight=colour"], "data.weight: column 'colour' is of type string; expected numb"),
        (["data.validationIndicator=id"], "data.validationIndicator: column 'id' is of type int"),
        (["output.predictionCol=colour"], "output.predictionCol: the rows have a column 'colour'"),
        (["output.predictionCol=ID"], "output.predictionCol: the rows have a column 'ID' already"),
        (["output.predictionCol="], "output.predictionCol: is empty; labels that are text"),
        (["output.probabilityCol=prediction"], "output.probabilityCol: there is a column 'predic"),
        (["output.probabilityCol=features"], "output.probabilityCol: there is a column 'features"),
        (
            ["task=regression"],
            "data.label: column 'colour' is of type string; expected numbers, or vectors",
        ),
    ],
)
def test_columns_are_named_by_keys(
    overrides: list[str], expected: str, job: Path, sparknn: Command
) -> None:
    ran = sparknn("train", job, "--set", *overrides)
    assert ran.status == 2
    assert expected in ran.err
    assert "Col " not in ran.err


def test_a_dot_in_a_feature(job: Path, tmp_path: Path, sparknn: Command) -> None:
    (tmp_path / "dots.csv").write_text("x.1,y,colour\n1,2,red\n2,1,blue\n")
    ran = sparknn(
        "train", job, "--set", f"data.train={tmp_path}/dots.csv", "data.features=['x.1','y']"
    )
    assert ran.status == 2
    assert "data.features: column 'x.1' has a dot in its name" in ran.err


def test_mistakes_of_every_kind_are_told_together_before_spark(
    job: Path, tmp_path: Path, sparknn: Command
) -> None:
    ran = sparknn(
        *("train", job, "--set", "training.stepsize=1", "data.train=file:/nowhere.csv"),
        *("training.patience=3", "averaging.finalWeights=best", "training.maxIter=0"),
        *("training.initialModel=file:/nowhere/model", f"output.curve={tmp_path}/curve.gif2"),
        "output.model=file:/proc/x/model",
    )
    assert ran.status == 2
    assert "Starting Spark" not in ran.err
    for expected in (
        "job.toml with --set: 8 mistakes",
        "training.stepsize: unknown key",
        "training.maxIter = 0;",
        "data.train: there is no file:/nowhere.csv.",
        "training.patience = 3; needs validation rows: set data.validationFraction or data.valid",
        "averaging.finalWeights = 'best'; needs validation rows",
        "training.initialModel: there is no model at file:/nowhere/model.",
        "output.curve: ",
        "output.model: file:/proc/x/model cannot be written: /proc",
    ):
        assert expected in ran.err


def test_a_training_of_which_nothing_would_be_kept(
    job: Path, points: Path, sparknn: Command
) -> None:
    job.write_text(job.read_text().partition("[output]")[0])
    ran = sparknn("train", job)
    assert ran.status == 2
    assert "output.model: missing;" in ran.err
    assert "Starting Spark" not in ran.err
    ran = sparknn("train", job, "--set", f"data.test={points}/points.csv")
    assert ran.status == 0, ran.err
    assert "warning: There is no output.model" in ran.err


def test_a_curve_that_cannot_be_drawn(tmp_path: Path) -> None:
    assert curve.problem(str(tmp_path / "new" / "curve.SVG")) == ""
    assert "is a folder" in curve.problem(str(tmp_path))
    assert "did you mean 'png'?" in curve.problem(str(tmp_path / "curve.pgn"))
    (tmp_path / "file").touch()
    assert f"{tmp_path}/file is no folder" in curve.problem(str(tmp_path / "file" / "curve.png"))


def test_what_can_be_written_is_tried_out(tmp_path: Path, spark: "SparkSession") -> None:
    assert why_not_writable(str(tmp_path / "new" / "model")) == ""
    assert list(tmp_path.iterdir()) == []
    assert why_not_writable("/proc/x").startswith("/proc cannot be written to")
    # Without a scheme only Spark knows that the path is one of this machine.
    with pytest.raises(ValueError, match=r"^output\.model: /proc/x cannot be written: /proc"):
        Target.of("/proc/x").check_free(spark, "output.model")


def test_a_saved_pipeline_can_be_continued_from(
    job: Path, points: Path, tmp_path: Path, sparknn: Command
) -> None:
    assert sparknn("train", job).status == 0
    initial = f"training.initialModel={tmp_path}/model"
    ran = sparknn("train", job, "--set", initial, f"output.model={tmp_path}/second")
    assert ran.status == 0, ran.err
    other = ["task=regression", "data.label=id", f"output.model={tmp_path}/third"]
    ran = sparknn("train", job, "--set", initial, *other)
    assert ran.status == 2
    assert "training.initialModel is a NeuralNetClassificationModel; expected" in ran.err
    ran = sparknn("train", job, "--set", "training.initialModel=/nowhere", *other[2:])
    assert ran.status == 2
    assert "training.initialModel: there is no model at /nowhere" in ran.err


def test_continuing_takes_classes_and_features_for_what_they_were(
    job: Path, points: Path, tmp_path: Path, sparknn: Command
) -> None:
    """Of the three colours two are left, and would be numbered from 0 again."""
    assert sparknn("train", job, "--set", "training.maxIter=3").status == 0
    rows = (points / "points.csv").read_text().splitlines()
    two = tmp_path / "two.csv"
    two.write_text("\n".join(row for row in rows if "blue" not in row) + "\n")
    more = [f"training.initialModel={tmp_path}/model", f"output.model={tmp_path}/second"]
    more += [f"data.train={two}", "training.stepSize=1e-9"]
    ran = sparknn("train", job, "--set", *more, f"data.test={points}/points.csv")
    assert ran.status == 0, ran.err
    assert float(ran.out.split("accuracy ")[1].partition("%")[0]) > 90
    ran = sparknn("train", job, "--set", *more, "output.overwrite=true", "data.features=['y','x']")
    assert ran.status == 2
    assert "data.features: y, x; expected x, y, in this order, on which training.init" in ran.err
    two.write_text("\n".join(row.replace("red", "pink") for row in rows) + "\n")
    ran = sparknn("train", job, "--set", *more, "output.overwrite=true")
    assert ran.status == 1
    assert "data.label: column 'colour' holds texts that training.initialModel does not" in ran.err
    assert "it knows blue, green, red." in ran.err


def test_classes_are_found_wherever_they_were_numbered(spark: "SparkSession") -> None:
    indexer = StringIndexerModel.from_arrays_of_labels(
        [["a", "b"], ["red", "blue"]], ["kind", "colour"], ["kindIndex", "label"]
    )
    inner = PipelineModel([indexer, VectorAssembler(inputCols=["x", "y"], outputCol="features")])
    model = PipelineModel([inner, classifier(2, 2)])
    assert class_names(model, "label") == ["red", "blue"]
    found = Columns("features", "label", assembled=("x", "y"), indexed="colour")
    assert continue_as(model, found) == []
    assert found.names == ("red", "blue")
    found = Columns("features", "label", assembled=("y", "x"))
    (mistake,) = continue_as(model, found)
    assert mistake.startswith("data.features: y, x; expected x, y, in this order")


@pytest.mark.parametrize("kept", ["", "{", '{"class": "pyspark.ml.pipeline.PipelineModel"}'])
@pytest.mark.parametrize("stage", ["", "stages/1_*"])
def test_a_model_whose_metadata_are_cut_off(
    kept: str, stage: str, job: Path, tmp_path: Path, sparknn: Command
) -> None:
    assert sparknn("train", job).status == 0
    (folder,) = (tmp_path / "model").glob(f"{stage}/metadata" if stage else "metadata")
    for path in folder.iterdir():
        path.unlink()
    if kept:
        (folder / "part-00000").write_text(kept)
    ran = sparknn("evaluate", "--model", tmp_path / "model", "--data", "x.csv")
    assert ran.status == 1
    (line,) = [line for line in ran.err.splitlines() if line.startswith("sparknn: ")]
    assert f"--model: the model at {tmp_path}/model cannot be read (" in line
    assert "The directory is incomplete or was changed" in line
