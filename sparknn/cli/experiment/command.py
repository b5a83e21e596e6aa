"""The command: fit after fit, with the time left, and tables at the end of whatever was done."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from sparknn.cli.experiment import figures
from sparknn.cli.experiment.results import Results
from sparknn.cli.experiment.settings import Settings, load
from sparknn.cli.experiment.split import Rows, read_rows
from sparknn.cli.experiment.trials import Run, Trial, run_trial, trials
from sparknn.cli.report import counted
from sparknn.cli.session import open_session
from sparknn.ml.estimator import default_workers

log = logging.getLogger("sparknn.cli")

# For the time left only: what a fit takes besides its rounds, counted in rounds, and the number of
# workers whose tasks make a round take twice as long.
_FIXED_ROUNDS, _DOUBLING = 10, 8


def run(path: str, overrides: Sequence[str] = (), *, verbose: bool = False) -> None:
    """Do what an experiment file says.

    Raises
    ------
    UsageError
        Naming every mistake in it, before anything is read; columns that are missing or of the
        wrong type as soon as the data's schema is known.
    PathExistsError
        If there are results already where these are to be.
    """
    settings = load(path, overrides)
    planned = trials(settings)
    results = Results(settings, len(planned))
    results.check_free()
    log.info("Starting Spark ...")
    with open_session(f"sparknn experiment {path}", verbose=verbose) as spark:
        rows = read_rows(spark, settings)
        n_slots = default_workers(spark)
        log.info(
            "%s; %s, one after the other, with up to %s on %s.",
            counted(rows.count, "row"),
            counted(len(planned), "fit"),
            counted(max(settings.workers), "worker"),
            counted(n_slots, "core"),
        )
        results.open(n_slots, spark.version)
        try:
            with _rounds_shown(verbose):
                _warm_up(settings, planned[0], rows, n_slots)
                carry_out(results, planned, lambda trial: run_trial(settings, trial, rows, n_slots))
        finally:
            rows.data.unpersist()


def carry_out(results: Results, planned: Sequence[Trial], fit: Callable[[Trial], Run]) -> None:
    """Run all trials, and report those that have run however this ends.

    Parameters
    ----------
    results : Results
    planned : sequence of Trial
    fit : callable
    """
    costs = [_cost(results.settings, trial) for trial in planned]
    started = time.perf_counter()
    try:
        for number, trial in enumerate(planned, 1):
            run = fit(trial)
            results.add(run)
            passed = time.perf_counter() - started
            left = passed * sum(costs[number:]) / sum(costs[:number])
            log.info("[%d/%d] %s: %s", number, len(planned), trial, _line(run, left))
    finally:
        if results.runs:
            _report(results)
            if len(results.runs) < len(planned):
                fits = counted(len(planned), "fit")
                log.warning("Stopped after %d of %s.", len(results.runs), fits)


def _line(run: Run, left: float) -> str:
    if run.end is None:
        return f"failed. {run.problem}"
    rounds = counted(run.end.round, "round")
    text = f"accuracy {run.accuracy:.2%}, {run.end.seconds:.1f} s in {rounds}"
    return f"{text}; {_duration(left)} left" if left > 0 else text


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


def _cost(settings: Settings, trial: Trial) -> float:
    return settings.iterations / trial.period * (1 + trial.workers / _DOUBLING) + _FIXED_ROUNDS


def _report(results: Results) -> None:
    found = results.tables()
    results.write_tables(found)
    text = [line for table in found for line in [*table.lines(), ""]]
    print("\n".join([*text, *results.conclusion()]), flush=True)
    log.info("%s", figures.draw(results.runs, results.settings.period, results.folder))
    log.info("Tables and runs are in %s, as CSV and JSON.", results.folder)


def _warm_up(settings: Settings, trial: Trial, rows: Rows, n_slots: int) -> None:
    """A round that nobody measures: Python workers start in it, and the JVM compiles."""
    brief = replace(settings, iterations=1)
    run_trial(brief, replace(trial, workers=max(settings.workers), period=1), rows, n_slots)


@contextmanager
def _rounds_shown(shown: bool) -> Iterator[None]:
    """Whether every round of every fit is a line: a line a fit is enough, as a rule."""
    library = logging.getLogger("sparknn")
    before, own = library.level, log.level
    if not shown:
        library.setLevel(logging.WARNING)
        log.setLevel(logging.INFO)
    try:
        yield
    finally:
        library.setLevel(before)
        log.setLevel(own)
