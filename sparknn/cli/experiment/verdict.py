"""Where averaging wins and where it loses: in accuracy, in rows and in seconds."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean

from sparknn.cli.experiment.settings import Settings
from sparknn.cli.experiment.tables import Cell, Table, grouped
from sparknn.cli.experiment.trials import Run, Trial

# Differences that are no difference: in accuracy, and of a ratio from 1.
_EVEN_ACCURACY = 0.001
_EVEN_RATIO = 0.05
# What the default target leaves out of the first arm's sequential accuracy.
_MARGIN = 0.005

_MEASURES = ("accuracy", "rows", "seconds", "seconds (model)")


def target_of(settings: Settings, runs: Sequence[Run]) -> float | None:
    """The test accuracy whose cost is compared; None while it is not known."""
    if settings.target is not None:
        return settings.target
    first = settings.arms[0].name
    reached = [
        run.accuracy
        for run in runs
        if (run.trial.arm.name, run.trial.workers, run.trial.period) == (first, 1, settings.period)
        and not math.isnan(run.accuracy)
    ]
    # Rounded down to a tenth of a per cent, so that it can be named.
    return math.floor((fmean(reached) - _MARGIN) * 1000) / 1000 if reached else None


@dataclass(frozen=True)
class Comparison:
    """Runs against others on the same splits.

    Parameters
    ----------
    arm : str
    period, workers : int
    accuracy : float
        Mean difference of the final accuracy: 0.01 is a point more.
    better : int
        Splits in which it is higher.
    n_splits : int
    ratios : tuple of float
        Rows, measured seconds and modelled seconds until the target, means over splits, as
        multiples of the others'. NaN unless both reached it in every split.
    reached, reached_other : int
        Splits in which each reached the target.
    """

    arm: str
    period: int
    workers: int
    accuracy: float
    better: int
    n_splits: int
    ratios: tuple[float, float, float]
    reached: int
    reached_other: int

    def outcomes(self) -> tuple[str, ...]:
        """``wins``, ``even`` or ``loses`` (or ``-``: not reached), by measure."""
        agree = self.better in (0, self.n_splits)
        if not agree or abs(self.accuracy) < _EVEN_ACCURACY:
            found = ["even"]
        else:
            found = ["wins" if self.accuracy > 0 else "loses"]
        return (*found, *map(self._outcome, self.ratios))

    def _outcome(self, ratio: float) -> str:
        if self.reached != self.reached_other:
            return "wins" if self.reached > self.reached_other else "loses"
        if math.isnan(ratio):
            return "-"
        if abs(ratio - 1) < _EVEN_RATIO:
            return "even"
        return "wins" if ratio < 1 else "loses"


def compare(
    runs: Sequence[Run], other: Callable[[Trial], tuple[str, int, int]], target: float
) -> list[Comparison]:
    """Compare runs, by arm, period and workers, with what ``other`` names for them.

    Parameters
    ----------
    runs : sequence of Run
    other : callable
        From a trial to the arm, period and workers that it is compared to, on the same split.
    target : float
    """
    by_key = {(*_key(run.trial), run.trial.split): run for run in runs}
    found = []
    for (arm, period, workers), group in grouped(runs, _key):
        if other(group[0].trial) == (arm, period, workers):
            continue
        pairs = [(run, by_key.get((*other(run.trial), run.trial.split))) for run in group]
        whole = [(a, b) for a, b in pairs if b is not None and a.points and b.points]
        if not whole:
            continue
        differences = [a.accuracy - b.accuracy for a, b in whole]
        reached = [(a.reaching(target), b.reaching(target)) for a, b in whole]
        n_reached = sum(a is not None for a, _ in reached)
        n_other = sum(b is not None for _, b in reached)
        both = [(a, b) for a, b in reached if a is not None and b is not None]
        ratios = [math.nan] * 3
        if len(both) == len(whole):
            for i, name in enumerate(("n_rows", "seconds", "model_s")):
                ours, theirs = (fmean(getattr(p[side], name) for p in both) for side in (0, 1))
                ratios[i] = ours / theirs if theirs else math.nan
        found.append(
            Comparison(
                arm=arm,
                period=period,
                workers=workers,
                accuracy=fmean(differences),
                better=sum(difference > 0 for difference in differences),
                n_splits=len(whole),
                ratios=(ratios[0], ratios[1], ratios[2]),
                reached=n_reached,
                reached_other=n_other,
            )
        )
    return found


def against_sequential(runs: Sequence[Run], target: float) -> list[Comparison]:
    """Many workers against one: the same arm, the same period."""
    return compare(runs, lambda trial: (trial.arm.name, trial.period, 1), target)


def against_first_arm(runs: Sequence[Run], target: float, first: str) -> list[Comparison]:
    """The other arms against the first: the same period, as many workers."""
    return compare(runs, lambda trial: (first, trial.period, trial.workers), target)


def table(name: str, title: str, found: Sequence[Comparison], target: float) -> Table:
    """Comparisons as a table."""
    rows: list[list[Cell]] = []
    for c in found:
        reached = f"{c.reached}/{c.n_splits}, {c.reached_other}/{c.n_splits}"
        own: list[Cell] = [c.arm, c.period, c.workers, 100 * c.accuracy]
        rows.append([*own, f"{c.better}/{c.n_splits}", reached, *c.ratios])
    return Table(
        name,
        title,
        [
            *(("arm", ""), ("every", "d"), ("workers", "d"), ("points", "+.2f"), ("higher in", "")),
            (f"{target:.1%} reached, other", ""),
            *(("rows", ".2f"), ("seconds", ".2f"), ("seconds, model", ".2f")),
        ],
        rows,
        f"points: difference of the final test accuracy. rows, seconds: until {target:.1%}, as "
        f"multiples of the other's; below 1 is better.\nA dash: one of the two did not get there "
        f"in every split.",
    )


def lines(found: Sequence[Comparison], target: float) -> list[str]:
    """What the comparisons say, a line an arm, period and measure."""
    text = []
    widths = max((len(c.arm) for c in found), default=0)
    groups: dict[tuple[str, int], list[Comparison]] = {}
    for comparison in found:
        groups.setdefault((comparison.arm, comparison.period), []).append(comparison)
    for (arm, period), group in groups.items():
        for i, measure in enumerate(_MEASURES):
            says = []
            for outcome in ("wins", "even", "loses"):
                workers = [str(c.workers) for c in group if c.outcomes()[i] == outcome]
                if workers:
                    says.append(f"{outcome} with {', '.join(workers)}")
            what = measure if measure == "accuracy" else f"{measure} to {target:.1%}"
            said = "; ".join(says) or "not reached"
            text.append(f"  {arm:<{widths}}  every {period:>2}  {what}: {said}")
    return text


def _key(trial: Trial) -> tuple[str, int, int]:
    return trial.arm.name, trial.period, trial.workers
