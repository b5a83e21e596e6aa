"""Split a sequence where its parts would be too large."""

from __future__ import annotations

from collections.abc import Sequence


def split_by_size(sizes: Sequence[int], most: int) -> list[slice]:
    """Split a sequence into slices whose sizes add up to at most ``most``.

    An item that is larger is a slice of its own.
    """
    starts, total = [0], 0
    for number, size in enumerate(sizes):
        if number > starts[-1] and total + size > most:
            starts.append(number)
            total = 0
        total += size
    return [slice(a, b) for a, b in zip(starts, [*starts[1:], len(sizes)], strict=True) if a < b]
