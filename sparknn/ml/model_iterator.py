"""Train the models of several parameter maps, group by group, when they are first requested."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

M = TypeVar("M")


@dataclass
class FitGroup(Generic[M]):
    """Parameter maps that share their rows and rounds.

    Parameters
    ----------
    indices : list of int
        Indices of the maps.
    train : callable
        ``() -> list of outcomes``, one per map; called once, at the first request.
    """

    indices: Sequence[int]
    train: Callable[[], Sequence[M | Exception]]
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)
    _outcomes: dict[int, M | Exception] | None = field(default=None, repr=False)

    def result(self, index: int) -> M:
        """Return the model of a map once, or raise its error.

        The first thread trains the whole group while the others wait. The group keeps no reference
        to a model that it has returned.
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
    """Iterate over ``(index, model)`` of every parameter map, group by group; thread-safe.

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
