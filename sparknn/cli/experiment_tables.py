"""What an experiment found: its tables, the comparison of its variants, and the conclusion.

``runs`` has a row per fit, ``rounds`` a row per round of each, with what it took until then.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pandas as pd

TRIAL = ["arm", "split", "workers", "period"]
# Differences that are no difference: in accuracy, and of a ratio from 1.
_EVEN_ACCURACY, _EVEN_RATIO = 0.001, 0.05
# What the default target leaves out of the first variant's sequential accuracy.
_MARGIN = 0.005
# Rows of the tables that follow the training.
_MARKS = 10
# What is compared until the target, by the columns of rounds.
_COSTS = {"n_rows": "rows", "seconds": "seconds", "model_s": "seconds, model"}

_TIME_NOTE = """\
compute: each round's slowest worker. overhead: the rest of a round, scoring the test rows included.
model: not measured, but the time with one core per worker: compute + overhead; with one worker
compute alone: a sequential program needs no Spark."""
_COMPARISON_NOTE = """\
points: difference of the final test accuracy. rows, seconds: until {target:.1%}, as multiples of
the other's; below 1 is better. A dash: one of the two did not reach it in every split."""


@dataclass(frozen=True)
class Table:
    """A table with its title, the formats of its numbers by column, and a note on them."""

    title: str
    frame: pd.DataFrame
    formats: dict[str, str]
    note: str = ""

    def text(self) -> str:
        shown = self.frame.astype(object)
        for name, spec in self.formats.items():
            shown[name] = ["-" if pd.isna(v) else format(v, spec) for v in self.frame[name]]
        return "\n".join(filter(None, [self.title, shown.to_string(index=False), self.note]))


def summarize(
    runs: pd.DataFrame, rounds: pd.DataFrame, period: int, target: float | None
) -> tuple[dict[str, Table], float | None, list[str]]:
    """Return the tables by the names of their files, the target, and the lines of a conclusion.

    Parameters
    ----------
    runs, rounds : DataFrame
        ``arm`` is categorical; the first is what the others are compared to.
    period : int
        The averaging period of all tables but one.
    target : float, optional
        The test accuracy whose cost is compared; by default what the first variant reaches.
    """
    ends, first = runs[runs["rounds"] > 0], runs["arm"].cat.categories[0]
    own_runs, own_rounds = (frame[frame["period"] == period] for frame in (runs, rounds))
    if own_rounds.empty:
        return {}, target, []
    tables = {
        "accuracy": _accuracy(own_runs),
        "time": _time(own_runs[own_runs["rounds"] > 0]),
        "accuracy_by_rows": _by_rows(own_rounds),
        "accuracy_by_seconds": _by_seconds(own_rounds, "seconds", "measured here"),
        "accuracy_by_model_seconds": _by_seconds(
            own_rounds, "model_s", "of the model (a core per worker)"
        ),
    }
    if ends["period"].nunique() > 1:
        tables["periods"] = _periods(ends[ends["split"] == 1])
    sequential = ends[(ends["arm"] == first) & (ends["workers"] == 1) & (ends["period"] == period)]
    if target is None and not sequential.empty:
        # Rounded down to a tenth of a per cent, so that it can be named.
        target = math.floor((sequential["accuracy"].mean() - _MARGIN) * 1000) / 1000
    if target is None:
        return tables, target, []
    passed = rounds[rounds["accuracy"] >= target].groupby(TRIAL, observed=True)
    costs = passed[list(_COSTS)].first().rename(columns=_COSTS)
    reached = ends[[*TRIAL, "accuracy"]].join(costs, on=TRIAL)
    one, firsts = reached["workers"] == 1, reached["arm"] == first
    conclusion = []
    found = compare(reached[~one], reached[one], ["arm", "split", "period"])
    if not found.empty:
        title = "Averaging against one worker of the same variant"
        tables["against_sequential"] = _comparison(title, found, target)
        conclusion = ["Where averaging wins and loses, against one worker of the same variant"]
        conclusion += conclusion_lines(found, target)
    found = compare(reached[~firsts], reached[firsts], ["workers", "split", "period"])
    if not found.empty:
        title = f"Against {first} with as many workers"
        tables["against_first_arm"] = _comparison(title, found, target)
    return tables, target, conclusion


def _by_workers(title: str, frame: pd.DataFrame, key: str, **more: tuple[str, str, str]) -> Table:
    """Mean accuracy by variant and ``key``, a column per number of workers.

    ``more`` are other columns: what they aggregate, how, and their format.
    """
    groups = frame.groupby(["arm", key], observed=True)
    others = pd.DataFrame({name: groups[of].agg(how) for name, (of, how, _) in more.items()})
    means = frame.groupby(["arm", key, "workers"], observed=True)["accuracy"].mean().unstack()
    means.columns = pd.Index([f"{n} worker{'s' * (n > 1)}" for n in means.columns])
    formats = {name: spec for name, (*_, spec) in more.items()} | dict.fromkeys(means, ".2%")
    return Table(title, others.join(means).reset_index() if more else means.reset_index(), formats)


def _accuracy(runs: pd.DataFrame) -> Table:
    """The poster's list: the accuracy of every split, and their mean."""
    wide = runs.pivot(index=["arm", "workers"], columns="split", values="accuracy").sort_index()
    wide.columns = pd.Index([f"split {split}" for split in wide.columns])
    wide["mean"] = wide.mean(axis=1)
    return Table("Test accuracy", wide.reset_index(), dict.fromkeys(wide, ".2%"))


def _time(ends: pd.DataFrame) -> Table:
    """The poster's second figure: the time of training by the number of workers."""
    names = {"n_rows": "rows", "seconds": "measured", "compute_s": "compute"}
    names |= {"overhead_s": "overhead", "model_s": "model", "ingest_s": "reading rows"}
    groups = ends.groupby(["arm", "workers"], observed=True)
    means = groups[list(names)].mean().rename(columns=names)
    one = means[means.index.get_level_values("workers") == 1].droplevel("workers")
    one = one.reindex(means.index.get_level_values("arm"))
    for index, name in ((2, "measured"), (6, "model")):
        ratio = one[name].to_numpy() / means[name]
        means.insert(index, "times as fast" if index == 2 else "model, times as fast", ratio)
    formats = {"rows": ",.0f", **dict.fromkeys(means.columns[1:], ".2f")}
    return Table("Seconds of training, means over splits", means.reset_index(), formats, _TIME_NOTE)


def _by_rows(rounds: pd.DataFrame) -> Table:
    """Accuracy over training, against the rows consumed."""
    marks = {-(-rounds["round"].max() * mark // _MARKS) for mark in range(1, _MARKS + 1)}
    title = "Test accuracy over training, by rows consumed: means over splits"
    shown = rounds[rounds["round"].isin(marks)]
    return _by_workers(title, shown, "round", rows=("n_rows", "mean", ",.0f"))


def _by_seconds(rounds: pd.DataFrame, clock: str, what: str) -> Table:
    """Accuracy over training, against seconds by a clock."""
    marks = []
    for mark in range(1, _MARKS + 1):
        now = rounds[clock].max() * mark / _MARKS
        # Rounding must not take the last round from the run that ends there.
        passed = rounds[rounds[clock] <= now * (1 + 1e-9)]
        marks.append(passed.groupby(TRIAL, observed=True).last().assign(seconds=now))
    title = f"Test accuracy over training, by seconds {what}: means over splits"
    table = _by_workers(title, pd.concat(marks).reset_index(), "seconds")
    return Table(table.title, table.frame, {"seconds": ".2f", **table.formats})


def _periods(ends: pd.DataFrame) -> Table:
    """Accuracy by the averaging period, on the split that all periods were tried on."""
    title = "Test accuracy by averaging period (local epochs between averages), first split"
    ends = ends.rename(columns={"period": "every"})
    return _by_workers(title, ends, "every", rounds=("rounds", "max", ".0f"))


def compare(runs: pd.DataFrame, others: pd.DataFrame, on: list[str]) -> pd.DataFrame:
    """Compare runs with others on the same splits, by variant, period and workers.

    ``points`` is the mean difference of the final accuracy in per cent, ``better`` the splits in
    which it is higher, ``reached`` and ``other`` those in which each reached the target; the costs
    until then are multiples of the others', NaN unless both did in every split.
    """
    pairs = runs.merge(others, on=on, suffixes=("", " other"))
    points = 100 * (pairs["accuracy"] - pairs["accuracy other"])
    pairs = pairs.assign(points=points, better=points > 0).rename(columns={"period": "every"})
    groups = pairs.groupby(["arm", "every", "workers"], observed=True)
    found = groups.agg(
        points=("points", "mean"),
        better=("better", "sum"),
        splits=("points", "size"),
        reached=("rows", "count"),
        other=("rows other", "count"),
    )
    both = (found["reached"] == found["splits"]) & (found["other"] == found["splits"])
    for cost in _COSTS.values():
        found[cost] = (groups[cost].mean() / groups[f"{cost} other"].mean()).where(both)
    return found.reset_index()


def _comparison(title: str, found: pd.DataFrame, target: float) -> Table:
    better, splits, reached, other = (
        found[name].astype(str) for name in ("better", "splits", "reached", "other")
    )
    frame = found[["arm", "every", "workers", "points"]].assign(
        **{
            "higher in": better + "/" + splits,
            f"{target:.1%} reached, other": reached + "/" + splits + ", " + other + "/" + splits,
            **{cost: found[cost] for cost in _COSTS.values()},
        }
    )
    formats = {"points": "+.2f", **dict.fromkeys(_COSTS.values(), ".2f")}
    return Table(title, frame, formats, _COMPARISON_NOTE.format(target=target))


def outcome(row: Any, measure: str) -> str:
    """Return ``wins``, ``even``, ``loses`` or ``not reached``."""
    if measure == "points":
        agree = row["better"] in (0, row["splits"])
        better, is_even = row["points"] > 0, abs(row["points"]) < 100 * _EVEN_ACCURACY
        return "even" if is_even or not agree else "wins" if better else "loses"
    if row["reached"] != row["other"]:
        return "wins" if row["reached"] > row["other"] else "loses"
    if math.isnan(row[measure]):
        return "not reached"
    if abs(row[measure] - 1) < _EVEN_RATIO:
        return "even"
    return "wins" if row[measure] < 1 else "loses"


def conclusion_lines(found: pd.DataFrame, target: float) -> Iterator[str]:
    """Yield what the comparisons say, a line per variant, period and measure."""
    for (arm, period), group in found.groupby(["arm", "every"], observed=True):
        for measure in ("points", *_COSTS.values()):
            results = [(outcome(row, measure), row["workers"]) for _, row in group.iterrows()]
            parts = [
                f"{kind} with {', '.join(str(n) for each, n in results if each == kind)}"
                for kind in ("wins", "even", "loses")
                if kind in dict(results)
            ]
            what = "accuracy" if measure == "points" else f"{measure} to {target:.1%}"
            yield f"  {arm}  every {period:>2}  {what}: {'; '.join(parts) or 'not reached'}"
