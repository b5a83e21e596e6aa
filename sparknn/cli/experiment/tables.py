"""What an experiment found, as tables: the poster's, and where averaging wins and loses."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from sparknn.cli.experiment.trials import Point, Run

Cell = str | int | float | None

# Rows of the tables that follow the training.
_MARKS = 10


@dataclass(frozen=True)
class Table:
    """Numbers under headings.

    Parameters
    ----------
    name : str
        Of its CSV file.
    title : str
    headings : sequence of (str, str)
        Of each column, and the format of its numbers, such as ``.1f``.
    rows : sequence of sequence
        None and NaN are shown as a dash.
    note : str
        What must be said about the numbers.
    """

    name: str
    title: str
    headings: Sequence[tuple[str, str]]
    rows: Sequence[Sequence[Cell]]
    note: str = ""

    def lines(self) -> list[str]:
        """The table as text."""
        formats = [spec for _, spec in self.headings]
        cells = [[heading for heading, _ in self.headings]]
        cells += [
            [_shown(cell, spec) for cell, spec in zip(row, formats, strict=True)]
            for row in self.rows
        ]
        widths = [max(len(row[i]) for row in cells) for i in range(len(formats))]
        text = [
            "  ".join(
                cell.rjust(width) if spec else cell.ljust(width)
                for cell, width, spec in zip(row, widths, formats, strict=True)
            ).rstrip()
            for row in cells
        ]
        return [self.title, *(f"  {line}" for line in text), *([self.note] if self.note else [])]

    def to_json(self) -> dict[str, Any]:
        """Title, note, and a list of rows by heading."""
        names = [heading for heading, _ in self.headings]
        rows = [dict(zip(names, map(_plain, row), strict=True)) for row in self.rows]
        return {"title": self.title, "note": self.note, "rows": rows}


def _shown(cell: Cell, spec: str) -> str:
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return "-"
    return format(cell, spec) if spec and not isinstance(cell, str) else str(cell)


def _plain(cell: Cell) -> Cell:
    """A value that JSON can hold."""
    return None if isinstance(cell, float) and not math.isfinite(cell) else cell


def accuracy(runs: Sequence[Run]) -> Table:
    """The poster's list: the accuracy of every split, and their mean."""
    splits = sorted({run.trial.split for run in runs})
    rows: list[list[Cell]] = []
    for (arm, workers), group in grouped(runs, lambda t: (t.arm.name, t.workers)):
        by_split = {run.trial.split: run.accuracy for run in group}
        known = [value for value in by_split.values() if not math.isnan(value)]
        listed = [by_split.get(split) for split in splits]
        rows.append([arm, workers, *listed, fmean(known) if known else None])
    headings = [("arm", ""), ("workers", "d"), *((f"split {s}", ".2%") for s in splits)]
    return Table("accuracy", "Test accuracy", [*headings, ("mean", ".2%")], rows)


def time(runs: Sequence[Run]) -> Table:
    """The poster's second figure: the time of training by the number of workers."""
    rows: list[list[Cell]] = []
    sequential: dict[str, tuple[float, float]] = {}
    for (arm, workers), group in grouped(runs, lambda t: (t.arm.name, t.workers)):
        ends = [run.end for run in group if run.end is not None]
        if not ends:
            continue
        measured, compute, overhead, model = (
            fmean(getattr(end, name) for end in ends)
            for name in ("seconds", "compute_s", "overhead_s", "model_s")
        )
        if workers == 1:
            sequential[arm] = measured, model
        one, one_model = sequential.get(arm, (math.nan, math.nan))
        n_rows = fmean(end.n_rows for end in ends)
        ingest = fmean(run.ingest_s for run in group if run.end is not None)
        own: list[Cell] = [arm, workers, n_rows, measured, one / measured]
        rows.append([*own, compute, overhead, model, one_model / model, ingest])
    return Table(
        "time",
        "Seconds of training, means over splits",
        [
            *(("arm", ""), ("workers", "d"), ("rows", ",.0f"), ("measured", ".2f")),
            *(("times as fast", ".2f"), ("compute", ".2f"), ("overhead", ".2f")),
            *(("model", ".2f"), ("model, times as fast", ".2f"), ("reading rows", ".2f")),
        ],
        rows,
        "compute: each round's slowest worker. overhead: what is left of a round, scoring the test "
        "rows included.\nmodel: not measured, but what it would take with a core for every worker: "
        "compute + overhead; with one\nworker compute alone: a sequential program needs no Spark.",
    )


def by_rows(runs: Sequence[Run]) -> Table:
    """Accuracy over training, against the rows consumed."""
    counts = _columns(runs)
    last = max((len(run.points) for run in runs), default=0)
    shown = sorted({-(-last * mark // _MARKS) for mark in range(1, _MARKS + 1)} - {0})
    rows: list[list[Cell]] = []
    for (arm,), group in grouped(runs, lambda t: (t.arm.name,)):
        for number in shown:
            here = {run.trial: run.points[number - 1] for run in group if len(run.points) >= number}
            if here:
                n_rows = fmean(point.n_rows for point in here.values())
                rows.append([arm, number, n_rows, *_means(here, counts)])
    return Table(
        "accuracy_by_rows",
        "Test accuracy over training, by rows consumed: means over splits",
        [("arm", ""), ("round", "d"), ("rows", ",.0f"), *_headings(counts)],
        rows,
    )


def by_seconds(runs: Sequence[Run], clock: str) -> Table:
    """Accuracy over training, against seconds: ``clock`` is ``seconds`` or ``model_s``."""
    counts = _columns(runs)
    last = max((getattr(run.end, clock) for run in runs if run.end is not None), default=0.0)
    rows: list[list[Cell]] = []
    for (arm,), group in grouped(runs, lambda t: (t.arm.name,)):
        for mark in range(1, _MARKS + 1):
            now = last * mark / _MARKS
            # Rounding must not take the last round from the run that ends there.
            done = {
                run.trial: [p for p in run.points if getattr(p, clock) <= now * (1 + 1e-9)]
                for run in group
            }
            here = {trial: passed[-1] for trial, passed in done.items() if passed}
            rows.append([arm, now, *_means(here, counts)])
    measured = clock == "seconds"
    return Table(
        f"accuracy_by_{'' if measured else 'model_'}seconds",
        "Test accuracy over training, by seconds"
        + (" measured here" if measured else " of the model (a core a worker)")
        + ": means over splits",
        [("arm", ""), ("seconds", ".2f"), *_headings(counts)],
        rows,
    )


def periods(runs: Sequence[Run]) -> Table:
    """Accuracy by the averaging period, on the split that all periods were tried on."""
    first = [run for run in runs if run.trial.split == 1]
    counts = _columns(first)
    rows: list[list[Cell]] = []
    for (arm, period), group in grouped(first, lambda t: (t.arm.name, t.period)):
        ends = {run.trial: run.end for run in group if run.end is not None}
        rounds = max((end.round for end in ends.values()), default=0)
        rows.append([arm, period, rounds, *_means(ends, counts)])
    return Table(
        "periods",
        "Test accuracy by averaging period (local epochs between averages), first split",
        [("arm", ""), ("every", "d"), ("rounds", "d"), *_headings(counts)],
        rows,
    )


def grouped(
    runs: Iterable[Run], key: Callable[[Any], tuple[Any, ...]]
) -> list[tuple[tuple[Any, ...], list[Run]]]:
    """Runs by a key of their trials, in the order in which the keys first come."""
    groups: dict[tuple[Any, ...], list[Run]] = {}
    for run in runs:
        groups.setdefault(key(run.trial), []).append(run)
    return list(groups.items())


def _columns(runs: Sequence[Run]) -> list[int]:
    return sorted({run.trial.workers for run in runs})


def _headings(counts: Sequence[int]) -> list[tuple[str, str]]:
    return [(f"{n} worker{'s' if n > 1 else ''}", ".2%") for n in counts]


def _means(here: dict[Any, Point], counts: Sequence[int]) -> list[Cell]:
    """Mean accuracy over the splits, a column a number of workers."""
    found: list[Cell] = []
    for n in counts:
        values = [p.accuracy for trial, p in here.items() if trial.workers == n]
        found.append(fmean(values) if values else None)
    return found
