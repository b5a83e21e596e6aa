"""The training curve as a picture, if matplotlib is there."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from sparknn.cli import places
from sparknn.ml.validators import did_you_mean


def problem(path: str) -> str:
    """Why no picture can be written to a path; empty if one can."""
    if Path(path).is_dir():
        return f"{path} is a folder; expected a file, such as curve.png."
    reason = places.why_not_writable(path)
    if reason:
        return f"{path} cannot be written: {reason}."
    if importlib.util.find_spec("matplotlib") is None:
        return ""
    from matplotlib.backend_bases import FigureCanvasBase

    known, ending = FigureCanvasBase.get_supported_filetypes(), Path(path).suffix[1:].lower()
    if not ending or ending in known:
        return ""
    hint = did_you_mean(ending, known) or "."
    return f"{path}: a picture can end in {', '.join(sorted(known))}, not in {ending}{hint}"


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
