"""What an experiment leaves behind: CSV and JSON, complete after every fit."""

from __future__ import annotations

import csv
import json
import math
import os
import platform
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from sparknn import __version__
from sparknn.cli.experiment import tables, verdict
from sparknn.cli.experiment.settings import Settings
from sparknn.cli.experiment.tables import Table
from sparknn.cli.experiment.trials import Run, Trial
from sparknn.cli.tables import PathExistsError

_TRIAL = ("arm", "split", "workers", "period")
_POINT = (
    *("n_rows", "accuracy", "loss", "seconds", "compute_s", "overhead_s", "model_s"),
    *("broadcast_s", "job_s"),
)
_RUN = ("rounds", "n_train", "n_test", "ingest_s", "fit_s", "problem")
# All that is ever written.
_FILES = (
    *("experiment.json", "runs.csv", "rounds.csv", "accuracy.csv", "time.csv", "periods.csv"),
    *("accuracy_by_rows.csv", "accuracy_by_seconds.csv", "accuracy_by_model_seconds.csv"),
    *("against_sequential.csv", "against_first_arm.csv"),
    *("accuracy.png", "time.png", "periods.png"),
)


class Results:
    """The runs so far, and the folder that they are kept in.

    Parameters
    ----------
    settings : Settings
    n_planned : int
        Fits that the experiment is to have.
    """

    def __init__(self, settings: Settings, n_planned: int) -> None:
        self.settings = settings
        self.folder = Path(settings.folder)
        self.runs: list[Run] = []
        self._n_planned = n_planned
        self._environment: dict[str, Any] = {}

    def open(self, n_slots: int, spark_version: str) -> None:
        """Make the folder; remove an older experiment's files, and nothing else.

        Raises
        ------
        PathExistsError
            If there is something in it already, and ``overwrite`` is not set.
        """
        self.check_free()
        for name in _FILES:
            (self.folder / name).unlink(missing_ok=True)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._environment = {
            "sparknn": __version__,
            "spark": spark_version,
            "python": platform.python_version(),
            "cores": os.cpu_count(),
            "slots": n_slots,
        }

    def check_free(self) -> None:
        """Say before the work that there is something in the way."""
        if self.settings.overwrite or not self.folder.exists():
            return
        if not self.folder.is_dir() or any(self.folder.iterdir()):
            raise PathExistsError(
                f"output.folder: {self.folder} exists already. Name another one, or say "
                f"overwrite = true in [output]."
            )

    def add(self, run: Run) -> None:
        """Keep a run, and write everything that is known."""
        self.runs.append(run)
        self._append("runs.csv", [*_TRIAL, *_RUN, *_POINT], [run_row(run)])
        self._append(
            "rounds.csv",
            [*_TRIAL, "round", *_POINT],
            [
                [*_trial(run.trial), point.round, *(getattr(point, name) for name in _POINT)]
                for point in run.points
            ],
        )
        self._write_json()

    def tables(self) -> list[Table]:
        """Every table that the runs so far give."""
        settings = self.settings
        base = [run for run in self.runs if run.trial.period == settings.period]
        if not any(run.points for run in base):
            return []
        found = [
            tables.accuracy(base),
            tables.time(base),
            tables.by_rows(base),
            tables.by_seconds(base, "seconds"),
            tables.by_seconds(base, "model_s"),
        ]
        if len({run.trial.period for run in self.runs}) > 1:
            found.append(tables.periods(self.runs))
        target = self.target
        if target is None:
            return found
        sequential = verdict.against_sequential(self.runs, target)
        if sequential:
            title = "Averaging against one worker of the same arm"
            found.append(verdict.table("against_sequential", title, sequential, target))
        first = settings.arms[0].name
        others = verdict.against_first_arm(self.runs, target, first)
        if others:
            title = f"Against {first} with as many workers"
            found.append(verdict.table("against_first_arm", title, others, target))
        return found

    @property
    def target(self) -> float | None:
        """The test accuracy whose cost is compared."""
        return verdict.target_of(self.settings, self.runs)

    def conclusion(self) -> list[str]:
        """Where averaging wins and loses, in words."""
        if self.target is None:
            return []
        found = verdict.against_sequential(self.runs, self.target)
        if not found:
            return []
        title = "Where averaging wins and loses, against one worker of the same arm"
        return [title, *verdict.lines(found, self.target)]

    def write_tables(self, found: Sequence[Table]) -> None:
        """A CSV file a table."""
        for table in found:
            path = self.folder / f"{table.name}.csv"
            path.unlink(missing_ok=True)
            self._append(path.name, [heading for heading, _ in table.headings], table.rows)

    def _append(self, name: str, headings: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
        path = self.folder / name
        new = not path.exists()
        with path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            if new:
                writer.writerow(headings)
            writer.writerows([[_text(value) for value in row] for row in rows])

    def _write_json(self) -> None:
        names = [*_TRIAL, *_RUN, *_POINT]
        content = {
            "settings": self.settings.as_given,
            "environment": self._environment,
            "complete": len(self.runs) == self._n_planned,
            "runs_planned": self._n_planned,
            "runs": [
                dict(zip(names, map(_finite, run_row(run)), strict=True)) for run in self.runs
            ],
            "target": self.target,
            "tables": {table.name: table.to_json() for table in self.tables()},
            "conclusion": self.conclusion(),
        }
        path = self.folder / "experiment.json"
        # Whoever looks meanwhile, or stops the process, finds a whole file.
        written = path.with_suffix(".json.part")
        written.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")
        shutil.move(written, path)


def run_row(run: Run) -> list[Any]:
    """A run as a row of ``runs.csv``."""
    end = run.end
    facts = [len(run.points), run.n_train, run.n_test, run.ingest_s, run.fit_s, run.problem]
    last = [getattr(end, name) if end is not None else math.nan for name in _POINT]
    return [*_trial(run.trial), *facts, *last]


def _trial(trial: Trial) -> list[Any]:
    return [trial.arm.name, trial.split, trial.workers, trial.period]


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _text(value: Any) -> Any:
    """Empty for what is not known."""
    value = _finite(value)
    return "" if value is None else value
