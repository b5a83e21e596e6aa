"""Rows in and out in every format, and outputs that are in the way."""

from pathlib import Path
from typing import TYPE_CHECKING
from unittest.mock import Mock

import pytest
from models import classifier
from pyspark.ml import PipelineModel
from pyspark.ml.feature import Bucketizer
from pyspark.ml.linalg import Vectors
from pyspark.sql import functions as F

from sparknn.cli.io import Source, Target, guess_format, overlaps
from sparknn.cli.saved_model import load

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def test_a_path_tells_its_format() -> None:
    formats = {"a.CSV": "csv", "a.csv.gz": "csv", "folder.csv/": "csv", "a.svm": "libsvm"}
    formats |= {"a.libsvm": "libsvm", "a.jsonl": "json", "a.orc": "orc", "a": "parquet"}
    assert {path: guess_format(path) for path in formats} == formats
    # Options of the user replace those that a CSV has by default, in whatever case.
    options = Source.of("a.csv", None, {"HEADER": False}).options
    assert options == {"header": "false", "inferschema": "true"}
    assert Source.of("a.svm", None, {}).with_features(5).options == {"numfeatures": "5"}


def test_what_cannot_be_written_is_refused() -> None:
    problem = Target.of("p.libsvm", None).format_problem("--output")
    assert problem.startswith("--output: p.libsvm would be written as libsvm; use one of parquet,")
    assert Target.of("p.libsvm", "parquet").format_problem("--output") == ""
    assert Target.of("p", None).format_problem("--output") == ""


@pytest.mark.parametrize("format_", ["csv", "table"])
def test_what_is_written_is_read_again(format_: str, tmp_path: Path, spark: "SparkSession") -> None:
    rows = spark.createDataFrame([(1, 0.5), (2, 1.5)], "id int, x double").coalesce(1)
    path = "written_rows" if format_ == "table" else str(tmp_path / "out" / "rows")
    target, source = Target.of(path, format_), Source.of(path, format_, {})
    missing = source.problem(spark, "data.train")
    assert missing.startswith("data.train: there is no ")
    assert target.problem(spark, "output.predictions") == ""
    target.write(rows)
    try:
        assert source.problem(spark, "data.train") == ""
        read = source.read(spark).collect()
        assert {(row["id"], row["x"]) for row in read} == {(1, 0.5), (2, 1.5)}
        problem = target.problem(spark, "output.predictions")
        assert "exists already" in problem
        assert "overwrite = true in [output]" in problem
        assert "--overwrite" in target.problem(spark, "--output")
        again = Target.of(path, format_, overwrite=True)
        assert again.problem(spark, "output.predictions") == ""
        again.write(rows.limit(1))
        assert source.read(spark).count() == 1
    finally:
        spark.sql("drop table if exists written_rows")


def test_what_can_be_written_is_tried_out(tmp_path: Path, spark: "SparkSession") -> None:
    (tmp_path / "file").touch()
    assert Target(str(tmp_path / "new" / "run[1]"), "model").problem(spark, "output.model") == ""
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    for path in (tmp_path / "file" / "model", Path("/proc/model")):
        problem = Target(str(path), "model").problem(spark, "output.model")
        assert problem.startswith(f"output.model: {path} cannot be written (")
    assert "No FileSystem" in Target("nowhere://x/m", "model").problem(spark, "output.model")


def test_outputs_that_would_replace_rows_are_refused(tmp_path: Path, spark: "SparkSession") -> None:
    def found(data: str, *outputs: Target) -> list[str]:
        keys = ["output.model", "output.predictions"][: len(outputs)]
        named = list(zip(keys, outputs, strict=True))
        texts = overlaps(spark, [("data.train", Source(data, "parquet"))], named)
        return [text.partition(":")[0] for text in texts]

    rows = f"{tmp_path}/rows"
    for path in (rows, f"{tmp_path}", f"file:{tmp_path}/x/../rows/"):
        assert found(rows, Target(path, "model", overwrite=True)) == ["output.model"]
    assert found(f"{rows}/*.parquet", Target(rows, "model", overwrite=True)) == ["output.model"]
    assert found(rows, Target(rows, "model")) == []  # Spark refuses it
    assert found(rows, Target(f"{rows}2", "model", overwrite=True)) == []
    same = Target(f"{tmp_path}/out", "model"), Target(f"{tmp_path}/out", "csv")
    assert found(rows, *same) == ["output.predictions"]


def test_csv_gets_vectors_as_text(tmp_path: Path, spark: "SparkSession") -> None:
    rows = spark.createDataFrame(
        [(Vectors.dense(0.25, 0.75), [1, 2], "a,b")], ["probability", "some.array", "text"]
    )
    path = str(tmp_path / "rows.csv")
    Target.of(path, None).write(rows)
    (row,) = Source.of(path, None, {"inferSchema": False, "escape": '"'}).read(spark).collect()
    assert tuple(row) == ("[0.25,0.75]", "[1,2]", "a,b")


@pytest.mark.parametrize("overwrite", [True, False])
@pytest.mark.parametrize("there", [True, False])
def test_a_write_that_fails_leaves_what_it_found(
    there: bool, overwrite: bool, tmp_path: Path, spark: "SparkSession"
) -> None:
    target = Target.of(str(tmp_path / "rows"), None, overwrite)
    if there:
        target.write(spark.range(1).coalesce(1))
    broken = spark.range(1).selectExpr("raise_error('no good') as x")
    with pytest.raises(Exception, match=r"no good|ALREADY_EXISTS"):
        target.write(broken)
    assert [each.name for each in tmp_path.iterdir()] == ["rows"] * there
    assert not there or spark.read.parquet(target.path).count() == 1


def test_a_pipeline_that_cannot_be_saved_leaves_the_old_one(
    tmp_path: Path, spark: "SparkSession", monkeypatch: pytest.MonkeyPatch
) -> None:
    target = Target(str(tmp_path / "pipeline"), "model", overwrite=True)
    for layers in ((3, 2), (4, 2)):
        target.save(PipelineModel([Bucketizer(), classifier(*layers)]), spark)
    with monkeypatch.context() as patched:
        patched.setattr("sparknn.ml.persistence.write_weights", Mock(side_effect=OSError("full")))
        with pytest.raises(OSError, match="full"):
            target.save(PipelineModel([Bucketizer(), classifier(5, 2)]), spark)
    assert load(spark, target.path).network.layers == [4, 2]
    assert [each.name for each in tmp_path.iterdir()] == ["pipeline"]


def test_an_error_is_not_logged_besides(
    spark: "SparkSession", capfd: pytest.CaptureFixture[str]
) -> None:
    from sparknn.cli.session import open_session

    broken = spark.range(1).select(F.lit("a").cast("int"))
    with open_session("test"), pytest.raises(Exception, match="CAST_INVALID_INPUT"):
        broken.collect()
    assert "Traceback" not in capfd.readouterr().err
