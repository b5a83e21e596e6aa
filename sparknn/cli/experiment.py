"""``sparknn experiment``: the poster's protocol, fit after fit.

The file names variants of training and averaging, in its sections [arms.NAME].
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import pandas as pd
from pyspark.ml import Pipeline
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from sparknn import NeuralNetClassifier
from sparknn.cli.errors import raise_mistakes
from sparknn.cli.experiment_results import Results
from sparknn.cli.jobfile import JobFile, read
from sparknn.cli.keys import EXPERIMENT
from sparknn.cli.pipeline import column_mistakes, free_name, plan_columns, preprocessing
from sparknn.cli.report import counted
from sparknn.cli.session import open_session
from sparknn.core.training.fit_state import DivergedError
from sparknn.engine.sql import quote_column
from sparknn.ml.estimator import default_workers
from sparknn.ml.schema import case_matters

log = logging.getLogger("sparknn.cli")

# Numbers that a row's hash is folded to, and the stream of hashes that draws `data.rows`.
_STEPS, _DRAW = 1 << 24, 0
# For the time left only: the number of workers whose tasks make a round take twice as long.
_DOUBLING = 8


class Trial(NamedTuple):
    """One fit: a variant on a split (from 1), with a number of workers and an averaging period."""

    arm: str
    split: int
    workers: int
    period: int

    def __str__(self) -> str:
        workers = "sequential" if self.workers == 1 else f"{self.workers} workers"
        return f"split {self.split}, {self.arm}, {workers}, averaging every {self.period}"


@dataclass(frozen=True)
class Experiment:
    """What an experiment is asked for: the keys of [experiment], and the Params of each variant.

    The first variant is what the others are compared to.
    """

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
            "maxIter": max(1, self.given["iterations"] // trial.period),
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
    """Read an experiment file, apply ``section.key=value`` overrides, and check both.

    Raises
    ------
    UsageError
        Naming every mistake.
    """
    file = read(path, overrides, EXPERIMENT)
    given = {name: file.values[f"experiment.{name}"] for name in EXPERIMENT["experiment"]}
    names = [key[5:-7] for key in file.values if key[:5] == "arms." and key[-7:] == ".redraw"]
    names = [name for name in names if name]
    for section in ["network", *(f"arms.{name}" for name in names)]:
        file.build("classification", section)
    if not names:
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


@dataclass(frozen=True)
class Rows:
    """The rows of an experiment, in memory, and the columns that a network reads."""

    data: DataFrame
    features: str
    label: str

    def position(self, seed: int, stream: int) -> Column:
        """Return a random number from 0 up to 1 that depends on the row's own content alone.

        So a split is the same however the rows are partitioned, and equal rows stay together: none
        is both trained and tested on.
        """
        content = (F.col(quote_column(name)) for name in (self.features, self.label))
        hashed = F.xxhash64(F.lit(seed), F.lit(stream), *content)
        return F.pmod(hashed, F.lit(_STEPS)) / F.lit(_STEPS)

    def split(self, given: dict[str, Any], number: int) -> tuple[DataFrame, str]:
        """Return the rows with a boolean column that marks the test rows, and its name."""
        name = free_name(self.data.schema, "test")
        is_test = self.position(given["seed"], number) < given["testFraction"]
        return self.data.withColumn(name, is_test), name


def read_rows(spark: SparkSession, experiment: Experiment) -> Rows:
    """Read the rows, draw ``data.rows`` of them, and make the columns that a network needs."""
    file, source = experiment.file, experiment.file.source("data.train")
    raise_mistakes(file.name, [source.problem(spark, "data.train")])
    data = source.read(spark)
    found = plan_columns(data.schema, file.features, file.values["data.label"], classifies=True)
    net, case = NeuralNetClassifier(), case_matters(spark)
    raise_mistakes(file.name, column_mistakes(data.schema, found, net, case_matters=case))
    data = Pipeline(stages=preprocessing(found)).fit(data).transform(data)
    data = data.select(quote_column(found.features), quote_column(found.label))
    rows = Rows(data, found.features, found.label)
    if file.values["data.rows"] is not None:
        share = file.values["data.rows"] / max(data.count(), 1)
        data = data.where(rows.position(experiment.given["seed"], _DRAW) < share)
    empty = "" if data.head(1) else f"data.train: there are no rows in {source.path}."
    raise_mistakes(file.name, [empty])
    return Rows(data.persist(), found.features, found.label)


def run_trial(
    rows: Rows, trial: Trial, experiment: Experiment, n_slots: int, **params: Any
) -> tuple[dict[str, Any], pd.DataFrame]:
    """Fit one network; return facts, ``problem`` if it failed, and rounds, see ``cumulated``."""
    data, test = rows.split(experiment.given, trial.split)
    estimator = NeuralNetClassifier(**experiment.params(trial) | params).setParams(
        featuresCol=rows.features, labelCol=rows.label, validationIndicatorCol=test
    )
    try:
        summary = estimator.fit(data).summary
    except DivergedError as error:
        return {"problem": str(error)}, pd.DataFrame()
    facts = {"n_train": summary.n_rows, "n_test": summary.n_validation, "problem": ""}
    facts |= {"ingest_s": summary.ingest_s, "fit_s": summary.seconds}
    return facts, cumulated(summary.history, trial.workers, n_slots)


def cumulated(history: pd.DataFrame, n_workers: int, n_slots: int) -> pd.DataFrame:
    """Return one row per round of a fit, with sums over the rounds so far.

    ``compute_s`` is the training of each round's slowest worker, ``overhead_s`` the rest of a
    round. ``model_s`` is a model, not a measurement: the time if every worker had a core of its
    own, which is compute and overhead; for one worker compute alone, as it needs no Spark. With
    more workers than slots, a round holds several waves of tasks; as many times its slowest
    worker's training is taken to be compute, and the rest overhead, which scoring is part of.
    """
    compute, waves = history["compute_s"], -(-n_workers // n_slots)
    overhead = (history["seconds"] - waves * compute).clip(lower=0)
    sums = history[["n_rows", "seconds", "compute_s", "broadcast_s", "job_s"]].assign(
        overhead_s=overhead, model_s=compute + (overhead if n_workers > 1 else 0.0)
    )
    own = {"round": history["round"] + 1, "accuracy": history["validation_metric"]}
    return pd.concat([pd.DataFrame({**own, "loss": history["loss"]}), sums.cumsum()], axis=1)


def run(path: str, overrides: Sequence[str] = (), *, verbose: bool = False) -> None:
    """Do what an experiment file says.

    Raises
    ------
    UsageError
        Naming every mistake in it before Spark starts; columns that cannot be used before the
        first fit.
    """
    experiment = load_experiment(path, overrides)
    planned, file = experiment.trials(), experiment.file
    results = Results(
        file.values["output.folder"],
        file.tables,
        experiment.given,
        list(experiment.variants),
        len(planned),
    )
    results.check_free(file.values["output.overwrite"])
    log.info("Starting Spark ...")
    with open_session(f"sparknn experiment {path}", verbose=verbose) as spark:
        rows, n_slots = read_rows(spark, experiment), default_workers(spark)
        log.info(
            "%s; %s, one after the other, with up to %s on %s.",
            *(counted(rows.data.count(), "row"), counted(len(planned), "fit")),
            *(counted(planned[-1].workers, "worker"), counted(n_slots, "core")),
        )
        results.open(n_slots, spark.version)
        if not verbose:  # a line per fit, not per round
            logging.getLogger("sparknn").setLevel(logging.WARNING)
        try:
            # A round that nobody measures: Python workers start in it, and the JVM compiles.
            run_trial(rows, planned[-1], experiment, n_slots, maxIter=1)
            run_all(results, planned, lambda t: run_trial(rows, t, experiment, n_slots))
        finally:
            rows.data.unpersist()


def run_all(
    results: Results, planned: Sequence[Trial], fit: Callable[[Trial], tuple[Any, Any]]
) -> None:
    """Run all trials, and report those that have run however this ends."""
    costs = [(1 + t.workers / _DOUBLING) / t.period for t in planned]
    started = time.perf_counter()
    try:
        for done, trial in enumerate(planned, 1):
            text = results.add(trial, *fit(trial))
            left = (time.perf_counter() - started) * sum(costs[done:]) / sum(costs[:done])
            log.info("[%d/%d] %s: %s; %.0f s left", done, len(planned), trial, text, left)
    finally:
        results.report()
        if len(results.runs) < len(planned):
            log.warning("Stopped after %d of %d fits.", len(results.runs), len(planned))
