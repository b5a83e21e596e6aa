"""Things in a row, cut where together they would be too large."""

from __future__ import annotations

from collections.abc import Sequence


def split_by_size(sizes: Sequence[int], most: int) -> list[slice]:
    """Cut a sequence into parts whose sizes add up to ``most``, or that are one thing alone.

    Parameters
    ----------
    sizes : sequence of int
        Of the things, in order.
    most : int
    """
    starts, total = [0], 0
    for number, size in enumerate(sizes):
        if number > starts[-1] and total + size > most:
            starts.append(number)
            total = 0
        total += size
    return [slice(a, b) for a, b in zip(starts, [*starts[1:], len(sizes)], strict=True) if a < b]
