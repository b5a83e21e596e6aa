"""The history of a fit, round by round: kept with the model, saved and loaded with it."""

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
#: As JSON strings; null is NaN.
_INFINITE = {math.inf: "inf", -math.inf: "-inf"}


@dataclass(frozen=True)
class TrainingSummary:
    """The history of a fit, and the size of its data.

    Parameters
    ----------
    records : sequence of RoundRecord
        One per round.
    n_rows, n_validation, n_features, n_workers : int
        Training rows, validation rows, features, and shards.
    seconds, ingest_s : float
        Wall time of the fit, and of its ingest (part of ``seconds``). Fits that shared ingest and
        rounds each report the time of all. NaN if unknown.
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
        """Number of rounds."""
        return len(self.records)

    @property
    def objectiveHistory(self) -> list[float]:
        """Training loss of each round: the mean over its rows, each just before its step."""
        return [record.loss for record in self.records]

    @property
    def history(self) -> pd.DataFrame:
        """One row per round: the fields of ``RoundRecord``, ``aggregation_s`` and ``rows_per_s``.

        ``aggregation_s`` is the time of a round's job beyond the training of the slowest worker:
        scheduling, scoring, summing the networks, and training other fits of the same rounds.
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
            By default of a new figure, which is ``plot().figure``.

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
            # Unlike pyplot, this needs no window system and keeps no global figure.
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
        """Return plain values for JSON, by column."""
        info = {item.name: json_number(getattr(self, item.name)) for item in fields(self)[1:]}
        history = {
            name: [json_number(getattr(record, name)) for record in self.records]
            for name in _COLUMNS
        }
        return {**info, "history": history}

    @classmethod
    def from_json(cls, saved: dict[str, Any]) -> TrainingSummary:
        """Invert ``to_json``, also of another version: unknown names are ignored.

        Raises
        ------
        KeyError, TypeError, ValueError
            If ``saved`` is something else.
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
    """Return a number as JSON can represent it: infinities as strings, NaN as null."""
    if isinstance(value, float) and not math.isfinite(value):
        return _INFINITE.get(value)
    return value


def _from_json(value: Any, kind: str) -> Any:
    if kind == "float":
        return math.nan if value is None else float(value)
    if kind == "int":
        return 0 if value is None else int(value)
    raise TypeError(f"The history has a column of type {kind}; expected float or int.")
