"""`sparknn experiment` from end to end on a tiny setting, and what it keeps when it is stopped."""

import csv
import json
import math
from collections.abc import Callable
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

import pytest

from sparknn import NeuralNetClassifier
from sparknn.cli import main
from sparknn.cli.experiment import figures
from sparknn.cli.experiment.command import carry_out
from sparknn.cli.experiment.results import Results
from sparknn.cli.experiment.settings import load
from sparknn.cli.experiment.split import read_rows, with_test_column
from sparknn.cli.experiment.trials import Point, Run, params_of, trials

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

# Momentum over rounds of 0 is the mean: two arms that must agree to the byte.
_TINY = """
[data]
train = "{data}/points.csv"
features = ["x", "y"]
label = "colour"

[experiment]
splits = 2
testFraction = 0.3
workers = [2, 1]
iterations = 4
period = 2
periods = [4]
miniBatchFraction = 0.5
target = 0.4
seed = 3

[network]
hiddenLayers = [4]

[arms.poster]
solver = "sgd"
stepSize = 0.3
batchSize = 16
averaging = "mean"

[arms.twin]
solver = "sgd"
stepSize = 0.3
batchSize = 16
averaging = "momentum"
averagingMomentum = 0.0

[output]
folder = "{out}"
"""


@pytest.fixture(scope="module")
def tiny(points: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An experiment file; its results are to be in ``results`` beside it."""
    folder = tmp_path_factory.mktemp("experiment")
    (folder / "tiny.toml").write_text(_TINY.format(data=points, out=folder / "results"))
    return folder / "tiny.toml"


@pytest.fixture(scope="module")
def done(tiny: Path, spark: "SparkSession") -> Path:
    """The folder of results of the tiny experiment."""
    assert main(["experiment", str(tiny)]) == 0
    return tiny.parent / "results"


def table(path: Path) -> list[dict[str, Any]]:
    """The rows of a CSV file, numbers as such."""
    with path.open(newline="", encoding="utf-8") as file:
        return [{k: number(v) for k, v in row.items()} for row in csv.DictReader(file)]


def number(text: str) -> Any:
    try:
        return float(text)
    except ValueError:
        return text


def test_all_is_written(done: Path) -> None:
    names = {path.name for path in done.iterdir()}
    tables = {"accuracy", "time", "accuracy_by_rows", "accuracy_by_seconds"}
    tables |= {"accuracy_by_model_seconds", "periods", "against_sequential", "against_first_arm"}
    assert {f"{name}.csv" for name in tables | {"runs", "rounds"}} <= names
    assert {"accuracy.png", "time.png", "periods.png", "experiment.json"} <= names
    for path in done.glob("*.png"):
        assert path.read_bytes().startswith(b"\x89PNG")
    kept = json.loads((done / "experiment.json").read_text())
    assert kept["complete"]
    assert kept["target"] == 0.4
    assert kept["settings"]["arms"]["poster"]["stepSize"] == 0.3
    assert len(kept["runs"]) == kept["runs_planned"] == 12
    assert set(kept["tables"]) == tables
    assert kept["conclusion"][0].startswith("Where averaging wins and loses")


def test_the_mean_is_that_of_the_list(done: Path) -> None:
    runs = [run for run in table(done / "runs.csv") if run["period"] == 2]
    rows = table(done / "accuracy.csv")
    assert [(row["arm"], row["workers"]) for row in rows] == [
        ("poster", 1),
        ("poster", 2),
        ("twin", 1),
        ("twin", 2),
    ]
    for row in rows:
        own = {
            run["split"]: run["accuracy"]
            for run in runs
            if (run["arm"], run["workers"]) == (row["arm"], row["workers"])
        }
        assert (row["split 1"], row["split 2"]) == (own[1], own[2])
        assert row["mean"] == pytest.approx(fmean(own.values()))
        assert 1 / 3 < row["mean"] <= 1


def test_equal_arms_are_equal(done: Path) -> None:
    runs = table(done / "runs.csv")
    by_arm = {
        arm: [
            (r["split"], r["period"], r["workers"], r["accuracy"]) for r in runs if r["arm"] == arm
        ]
        for arm in ("poster", "twin")
    }
    assert by_arm["poster"] == by_arm["twin"]
    for row in table(done / "against_first_arm.csv"):
        assert (row["arm"], row["points"], row["rows"]) == ("twin", 0, 1)


def test_rounds_add_up(done: Path) -> None:
    rounds = table(done / "rounds.csv")
    for run in table(done / "runs.csv"):
        own = [
            r for r in rounds if all(r[k] == run[k] for k in ("arm", "split", "workers", "period"))
        ]
        assert [r["round"] for r in own] == list(range(1, int(4 // run["period"]) + 1))
        last = own[-1]
        assert last["accuracy"] == run["accuracy"]
        overhead = last["overhead_s"] if run["workers"] == 2 else 0.0
        assert last["model_s"] == pytest.approx(last["compute_s"] + overhead)
        assert 0 < last["compute_s"] <= last["seconds"]
        # Every number of workers trains on as many rows, but for rounding half a row a worker.
        assert last["n_rows"] == pytest.approx(4 * 0.5 * run["n_train"], abs=4 * run["workers"])
        assert run["n_train"] + run["n_test"] == 300


def test_a_split_tests_on_rows_that_it_has_not_trained_on(
    done: Path, tiny: Path, spark: "SparkSession"
) -> None:
    """The accuracy of one run, from a network that is fitted without the test rows being there."""
    settings = load(str(tiny))
    rows = read_rows(spark, settings)
    for trial in trials(settings)[:2]:
        data, test = with_test_column(rows, settings, trial.split)
        net = NeuralNetClassifier(**params_of(settings, trial))
        net.setParams(featuresCol=rows.features, labelCol=rows.label)
        predicted = net.fit(data.where(f"not {test}")).transform(data.where(test))
        right = predicted.where(f"prediction = {rows.label}").count() / predicted.count()
        (run,) = [
            run
            for run in table(done / "runs.csv")
            if (run["arm"], run["split"], run["workers"], run["period"])
            == (trial.arm.name, trial.split, trial.workers, trial.period)
        ]
        assert run["n_test"] == predicted.count()
        # The rows are dealt to the workers without the test rows among them: other draws.
        assert run["accuracy"] == pytest.approx(right, abs=0.25)
        seen = {tuple(row) for row in data.where(f"not {test}").select(rows.features).collect()}
        assert not seen & {tuple(row) for row in data.where(test).select(rows.features).collect()}
    rows.data.unpersist()


def test_splits_do_not_depend_on_partitions(tiny: Path, spark: "SparkSession") -> None:
    settings = load(str(tiny), ["data.rows=150"])
    rows = read_rows(spark, settings)
    assert rows.count == pytest.approx(150, abs=40)

    def tested(split: int, partitions: int) -> set[tuple[float, ...]]:
        data, test = with_test_column(rows, settings, split)
        found = data.repartition(partitions).where(test).select(rows.features).collect()
        return {tuple(row[0]) for row in found}

    assert tested(1, 1) == tested(1, 3)
    assert tested(1, 1) != tested(2, 1)
    assert len(tested(1, 1)) / rows.count == pytest.approx(0.3, abs=0.12)
    rows.data.unpersist()


def test_results_are_not_replaced_unasked(
    done: Path, tiny: Path, sparknn: Callable[..., Any]
) -> None:
    before = (done / "experiment.json").read_bytes()
    ran = sparknn("experiment", tiny)
    assert ran.status == 2
    assert "output.folder" in ran.err
    assert "overwrite = true" in ran.err
    assert (done / "experiment.json").read_bytes() == before


def test_only_an_experiments_files_are_replaced(done: Path, tiny: Path, tmp_path: Path) -> None:
    for path in done.iterdir():
        (tmp_path / path.name).touch()
    (tmp_path / "mine.csv").touch()
    settings = load(str(tiny), [f"output.folder={tmp_path}", "output.overwrite=true"])
    Results(settings, 1).open(2, "4.0.0")
    assert [path.name for path in tmp_path.iterdir()] == ["mine.csv"]


def test_columns_are_checked_first(
    tiny: Path, tmp_path: Path, sparknn: Callable[..., Any], spark: "SparkSession"
) -> None:
    out = tmp_path / "out"
    ran = sparknn("experiment", tiny, "--set", "data.label=color", f"output.folder={out}")
    assert ran.status == 2
    assert "data.label: there is no column 'color'" in ran.err
    assert "did you mean 'colour'?" in ran.err
    assert not out.exists()


def test_a_stopped_experiment_keeps_what_it_has(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    settings = load(str(tiny), [f"output.folder={out}"])
    planned = trials(settings)
    results = Results(settings, len(planned))
    results.open(2, "4.0.0")

    def fit(trial: Any) -> Run:
        kept = table(out / "runs.csv") if (out / "runs.csv").exists() else []
        assert len(kept) == len(results.runs)
        if len(kept) == 3:
            raise KeyboardInterrupt
        if len(kept) == 1:
            return Run(trial, [], fit_s=1.0, problem="Training diverged: test.")
        point = Point(1, 100, 0.75, 0.5, 2.0, 1.5, 0.5, 1.5, 0.1, 1.9)
        return Run(trial, [point], n_train=200, n_test=100, fit_s=3.0, ingest_s=1.0)

    with pytest.raises(KeyboardInterrupt):
        carry_out(results, planned, fit)
    kept = json.loads((out / "experiment.json").read_text())
    assert not kept["complete"]
    assert [run["accuracy"] for run in kept["runs"]] == [0.75, None, 0.75]
    assert [run["problem"][:8] for run in kept["runs"]] == ["", "Training", ""]
    text = capsys.readouterr().out
    assert "75.00%" in text
    assert (out / "accuracy.png").exists()
    assert [row["mean"] for row in table(out / "accuracy.csv")] == [0.75, "", 0.75]


def test_without_matplotlib_it_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(figures.importlib.util, "find_spec", lambda name: None)
    assert "matplotlib is not installed" in figures.draw([], 5, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_nothing_done_is_nothing_to_draw(tmp_path: Path) -> None:
    assert "no fit has ended" in figures.draw([], 5, tmp_path)
    assert math.isnan(Run(None, []).accuracy)  # type: ignore[arg-type]
