"""Control-C is deferred until a call of the JVM has returned, and raised then."""

import signal
import threading
import time
from typing import Any

import pytest

from sparknn.engine import interrupts
from sparknn.engine.interrupts import defer_interrupts

pytestmark = pytest.mark.usefixtures("plain_control_c", "no_earlier_interrupt")


@pytest.fixture
def no_earlier_interrupt(plain_control_c: None) -> None:
    """That a test does not follow the interrupt of the one before."""
    with defer_interrupts():
        pass


def press_control_c() -> None:
    signal.raise_signal(signal.SIGINT)


def test_without_an_interrupt_nothing_happens() -> None:
    cancelled: list[None] = []
    with defer_interrupts(lambda: cancelled.append(None)):
        pass
    assert cancelled == []


@pytest.mark.parametrize("module", [None, "pyspark.core.context", "pyspark.context"])
def test_what_is_inside_ends_first(module: str | None) -> None:
    """Under Python's handler, and under those of pyspark 4 and 3.5, which raise as well."""

    def as_pyspark_does(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    as_pyspark_does.__module__ = module or ""
    handler = as_pyspark_does if module else signal.default_int_handler
    signal.signal(signal.SIGINT, handler)
    done = []

    @defer_interrupts()
    def call() -> None:
        press_control_c()
        done.append("to the end")

    with pytest.raises(KeyboardInterrupt):
        call()
    assert done == ["to the end"]
    assert signal.signal(signal.SIGINT, signal.default_int_handler) is handler


def test_it_is_cancelled_from_another_thread_until_it_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(interrupts, "_PAUSE_S", 0.0)
    threads: list[threading.Thread] = []
    third = threading.Event()

    def cancel() -> None:
        threads.append(threading.current_thread())
        if len(threads) == 3:
            third.set()

    @defer_interrupts(cancel)
    def call() -> None:
        press_control_c()
        assert third.wait(60)
        raise RuntimeError("cancelled")

    with pytest.raises(KeyboardInterrupt) as raised:
        call()
    assert raised.value.__suppress_context__
    assert threading.current_thread() not in threads
    assert not any(thread.is_alive() for thread in threads)


def test_a_jvm_that_is_gone_is_asked_a_few_times(monkeypatch: pytest.MonkeyPatch) -> None:
    """As under spark-submit, which ends on Control-C itself; a lost connection comes back."""
    monkeypatch.setattr(interrupts, "_PAUSE_S", 0.0)
    given_up = threading.Event()
    n_asked = 0

    def cancel() -> None:
        nonlocal n_asked
        n_asked += 1
        if n_asked == 2:
            return
        if n_asked == 2 + interrupts._MAX_FAILURES:
            given_up.set()
        raise ConnectionRefusedError

    @defer_interrupts(cancel)
    def call() -> None:
        press_control_c()
        assert given_up.wait(60)
        time.sleep(0.1)
        raise RuntimeError("the connection broke off")

    with pytest.raises(KeyboardInterrupt):
        call()
    assert n_asked == 2 + interrupts._MAX_FAILURES


def test_a_long_wait_is_explained(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(interrupts, "_PAUSE_S", 0.0)
    monkeypatch.setattr(interrupts, "_SILENT_S", 0.0)

    @defer_interrupts()
    def call() -> None:
        press_control_c()
        deadline = time.monotonic() + 60
        while not caplog.records and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.1)

    with caplog.at_level("WARNING", "sparknn"), pytest.raises(KeyboardInterrupt):
        call()
    (record,) = caplog.records
    assert "waiting for" in record.getMessage()


def test_a_short_wait_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(KeyboardInterrupt), defer_interrupts():
        press_control_c()
    assert caplog.records == []


def test_a_press_as_it_ends_is_raised_too(monkeypatch: pytest.MonkeyPatch) -> None:
    end = interrupts._DeferringHandler.end

    def pressed(held: Any) -> None:
        end(held)
        press_control_c()

    monkeypatch.setattr(interrupts._DeferringHandler, "end", pressed)
    n_threads = threading.active_count()
    with pytest.raises(KeyboardInterrupt), defer_interrupts(pytest.fail):
        pass
    assert threading.active_count() == n_threads


def test_pressing_again_after_a_while_raises_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    reached = []

    @defer_interrupts()
    def call() -> None:
        press_control_c()
        press_control_c()
        reached.append("a second press, soon after the first")
        monkeypatch.setattr(interrupts, "_PATIENCE_S", -1.0)
        press_control_c()
        reached.append("a late one")

    with pytest.raises(KeyboardInterrupt):
        call()
    assert reached == ["a second press, soon after the first"]


@pytest.mark.parametrize("between", ["nothing", "another call", "a while"])
def test_patience_goes_on_with_what_follows_an_interrupt(
    between: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clean-up first of all; a fit that begins later is another matter."""
    reached = []

    @defer_interrupts()
    def call(name: str, n_presses: int = 1) -> None:
        for _ in range(n_presses):
            press_control_c()
        reached.append(name)

    with pytest.raises(KeyboardInterrupt):
        call("a round")
    if between == "another call":
        call("uninterrupted", 0)
    monkeypatch.setattr(interrupts, "_FOLLOW_UP_S", 0.0 if between == "a while" else 60.0)
    monkeypatch.setattr(interrupts, "_PATIENCE_S", 0.02)
    time.sleep(0.05)
    with pytest.raises(KeyboardInterrupt):
        call("to the end")
    assert ("to the end" in reached) == (between != "nothing")


def test_the_inner_one_of_two_ends_first() -> None:
    inner, outer = threading.Event(), threading.Event()
    reached = []

    @defer_interrupts(outer.set)
    def call() -> None:
        with defer_interrupts(inner.set):
            press_control_c()
            assert inner.wait(60)
        reached.append("after the inner one")

    with pytest.raises(KeyboardInterrupt):
        call()
    assert reached == []
    assert not outer.is_set()


def test_errors_pass() -> None:
    with pytest.raises(ValueError, match="as it is"), defer_interrupts():
        raise ValueError("as it is")


def test_a_function_can_be_marked_and_called_twice() -> None:
    @defer_interrupts()
    def call(pressed: bool) -> str:
        if pressed:
            press_control_c()
        return "done"

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            call(pressed=True)
        assert call(pressed=False) == "done"


def test_a_handler_of_the_user_s_is_left_as_it_is() -> None:
    heard = []

    def users_own(number: int, frame: Any) -> None:
        heard.append(number)

    signal.signal(signal.SIGINT, users_own)
    with defer_interrupts():
        press_control_c()
        assert heard == [signal.SIGINT]
    assert signal.signal(signal.SIGINT, signal.default_int_handler) is users_own


def test_a_handler_of_no_module_is_the_user_s() -> None:
    heard: list[int] = []
    users_own = eval("lambda number, frame: heard.append(number)", {"heard": heard})
    assert users_own.__module__ is None
    signal.signal(signal.SIGINT, users_own)
    with defer_interrupts():
        press_control_c()
    assert heard == [signal.SIGINT]
    signal.signal(signal.SIGINT, signal.default_int_handler)


def test_another_thread_is_not_concerned() -> None:
    seen: list[Any] = []

    @defer_interrupts()
    def call() -> None:
        seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=call)
    thread.start()
    thread.join(60)
    assert seen == [signal.default_int_handler]


def test_a_real_signal_does_not_break_a_call_off() -> None:
    """Python goes on to wait for a socket when a handler has returned."""
    main = threading.get_ident()
    thread = threading.Timer(0.1, lambda: signal.pthread_kill(main, signal.SIGINT))
    thread.start()
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt), defer_interrupts():
        time.sleep(0.5)
    assert time.monotonic() - started >= 0.5
    thread.join()
