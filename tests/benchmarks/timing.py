"""Timings on a noisy machine: alternating runs, medians, and their spread."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable


def in_turns(
    *actions: Callable[[], object], runs: int, clock: Callable[[], float] = time.perf_counter
) -> list[list[float]]:
    """Seconds of each action, run one after the other, ``runs`` times over.

    ``clock=time.process_time`` counts the processor's time, for what runs in one thread.
    """
    seconds: list[list[float]] = [[] for _ in actions]
    for _ in range(runs):
        for action, mine in zip(actions, seconds, strict=True):
            started = clock()
            action()
            mine.append(clock() - started)
    return seconds


def spread(values: list[float], unit: str = "s", digits: int = 2) -> str:
    """Median, least and largest."""
    median, least, most = statistics.median(values), min(values), max(values)
    return f"{median:.{digits}f} {unit} ({least:.{digits}f} to {most:.{digits}f})"


def ratio(above: list[float], below: list[float]) -> str:
    """Median of the ratios turn by turn, and their spread."""
    return spread([a / b for a, b in zip(above, below, strict=True)], unit="times")
