"""Several parameter maps trained in one pass over the rows."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from sparknn.core.averaging import Total
from sparknn.core.fit import DivergedError, Fit
from sparknn.core.neighbours import neighbours
from sparknn.core.rounds import run
from sparknn.core.runner import RoundRunner
from sparknn.core.solvers import SOLVERS
from sparknn.core.times import RoundTimes
from sparknn.ml.checkpoint import Checkpoints

M = TypeVar("M")

# What a worker sends back in a round, at most, unless one network alone is larger.
_MOST_BYTES = 64 << 20


@dataclass
class Group(Generic[M]):
    """Parameter maps that share their rows, and so their rounds.

    Parameters
    ----------
    indices : list of int
        Of the maps.
    train : callable
        ``() -> list of outcomes``, one a map; called once, on first demand.
    """

    indices: Sequence[int]
    train: Callable[[], Sequence[M | Exception]]
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)
    _outcomes: dict[int, M | Exception] | None = field(default=None, repr=False)

    def take(self, index: int) -> M:
        """The model of a map, which the group then forgets; its error, if it has one.

        The first thread to ask trains the whole group while the others wait.
        """
        with self._lock:
            if self._outcomes is None:
                try:
                    outcomes = self.train()
                except Exception as error:
                    outcomes = [error] * len(self.indices)
                self._outcomes = dict(zip(self.indices, outcomes, strict=True))
            outcome = self._outcomes.pop(index)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


class ModelIterator(Iterator[tuple[int, M]]):
    """``(index, model)`` for every parameter map, group by group; threads may share it.

    Parameters
    ----------
    groups : sequence of Group
    """

    def __init__(self, groups: Sequence[Group[M]]) -> None:
        self._todo = [(group, index) for group in groups for index in group.indices][::-1]
        self._lock = threading.Lock()

    def __next__(self) -> tuple[int, M]:
        with self._lock:
            if not self._todo:
                raise StopIteration
            group, index = self._todo.pop()
        return index, group.take(index)


class LoneFit(Fit):
    """A fit that ends by itself when it diverges, so that those in the same rounds go on.

    Attributes
    ----------
    error : DivergedError, optional
        Why it ended.
    checkpoints : Checkpoints, optional
        Those that it writes.
    """

    error: DivergedError | None = None
    checkpoints: Checkpoints | None = None

    def absorb(self, engine: RoundRunner, total: Total, round_: int, times: RoundTimes) -> None:
        """Take a round's sums in, or take note of why there are none."""
        try:
            super().absorb(engine, total, round_, times)
        except DivergedError as error:
            self.error = error
            self.ended = True

    def finish(self, engine: RoundRunner) -> None:
        """Settle on the final weights, if there are any."""
        if self.error is None:
            super().finish(engine)


def run_all(engine: RoundRunner, fits: Sequence[Fit]) -> None:
    """Train all fits: together as many as one message can hold, then the next ones."""
    sizes = [
        4 * fit.plan.network.n_params * (1 + SOLVERS[fit.plan.solver].n_buffers) for fit in fits
    ]
    for part in neighbours(sizes, _MOST_BYTES):
        run(engine, fits[part])
