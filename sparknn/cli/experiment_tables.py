"""What an experiment found: its tables, the comparison of its variants, and the conclusion."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pandas as pd

from sparknn.cli.report import counted

TRIAL = ["arm", "split", "workers", "period"]
# How far a training is, by the columns of rounds: compared until the target.
_COSTS = {"n_rows": "rows", "seconds": "seconds", "model_s": "seconds, model"}
# The columns of the table of times.
_TIMES = ["n_rows", "seconds", "compute_s", "overhead_s", "model_s", "ingest_s"]

_TIME_NOTE = """\
compute_s: each round's slowest worker. overhead_s: the rest, scoring the test rows included.
model_s: not measured, but the time with one core per worker: compute and overhead; with one worker
compute alone: a sequential program needs no Spark."""
_COMPARISON_NOTE = """\
points: difference of the final test accuracy, better in so many splits. rows, seconds: until
{target:.1%}, as multiples of the other's; inf if it was not reached in every split, a dash if the
other did not either."""


def cumulated(history: pd.DataFrame, n_workers: int, n_slots: int) -> pd.DataFrame:
    """Return one row per round of a fit, with sums over the rounds so far, see ``_TIME_NOTE``.

    A round holds its slowest worker's training as often as it has waves of tasks.
    """
    compute, waves = history["compute_s"], -(-n_workers // n_slots)
    overhead = (history["seconds"] - waves * compute).clip(lower=0)
    sums = history[["n_rows", "seconds", "compute_s", "broadcast_s", "job_s"]].assign(
        overhead_s=overhead, model_s=compute + (overhead if n_workers > 1 else 0.0)
    )
    own = {"round": history["round"] + 1, "accuracy": history["validation_metric"]}
    return pd.concat([pd.DataFrame({**own, "loss": history["loss"]}), sums.cumsum()], axis=1)


class Table(NamedTuple):
    """A table with its title, the columns that hold accuracies, and a note on the numbers."""

    title: str
    frame: pd.DataFrame
    accuracies: tuple[str, ...] = ()
    note: str = ""

    def text(self) -> str:
        """Return the table as it is printed."""
        shown = self.frame.to_string(
            index=False,
            na_rep="-",
            float_format="{:,.2f}".format,
            formatters=dict.fromkeys(self.accuracies, "{:.2%}".format),
        )
        return "\n".join(filter(None, [self.title, shown, self.note]))


def summarize(
    runs: pd.DataFrame, rounds: pd.DataFrame, period: int, target: float | None
) -> tuple[dict[str, Table], float | None, list[str]]:
    """Return the tables by the names of their files, the target, and the lines of a conclusion.

    ``runs`` has a row per fit, ``rounds`` one per round of each, with what it took until then. All
    tables but one are of one averaging ``period``.
    """
    arms = pd.CategoricalDtype(runs["arm"].unique())  # in the order of the file
    runs, rounds = runs.astype({"arm": arms}), rounds.astype({"arm": arms}).rename(columns=_COSTS)
    own = runs[runs["period"] == period]
    tables = {"accuracy": _accuracies("Test accuracy", own, "workers", "split"), "time": _time(own)}
    names = ("accuracy_by_rows", "accuracy_by_seconds", "accuracy_by_model_seconds")
    for name, clock in zip(names, _COSTS.values(), strict=True):
        tables[name] = _over_training(rounds[rounds["period"] == period], clock)
    if runs["period"].nunique() > 1:
        title = "Test accuracy by averaging period (local epochs between averages), first split"
        first_split = runs[runs["split"] == 1].rename(columns={"period": "every"})
        tables["periods"] = _accuracies(title, first_split, "every")
    first = arms.categories[0]
    sequential = own[(own["arm"] == first) & (own["workers"] == 1)]
    if target is None and not sequential.empty:
        # Half a point less, rounded down to a tenth of a per cent, so that it can be named.
        target = math.floor((sequential["accuracy"].mean() - 0.005) * 1000) / 1000
    if target is None:
        return tables, target, []
    passed = rounds[rounds["accuracy"] >= target].groupby(TRIAL, observed=True)
    costs = passed[[*_COSTS.values()]].first()
    reached = runs[[*TRIAL, "accuracy"]].join(costs, on=TRIAL)
    reached = reached.fillna(dict.fromkeys(costs, math.inf))
    one, firsts = reached["workers"] == 1, reached["arm"] == first
    against_one = compare(reached[~one], reached[one], ["arm", "split", "period"])
    against_first = compare(reached[~firsts], reached[firsts], ["workers", "split", "period"])
    for name, found, title in (
        ("against_sequential", against_one, "Averaging against one worker of the same variant"),
        ("against_first_arm", against_first, f"Against {first} with as many workers"),
    ):
        if not found.empty:
            tables[name] = Table(title, found, note=_COMPARISON_NOTE.format(target=target))
    return tables, target, [*_conclusion(against_one, target)]


def _time(ends: pd.DataFrame) -> Table:
    """The time of training by the number of workers."""
    groups = ends.groupby(["arm", "workers"], observed=True)
    means = groups[_TIMES].mean().reset_index()
    one = means[means["workers"] == 1].set_index("arm")
    for name, title in (("seconds", "times as fast"), ("model_s", "model, times as fast")):
        means[title] = means["arm"].map(one[name]).astype(float) / means[name]
    return Table("Seconds of training, means over splits", means, note=_TIME_NOTE)


def _accuracies(title: str, frame: pd.DataFrame, by: str, column: str = "workers") -> Table:
    """Mean test accuracy by variant and ``by``, a column per number of workers or per split."""
    wide = frame.pivot_table("accuracy", ["arm", by], column, observed=True)
    wide.columns = pd.Index([f"{column} {number}" for number in wide.columns])
    if column == "split":
        wide["mean"] = wide.mean(axis=1)
    return Table(title, wide.reset_index(), tuple(wide.columns))


def _over_training(rounds: pd.DataFrame, clock: str) -> Table:
    """Accuracy at ten points of training by a clock: after the last rounds that ended by then."""
    if clock == "rows":  # all numbers of workers draw as many, but for rounding
        rounds = rounds.assign(rows=rounds.groupby("round")["rows"].transform("mean"))
    marks = []
    for now in rounds[clock].max() * np.arange(1, 11) / 10:
        # Rounding must not take the last round from the run that ends there.
        passed = rounds[rounds[clock] <= now * (1 + 1e-9)]
        marks.append(passed.groupby(TRIAL, observed=True).last().assign(**{clock: now}))
    title = f"Test accuracy over training, by {clock}: means over splits"
    return _accuracies(title, pd.concat(marks).reset_index(), clock)


def compare(runs: pd.DataFrame, others: pd.DataFrame, on: list[str]) -> pd.DataFrame:
    """Compare runs with others on the same splits, see ``_COMPARISON_NOTE``."""
    pairs = runs.merge(others, on=on, suffixes=("", " other"))
    points = 100 * (pairs["accuracy"] - pairs["accuracy other"])
    pairs = pairs.assign(points=points, better=points > 0).rename(columns={"period": "every"})
    groups = pairs.groupby(["arm", "every", "workers"], observed=True)
    found = groups.agg(
        points=("points", "mean"), better=("better", "sum"), splits=("points", "size")
    )
    for cost in _COSTS.values():
        found[cost] = groups[cost].mean() / groups[f"{cost} other"].mean()
    return found.reset_index()


def _conclusion(found: pd.DataFrame, target: float) -> Iterator[str]:
    """Yield, per variant, what averaging costs and gains where it is fastest to the target."""
    if not found.empty:
        yield "Where averaging is fastest, against one worker of the same variant"
    for arm, group in found.groupby("arm", observed=True):
        best = group.sort_values("seconds, model").iloc[0]
        times = ", ".join(f"{best[cost]:.2f} x {cost}" for cost in _COSTS.values())
        workers = counted(best["workers"], "worker")
        yield f"  {arm}, {workers}, every {best['every']}: accuracy {best['points']:+.2f} points;"
        yield f"    to {target:.1%} {times}"
