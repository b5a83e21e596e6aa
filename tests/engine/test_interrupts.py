"""After an interrupt the JVM answers again, and the interrupt is what the caller sees."""

from types import SimpleNamespace
from typing import Any

import pytest
from py4j.protocol import Py4JError, Py4JNetworkError

from sparknn.engine import interrupts
from sparknn.engine.interrupts import interrupts_survived


class DroppingContext:
    """Stands for a SparkContext whose first connections are dropped."""

    def __init__(self, n_dropped: int) -> None:
        self.n_calls = 0
        self.n_dropped = n_dropped
        self._jsc = SimpleNamespace(sc=lambda: SimpleNamespace(isStopped=self._answer))

    def _answer(self) -> bool:
        self.n_calls += 1
        if self.n_calls <= self.n_dropped:
            raise Py4JNetworkError("Answer from Java side is empty")
        return False


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interrupts, "_PAUSE_S", 0.0)


def interrupted_call(*, hidden: Exception | None) -> None:
    try:
        raise KeyboardInterrupt
    except KeyboardInterrupt:
        if hidden is not None:
            raise hidden  # noqa: B904 as pyspark does
        raise


@pytest.mark.parametrize(
    "hidden",
    [
        None,
        Py4JNetworkError("Answer from Java side is empty"),
        Py4JError("Gateway must be connected to send cancel cmd."),
    ],
)
def test_the_interrupt_arrives_once_the_jvm_answers(hidden: Exception | None) -> None:
    sc: Any = DroppingContext(2)
    with pytest.raises(KeyboardInterrupt), interrupts_survived(sc):
        interrupted_call(hidden=hidden)
    assert sc.n_calls == 3


def test_a_jvm_that_is_gone_does_not_hold_the_interrupt_back() -> None:
    sc: Any = DroppingContext(10**6)
    with pytest.raises(KeyboardInterrupt), interrupts_survived(sc):
        interrupted_call(hidden=None)


@pytest.mark.parametrize("error", [Py4JError("no interrupt"), ValueError("no interrupt")])
def test_other_errors_pass(error: Exception) -> None:
    sc: Any = DroppingContext(0)
    with pytest.raises(type(error), match="no interrupt"), interrupts_survived(sc):
        raise error
    assert sc.n_calls == 0
