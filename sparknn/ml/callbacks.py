"""Watch a fit round by round, and stop it: the callbacks of an estimator.

They are no Param, as functions can be neither compared nor stored as JSON: copies of an estimator
share them, and a saved estimator does not have them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sparknn.core.training.history import RoundRecord

if TYPE_CHECKING:
    from typing import Self


@dataclass(frozen=True)
class FinishedRound(RoundRecord):
    """What a callback gets: the record of a round that has ended, and which fit it belongs to.

    Parameters
    ----------
    estimator : NeuralNetClassifier or NeuralNetRegressor
        With the params of this fit; not to be changed.
    map_index, n_maps : int
        Which of the parameter maps that were given together, from 0.
    progress : float
        Share of the fit's rounds that are done, above 0 and up to 1.
    """

    estimator: Any = None
    map_index: int = 0
    n_maps: int = 1
    progress: float = 0.0


Callback = Callable[[FinishedRound], Any]


class HasCallbacks:
    """``callbacks`` of an estimator."""

    _callbacks: tuple[Callback, ...] = ()

    def setCallbacks(self, callbacks: Sequence[Callback]) -> Self:
        """Set functions that every fit calls on the driver when a round has ended.

        Parameters
        ----------
        callbacks : sequence of callable
            Each gets a ``FinishedRound``, with validation rows as soon as the round's network is
            scored. If one returns True, the fit ends, and its model is made of the rounds so far.
            If one raises, the fit raises the same, and its checkpoints stay.
        """
        wrong = [each for each in callbacks if not callable(each)]
        if wrong:
            raise TypeError(f"callbacks has {wrong[0]!r}; expected functions of a finished round.")
        self._callbacks = tuple(callbacks)
        return self

    def getCallbacks(self) -> list[Callback]:
        """Return the functions that every fit calls when a round has ended."""
        return list(self._callbacks)
