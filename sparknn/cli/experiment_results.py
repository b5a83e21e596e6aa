"""The folder of an experiment: runs and tables as CSV and JSON after every fit, and figures."""

from __future__ import annotations

import json
import logging
import os
import platform
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from sparknn import __version__
from sparknn.cli.errors import raise_mistakes
from sparknn.cli.experiment_tables import TRIAL, Table, summarize

log = logging.getLogger("sparknn.cli")

# All that is ever written.
_FILES = (
    *("runs", "rounds", "accuracy", "time", "periods", "against_sequential", "against_first_arm"),
    *("accuracy_by_rows", "accuracy_by_seconds", "accuracy_by_model_seconds"),
)
_FIGURES = ("accuracy.png", "time.png", "periods.png")
_CLOCKS = {
    "n_rows": "rows consumed",
    "seconds": "seconds, measured",
    "model_s": "seconds, model (a core per worker)",
}


@dataclass
class Results:
    """The runs so far, and the folder in which they are kept.

    ``settings`` is the experiment file, ``given`` its section [experiment].
    """

    folder: str
    settings: dict[str, Any]
    given: dict[str, Any]
    variants: list[str]
    n_planned: int
    environment: dict[str, Any] = field(default_factory=dict)
    runs: pd.DataFrame = field(default_factory=pd.DataFrame)
    rounds: pd.DataFrame = field(default_factory=pd.DataFrame)

    def check_free(self, overwrite: bool) -> None:
        """Raise UsageError if there is something in the folder that must not be replaced."""
        folder = Path(self.folder)
        taken = folder.exists() and not (folder.is_dir() and not any(folder.iterdir()))
        text = f"output.folder: {folder} exists already. Name another one, or use overwrite = true."
        raise_mistakes("experiment", [text] if taken and not overwrite else [])

    def open(self, n_slots: int, spark_version: str) -> None:
        """Make the folder; remove an older experiment's files, and nothing else."""
        self.environment = {"sparknn": __version__, "spark": spark_version, "slots": n_slots}
        self.environment |= {"python": platform.python_version(), "cores": os.cpu_count()}
        Path(self.folder).mkdir(parents=True, exist_ok=True)
        for name in ["experiment.json", *(f"{table}.csv" for table in _FILES), *_FIGURES]:
            (Path(self.folder) / name).unlink(missing_ok=True)

    def add(self, trial: Any, facts: dict[str, Any], rounds: pd.DataFrame) -> str:
        """Keep a run, write everything that is known, and return a line about it."""
        key = trial._asdict()
        end = {} if rounds.empty else rounds.iloc[-1].drop("round").to_dict()
        run = pd.DataFrame([{**key, "rounds": len(rounds), **facts, **end}])
        self.runs = run if self.runs.empty else pd.concat([self.runs, run], ignore_index=True)
        own = rounds.assign(**key)
        if not own.empty:
            own = own[[*TRIAL, *rounds.columns]]
            self.rounds = pd.concat([self.rounds, own]) if len(self.rounds) else own
        self._write(self.runs, "runs")
        self._write(self.rounds, "rounds")
        self._write_json()
        if rounds.empty:
            return f"failed. {facts['problem']}"
        return f"accuracy {end['accuracy']:.2%}, {end['seconds']:.1f} s in {len(rounds)} rounds"

    def report(self) -> None:
        """Print and write the tables and the conclusion; draw the figures."""
        if self.rounds.empty:
            return
        tables, _, conclusion = self._summarize()
        for name, table in tables.items():
            self._write(table.frame, name)
        texts = [*(table.text() for table in tables.values()), "\n".join(conclusion)]
        print("\n\n".join(filter(None, texts)), flush=True)
        log.info("%s", draw(self.runs, self.rounds, self.given["period"], Path(self.folder)))
        log.info("Tables and runs are in %s, as CSV and JSON.", self.folder)

    def _summarize(self) -> tuple[dict[str, Table], float | None, list[str]]:
        if self.rounds.empty:
            return {}, self.given["target"], []
        runs, rounds = (
            frame.assign(arm=pd.Categorical(frame["arm"], self.variants, ordered=True))
            for frame in (self.runs, self.rounds)
        )
        return summarize(runs, rounds, self.given["period"], self.given["target"])

    def _write(self, frame: pd.DataFrame, name: str) -> None:
        frame.to_csv(Path(self.folder) / f"{name}.csv", index=False, lineterminator="\n")

    def _write_json(self) -> None:
        tables, target, conclusion = self._summarize()
        content = {
            "settings": self.settings,
            "environment": self.environment,
            "complete": len(self.runs) == self.n_planned,
            "runs_planned": self.n_planned,
            "runs": _records(self.runs),
            "target": target,
            "tables": {
                name: {"title": t.title, "note": t.note, "rows": _records(t.frame)}
                for name, t in tables.items()
            },
            "conclusion": conclusion,
        }
        path = Path(self.folder) / "experiment.json"
        # Whoever looks meanwhile, or stops the process, finds a whole file.
        written = path.with_suffix(".json.part")
        written.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")
        written.replace(path)


def _records(frame: pd.DataFrame) -> Any:
    """Return rows that JSON can hold: null for NaN."""
    return json.loads(frame.to_json(orient="records", double_precision=15))


def draw(runs: pd.DataFrame, rounds: pd.DataFrame, period: int, folder: Path) -> str:
    """Draw the poster's figures, a row per variant; return a line that says so, or why not."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return "No figures: matplotlib is not installed (pip install 'sparknn[plot]')."
    ends = runs[runs["rounds"] > 0]
    if not (ends["period"] == period).any():
        return "No figures: no fit has ended yet."
    drawn = {
        "accuracy.png": (rounds[rounds["period"] == period], [*_CLOCKS], _draw_accuracy),
        "time.png": (ends[ends["period"] == period], ["seconds of training"], _draw_time),
    }
    if ends["period"].nunique() > 1:
        drawn["periods.png"] = (ends[ends["split"] == 1], ["test accuracy, %"], _draw_periods)
    for name, (frame, columns, draw_one) in drawn.items():
        groups = list(frame.groupby("arm", sort=False))
        # A figure of its own needs no display and leaves pyplot's state alone.
        size = (4.2 * len(columns), 3.2 * len(groups))
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots(len(groups), len(columns), sharey=True, squeeze=False)
        for (arm, group), row in zip(groups, axes, strict=True):
            for ax, column in zip(row, columns, strict=True):
                draw_one(ax, group, column)
                ax.set_title(arm)
                ax.grid(alpha=0.3)
        axes[0, 0].legend()
        figure.savefig(folder / name, dpi=110)
    return f"Drew {', '.join(drawn)} in {folder}."


def _draw_accuracy(ax: Any, rounds: pd.DataFrame, clock: str) -> None:
    """Accuracy over training, a line per number of workers."""
    for workers, same in rounds.groupby("workers"):
        means = same.groupby("round")[[clock, "accuracy"]].mean()
        ax.plot(means[clock], 100 * means["accuracy"], label=f"{workers} workers", linewidth=1.4)
    ax.set(xlabel=_CLOCKS[clock], ylabel="test accuracy, %" if clock == "n_rows" else "")
    # The first rounds would otherwise take all the room.
    ax.set_ylim(bottom=max(0.0, 100 * rounds.groupby(TRIAL)["accuracy"].last().min() - 10))


def _draw_time(ax: Any, ends: pd.DataFrame, label: str) -> None:
    """Training time by the number of workers: measured, and the model's two parts."""
    means = ends.groupby("workers")[["compute_s", "model_s", "seconds"]].mean()
    names, compute = [str(workers) for workers in means.index], means["compute_s"]
    overhead = means["model_s"] - compute
    ax.bar(names, compute, 0.5, color="C0", alpha=0.5, label="model: compute")
    ax.bar(names, overhead, 0.5, compute, color="C1", alpha=0.5, label="model: overhead")
    ax.plot(names, means["seconds"], "ko-", label="measured here")
    ax.set(xlabel="workers", ylabel=label)


def _draw_periods(ax: Any, ends: pd.DataFrame, label: str) -> None:
    """Final accuracy by the averaging period, a line per number of workers."""
    for workers, same in ends.sort_values("period").groupby("workers"):
        ax.plot(same["period"], 100 * same["accuracy"], "o-", label=f"{workers} workers")
    ticks = sorted(set(ends["period"]))
    ax.set(xlabel="local epochs between averages", ylabel=label, xscale="log")
    ax.set_xticks(ticks, [str(tick) for tick in ticks])
    ax.minorticks_off()
