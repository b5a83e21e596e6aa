"""Experiments: what a file means, what its tables say, and one run from end to end."""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest

from sparknn.cli.errors import UsageError
from sparknn.cli.experiment import (
    IS_TEST,
    Experiment,
    Trial,
    load_experiment,
    local_work,
    mark_test_rows,
    read_rows,
    run_all,
)
from sparknn.cli.experiment_results import Results
from sparknn.cli.experiment_tables import Table, cumulated, summarize
from sparknn.core.training.fit_state import DivergedError

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

ROOT = Path(__file__).resolve().parents[2]

_LEAST = '[data]\ntrain = "rows.parquet"\n[arms.only]\n[output]\nfolder = "out"\n'

# Momentum over rounds of 0 is the mean: two variants that must agree to the byte.
_TINY = """
[data]
train = "{data}/points.csv"
features = ["x", "y"]
label = "colour"
[experiment]
splits = 1
testFraction = 0.3
workers = [2, 1]
iterations = 4
period = 2
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
averaging = "nesterov"
averagingMomentum = 0.0
[output]
folder = "{out}"
"""


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., Experiment]:
    """Load the smallest experiment file, with overrides."""

    def load_text(*overrides: str) -> Experiment:
        (tmp_path / "e.toml").write_text(_LEAST, encoding="utf-8")
        return load_experiment(str(tmp_path / "e.toml"), overrides)

    return load_text


def test_the_least_file_is_the_posters_protocol(read: Callable[..., Experiment]) -> None:
    # Other periods are tried on the first split.
    others = read("experiment.periods=[20, 5, 1]", "experiment.workers=[1, 2]").trials()[6:]
    assert [(trial.split, trial.period) for trial in others] == [(1, 1)] * 2 + [(1, 20)] * 2
    experiment = read()
    planned = experiment.trials()
    assert len(planned) == 12
    assert planned[:5] == [("only", 1, n, 5) for n in (1, 2, 4, 8)] + [("only", 2, 1, 5)]
    assert experiment.params(planned[4]) == {
        "maxIter": 20,
        "localEpochs": 5,
        "miniBatchFraction": 0.1,
        "numWorkers": 1,
        "seed": 1,
        "finalWeights": "last",
    }


def test_the_posters_file_is_right() -> None:
    experiment = load_experiment(str(ROOT / "conf/poster.toml"))
    assert list(experiment.variants) == ["poster", "ours"]
    assert experiment.variants["poster"]["averaging"] == "mean"
    assert experiment.variants["ours"] == {"hiddenLayers": [300]}
    assert experiment.params(Trial("ours", 1, 2, 5))["localEpochs"] == 1


def test_a_round_is_as_much_work_either_way() -> None:
    assert local_work(5, 0.1, redraw=False) == (5, 0.1)
    for period, expected in ((5, (1, 0.5)), (25, (3, 2.5 / 3)), (10, (1, 1.0))):
        epochs, fraction = local_work(period, 0.1, redraw=True)
        assert (epochs, fraction) == (expected[0], pytest.approx(expected[1]))


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("experiment.splits=true", "experiment.splits: expected a whole number from 1, got True."),
        ("experiment.testFraction=1", "above 0 and below 1, got 1."),
        ("experiment.miniBatchFraction=1.5", "above 0 and up to 1, got 1.5."),
        ("experiment.workers=[2, 4]", "experiment.workers: 1 is missing"),
        ("experiment.period=7", "experiment.period: 7 does not divide the 100 of"),
        ("experiment.split=3", "experiment.split: unknown key; did you mean 'splits'?"),
        ("experiment.solver=adam", "unknown key; did you mean arms.NAME.solver?"),
        ("arms.only.solver=sdg", "arms.only.solver = 'sdg'; expected 'auto', "),
        ("arms.only.redrew=true", "arms.only.redrew: unknown key; did you mean 'redraw'?"),
        ("arms.only.maxIter=3", "arms.only.maxIter: is set by the keys of [experiment]"),
        ("arms.other=3", "arms.other: expected a section [arms.other], got 3."),
        ("arms=3", "arms: expected a section [arms], got 3."),
        ("experiments.splits=3", "experiments: unknown section; did you mean 'experiment'?"),
    ],
)
def test_a_mistake_is_named(override: str, expected: str, read: Callable[..., Experiment]) -> None:
    with pytest.raises(UsageError) as caught:
        read(override)
    assert expected in str(caught.value)


def history(*rounds: tuple[float, float, float]) -> pd.DataFrame:
    """A fit's history, by seconds, compute_s and accuracy of its rounds."""
    columns = ["seconds", "compute_s", "validation_metric"]
    constants = {"n_rows": 100, "loss": 1.0, "broadcast_s": 0.1, "job_s": 0.9}
    return pd.DataFrame(rounds, columns=columns).assign(round=range(len(rounds)), **constants)


def test_a_model_is_compute_and_overhead() -> None:
    # 8 workers on 2 cores: four waves of a second each, and a second besides. A round that was
    # faster than its slowest worker four times over has no overhead.
    found = cumulated(history((5.0, 1.0, 0.5), (3.0, 1.0, 0.6)), n_workers=8, n_slots=2)
    assert list(found["round"]) == [1, 2]
    assert list(found["n_rows"]) == [100, 200]
    assert list(found["accuracy"]) == [0.5, 0.6]
    assert list(found["overhead_s"]) == [1.0, 1.0]
    assert list(found["model_s"]) == [2.0, 3.0]
    assert list(found["seconds"]) == [5.0, 8.0]
    one = cumulated(history((5.0, 1.0, 0.5)), n_workers=1, n_slots=2).iloc[0]
    assert (one["overhead_s"], one["model_s"]) == (4.0, 1.0)


def summary(
    *fits: tuple[str, int, int, list[float], float], target: float | None = 0.8
) -> tuple[dict[str, Table], list[str]]:
    """Tables and conclusion of fits: variant, split, workers, accuracies, seconds per round."""
    runs, rounds = [], []
    for arm, split, workers, accuracies, seconds in fits:
        key = {"arm": arm, "split": split, "workers": workers, "period": 5}
        own = cumulated(history(*((seconds, seconds, a) for a in accuracies)), workers, 8)
        end = own.iloc[-1].drop("round").to_dict()
        runs.append({**key, "rounds": len(own), "ingest_s": 1.0, **end})
        rounds.append(own.assign(**key))
    tables, _, conclusion = summarize(pd.DataFrame(runs), pd.concat(rounds), 5, target)
    return tables, conclusion


def test_wins_and_losses() -> None:
    # Two workers take twice the rounds to 80 %, in a quarter of the time each.
    fits = [
        ("poster", 1, 1, [0.7, 0.9, 0.9, 0.9], 4.0),
        ("poster", 1, 2, [0.3, 0.5, 0.7, 0.8], 1.0),
    ]
    tables, conclusion = summary(*fits)
    (row,) = tables["against_sequential"].frame.to_dict("records")
    assert row["points"] == pytest.approx(-10)
    costs = [row[name] for name in ("rows", "seconds", "seconds, model")]
    assert costs == pytest.approx([2.0, 0.5, 0.5])
    assert conclusion[1:] == [
        "  poster, 2 workers, every 5: accuracy -10.00 points;",
        "    to 80.0% 2.00 x rows, 0.50 x seconds, 0.50 x seconds, model",
    ]
    # By default the target is what the first variant reaches, less half a point.
    (row,) = summary(*fits, target=None)[0]["against_sequential"].frame.to_dict("records")
    assert row["rows"] == math.inf


@pytest.mark.parametrize(("target", "expected"), [(0.8, math.inf), (0.95, math.nan)])
def test_a_target_that_is_not_reached(target: float, expected: float) -> None:
    fits = [("poster", 1, 1, [0.9], 1.0), ("poster", 1, 2, [0.7], 1.0)]
    tables, conclusion = summary(*fits, target=target)
    assert tables["against_sequential"].frame["rows"][0] == pytest.approx(expected, nan_ok=True)
    assert f"{expected:.2f} x rows" in conclusion[2]


def test_times_and_accuracy_over_training() -> None:
    fits = [("poster", 1, 1, [0.5, 0.9], 4.0), ("poster", 1, 2, [0.4, 0.8], 1.0)]
    tables, _ = summary(*fits)
    one, two = tables["time"].frame.to_dict("records")
    assert (one["seconds"], one["times as fast"]) == (8.0, 1.0)
    assert (two["seconds"], two["times as fast"], two["overhead_s"]) == (2.0, 4.0, 0.0)
    by_rows = tables["accuracy_by_rows"].frame.to_numpy().tolist()
    assert by_rows == [
        *(["poster", rows, 0.5, 0.4] for rows in (100, 120, 140, 160, 180)),
        ["poster", 200, 0.9, 0.8],
    ]
    by_seconds = tables["accuracy_by_seconds"].frame
    assert list(by_seconds["seconds"])[:2] == pytest.approx([1.6, 2.4])
    assert by_seconds["workers 2"].tolist()[:2] == [0.4, 0.8]
    assert by_seconds.iloc[-1].tolist() == ["poster", 8.0, 0.9, 0.8]
    text = tables["accuracy"].text()
    assert text.splitlines()[0] == "Test accuracy"
    assert "90.00%" in text


@dataclass
class Summary:
    """Stands for a fit's."""

    history: pd.DataFrame
    n_rows: int = 9
    n_validation: int = 1
    ingest_s: float = 1.0
    seconds: float = 3.0


def test_periods_are_compared_and_drawn(tmp_path: Path) -> None:
    results = Results(str(tmp_path), {}, {"period": 5, "target": 0.8}, 4)
    results.open(False, 2, "4.0.0")
    for period, accuracies in ((5, [0.6, 0.8]), (10, [0.7])):
        for workers in (1, 2):
            fit = Summary(history(*((1.0, 0.5, each) for each in accuracies)))
            results.add(Trial("a", 1, workers, period)._asdict(), fit)
    results.report()
    found = pd.read_csv(tmp_path / "periods.csv")
    assert found[["every", "workers 2"]].to_numpy().tolist() == [[5, 0.8], [10, 0.7]]
    assert json.loads((tmp_path / "experiment.json").read_text())["complete"]
    pytest.importorskip("matplotlib")
    assert (tmp_path / "periods.png").read_bytes().startswith(b"\x89PNG")


@pytest.fixture(scope="module")
def tiny(points: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An experiment file; its results are to be in ``results`` beside it."""
    folder = tmp_path_factory.mktemp("experiment")
    (folder / "tiny.toml").write_text(_TINY.format(data=points, out=folder / "results"))
    return folder / "tiny.toml"


def test_an_experiment_from_end_to_end(
    tiny: Path, spark: "SparkSession", sparknn: Callable[..., Any]
) -> None:
    ran = sparknn("experiment", tiny)
    assert ran.status == 0, ran.err
    assert "Where averaging is fastest" in ran.out
    assert "[4/4] split 1, twin, 2 workers, averaging every 2: accuracy " in ran.err
    done = tiny.parent / "results"
    kept = json.loads((done / "experiment.json").read_text())
    tables = {"accuracy", "time", "accuracy_by_rows", "accuracy_by_seconds"}
    tables |= {"accuracy_by_model_seconds", "against_sequential", "against_first_arm"}
    assert set(kept["tables"]) == tables
    assert kept["complete"]
    assert (kept["target"], len(kept["runs"]), kept["runs_planned"]) == (0.4, 4, 4)
    assert kept["settings"]["arms"]["poster"]["stepSize"] == 0.3
    assert {f"{name}.csv" for name in tables} <= {path.name for path in done.iterdir()}

    runs, rounds = (pd.read_csv(done / f"{name}.csv") for name in ("runs", "rounds"))
    own = {arm: list(group["accuracy"]) for arm, group in runs.groupby("arm")}
    assert own["poster"] == own["twin"]
    twin = pd.read_csv(done / "against_first_arm.csv")
    assert set(twin["arm"]) == {"twin"}
    assert set(twin["points"]) == {0.0}
    assert set(twin["rows"]) == {1.0}
    mean = runs[runs["period"] == 2].groupby(["arm", "workers"])["accuracy"].mean()
    accuracy = pd.read_csv(done / "accuracy.csv").set_index(["arm", "workers"])["mean"]
    pd.testing.assert_series_equal(accuracy, mean, check_names=False)
    assert (runs["rounds"] == 4 // runs["period"]).all()
    assert (runs["n_train"] + runs["n_test"] == 300).all()
    # Every number of workers trains on as many rows, but for rounding half a row per worker.
    assert (abs(runs["n_rows"] - 4 * 0.5 * runs["n_train"]) <= 4 * runs["workers"]).all()
    assert len(rounds) == runs["rounds"].sum()
    ran = sparknn("experiment", tiny)
    assert ran.status == 2
    assert "output.folder" in ran.err
    pytest.importorskip("matplotlib")
    for name in ("accuracy", "time"):
        assert (done / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_splits_are_a_function_of_the_rows(tiny: Path, spark: "SparkSession") -> None:
    experiment = load_experiment(str(tiny), ["data.rows=150"])
    rows, params = read_rows(spark, experiment)
    assert params == {"inputCols": ["x", "y"], "labelCol": "labelIndex"}
    count = rows.count()
    assert count == pytest.approx(150, abs=40)

    def tested(number: int, partitions: int, is_test: str = IS_TEST) -> set[tuple[float, ...]]:
        data = mark_test_rows(rows, experiment.given, number).repartition(partitions)
        return {tuple(row) for row in data.where(is_test).select("x", "y").collect()}

    assert tested(1, 1) == tested(1, 3)
    assert tested(1, 1) != tested(2, 1)
    assert not tested(1, 1) & tested(1, 1, f"not {IS_TEST}")
    assert len(tested(1, 1)) / count == pytest.approx(0.3, abs=0.12)
    rows.unpersist()


def test_columns_are_checked_first(
    tiny: Path, tmp_path: Path, sparknn: Callable[..., Any], spark: "SparkSession"
) -> None:
    out = tmp_path / "out"
    ran = sparknn("experiment", tiny, "--set", "data.label=color", f"output.folder={out}")
    assert ran.status == 2
    assert "data.label: There is no column 'color' (labels); did you mean 'colour'?" in ran.err
    assert not out.exists()


def test_a_stopped_experiment_keeps_what_it_has(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    experiment = load_experiment(str(tiny))
    planned, out = experiment.trials(), tmp_path / "out"
    out.mkdir()
    for name in ("accuracy.csv", "mine.csv"):
        (out / name).touch()
    results = Results(str(out), {}, experiment.given, len(planned))
    with pytest.raises(UsageError, match="exists already"):
        results.open(False, 2, "4.0.0")
    results.open(True, 2, "4.0.0")
    assert [path.name for path in out.iterdir()] == ["mine.csv"]
    fits = iter(["well", "diverges", "well", "is stopped"])

    def fit(trial: Trial) -> Summary:
        kept = len(pd.read_csv(out / "runs.csv")) if (out / "runs.csv").exists() else 0
        assert kept == len(results.runs)
        match next(fits):
            case "is stopped":
                raise KeyboardInterrupt
            case "diverges":
                raise DivergedError("Training diverged: test.")
        return Summary(history((2.0, 1.5, 0.75)))

    with pytest.raises(KeyboardInterrupt):
        run_all(results, planned, fit)
    kept = json.loads((out / "experiment.json").read_text())
    assert not kept["complete"]
    assert [run["accuracy"] for run in kept["runs"]] == [0.75, 0.75]
    assert "75.00%" in capsys.readouterr().out
    assert pd.read_csv(out / "accuracy.csv")["mean"].tolist() == [0.75, 0.75]
