"""The models of several parameter maps, trained group by group when they are first asked for."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

M = TypeVar("M")


@dataclass
class FitGroup(Generic[M]):
    """Parameter maps that share their rows, and so their rounds.

    Parameters
    ----------
    indices : list of int
        Of the maps.
    train : callable
        ``() -> list of outcomes``, one per map; called once, on first demand.
    """

    indices: Sequence[int]
    train: Callable[[], Sequence[M | Exception]]
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)
    _outcomes: dict[int, M | Exception] | None = field(default=None, repr=False)

    def result(self, index: int) -> M:
        """Return the model of a map, which the group then forgets; raise its error if it has one.

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
    groups : sequence of FitGroup
    """

    def __init__(self, groups: Sequence[FitGroup[M]]) -> None:
        self._todo = [(group, index) for group in groups for index in group.indices][::-1]
        self._lock = threading.Lock()

    def __next__(self) -> tuple[int, M]:
        with self._lock:
            if not self._todo:
                raise StopIteration
            group, index = self._todo.pop()
        return index, group.result(index)
