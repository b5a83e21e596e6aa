"""Step-size schedules: map progress in [0, 1] to a factor of ``stepSize``."""

from __future__ import annotations

import math

# Share of the fit over which `linear` and `cosine` rise to the full step size.
WARM_UP = 0.1


def constant(progress: float) -> float:
    """Return 1."""
    return 1.0


def linear(progress: float) -> float:
    """Rise over the first tenth, then fall linearly to 0."""
    if progress < WARM_UP:
        return progress / WARM_UP
    return (1 - progress) / (1 - WARM_UP)


def cosine(progress: float) -> float:
    """Rise over the first tenth, then fall by half a cosine (arXiv:1608.03983, eq. 5) to 0."""
    if progress < WARM_UP:
        return progress / WARM_UP
    return 0.5 * (1 + math.cos(math.pi * (progress - WARM_UP) / (1 - WARM_UP)))


SCHEDULES = {"constant": constant, "linear": linear, "cosine": cosine}
