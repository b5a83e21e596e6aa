"""Which weights a fit ends with: the last network, the best, or an average of several."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparknn.core.types import Float32Array, Float64Array

# Share that the moving average keeps of its past each round.
EMA_DECAY = 0.8
# Networks that `combine` may average.
COMBINE_MOST = 8

FINAL_WEIGHTS = ("last", "best", "ema", "combine")


@dataclass
class FinalWeights:
    """Collects the networks of a fit and chooses among them; costs the workers nothing.

    Parameters
    ----------
    kind : str
        ``last``; ``best``: the round with the least validation loss; ``ema``: exponential moving
        average over rounds; ``combine``: the mean of the last n networks for the n of least
        validation loss (Kaldi's combination).
    """

    kind: str
    best_loss: float = math.inf
    _goal: float = math.inf
    _best: Float32Array | None = None
    _average: Float64Array | None = None
    _n_averaged: int = 0
    _recent: list[Float32Array] = field(default_factory=list)

    def add(self, theta: Float32Array) -> None:
        """A round has ended with ``theta``."""
        if self.kind == "ema":
            if self._average is None:
                self._average = np.zeros(theta.shape)
            self._average *= EMA_DECAY
            self._average += (1 - EMA_DECAY) * theta
            self._n_averaged += 1
        elif self.kind == "combine":
            self._recent = [*self._recent, theta][-COMBINE_MOST:]

    def scored(self, theta: Float32Array, loss: float, tol: float) -> bool:
        """A round's network has a validation loss; True if it is better by ``tol`` than before.

        Small gains add up: a loss is compared with the last one that was better by ``tol``.
        """
        if loss < self.best_loss:
            self.best_loss = loss
            if self.kind == "best":
                self._best = theta
        if not loss < self._goal - tol:
            return False
        self._goal = loss
        return True

    def state(self) -> tuple[dict[str, float], dict[str, NDArray[Any]]]:
        """The numbers and arrays that ``restored`` takes."""
        arrays: dict[str, NDArray[Any]] = {}
        if self._best is not None:
            arrays["best"] = self._best
        if self._average is not None:
            # `add` writes to it.
            arrays["average"] = self._average.copy()
        if self._recent:
            arrays["recent"] = np.stack(self._recent)
        numbers = {
            "best_loss": self.best_loss,
            "goal": self._goal,
            "n_averaged": self._n_averaged,
        }
        return numbers, arrays

    @classmethod
    def restored(
        cls, kind: str, numbers: Mapping[str, float], arrays: Mapping[str, NDArray[Any]]
    ) -> FinalWeights:
        """The collection that gave this ``state``."""
        average = arrays.get("average")
        return cls(
            kind,
            numbers["best_loss"],
            numbers["goal"],
            arrays.get("best"),
            None if average is None else average.copy(),
            int(numbers["n_averaged"]),
            list(arrays.get("recent", ())),
        )

    def choose(
        self, last: Float32Array, score: Callable[[list[Float32Array]], list[float]]
    ) -> Float32Array:
        """The final weights; ``last`` where there was nothing to choose by."""
        if self.kind == "best" and self._best is not None:
            return self._best
        if self._average is not None:
            return (self._average / (1 - EMA_DECAY**self._n_averaged)).astype(np.float32)
        if self._recent:
            sums = np.cumsum(np.stack(self._recent[::-1]), axis=0, dtype=np.float64)
            means = [(row / n).astype(np.float32) for n, row in enumerate(sums, start=1)]
            losses = np.nan_to_num(score(means), nan=np.inf, posinf=np.inf)
            if np.isfinite(losses.min()):
                return means[int(np.argmin(losses))]
        return last
