"""Rows in and out in every format, and outputs that are in the way."""

import signal
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from pyspark.ml.linalg import Vectors
from pyspark.sql import functions as F

from sparknn.cli.tables import NothingThereError, PathExistsError, Source, Target, guess_format

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


@pytest.mark.parametrize(
    ("path", "format_"),
    [
        ("s3://bucket/a.parquet", "parquet"),
        ("a.CSV", "csv"),
        ("a.csv.gz", "csv"),
        ("folder.csv/", "csv"),
        ("a.libsvm", "libsvm"),
        ("a.svm", "libsvm"),
        ("a.jsonl", "json"),
        ("a.orc", "orc"),
        ("a", "parquet"),
    ],
)
def test_a_path_tells_its_format(path: str, format_: str) -> None:
    assert guess_format(path) == format_


def test_csv_has_a_header_and_types_unless_told_otherwise() -> None:
    assert Source.of("a.csv").options == {"header": "true", "inferSchema": "true"}
    assert Source.of("a.csv", options={"HEADER": False}).options == {
        "HEADER": "false",
        "inferSchema": "true",
    }


def test_libsvm_is_told_how_many_features_there_are(tmp_path: Path, spark: "SparkSession") -> None:
    path = tmp_path / "rows.libsvm"
    path.write_text("1 1:0.5\n0 2:1\n")
    source = Source.of(str(path)).with_features(5)
    assert [row.features.size for row in source.read(spark, "data.train").collect()] == [5, 5]
    assert source.with_features(7) == source
    assert Source.of("a.csv").with_features(5) == Source.of("a.csv")


@pytest.mark.parametrize("format_", ["parquet", "csv", "json", "orc", "table"])
def test_what_is_written_is_read_again(format_: str, tmp_path: Path, spark: "SparkSession") -> None:
    rows = spark.createDataFrame([(1, 0.5), (2, 1.5)], "id int, x double").coalesce(1)
    path = "written_rows" if format_ == "table" else str(tmp_path / "out" / "rows")
    target = Target.of(path, format_)
    target.check_free(spark, "output.predictions")
    target.write(rows)
    try:
        read = Source.of(path, format_).read(spark, "data.train")
        assert {(row["id"], row["x"]) for row in read.collect()} == {(1, 0.5), (2, 1.5)}
        with pytest.raises(
            PathExistsError, match=r"exists already.*overwrite = true in \[output\]"
        ):
            target.check_free(spark, "output.predictions")
        again = Target.of(path, format_, overwrite=True)
        again.check_free(spark, "output.predictions")
        again.write(rows.limit(1))
        assert Source.of(path, format_).read(spark, "data.train").count() == 1
    finally:
        spark.sql("drop table if exists written_rows")


def test_csv_gets_vectors_as_text(tmp_path: Path, spark: "SparkSession") -> None:
    rows = spark.createDataFrame(
        [(Vectors.dense(0.25, 0.75), [1, 2], "a,b")], ["probability", "some.array", "text"]
    )
    path = str(tmp_path / "rows.csv")
    Target.of(path).write(rows)
    (row,) = (
        Source.of(path, options={"inferSchema": False, "escape": '"'})
        .read(spark, "data.train")
        .collect()
    )
    assert tuple(row) == ("[0.25,0.75]", "[1,2]", "a,b")


def test_the_command_line_has_its_own_advice(tmp_path: Path, spark: "SparkSession") -> None:
    with pytest.raises(PathExistsError, match="--overwrite"):
        Target.of(str(tmp_path)).check_free(spark, "--output")


@pytest.mark.parametrize("there", [True, False])
def test_a_write_that_fails_leaves_what_it_found(
    there: bool, tmp_path: Path, spark: "SparkSession"
) -> None:
    path = tmp_path / "rows"
    if there:
        Target.of(str(path)).write(spark.range(1).coalesce(1))
    broken = spark.range(1).selectExpr("raise_error('no good') as x")
    with pytest.raises(Exception, match=r"no good|ALREADY_EXISTS"):
        Target.of(str(path)).write(broken)
    assert path.exists() == there


def test_an_interrupted_write_leaves_nothing(
    tmp_path: Path, spark: "SparkSession", plain_control_c: None
) -> None:
    """A write that would take minutes is cancelled while it runs."""
    path, main = tmp_path / "rows", threading.get_ident()
    begun = threading.Event()

    def press_control_c() -> None:
        tracker = spark.sparkContext.statusTracker()
        while not tracker.getActiveJobsIds():
            time.sleep(0.01)
        if path.exists():
            begun.set()
        signal.pthread_kill(main, signal.SIGINT)

    slow = F.udf(lambda n: time.sleep(600) or n, "long")
    rows = spark.range(1).coalesce(1).select(slow("id").alias("n"))
    thread = threading.Thread(target=press_control_c)
    thread.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            Target.of(str(path)).write(rows)
    finally:
        thread.join()
    assert begun.is_set()
    assert not path.exists()
    # The connection is whole: no answer of the call that was broken off is taken for another's.
    assert spark.range(3).count() == 3


def test_a_write_that_ends_in_spite_of_an_interrupt_is_removed(
    tmp_path: Path,
    spark: "SparkSession",
    plain_control_c: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The command fails, and its next run would find the path in its way."""
    write = Target._write

    def interrupted(target: Target, rows: Any) -> None:
        write(target, rows)
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Target, "_write", interrupted)
    path = tmp_path / "rows"
    with pytest.raises(KeyboardInterrupt):
        Target.of(str(path)).write(spark.range(1).coalesce(1))
    assert not path.exists()


def test_rows_that_are_not_there_are_named_by_their_key(
    tmp_path: Path, spark: "SparkSession"
) -> None:
    for source in (Source.of(str(tmp_path / "none.csv")), Source.of("no_such_table", "table")):
        with pytest.raises(NothingThereError, match=r"^data\.test: there is no .*(none|no_such)"):
            source.read(spark, "data.test")


def test_an_error_is_not_logged_besides(
    spark: "SparkSession", capfd: pytest.CaptureFixture[str]
) -> None:
    from sparknn.cli.session import open_session

    broken = spark.range(1).select(F.lit("a").cast("int"))
    with open_session("test"), pytest.raises(Exception, match="CAST_INVALID_INPUT"):
        broken.collect()
    assert "Traceback" not in capfd.readouterr().err


def test_what_may_be_a_table_gets_a_hint() -> None:
    hints = ("--format table.", "format = 'table' in [data].")
    for key, hint in zip(("--data", "data.train"), hints, strict=True):
        assert Source.of("mydb.rows")._nothing(key).endswith(f"If it is a table, say {hint}")
        for path in ("rows.csv", "./rows", "mydb.rows.parquet"):
            assert Source.of(path)._nothing(key) == f"{key}: there is no {path}."
