"""``sparknn experiment``: the poster's protocol, fit after fit.

An experiment file names variants of training and averaging, in its sections [arms.NAME].
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd
from pyspark.ml import Pipeline
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from sparknn import NeuralNetClassifier
from sparknn.cli.errors import raise_mistakes
from sparknn.cli.experiment_report import Results
from sparknn.cli.io import Source
from sparknn.cli.jobfile import read
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
# For the time left only: what a fit takes besides its rounds, counted in rounds, and the number of
# workers whose tasks make a round take twice as long.
_FIXED_ROUNDS, _DOUBLING = 10, 8


@dataclass(frozen=True)
class Trial:
    """One fit: a variant with a number of workers and a period, on a split (from 1)."""

    variant: str
    split: int
    workers: int
    period: int

    def __str__(self) -> str:
        workers = "sequential" if self.workers == 1 else f"{self.workers} workers"
        return f"split {self.split}, {self.variant}, {workers}, averaging every {self.period}"


@dataclass(frozen=True)
class Experiment:
    """What an experiment is asked for; the fields are keys of its file.

    Parameters
    ----------
    variants : dict of str to dict
        Params by name; the first variant is what the others are compared to.
    redraws : frozenset of str
        Variants that draw new rows instead of passing several times over one draw.
    as_given : dict
        The file's tables, overrides applied.
    """

    name: str
    source: Source
    features: tuple[str, ...]
    label: str
    rows: int | None
    splits: int
    test_fraction: float
    workers: tuple[int, ...]
    iterations: int
    period: int
    periods: tuple[int, ...]
    fraction: float
    target: float | None
    seed: int
    variants: dict[str, dict[str, Any]]
    redraws: frozenset[str]
    folder: str
    overwrite: bool
    as_given: dict[str, Any]

    def trials(self) -> list[Trial]:
        """Return every fit, split by split, so that a stopped experiment has whole ones."""
        cases = [(split, self.period) for split in range(1, self.splits + 1)]
        cases += [(1, period) for period in self.periods]
        return [
            Trial(variant, split, workers, period)
            for split, period in cases
            for variant in self.variants
            for workers in self.workers
        ]

    def params(self, trial: Trial) -> dict[str, Any]:
        """Return the Params of a trial's estimator, its columns excepted."""
        redraw = trial.variant in self.redraws
        epochs, fraction = local_work(trial.period, self.fraction, redraw=redraw)
        return {
            **self.variants[trial.variant],
            "maxIter": self.iterations // trial.period,
            "localEpochs": epochs,
            "miniBatchFraction": fraction,
            "numWorkers": trial.workers,
            "seed": self.seed + trial.split - 1,
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
    given = {name.partition(".")[2]: value for name, value in file.values.items()}
    arms = file.tables.get("arms") or {}
    names = [name for name, table in arms.items() if isinstance(table, dict)]
    for section in ["network", *(f"arms.{name}" for name in names)]:
        file.build("classification", section)
    if 1 not in given["workers"]:
        file.mistakes.append("experiment.workers: 1 is missing; it is what others are compared to.")
    iterations, period, periods = given["iterations"], given["period"], given["periods"]
    file.mistakes += [
        f"experiment.{key}: {value} does not divide the {iterations} of experiment.iterations "
        f"into whole rounds."
        for key, value in [("period", period), *(("periods", other) for other in periods)]
        if iterations % value
    ]
    raise_mistakes(file.name, file.mistakes)
    network = file.params.get("network", {})
    return Experiment(
        name=file.name,
        source=file.source("data.train"),
        features=file.features,
        label=given["label"],
        rows=given["rows"],
        splits=given["splits"],
        test_fraction=given["testFraction"],
        workers=tuple(sorted(set(given["workers"]))),
        iterations=iterations,
        period=period,
        periods=tuple(sorted(set(periods) - {period})),
        fraction=given["miniBatchFraction"],
        target=given["target"],
        seed=given["seed"],
        variants={name: network | file.params.get(f"arms.{name}", {}) for name in names},
        redraws=frozenset(name for name in names if file.values[f"arms.{name}.redraw"]),
        folder=given["folder"],
        overwrite=given["overwrite"],
        as_given=file.tables,
    )


@dataclass(frozen=True)
class Rows:
    """The rows of an experiment, in memory, and the columns that a network reads."""

    data: DataFrame
    features: str
    label: str
    count: int


def read_rows(spark: SparkSession, experiment: Experiment) -> Rows:
    """Read the rows, draw ``data.rows`` of them, and make the columns that a network needs.

    Raises
    ------
    UsageError
        If there are none, or columns are missing or of the wrong type.
    """
    raise_mistakes(experiment.name, [experiment.source.problem(spark, "data.train")])
    data = experiment.source.read(spark)
    found = plan_columns(data.schema, experiment.features, experiment.label, classifies=True)
    net, case = NeuralNetClassifier(), case_matters(spark)
    mistakes = column_mistakes(data.schema, found, net, case_matters=case)
    raise_mistakes(experiment.name, mistakes)
    data = Pipeline(stages=preprocessing(found)).fit(data).transform(data)
    data = data.select(quote_column(found.features), quote_column(found.label))
    if experiment.rows is not None:
        share = experiment.rows / max(data.count(), 1)
        place = _position(found.features, found.label, experiment.seed, _DRAW)
        data = data.where(place < share)
    data = data.persist()
    rows = Rows(data, found.features, found.label, data.count())
    empty = f"data.train: there are no rows in {experiment.source.path}."
    raise_mistakes(experiment.name, [empty] if rows.count == 0 else [])
    return rows


def with_test_column(rows: Rows, experiment: Experiment, split: int) -> tuple[DataFrame, str]:
    """Return the rows with a boolean column that marks the test rows of a split, and its name."""
    name = free_name(rows.data.schema, "test")
    place = _position(rows.features, rows.label, experiment.seed, split)
    return rows.data.withColumn(name, place < experiment.test_fraction), name


def _position(features: str, label: str, seed: int, stream: int) -> Column:
    """Return a random number from 0 up to 1 that depends on nothing but the row's own content.

    So a split is the same however the rows are partitioned, and equal rows stay together: none is
    both trained and tested on.
    """
    content = (F.col(quote_column(name)) for name in (features, label))
    hashed = F.xxhash64(F.lit(seed), F.lit(stream), *content)
    return F.pmod(hashed, F.lit(_STEPS)) / F.lit(_STEPS)


@dataclass(frozen=True)
class Run:
    """A trial that has been run.

    Parameters
    ----------
    facts : dict
        n_train, n_test, ingest_s, fit_s; and problem, why it failed.
    rounds : DataFrame
        See ``cumulated``; empty if it failed.
    """

    trial: Trial
    facts: dict[str, Any]
    rounds: pd.DataFrame


def run_trial(experiment: Experiment, trial: Trial, rows: Rows, n_slots: int) -> Run:
    """Fit one network and read its rounds."""
    data, test = with_test_column(rows, experiment, trial.split)
    estimator = NeuralNetClassifier(**experiment.params(trial)).setParams(
        featuresCol=rows.features, labelCol=rows.label, validationIndicatorCol=test
    )
    facts: dict[str, Any] = {"n_train": 0, "n_test": 0, "ingest_s": math.nan, "fit_s": math.nan}
    try:
        summary = estimator.fit(data).summary
    except DivergedError as error:
        return Run(trial, {**facts, "problem": str(error)}, pd.DataFrame())
    facts = {"n_train": summary.n_rows, "n_test": summary.n_validation, "problem": ""}
    facts |= {"ingest_s": summary.ingest_s, "fit_s": summary.seconds}
    return Run(trial, facts, cumulated(summary.history, trial.workers, n_slots))


def cumulated(history: pd.DataFrame, n_workers: int, n_slots: int) -> pd.DataFrame:
    """Sum up a fit's rounds: one row per round, with sums over the rounds so far.

    ``compute_s`` is the training of each round's slowest worker, ``overhead_s`` the rest of a
    round. ``model_s`` is a model, not a measurement: the time if every worker had a core of its
    own, which is compute and overhead; for one worker compute alone, as it needs no Spark. With
    more workers than slots, a round holds several waves of tasks; as many times its slowest
    worker's training is taken to be compute, and the rest overhead, which scoring is part of.
    """
    waves = -(-n_workers // n_slots)
    overhead = (history["seconds"] - waves * history["compute_s"]).clip(lower=0)
    model = history["compute_s"] + (overhead if n_workers > 1 else 0.0)
    sums = history[["n_rows", "seconds", "compute_s"]].assign(overhead_s=overhead, model_s=model)
    sums = sums.assign(broadcast_s=history["broadcast_s"], job_s=history["job_s"]).cumsum()
    sums.insert(0, "round", history["round"] + 1)
    sums.insert(2, "accuracy", history["validation_metric"])
    sums.insert(3, "loss", history["loss"])
    return sums


def run(path: str, overrides: Sequence[str] = (), *, verbose: bool = False) -> None:
    """Do what an experiment file says.

    Raises
    ------
    UsageError
        Naming every mistake in it before Spark starts; columns that cannot be used before the
        first fit.
    """
    experiment = load_experiment(path, overrides)
    planned = experiment.trials()
    results = Results(
        experiment.folder,
        experiment.as_given,
        len(planned),
        list(experiment.variants),
        experiment.period,
        experiment.target,
    )
    results.check_free(experiment.overwrite)
    log.info("Starting Spark ...")
    with open_session(f"sparknn experiment {path}", verbose=verbose) as spark:
        rows = read_rows(spark, experiment)
        n_slots = default_workers(spark)
        log.info(
            "%s; %s, one after the other, with up to %s on %s.",
            counted(rows.count, "row"),
            counted(len(planned), "fit"),
            counted(max(experiment.workers), "worker"),
            counted(n_slots, "core"),
        )
        results.open(n_slots, spark.version)
        try:
            with _rounds_shown(verbose):
                # A round that nobody measures: Python workers start in it, and the JVM compiles.
                brief = replace(planned[0], workers=max(experiment.workers), period=1)
                run_trial(replace(experiment, iterations=1), brief, rows, n_slots)
                run_all(
                    results, planned, experiment, lambda t: run_trial(experiment, t, rows, n_slots)
                )
        finally:
            rows.data.unpersist()


def run_all(
    results: Results,
    planned: Sequence[Trial],
    experiment: Experiment,
    fit: Callable[[Trial], Run],
) -> None:
    """Run all trials, and report those that have run however this ends."""
    costs = [
        experiment.iterations / trial.period * (1 + trial.workers / _DOUBLING) + _FIXED_ROUNDS
        for trial in planned
    ]
    started = time.perf_counter()
    done = 0
    try:
        for done, trial in enumerate(planned, 1):
            text = results.add(fit(trial))
            passed = time.perf_counter() - started
            left = passed * sum(costs[done:]) / sum(costs[:done])
            shown = f"{left:.0f} s" if left < 100 else f"{left / 60:.0f} min"
            log.info("[%d/%d] %s: %s; %s left", done, len(planned), trial, text, shown)
    finally:
        results.report()
        if len(results.runs) < len(planned):
            log.warning("Stopped after %d of %d fits.", len(results.runs), len(planned))


@contextmanager
def _rounds_shown(shown: bool) -> Iterator[None]:
    """Show a line per round, or only a line per fit."""
    library = logging.getLogger("sparknn")
    levels = library.level, log.level
    if not shown:
        library.setLevel(logging.WARNING)
        log.setLevel(logging.INFO)
    try:
        yield
    finally:
        library.setLevel(levels[0])
        log.setLevel(levels[1])
