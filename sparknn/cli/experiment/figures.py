"""The poster's figures, if matplotlib is there."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

from sparknn.cli.experiment.tables import grouped
from sparknn.cli.experiment.trials import Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_CLOCKS = {
    "n_rows": "rows consumed",
    "seconds": "seconds, measured",
    "model_s": "seconds, model (a core a worker)",
}


def draw(runs: Sequence[Run], period: int, folder: Path) -> str:
    """Write the figures; return a line that says so, or why there are none.

    Parameters
    ----------
    runs : sequence of Run
    period : int
        The averaging period that the first two figures are about.
    folder : Path
    """
    if importlib.util.find_spec("matplotlib") is None:
        return "No figures: matplotlib is not installed (pip install 'sparknn[plot]')."
    done = [run for run in runs if run.points]
    base = [run for run in done if run.trial.period == period]
    if not base:
        return "No figures: no fit has ended yet."
    figures = {"accuracy": accuracy(base), "time": time(base)}
    if len({run.trial.period for run in done}) > 1:
        figures["periods"] = periods([run for run in done if run.trial.split == 1])
    for name, figure in figures.items():
        figure.savefig(folder / f"{name}.png", dpi=110)
    return f"Drew {', '.join(f'{name}.png' for name in figures)} in {folder}."


def accuracy(runs: Sequence[Run]) -> Figure:
    """Accuracy over training: an arm a row; against rows, seconds and the model's seconds."""

    def one(ax: Axes, group: Sequence[Run], clock: str) -> None:
        for (workers,), same in grouped(group, lambda t: (t.workers,)):
            shortest = min(len(run.points) for run in same)
            rounds = [[run.points[i] for run in same] for i in range(shortest)]
            ax.plot(
                [fmean(getattr(p, clock) for p in points) for points in rounds],
                [100 * fmean(p.accuracy for p in points) for points in rounds],
                label="sequential" if workers == 1 else f"{workers} workers",
                linewidth=1.4,
            )
        ax.set_xlabel(_CLOCKS[clock])
        # The first rounds would otherwise take all the room.
        finals = [100 * run.accuracy for run in runs]
        low = max(0.0, min(finals) - 10)
        ax.set_ylim(low, min(100.0, max(finals) + (max(finals) - low) * 0.08))

    return _grid(runs, list(_CLOCKS), one, "test accuracy, %")


def time(runs: Sequence[Run]) -> Figure:
    """Training time by the number of workers: measured, and the model's two parts."""

    def one(ax: Axes, group: Sequence[Run], _: str) -> None:
        by_workers = grouped(group, lambda t: (t.workers,))
        names = [str(workers) for (workers,), _ in by_workers]

        def means(name: str) -> list[float]:
            return [fmean(getattr(r.points[-1], name) for r in same) for _, same in by_workers]

        compute = means("compute_s")
        ax.bar(names, compute, 0.5, color="C0", alpha=0.5, label="model: compute")
        overhead = [model - own for model, own in zip(means("model_s"), compute, strict=True)]
        ax.bar(names, overhead, 0.5, compute, color="C1", alpha=0.5, label="model: overhead")
        ax.plot(names, means("seconds"), "ko-", label="measured here")
        ax.set_xlabel("workers")

    return _grid(runs, [""], one, "seconds of training")


def periods(runs: Sequence[Run]) -> Figure:
    """Final accuracy by the averaging period, a line a number of workers."""

    def one(ax: Axes, group: Sequence[Run], _: str) -> None:
        for (workers,), same in grouped(group, lambda t: (t.workers,)):
            ordered = sorted(same, key=lambda run: run.trial.period)
            ax.plot(
                [run.trial.period for run in ordered],
                [100 * run.accuracy for run in ordered],
                "o-",
                label="sequential" if workers == 1 else f"{workers} workers",
            )
        ax.set_xscale("log")
        ticks = sorted({run.trial.period for run in group})
        ax.set_xticks(ticks, [str(tick) for tick in ticks])
        ax.minorticks_off()
        ax.set_xlabel("local epochs between averages")

    return _grid(runs, [""], one, "test accuracy, %")


def _grid(
    runs: Sequence[Run],
    columns: Sequence[str],
    one: Callable[[Axes, Sequence[Run], str], None],
    label: str,
) -> Figure:
    """An arm a row if there are several columns, otherwise an arm a column."""
    # A figure of its own needs no display and leaves pyplot's state alone.
    from matplotlib.figure import Figure

    arms = grouped(runs, lambda t: (t.arm.name,))
    wide = len(columns) > 1
    n_rows, n_columns = (len(arms), len(columns)) if wide else (1, len(arms))
    figure = Figure(figsize=(4.2 * n_columns, 3.2 * n_rows), layout="constrained")
    axes = figure.subplots(n_rows, n_columns, sharey=True, squeeze=False)
    for i, ((arm,), group) in enumerate(arms):
        for j, column in enumerate(columns):
            ax = axes[i, j] if wide else axes[0, i]
            one(ax, group, column)
            ax.set_title(arm)
            ax.grid(alpha=0.3)
    for row in axes:
        row[0].set_ylabel(label)
    axes[0, 0].legend()
    return figure
