"""What an experiment leaves behind: tables as text, CSV and JSON, a conclusion, and figures."""

from __future__ import annotations

import json
import logging
import math
import os
import platform
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from sparknn import __version__
from sparknn.cli.errors import raise_mistakes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

log = logging.getLogger("sparknn.cli")

_TRIAL = ["arm", "split", "workers", "period"]
# Differences that are no difference: in accuracy, and of a ratio from 1.
_EVEN_ACCURACY, _EVEN_RATIO = 0.001, 0.05
# What the default target leaves out of the first variant's sequential accuracy.
_MARGIN = 0.005
# Rows of the tables that follow the training.
_MARKS = 10
_MEASURES = {
    "points": "accuracy",
    "rows": "rows",
    "seconds": "seconds",
    "seconds, model": "seconds (model)",
}
_CLOCKS = {
    "n_rows": "rows consumed",
    "seconds": "seconds, measured",
    "model_s": "seconds, model (a core per worker)",
}


@dataclass(frozen=True)
class Table:
    """A table with its title, the formats of its numbers by column, and a note on them."""

    title: str
    frame: pd.DataFrame
    formats: dict[str, str]
    note: str = ""

    def text(self) -> str:
        shown = self.frame.copy().astype(object)
        for name, spec in self.formats.items():
            shown[name] = ["-" if pd.isna(v) else format(v, spec) for v in self.frame[name]]
        return "\n".join(filter(None, [self.title, shown.to_string(index=False), self.note]))


@dataclass
class Results:
    """The runs so far, and the folder in which they are kept.

    Parameters
    ----------
    folder : str
    settings : dict
        The experiment file.
    n_planned : int
    variants : list of str
        The first is what the others are compared to.
    period : int
        The averaging period of all tables but one.
    target : float, optional
        The test accuracy whose cost is compared; by default what the first variant reaches.
    """

    folder: str
    settings: dict[str, Any]
    n_planned: int
    variants: list[str]
    period: int
    target: float | None = None
    runs: pd.DataFrame = field(default_factory=pd.DataFrame)
    rounds: pd.DataFrame = field(default_factory=pd.DataFrame)
    environment: dict[str, Any] = field(default_factory=dict)

    def check_free(self, overwrite: bool) -> None:
        """Raise UsageError if there is something in the folder that must not be replaced."""
        folder = Path(self.folder)
        taken = (
            folder.exists()
            and not overwrite
            and not (folder.is_dir() and not any(folder.iterdir()))
        )
        text = f"output.folder: {folder} exists already. Name another one, or use overwrite = true."
        raise_mistakes("experiment", [text] if taken else [])

    def open(self, n_slots: int, spark_version: str) -> None:
        """Make the folder; remove an older experiment's files, and nothing else."""
        folder = Path(self.folder)
        folder.mkdir(parents=True, exist_ok=True)
        names = ["runs", "rounds", *_TABLES, "against_sequential", "against_first_arm"]
        for name in ["experiment.json", *(f"{each}.csv" for each in names), *_FIGURES]:
            (folder / name).unlink(missing_ok=True)
        self.environment = {
            "sparknn": __version__,
            "spark": spark_version,
            "python": platform.python_version(),
            "cores": os.cpu_count(),
            "slots": n_slots,
        }

    def add(self, run: Any) -> str:
        """Keep a run, write everything that is known, and return a line about it."""
        values = [run.trial.variant, run.trial.split, run.trial.workers, run.trial.period]
        trial = dict(zip(_TRIAL, values, strict=True))
        end = {} if run.rounds.empty else run.rounds.iloc[-1].to_dict()
        end["rounds"] = int(end.pop("round", 0))
        one = pd.DataFrame([{**trial, "rounds": 0, **run.facts, **end}])
        rounds = run.rounds.assign(**trial)[[*_TRIAL, *run.rounds.columns]]
        self.runs = pd.concat([self.runs, one], ignore_index=True)
        self.rounds = rounds if self.rounds.empty else pd.concat([self.rounds, rounds])
        self._write(self.runs, "runs")
        self._write(self.rounds, "rounds")
        self._write_json()
        if run.rounds.empty:
            return f"failed. {run.facts['problem']}"
        return f"accuracy {end['accuracy']:.2%}, {end['seconds']:.1f} s in {end['rounds']} rounds"

    def report(self) -> None:
        """Print and write the tables and the conclusion; draw the figures."""
        if self.runs.empty:
            return
        found = self.tables()
        for name, table in found.items():
            self._write(table.frame, name)
        print("\n\n".join([*(t.text() for t in found.values()), *self.conclusion()]), flush=True)
        log.info("%s", draw(self.ends(), self.rounds, self.period, Path(self.folder)))
        log.info("Tables and runs are in %s, as CSV and JSON.", self.folder)

    def ends(self) -> pd.DataFrame:
        """The runs that did not fail, with the order of the variants."""
        return self._ordered(self.runs[self.runs["rounds"] > 0])

    def tables(self) -> dict[str, Table]:
        """Return every table that the runs so far give, by the name of its file."""
        ends = self.ends()
        if ends[ends["period"] == self.period].empty:
            return {}
        runs = self._ordered(self.runs)
        rounds = self._ordered(self.rounds)
        found = {
            name: make(runs[runs["period"] == self.period], rounds[rounds["period"] == self.period])
            for name, make in _TABLES.items()
            if name != "periods"
        }
        if ends["period"].nunique() > 1:
            found["periods"] = _TABLES["periods"](ends, rounds)
        return found | {name: comparison_table(*made) for name, made in self._comparisons().items()}

    def conclusion(self) -> list[str]:
        """Return where averaging wins and loses against one worker, in words."""
        found = self._comparisons().get("against_sequential")
        if found is None:
            return []
        _, frame, target = found
        title = "Where averaging wins and loses, against one worker of the same variant"
        return ["\n".join([title, *conclusion_lines(frame, target)])]

    def find_target(self) -> float | None:
        """Return the test accuracy whose cost is compared; None while it is not known."""
        if self.target is not None:
            return self.target
        ends = self.ends()
        first = (ends["arm"] == self.variants[0]) & (ends["workers"] == 1)
        reached = ends[first & (ends["period"] == self.period)]["accuracy"]
        # Rounded down to a tenth of a per cent, so that it can be named.
        return None if reached.empty else math.floor((reached.mean() - _MARGIN) * 1000) / 1000

    def _comparisons(self) -> dict[str, tuple[str, pd.DataFrame, float]]:
        target, first = self.find_target(), self.variants[0]
        if target is None:
            return {}
        reached = reaching(self.ends(), self._ordered(self.rounds), target)
        one, poster = reached[reached["workers"] == 1], reached[reached["arm"] == first]
        sequential = compare(reached[reached["workers"] > 1], one, ["arm", "split", "period"])
        others = compare(reached[reached["arm"] != first], poster, ["split", "workers", "period"])
        title = "Averaging against one worker of the same variant"
        found = {
            "against_sequential": (title, sequential, target),
            "against_first_arm": (f"Against {first} with as many workers", others, target),
        }
        return {name: made for name, made in found.items() if not made[1].empty}

    def _ordered(self, frame: pd.DataFrame) -> pd.DataFrame:
        return frame.assign(arm=pd.Categorical(frame["arm"], self.variants, ordered=True))

    def _write(self, frame: pd.DataFrame, name: str) -> None:
        frame.to_csv(Path(self.folder) / f"{name}.csv", index=False, lineterminator="\n")

    def _write_json(self) -> None:
        content = {
            "settings": self.settings,
            "environment": self.environment,
            "complete": len(self.runs) == self.n_planned,
            "runs_planned": self.n_planned,
            "runs": records(self.runs),
            "target": self.find_target(),
            "tables": {
                name: {"title": table.title, "note": table.note, "rows": records(table.frame)}
                for name, table in self.tables().items()
            },
            "conclusion": "\n".join(self.conclusion()).splitlines(),
        }
        path = Path(self.folder) / "experiment.json"
        # Whoever looks meanwhile, or stops the process, finds a whole file.
        written = path.with_suffix(".json.part")
        written.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")
        written.replace(path)


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Return rows that JSON can hold: null for NaN."""
    rows: list[dict[str, Any]] = json.loads(frame.to_json(orient="records", double_precision=15))
    return rows


def _by_workers(frame: pd.DataFrame, *keys: str) -> tuple[pd.DataFrame, dict[str, str]]:
    """Mean accuracy by ``keys``, a column per number of workers, and the formats of the columns."""
    means = frame.groupby([*keys, "workers"], observed=True)["accuracy"].mean().unstack("workers")
    means.columns = [f"{n} worker{'s' * (n > 1)}" for n in means.columns]
    return means, dict.fromkeys(means.columns, ".2%")


def accuracy_table(runs: pd.DataFrame, rounds: pd.DataFrame) -> Table:
    """The poster's list: the accuracy of every split, and their mean."""
    wide = runs.pivot(index=["arm", "workers"], columns="split", values="accuracy").sort_index()
    wide.columns = [f"split {split}" for split in wide.columns]
    wide["mean"] = wide.mean(axis=1)
    return Table("Test accuracy", wide.reset_index(), dict.fromkeys(wide.columns, ".2%"))


def time_table(runs: pd.DataFrame, rounds: pd.DataFrame) -> Table:
    """The poster's second figure: the time of training by the number of workers."""
    names = ["n_rows", "seconds", "compute_s", "overhead_s", "model_s", "ingest_s"]
    done = runs[runs["rounds"] > 0]
    means = done.groupby(["arm", "workers"], observed=True)[names].mean().reset_index()
    one = means[means["workers"] == 1].set_index("arm").reindex(means["arm"]).reset_index()
    frame = pd.DataFrame(
        {
            "arm": means["arm"],
            "workers": means["workers"],
            "rows": means["n_rows"],
            "measured": means["seconds"],
            "times as fast": one["seconds"] / means["seconds"],
            "compute": means["compute_s"],
            "overhead": means["overhead_s"],
            "model": means["model_s"],
            "model, times as fast": one["model_s"] / means["model_s"],
            "reading rows": means["ingest_s"],
        }
    )
    return Table(
        "Seconds of training, means over splits",
        frame,
        {"rows": ",.0f", **dict.fromkeys(frame.columns[3:], ".2f")},
        "compute: each round's slowest worker. overhead: the rest of a round, scoring the test "
        "rows included.\nmodel: not measured, but the time with one core per worker: compute + "
        "overhead; with one\nworker compute alone: a sequential program needs no Spark.",
    )


def rows_table(runs: pd.DataFrame, rounds: pd.DataFrame) -> Table:
    """Accuracy over training, against the rows consumed."""
    last = rounds["round"].max()
    shown = rounds[rounds["round"].isin({-(-last * m // _MARKS) for m in range(1, _MARKS + 1)})]
    means, formats = _by_workers(shown, "arm", "round")
    n_rows = shown.groupby(["arm", "round"], observed=True)["n_rows"].mean()
    means.insert(0, "rows", n_rows)
    title = "Test accuracy over training, by rows consumed: means over splits"
    return Table(title, means.reset_index(), {"rows": ",.0f", **formats})


def seconds_table(clock: str, title: str) -> Callable[[pd.DataFrame, pd.DataFrame], Table]:
    """Accuracy over training, against seconds by a clock: ``seconds`` or ``model_s``."""

    def table(runs: pd.DataFrame, rounds: pd.DataFrame) -> Table:
        marks = []
        for mark in range(1, _MARKS + 1):
            now = rounds[clock].max() * mark / _MARKS
            # Rounding must not take the last round from the run that ends there.
            passed = rounds[rounds[clock] <= now * (1 + 1e-9)]
            marks.append(passed.groupby(_TRIAL, observed=True).last().assign(seconds=now))
        means, formats = _by_workers(pd.concat(marks).reset_index(), "arm", "seconds")
        heading = f"Test accuracy over training, by seconds {title}: means over splits"
        return Table(heading, means.reset_index(), {"seconds": ".2f", **formats})

    return table


def periods_table(runs: pd.DataFrame, rounds: pd.DataFrame) -> Table:
    """Accuracy by the averaging period, on the split that all periods were tried on."""
    first = runs[runs["split"] == 1]
    means, formats = _by_workers(first, "arm", "period")
    n_rounds = first.groupby(["arm", "period"], observed=True)["rounds"].max()
    means.insert(0, "rounds", n_rounds)
    title = "Test accuracy by averaging period (local epochs between averages), first split"
    return Table(title, means.reset_index().rename(columns={"period": "every"}), formats)


_TABLES: dict[str, Callable[[pd.DataFrame, pd.DataFrame], Table]] = {
    "accuracy": accuracy_table,
    "time": time_table,
    "accuracy_by_rows": rows_table,
    "accuracy_by_seconds": seconds_table("seconds", "measured here"),
    "accuracy_by_model_seconds": seconds_table("model_s", "of the model (a core per worker)"),
    "periods": periods_table,
}


def reaching(ends: pd.DataFrame, rounds: pd.DataFrame, target: float) -> pd.DataFrame:
    """Return the runs with what their first round of at least ``target`` took; NaN if none has."""
    first = (
        rounds[rounds["accuracy"] >= target].groupby(_TRIAL, observed=True)[list(_CLOCKS)].first()
    )
    columns = dict(zip(_CLOCKS, list(_MEASURES)[1:], strict=True))
    return ends[[*_TRIAL, "accuracy"]].join(first.rename(columns=columns), on=_TRIAL)


def compare(runs: pd.DataFrame, others: pd.DataFrame, on: list[str]) -> pd.DataFrame:
    """Compare runs with others on the same splits, by variant, period and workers.

    Returns
    -------
    DataFrame
        points: the mean difference of the final accuracy in per cent; better: the splits in which
        it is higher; reached, other: those in which each reached the target; rows, seconds and
        seconds, model: until then, as multiples of the others'. NaN unless both did in every split.
    """
    pairs = runs.merge(others, on=on, suffixes=("", " other"))
    clocks = list(_MEASURES)[1:]
    found = []
    for key, group in pairs.groupby(["arm", "period", "workers"], observed=True):
        points = 100 * (group["accuracy"] - group["accuracy other"])
        reached, other = group["rows"].notna().sum(), group["rows other"].notna().sum()
        row = dict(zip(["arm", "every", "workers"], key, strict=True))
        row |= {"points": points.mean(), "better": int((points > 0).sum()), "splits": len(group)}
        row |= {"reached": int(reached), "other": int(other)}
        both = reached == other == len(group)
        for clock in clocks:
            ratio = group[clock].mean() / group[f"{clock} other"].mean() if both else math.nan
            row[clock] = ratio
        found.append(row)
    return pd.DataFrame(found)


def outcome(row: Any, measure: str) -> str:
    """Return ``wins``, ``even``, ``loses`` or ``not reached``."""
    if measure == "points":
        agree = row["better"] in (0, row["splits"])
        if not agree or abs(row["points"]) < 100 * _EVEN_ACCURACY:
            return "even"
        return "wins" if row["points"] > 0 else "loses"
    if row["reached"] != row["other"]:
        return "wins" if row["reached"] > row["other"] else "loses"
    if math.isnan(row[measure]):
        return "not reached"
    if abs(row[measure] - 1) < _EVEN_RATIO:
        return "even"
    return "wins" if row[measure] < 1 else "loses"


def comparison_table(title: str, found: pd.DataFrame, target: float) -> Table:
    """Return comparisons as a table."""
    frame = found[["arm", "every", "workers", "points"]].copy()
    splits = found["splits"].astype(str)
    frame["higher in"] = found["better"].astype(str) + "/" + splits
    reached, other = (found[name].astype(str) + "/" + splits for name in ("reached", "other"))
    frame[f"{target:.1%} reached, other"] = reached + ", " + other
    clocks = list(_MEASURES)[1:]
    frame[clocks] = found[clocks]
    return Table(
        title,
        frame,
        {"points": "+.2f", **dict.fromkeys(clocks, ".2f")},
        f"points: difference of the final test accuracy. rows, seconds: until {target:.1%}, as "
        f"multiples of the other's; below 1 is better.\nA dash: one of the two did not reach it in "
        f"every split.",
    )


def conclusion_lines(found: pd.DataFrame, target: float) -> Iterator[str]:
    """Yield what the comparisons say, a line per variant, period and measure."""
    for (arm, period), group in found.groupby(["arm", "every"], observed=True, sort=False):
        for measure, name in _MEASURES.items():
            results = [(outcome(row, measure), row["workers"]) for _, row in group.iterrows()]
            parts = [
                f"{kind} with {', '.join(str(n) for each, n in results if each == kind)}"
                for kind in ("wins", "even", "loses")
                if kind in dict(results)
            ]
            what = name if measure == "points" else f"{name} to {target:.1%}"
            yield f"  {arm}  every {period:>2}  {what}: {'; '.join(parts) or 'not reached'}"


_FIGURES = ("accuracy.png", "time.png", "periods.png")


def draw(ends: pd.DataFrame, rounds: pd.DataFrame, period: int, folder: Path) -> str:
    """Draw the poster's figures; return a line that says so, or why there are none."""
    try:
        from matplotlib.figure import Figure  # noqa: F401
    except ImportError:
        return "No figures: matplotlib is not installed (pip install 'sparknn[plot]')."
    base = ends[ends["period"] == period]
    if base.empty:
        return "No figures: no fit has ended yet."
    lines = _grid(rounds[rounds["period"] == period], list(_CLOCKS), _draw_accuracy)
    figures = {"accuracy.png": lines, "time.png": _grid(base, [""], _draw_time)}
    if ends["period"].nunique() > 1:
        figures["periods.png"] = _grid(ends[ends["split"] == 1], [""], _draw_periods)
    for name, figure in figures.items():
        figure.savefig(folder / name, dpi=110)
    return f"Drew {', '.join(figures)} in {folder}."


def _draw_accuracy(ax: Axes, group: pd.DataFrame, clock: str) -> None:
    """Accuracy over training, a line per number of workers."""
    for workers, same in group.groupby("workers"):
        means = same.groupby("round")[[clock, "accuracy"]].mean()
        ax.plot(means[clock], 100 * means["accuracy"], label=_label(workers), linewidth=1.4)
    ax.set_xlabel(_CLOCKS[clock])
    ax.set_ylabel("test accuracy, %")
    # The first rounds would otherwise take all the room.
    finals = 100 * group.groupby(_TRIAL, observed=True)["accuracy"].last()
    low = max(0.0, finals.min() - 10)
    ax.set_ylim(low, min(100.0, finals.max() + (finals.max() - low) * 0.08))


def _draw_time(ax: Axes, group: pd.DataFrame, _: str) -> None:
    """Training time by the number of workers: measured, and the model's two parts."""
    means = group.groupby("workers")[["compute_s", "model_s", "seconds"]].mean()
    names = [str(workers) for workers in means.index]
    compute, overhead = means["compute_s"], means["model_s"] - means["compute_s"]
    ax.bar(names, compute, 0.5, color="C0", alpha=0.5, label="model: compute")
    ax.bar(names, overhead, 0.5, compute, color="C1", alpha=0.5, label="model: overhead")
    ax.plot(names, means["seconds"], "ko-", label="measured here")
    ax.set_xlabel("workers")
    ax.set_ylabel("seconds of training")


def _draw_periods(ax: Axes, group: pd.DataFrame, _: str) -> None:
    """Final accuracy by the averaging period, a line per number of workers."""
    for workers, same in group.sort_values("period").groupby("workers"):
        ax.plot(same["period"], 100 * same["accuracy"], "o-", label=_label(workers))
    ax.set_xscale("log")
    ticks = sorted(set(group["period"]))
    ax.set_xticks(ticks, [str(tick) for tick in ticks])
    ax.minorticks_off()
    ax.set_xlabel("local epochs between averages")
    ax.set_ylabel("test accuracy, %")


def _label(workers: Any) -> str:
    return "sequential" if workers == 1 else f"{workers} workers"


def _grid(
    frame: pd.DataFrame, columns: list[str], one: Callable[[Axes, pd.DataFrame, str], None]
) -> Figure:
    """Draw a row per variant if there are several columns, otherwise a column per variant."""
    # A figure of its own needs no display and leaves pyplot's state alone.
    from matplotlib.figure import Figure

    cells = [(arm, group, column) for arm, group in frame.groupby("arm") for column in columns]
    n_arms = len(cells) // len(columns)
    shape = (n_arms, len(columns)) if len(columns) > 1 else (1, n_arms)
    figure = Figure(figsize=(4.2 * shape[1], 3.2 * shape[0]), layout="constrained")
    axes = figure.subplots(*shape, sharey=True, squeeze=False)
    for ax, (arm, group, column) in zip(axes.flat, cells, strict=True):
        one(ax, group, column)
        ax.set_title(arm)
        ax.grid(alpha=0.3)
    axes[0, 0].legend()
    for ax in axes.flat:
        ax.label_outer(remove_inner_ticks=False) if len(columns) == 1 else None
    return figure
