"""The fits of an experiment: which there are, and what each of them gives."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sparknn.cli.config import Table
from sparknn.cli.experiment.settings import Arm, Settings
from sparknn.cli.experiment.split import Rows, with_test_column
from sparknn.core.training.fit_state import DivergedError
from sparknn.core.training.history import RoundRecord


@dataclass(frozen=True)
class Trial:
    """One fit of an experiment.

    Parameters
    ----------
    arm : Arm
    split : int
        From 1.
    workers, period : int
    """

    arm: Arm
    split: int
    workers: int
    period: int

    def __str__(self) -> str:
        workers = "sequential" if self.workers == 1 else f"{self.workers} workers"
        return f"split {self.split}, {self.arm.name}, {workers}, averaging every {self.period}"


def trials(settings: Settings) -> list[Trial]:
    """Every fit, in its order: split by split, so that a stopped experiment has whole ones."""
    base = [
        Trial(arm, split, workers, settings.period)
        for split in range(1, settings.splits + 1)
        for arm in settings.arms
        for workers in settings.workers
    ]
    others = [
        Trial(arm, 1, workers, period)
        for period in settings.periods
        for arm in settings.arms
        for workers in settings.workers
    ]
    return base + others


def local_work(period: int, fraction: float, *, redraw: bool) -> tuple[int, float]:
    """``localEpochs`` and ``miniBatchFraction`` of a round.

    Either ``period`` passes over one draw, as on the poster, or as many rows in as few passes over
    a larger draw as there can be.
    """
    if not redraw:
        return period, fraction
    n_passes = math.ceil(period * fraction - 1e-9)
    return n_passes, min(1.0, period * fraction / n_passes)


def params_of(settings: Settings, trial: Trial) -> Table:
    """The Params of a trial's estimator, its columns excepted."""
    epochs, fraction = local_work(trial.period, settings.fraction, redraw=trial.arm.redraw)
    return {
        **settings.network,
        **trial.arm.params,
        "maxIter": settings.iterations // trial.period,
        "localEpochs": epochs,
        "miniBatchFraction": fraction,
        "numWorkers": trial.workers,
        "seed": settings.seed + trial.split - 1,
        # Nothing is selected on the test rows, although every round is scored on them.
        "finalWeights": "last",
    }


@dataclass(frozen=True)
class Point:
    """Where a trial stands after a round. Sums are over the rounds so far.

    Parameters
    ----------
    round : int
        From 1.
    n_rows : int
        Rows trained on by all workers, repeats counted.
    accuracy : float
        Of the averaged network on the test rows.
    loss : float
        Of the rows trained on in this round.
    seconds : float
        Wall time, as measured.
    compute_s : float
        Training of each round's slowest worker.
    overhead_s : float
        What is left of each round when its workers' training is taken away.
    model_s : float
        A model, not a measurement: the time if every worker had a core of its own, which is compute
        and overhead; for one worker compute alone, as it needs no Spark.
    broadcast_s, job_s : float
        The parts of ``seconds`` that sending the network and Spark's job took.
    """

    round: int
    n_rows: int
    accuracy: float
    loss: float
    seconds: float
    compute_s: float
    overhead_s: float
    model_s: float
    broadcast_s: float
    job_s: float


def points(records: Sequence[RoundRecord], n_workers: int, n_slots: int) -> list[Point]:
    """Sum up a fit's rounds.

    With more workers than slots, a round holds several waves of tasks; as many times its slowest
    worker's training is taken to be compute, and the rest overhead, which scoring is part of.

    Parameters
    ----------
    records : sequence of RoundRecord
    n_workers : int
    n_slots : int
        Tasks that Spark runs at a time.
    """
    waves = -(-n_workers // n_slots)
    found: list[Point] = []
    last = Point(0, 0, math.nan, math.nan, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
    for record in records:
        overhead = max(0.0, record.seconds - waves * record.compute_s)
        model = record.compute_s + (overhead if n_workers > 1 else 0.0)
        last = Point(
            round=record.round + 1,
            n_rows=last.n_rows + record.n_rows,
            accuracy=record.validation_metric,
            loss=record.loss,
            seconds=last.seconds + record.seconds,
            compute_s=last.compute_s + record.compute_s,
            overhead_s=last.overhead_s + overhead,
            model_s=last.model_s + model,
            broadcast_s=last.broadcast_s + record.broadcast_s,
            job_s=last.job_s + record.job_s,
        )
        found.append(last)
    return found


@dataclass(frozen=True)
class Run:
    """A trial that has been run.

    Parameters
    ----------
    trial : Trial
    points : sequence of Point
        One a round; empty if it failed.
    n_train, n_test : int
        Rows.
    fit_s, ingest_s : float
        Wall time of the whole fit, and of the part before its first round.
    problem : str
        Why it failed; empty if it did not.
    """

    trial: Trial
    points: Sequence[Point] = field(repr=False)
    n_train: int = 0
    n_test: int = 0
    fit_s: float = math.nan
    ingest_s: float = math.nan
    problem: str = ""

    @property
    def end(self) -> Point | None:
        """The last round."""
        return self.points[-1] if self.points else None

    @property
    def accuracy(self) -> float:
        """Of the final model on the test rows; NaN if there is none."""
        return self.points[-1].accuracy if self.points else math.nan

    def reaching(self, target: float) -> Point | None:
        """The first round whose network has at least this test accuracy."""
        return next((point for point in self.points if point.accuracy >= target), None)


def run_trial(settings: Settings, trial: Trial, rows: Rows, n_slots: int) -> Run:
    """Fit one network and read its rounds."""
    from sparknn import NeuralNetClassifier

    data, test = with_test_column(rows, settings, trial.split)
    estimator = NeuralNetClassifier(**params_of(settings, trial)).setParams(
        featuresCol=rows.features, labelCol=rows.label, validationIndicatorCol=test
    )
    started = time.perf_counter()
    try:
        summary: Any = estimator.fit(data).summary
    except DivergedError as error:
        return Run(trial, [], fit_s=time.perf_counter() - started, problem=str(error))
    return Run(
        trial,
        points(summary.records, trial.workers, n_slots),
        n_train=summary.n_rows,
        n_test=summary.n_validation,
        fit_s=summary.seconds,
        ingest_s=summary.ingest_s,
    )
