"""No output may destroy what is read, or another output; that is known before anything starts."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sparknn.cli.overlaps import Place, overlapping

Command = Callable[..., Any]


def overlap(output: str, other: str, *, tables: tuple[bool, bool] = (False, False)) -> bool:
    found = overlapping([Place("out", output, tables[0])], [Place("in", other, tables[1])])
    return "out" in found


@pytest.mark.parametrize(
    ("output", "rows"),
    [
        ("rows", "rows"),
        ("rows/", "./rows"),
        ("file:{here}/rows", "rows"),
        ("file://{here}/rows", "{here}/rows/"),
        ("link", "rows"),
        ("x/../rows", "rows"),
        (".", "rows"),
        ("rows/inside", "rows"),
        ("rows", "rows/part.csv"),
        ("s3://bucket/rows/", "s3://bucket/rows"),
        ("s3://bucket/a", "s3://bucket/a/b.csv"),
        ("rows", "rows/*.parquet"),
        ("rows/a.parquet", "rows/*.parquet"),
        ("link", "rows/{{a,b}}.parquet"),
        ("rows", "{{rows,more}}/*.parquet"),
        ("rows", "{{more,{{a,rows}}}}"),
        ("{here}", "rows/2024-*/part-?.csv"),
    ],
)
def test_paths_that_touch(
    output: str, rows: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows").mkdir()
    (tmp_path / "rows" / "a.parquet").touch()
    (tmp_path / "link").symlink_to("rows")
    assert overlap(output.format(here=tmp_path), rows.format(here=tmp_path))


@pytest.mark.parametrize(
    ("output", "rows"),
    [
        ("rows2", "rows"),
        ("out/rows", "rows"),
        ("rows/out.csv", "rows/*.parquet"),
        ("rows/c.parquet/x", "rows/[ab].parquet"),
        ("rows/model", "rows/{jan,feb}/*.parquet"),
        # Not there yet, so no part of the rows.
        ("rows/model", "rows/*/*.parquet"),
        ("s3://bucket/rows", "s3://other/rows"),
        ("/rows", "hdfs://name/rows"),
    ],
)
def test_paths_that_are_apart(output: str, rows: str) -> None:
    assert not overlap(output, rows)


def test_tables_are_compared_by_name() -> None:
    assert overlap("`Rows`", "default.rows", tables=(True, True))
    assert not overlap("db.rows", "rows", tables=(True, True))
    assert not overlap("rows", "rows", tables=(True, False))


def test_predict_does_not_write_over_what_it_reads(
    points: Path, tmp_path: Path, sparknn: Command
) -> None:
    data, model = tmp_path / "rows.csv", tmp_path / "model"
    data.write_text((points / "points.csv").read_text())
    model.mkdir()
    for output in (data, tmp_path, f"file:{data}/", model, model / "rows.csv"):
        arguments = ["--model", model, "--data", data, "--output", output]
        for more in ([], ["--overwrite"]):
            ran = sparknn("predict", *arguments, *more)
            assert ran.status == 2
            assert f"--output: {output} " in ran.err
            assert "exists already" not in ran.err
    assert data.read_text() == (points / "points.csv").read_text()


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["output.predictions={data}"], "output.predictions: {data} is the path of data.train"),
        (["data.test={test}", "output.predictions={test}"], "is the path of data.test, {test}"),
        (["output.model={data}"], "output.model: {data} is the path of data.train"),
        (["output.model={out}"], "output.model: {out} holds data.train"),
        (["output.predictions={out}/m/"], "{out}/m/ is the path of output.model"),
        (["output.curve={out}/m/curve.png"], "output.curve: {out}/m/curve.png lies in output.mod"),
        (["output.curve={data}"], "output.curve: {data} is the path of data.train"),
    ],
)
def test_train_does_not_write_over_rows_or_its_own_outputs(
    overrides: list[str], expected: str, points: Path, tmp_path: Path, sparknn: Command
) -> None:
    data, job = tmp_path / "rows.csv", tmp_path / "job.toml"
    test = tmp_path / "test.csv"
    for path in (data, test):
        path.write_text((points / "points.csv").read_text())
    job.write_text(
        f"[data]\ntrain = '{data}'\ntest = '{test}'\nfeatures = ['x', 'y']\nlabel = 'colour'\n"
        f"[output]\nmodel = '{tmp_path}/m'\noverwrite = true\n"
    )
    named = {"data": data, "test": test, "out": tmp_path}
    ran = sparknn("train", job, "--set", *(text.format(**named) for text in overrides))
    assert ran.status == 2
    assert expected.format(**named) in ran.err
    assert "Starting Spark" not in ran.err
    assert data.read_text() == test.read_text() == (points / "points.csv").read_text()
