"""What a fit went through, round by round: kept with the model, saved and loaded with it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any

import pandas as pd

from sparknn.core.training.history import RoundRecord

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLUMNS = {item.name: str(item.type) for item in fields(RoundRecord)}
#: In JSON; null stands for NaN.
_INFINITE = {math.inf: "inf", -math.inf: "-inf"}


@dataclass(frozen=True)
class TrainingSummary:
    """The history of a fit, and what it learned about its rows.

    Parameters
    ----------
    records : sequence of RoundRecord
        One a round.
    n_rows, n_validation, n_features, n_workers : int
        Training rows, validation rows, features, and the shards that the rows were dealt to.
    seconds, ingest_s : float
        Wall time of the fit, and of its ingest (which ``seconds`` contains). Fits that shared an
        ingest and their rounds each report the whole. NaN if unknown.
    """

    records: Sequence[RoundRecord] = field(repr=False)
    n_rows: int = 0
    n_validation: int = 0
    n_features: int = 0
    n_workers: int = 0
    seconds: float = math.nan
    ingest_s: float = math.nan

    @property
    def totalIterations(self) -> int:
        """Rounds run."""
        return len(self.records)

    @property
    def objectiveHistory(self) -> list[float]:
        """Training loss of each round: the mean over its rows, each seen just before its step."""
        return [record.loss for record in self.records]

    @property
    def history(self) -> pd.DataFrame:
        """One row a round: ``RoundRecord``'s fields, then ``aggregation_s`` and ``rows_per_s``.

        ``aggregation_s`` is what a round's job took beyond the slowest worker's training: sending
        tasks out, scoring, adding the networks up; and the training of others in the same rounds.
        """
        table = pd.DataFrame([asdict(record) for record in self.records], columns=list(_COLUMNS))
        seconds = table["seconds"].astype("float64")
        table["aggregation_s"] = (
            (table["job_s"] - table["compute_s"]).astype("float64").clip(lower=0)
        )
        table["rows_per_s"] = table["n_rows"].astype("float64") / seconds.where(seconds > 0)
        return table

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw training and validation loss by round.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
            Where to draw; by default a new figure, which ``plot().figure`` gives.

        Raises
        ------
        ImportError
            If matplotlib is absent.
        """
        if ax is None:
            try:
                from matplotlib.figure import Figure
            except ImportError as error:
                raise ImportError(
                    "plot needs matplotlib: pip install 'sparknn[plot]'. "
                    "The numbers themselves are in summary.history."
                ) from error
            # Not pyplot: no window system is asked for, no global figure stays behind.
            ax = Figure(figsize=(7, 4), layout="constrained").subplots()
        table = self.history
        rounds = table["round"] + 1
        ax.plot(rounds, table["loss"], marker=".", label="training loss")
        if table["validation_loss"].notna().any():
            ax.plot(rounds, table["validation_loss"], marker=".", label="validation loss")
        ax.set_xlabel("round")
        ax.set_ylabel("loss")
        ax.grid(alpha=0.3)
        ax.legend()
        return ax

    def to_json(self) -> dict[str, Any]:
        """Plain values that JSON can hold, by column."""
        info = {item.name: json_number(getattr(self, item.name)) for item in fields(self)[1:]}
        history = {
            name: [json_number(getattr(record, name)) for record in self.records]
            for name in _COLUMNS
        }
        return {**info, "history": history}

    @classmethod
    def from_json(cls, saved: dict[str, Any]) -> TrainingSummary:
        """The inverse of ``to_json``, also of another version's: what is unknown is left out.

        Raises
        ------
        KeyError, TypeError, ValueError
            If ``saved`` is not such a value.
        """
        history = saved["history"]
        n_rounds = len(history["round"])
        columns = {
            name: [_from_json(value, kind) for value in history.get(name, [None] * n_rounds)]
            for name, kind in _COLUMNS.items()
        }
        rows = zip(*columns.values(), strict=True)
        records = [RoundRecord(**dict(zip(columns, row, strict=True))) for row in rows]
        info = {
            item.name: _from_json(saved[item.name], str(item.type))
            for item in fields(cls)[1:]
            if item.name in saved
        }
        return cls(records, **info)


def json_number(value: float | int | str) -> float | int | str | None:
    """A number in JSON, which has no word for those that are not finite."""
    if isinstance(value, float) and not math.isfinite(value):
        return _INFINITE.get(value)
    return value


def _from_json(value: Any, kind: str) -> Any:
    if kind == "float":
        return math.nan if value is None else float(value)
    if kind == "int":
        return 0 if value is None else int(value)
    raise TypeError(f"A history of rounds holds numbers, not {kind}.")
