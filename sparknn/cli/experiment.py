"""``sparknn experiment``: the poster's protocol, fit after fit.

The file names variants of training and averaging, in its sections [arms.NAME]; the first is what
the others are compared to.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from pyspark.ml import Pipeline
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from sparknn import NeuralNetClassifier
from sparknn.cli.errors import raise_mistakes
from sparknn.cli.experiment_results import Results
from sparknn.cli.jobfile import JobFile, read
from sparknn.cli.keys import EXPERIMENT
from sparknn.cli.pipeline import column_mistakes, plan_columns, preprocessing
from sparknn.cli.report import counted
from sparknn.cli.session import open_session
from sparknn.core.training.fit_state import DivergedError
from sparknn.engine.sql import quote_column
from sparknn.ml.estimator import default_workers
from sparknn.ml.schema import case_matters

log = logging.getLogger("sparknn.cli")

# Numbers that a row's hash is folded to.
_STEPS = 1 << 24


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
        return [
            Trial(name, split, n, period)
            for split, period in cases
            for name in self.variants
            for n in workers
        ]

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
    """Return ``localEpochs`` and ``miniBatchFraction`` of a round.

    Either ``period`` passes over one draw, as on the poster, or as many rows in as few passes over
    a larger draw as there can be.
    """
    if not redraw:
        return period, fraction
    n_passes = math.ceil(period * fraction - 1e-9)
    return n_passes, min(1.0, period * fraction / n_passes)


def load_experiment(path: str, overrides: Sequence[str] = ()) -> Experiment:
    """Read an experiment file and check it; name every mistake."""
    file = read(path, overrides, EXPERIMENT)
    given = {name: file.values[f"experiment.{name}"] for name in EXPERIMENT["experiment"]}
    arms = file.tables.get("arms")
    names = [name for name, arm in arms.items() if isinstance(arm, dict)] if arms else []
    for section in ["network", *(f"arms.{name}" for name in names)]:
        file.build("classification", section)
    if not arms:
        file.mistakes.append("arms: missing. At least one section [arms.NAME], which may be empty.")
    if 1 not in given["workers"]:
        file.mistakes.append("experiment.workers: 1 is missing; it is what others are compared to.")
    periods = [("period", given["period"]), *(("periods", n) for n in given["periods"])]
    file.mistakes += [
        f"experiment.{key}: {period} does not divide the {given['iterations']} of "
        f"experiment.iterations into whole rounds."
        for key, period in periods
        if given["iterations"] % period
    ]
    raise_mistakes(file.name, file.mistakes)
    network = file.params.get("network", {})
    variants = {name: network | file.params.get(f"arms.{name}", {}) for name in names}
    return Experiment(file, given, variants)


def position(seed: int, stream: int) -> Column:
    """Return a random number from 0 up to 1 that depends on the row's own content alone.

    So a split is the same however the rows are partitioned, and equal rows stay together: none is
    both trained and tested on.
    """
    hashed = F.xxhash64(F.lit(seed), F.lit(stream), F.col("features"), F.col("label"))
    return F.pmod(hashed, F.lit(_STEPS)) / F.lit(_STEPS)


def read_rows(spark: SparkSession, experiment: Experiment) -> DataFrame:
    """Return ``features`` and ``label`` of all rows, or of ``data.rows`` of them, in memory."""
    file, source = experiment.file, experiment.file.sources()["data.train"]
    raise_mistakes(file.name, [source.problem(spark, "data.train")])
    data = source.read(spark)
    columns = plan_columns(data.schema, file.features, file.values["data.label"], classifies=True)
    net, case = NeuralNetClassifier(), case_matters(spark)
    raise_mistakes(file.name, column_mistakes(data.schema, columns, net, case_matters=case))
    data = Pipeline(stages=preprocessing(columns)).fit(data).transform(data)
    names = {columns.features: "features", columns.label: "label"}
    data = data.select(*(F.col(quote_column(name)).alias(new) for name, new in names.items()))
    if file.values["data.rows"] is not None:
        share = file.values["data.rows"] / max(data.count(), 1)
        data = data.where(position(experiment.given["seed"], 0) < share)
    if not data.head(1):
        raise_mistakes(file.name, [f"data.train: there are no rows in {source.path}."])
    return data.persist()


def split(rows: DataFrame, given: dict[str, Any], number: int) -> DataFrame:
    """Return the rows with a boolean column ``isTest``; splits count from 1."""
    is_test = position(given["seed"], number) < given["testFraction"]
    return rows.withColumn("isTest", is_test)


def run_trial(rows: DataFrame, trial: Trial, experiment: Experiment, **params: Any) -> Any:
    """Fit one network; return its summary."""
    estimator = NeuralNetClassifier(validationIndicatorCol="isTest")
    estimator.setParams(**experiment.params(trial) | params)
    return estimator.fit(split(rows, experiment.given, trial.split)).summary


def run(path: str, overrides: Sequence[str] = (), *, verbose: bool = False) -> None:
    """Do what an experiment file says."""
    experiment = load_experiment(path, overrides)
    planned, file = experiment.trials(), experiment.file
    results = Results(file.values["output.folder"], file.tables, experiment.given, len(planned))
    results.check_free(file.values["output.overwrite"])
    log.info("Starting Spark ...")
    with open_session(f"sparknn experiment {path}", verbose=verbose) as spark:
        rows, n_slots = read_rows(spark, experiment), default_workers(spark)
        log.info(
            "%s; %s, one after the other, with up to %s on %s.",
            *(counted(rows.count(), "row"), counted(len(planned), "fit")),
            *(counted(planned[-1].workers, "worker"), counted(n_slots, "core")),
        )
        results.open(n_slots, spark.version)
        if not verbose:  # a line per fit, not per round
            logging.getLogger("sparknn").setLevel(logging.WARNING)
        try:
            # A round that nobody measures: Python workers start in it, and the JVM compiles.
            run_trial(rows, planned[-1], experiment, maxIter=1)
            run_all(results, planned, lambda trial: run_trial(rows, trial, experiment))
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
