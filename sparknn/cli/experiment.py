"""``sparknn experiment``: the poster's protocol, fit after fit, by variants of training."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from sparknn import NeuralNetClassifier
from sparknn.cli.errors import raise_mistakes
from sparknn.cli.experiment_results import Results
from sparknn.cli.jobfile import JobFile, read
from sparknn.cli.keys import EXPERIMENT
from sparknn.cli.pipeline import Columns, column_mistakes
from sparknn.cli.report import counted
from sparknn.cli.session import open_session
from sparknn.core.training.fit_state import DivergedError
from sparknn.engine.sql import default_parallelism, quote_column
from sparknn.ml.schema import case_matters

log = logging.getLogger("sparknn.cli")

#: No column of the rows has this name.
IS_TEST = "__isExperimentTestRow"


class Trial(NamedTuple):
    """One fit: a variant on a split (from 1), with a number of workers and an averaging period."""

    arm: str
    split: int
    workers: int
    period: int


@dataclass(frozen=True)
class Experiment:
    """What an experiment is asked for: the keys of [experiment], and the Params of each variant."""

    file: JobFile
    given: dict[str, Any]
    variants: dict[str, dict[str, Any]]

    def trials(self) -> list[Trial]:
        """Return every fit, split by split, so that a stopped experiment has whole ones."""
        period, workers = self.given["period"], sorted(set(self.given["workers"]))
        cases = [(split, period) for split in range(1, self.given["splits"] + 1)]
        cases += [(1, other) for other in sorted(set(self.given["periods"]) - {period})]
        kinds = [(name, n) for name in self.variants for n in workers]
        return [Trial(name, split, n, period) for split, period in cases for name, n in kinds]

    def params(self, trial: Trial) -> dict[str, Any]:
        """Return the Params of a trial's estimator, its columns excepted."""
        redraw = self.file.values[f"arms.{trial.arm}.redraw"]
        epochs, fraction = local_work(trial.period, self.given["miniBatchFraction"], redraw=redraw)
        return {
            **self.variants[trial.arm],
            "maxIter": self.given["iterations"] // trial.period,
            "localEpochs": epochs,
            "miniBatchFraction": fraction,
            "numWorkers": trial.workers,
            "seed": self.given["seed"] + trial.split - 1,
            # Nothing is selected on the test rows, although every round is scored on them.
            "finalWeights": "last",
        }


def local_work(period: int, fraction: float, *, redraw: bool) -> tuple[int, float]:
    """Return ``localEpochs`` and ``miniBatchFraction`` of a round."""
    if not redraw:  # as on the poster
        return period, fraction
    # As many rows, in as few passes over a larger draw as there can be.
    n_passes = math.ceil(period * fraction - 1e-9)
    return n_passes, min(1.0, period * fraction / n_passes)


def load_experiment(path: str, overrides: Sequence[str] = ()) -> Experiment:
    """Read an experiment file and check it; name every mistake."""
    file = read(path, overrides, EXPERIMENT)
    given = {name: file.values[f"experiment.{name}"] for name in EXPERIMENT["experiment"]}
    arms = file.tables.get("arms")
    names = (
        [n for n, arm in arms.items() if isinstance(arm, dict)] if isinstance(arms, dict) else []
    )
    for section in ["network", *(f"arms.{name}" for name in names)]:
        file.build("classification", section)
    if "arms" not in file.tables:
        file.mistakes.append("arms: missing. At least one section [arms.NAME], which may be empty.")
    if 1 not in given["workers"]:
        file.mistakes.append("experiment.workers: 1 is missing; it is what others are compared to.")
    periods = [("period", given["period"]), *(("periods", n) for n in given["periods"])]
    iterations = given["iterations"]
    uneven = f"does not divide the {iterations} of experiment.iterations into whole rounds."
    file.mistakes += [f"experiment.{key}: {n} {uneven}" for key, n in periods if iterations % n]
    raise_mistakes(file.name, file.mistakes)
    network = file.params.get("network", {})
    variants = {name: network | file.params.get(f"arms.{name}", {}) for name in names}
    return Experiment(file, given, variants)


def read_rows(spark: SparkSession, experiment: Experiment) -> tuple[DataFrame, dict[str, Any]]:
    """Return all rows, or ``data.rows`` of them, in memory, and Params that name their columns."""
    file, source = experiment.file, experiment.file.sources()["data.train"]
    raise_mistakes(file.name, [source.problem(spark, "data.train")])
    data = source.read(spark)
    columns = Columns.of(data.schema, file.features, file.values["data.label"], classifies=True)
    net, case = NeuralNetClassifier(), case_matters(spark)
    raise_mistakes(file.name, column_mistakes(data.schema, columns, net, case_matters=case))
    _, data = columns.index_label(data)
    read = [*columns.features, columns.index or columns.label]
    data = data.select(*map(quote_column, read))
    if file.values["data.rows"] is not None:
        share = file.values["data.rows"] / max(data.count(), 1)
        data = data.sample(fraction=min(1.0, share), seed=experiment.given["seed"])
    if not data.head(1):
        raise_mistakes(file.name, [f"data.train: there are no rows in {source.path}."])
    return data.persist(), columns.params()


def mark_test_rows(rows: DataFrame, given: dict[str, Any], split: int) -> DataFrame:
    """Return the rows with a boolean column, by the hash of each row's own content.

    So a split is the same however rows are partitioned, and no row is both trained and tested on.
    """
    own = (F.col(quote_column(name)) for name in rows.columns)
    hashed = F.xxhash64(F.lit(given["seed"]), F.lit(split), *own)
    position = F.pmod(hashed, F.lit(1 << 24)) / F.lit(1 << 24)
    return rows.withColumn(IS_TEST, position < given["testFraction"])


def run_trial(rows: DataFrame, trial: Trial, experiment: Experiment, **params: Any) -> Any:
    """Fit one network; return its summary."""
    estimator = NeuralNetClassifier(validationIndicatorCol=IS_TEST)
    estimator.setParams(**experiment.params(trial) | params)
    return estimator.fit(mark_test_rows(rows, experiment.given, trial.split)).summary


def run(path: str, overrides: Sequence[str] = (), *, verbose: bool = False) -> None:
    """Do what an experiment file says."""
    experiment = load_experiment(path, overrides)
    planned, file = experiment.trials(), experiment.file
    results = Results(file.values["output.folder"], file.tables, experiment.given, len(planned))
    log.info("Starting Spark ...")
    with open_session(f"sparknn experiment {path}", verbose=verbose) as spark:
        (rows, columns), n_slots = read_rows(spark, experiment), default_parallelism(spark)
        log.info("%s, %s.", counted(rows.count(), "row"), counted(len(planned), "fit"))
        if not verbose:  # a line per fit, not per round
            logging.getLogger("sparknn").setLevel(logging.WARNING)
        try:
            results.open(file.values["output.overwrite"], n_slots, spark.version)
            # A round that nobody measures: Python workers start in it, and the JVM compiles.
            run_trial(rows, planned[-1], experiment, maxIter=1, **columns)
            run_all(results, planned, lambda trial: run_trial(rows, trial, experiment, **columns))
        finally:
            rows.unpersist()


def run_all(results: Results, planned: Sequence[Trial], fit: Callable[[Trial], Any]) -> None:
    """Run all trials, and report those that have run however this ends."""
    try:
        for number, trial in enumerate(planned, 1):
            workers = counted(trial.workers, "worker")
            case = f"split {trial.split}, {trial.arm}, {workers}, averaging every {trial.period}"
            try:
                text = results.add(trial._asdict(), fit(trial))
            except DivergedError as error:
                text = f"left out. {error}"
            log.info("[%d/%d] %s: %s", number, len(planned), case, text)
    finally:
        results.report()
        if len(results.runs) < len(planned):
            log.warning("The results are of %d of %d fits.", len(results.runs), len(planned))
