"""A fit between two rounds, as plain arrays and numbers: what a checkpoint is made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from sparknn.core.history import RoundRecord


@dataclass(frozen=True)
class Snapshot:
    """All that the rounds so far have made of a fit; ``Fit.restore`` continues from it.

    A network that waits for its validation score, which the next round's tasks bring, still waits.

    Parameters
    ----------
    history : list of RoundRecord
    numbers : dict of str to float
        Counts are int.
    arrays : dict of str to ndarray
        float32 or float64; not to be written to.
    """

    history: list[RoundRecord]
    numbers: dict[str, float]
    arrays: dict[str, NDArray[Any]]
