"""The folder of an experiment: runs as CSV after every fit; tables, JSON and figures at the end."""

from __future__ import annotations

import json
import logging
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from sparknn import __version__
from sparknn.cli.errors import UsageError
from sparknn.cli.experiment_tables import Table, cumulated, summarize

log = logging.getLogger("sparknn.cli")

# The figures, and the tables that each shows, one beside the other.
_FIGURES = {
    "accuracy.png": ("accuracy_by_rows", "accuracy_by_seconds", "accuracy_by_model_seconds"),
    "time.png": ("time",),
    "periods.png": ("periods",),
}
# All that is ever written.
_FILES = (
    *("experiment.json", "runs.csv", "rounds.csv", "accuracy.csv", "against_sequential.csv"),
    *("against_first_arm.csv", *_FIGURES),
    *(f"{table}.csv" for shown in _FIGURES.values() for table in shown),
)


@dataclass
class Results:
    """The runs so far, and the folder in which they are kept."""

    folder: str
    settings: dict[str, Any]  # the experiment file
    given: dict[str, Any]  # its section [experiment], with defaults
    n_planned: int
    environment: dict[str, Any] = field(default_factory=dict)
    runs: list[dict[str, Any]] = field(default_factory=list)
    rounds: list[pd.DataFrame] = field(default_factory=list)

    def open(self, overwrite: bool, n_slots: int, spark_version: str) -> None:
        """Make the folder; remove an older experiment's files, and nothing else."""
        folder = Path(self.folder)
        if not overwrite and any(folder.glob("*")):
            text = f"{folder} exists already. Name another, or use overwrite = true."
            raise UsageError("experiment", [f"output.folder: {text}"])
        folder.mkdir(parents=True, exist_ok=True)
        for name in _FILES:
            (folder / name).unlink(missing_ok=True)
        versions = {"sparknn": __version__, "spark": spark_version}
        self.environment = {**versions, "slots": n_slots, "cores": os.cpu_count()}

    def add(self, trial: dict[str, Any], summary: Any) -> str:
        """Keep a run and its rounds, as files too, and return a line about it."""
        rounds = cumulated(summary.history, trial["workers"], self.environment["slots"])
        end = rounds.iloc[-1].drop("round").to_dict()
        facts = {"n_train": summary.n_rows, "n_test": summary.n_validation}
        facts |= {"ingest_s": summary.ingest_s, "fit_s": summary.seconds, "rounds": len(rounds)}
        self.runs.append({**trial, **facts, **end})
        self.rounds.append(rounds.assign(**trial)[[*trial, *rounds.columns]])
        self._write(pd.DataFrame(self.runs), "runs")
        self._write(pd.concat(self.rounds), "rounds")
        return f"accuracy {end['accuracy']:.2%}, {end['seconds']:.1f} s in {len(rounds)} rounds"

    def report(self) -> None:
        """Print and write the tables and the conclusion of all runs so far; draw the figures."""
        period, target = self.given["period"], self.given["target"]
        if not any(run["period"] == period for run in self.runs):
            return
        runs = pd.DataFrame(self.runs)
        tables, target, conclusion = summarize(runs, pd.concat(self.rounds), period, target)
        for name, table in tables.items():
            self._write(table.frame, name)
        frames = {"runs": runs, **{name: table.frame for name, table in tables.items()}}
        # pandas writes null for what is no finite number, as JSON asks for.
        texts = {
            name: f.to_json(orient="records", double_precision=15) for name, f in frames.items()
        }
        records = {name: json.loads(text) for name, text in texts.items()}
        content = {
            "settings": self.settings,
            "environment": self.environment,
            "complete": len(self.runs) == self.n_planned,
            "runs_planned": self.n_planned,
            "runs": records.pop("runs"),
            "target": target,
            "tables": records,
            "conclusion": conclusion,
        }
        text = json.dumps(content, indent=1, allow_nan=False) + "\n"
        (Path(self.folder) / "experiment.json").write_text(text, encoding="utf-8")
        shown = [*(table.text() for table in tables.values()), "\n".join(conclusion)]
        print("\n\n".join(filter(None, shown)), flush=True)
        log.info("%s", draw(tables, Path(self.folder)))
        log.info("Tables and runs are in %s, as CSV and JSON.", self.folder)

    def _write(self, frame: pd.DataFrame, name: str) -> None:
        frame.to_csv(Path(self.folder) / f"{name}.csv", index=False, lineterminator="\n")


def draw(tables: dict[str, Table], folder: Path) -> str:
    """Draw the poster's figures, a row per variant; return a line that says so, or why not."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return "No figures: matplotlib is not installed (pip install 'sparknn[plot]')."
    drawn = [name for name, shown in _FIGURES.items() if shown[0] in tables]
    for name in drawn:
        shown = [tables[table] for table in _FIGURES[name]]
        arms = shown[0].frame["arm"].unique()
        # A figure of its own needs no display and leaves pyplot's state alone.
        figure = Figure((4.2 * len(shown), 3.2 * len(arms)), layout="constrained")
        axes = figure.subplots(len(arms), len(shown), sharey=True, squeeze=False)
        for column, table in zip(axes.T, shown, strict=True):
            x = table.frame.columns[1]
            y = [*table.accuracies] or ["seconds", "model_s", "compute_s"]
            for ax, arm in zip(column, arms, strict=True):
                own = table.frame[table.frame["arm"] == arm]
                own.plot(x, y, style="o-", ax=ax, legend=ax is axes[0, 0], title=arm, grid=True)
                ax.set_ylabel("test accuracy" if table.accuracies else "seconds")
            if table.accuracies:  # the first rounds would otherwise take all the room
                ax.set_ylim(bottom=max(0.0, table.frame[y].max().min() - 0.1))
        figure.savefig(folder / name, dpi=110)
    return f"Drew {', '.join(drawn)} in {folder}."
