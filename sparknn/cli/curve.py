"""The training curve as a picture, if matplotlib is there."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any


def draw(summary: Any, path: str) -> str:
    """Write the picture; return a line that says so, or why there is none."""
    if importlib.util.find_spec("matplotlib") is None:
        return f"No curve in {path}: matplotlib is not installed (pip install 'sparknn[plot]')."
    from matplotlib.figure import Figure

    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    # A figure of its own needs no display and leaves pyplot's state alone.
    figure = Figure(figsize=(7, 4), layout="constrained")
    summary.plot(figure.subplots())
    figure.savefig(target, dpi=120)
    return f"Drew the training curve to {path}."
