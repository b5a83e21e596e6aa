"""The live line of a fit, on a terminal, in a notebook, and where nobody watches."""

import io
import logging
import sys
from typing import Any

import pytest
from scripted import ScriptedEngine, scripted_fit

from sparknn import NeuralNetRegressor
from sparknn.core.training.rounds import run
from sparknn.ml.live_line import LiveLine
from sparknn.ml.progress import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def shown(monkeypatch: pytest.MonkeyPatch, out: io.StringIO, *, wanted: bool = True) -> str:
    """What two fits, of three rounds and of two, write."""
    monkeypatch.setattr(sys, "stderr", out)
    with LiveLine(wanted) as live:
        fits = [
            scripted_fit(n, on_round_end=Progress(NeuralNetRegressor(), number, 2, live))
            for number, n in enumerate([3, 2])
        ]
        live.begin(fits)
        run(ScriptedEngine(), fits)
    return out.getvalue()


@pytest.fixture
def no_tqdm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tqdm", None)


def test_a_bar_counts_the_rounds_of_all_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    last = shown(monkeypatch, Terminal()).rstrip("\n").split("\r")[-1]
    assert "5/5" in last
    assert "map 1 of 2: loss 3.0000" in last


@pytest.mark.usefixtures("no_tqdm")
def test_without_tqdm_a_line_is_rewritten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    found = shown(monkeypatch, Terminal())
    assert found.endswith("\n")
    lines = found.rstrip("\n").split("\r")
    assert len(lines) == 6
    assert lines[-1].startswith("map 1 of 2: round 3/3  loss 3.0000")
    assert max(map(len, lines)) < 40


def test_a_notebook_is_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    import IPython

    class Shell:
        kernel = object()

    monkeypatch.setattr(IPython, "get_ipython", Shell)
    assert "5/5" in shown(monkeypatch, io.StringIO())


@pytest.mark.parametrize("why", ["file", "off", "logged"])
def test_nothing_is_shown(why: str, monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    caplog.set_level(logging.INFO if why == "logged" else logging.WARNING, "sparknn")
    out = io.StringIO() if why == "file" else Terminal()
    assert shown(monkeypatch, out, wanted=why != "off") == ""
