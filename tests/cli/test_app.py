"""Arguments, help and exit status; none of it starts Spark."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from py4j.protocol import Py4JError

from sparknn.cli import app, main, train

Command = Callable[..., Any]


def test_set_takes_several_values_and_no_file(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(train, "run", lambda path, values, verbose: seen.append((path, values)))
    assert main(["train", "--set", "a=1", "b=2", "job.toml", "--set", "c=-3"]) == 0
    assert main(["train", "job.toml", "--set=a=1", "--verbose", "--set", "b"]) == 0
    assert seen == [("job.toml", ["a=1", "b=2", "c=-3"]), ("job.toml", ["a=1", "b"])]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["evaluate", "--model", "m", "--data", "x", "--format", "cvs"], "choose from"),
        (["evaluate", "--model", "m", "--data", "x", "--option", "a"], "expected KEY=VALUE"),
        (["evaluate", "--model", "m", "--data", "x", "--invalid", "keep"], "choose from"),
        (["evaluate", "--model", "m"], "required: --data"),
        (["predict", "--model", "m"], "required: --data, --output"),
        (
            ["predict", "--model", "m", "--data", "x", "--output", "y.libsvm"],
            "--output: y.libsvm would be written as libsvm",
        ),
        (["trian"], "invalid choice"),
        (["train"], "required: CONFIG.toml"),
        ([], "required: COMMAND"),
        (["train", "/nowhere.toml"], "/nowhere.toml: cannot be read: No such file"),
    ],
)
def test_bad_usage(arguments: list[str], expected: str, sparknn: Command) -> None:
    ran = sparknn(*arguments)
    assert ran.status == 2
    assert expected in ran.err
    assert "Traceback" not in ran.err


@pytest.mark.parametrize(
    "command", ["", "train", "evaluate", "predict", "experiment", "doctor", "keys"]
)
def test_help_teaches(command: str, sparknn: Command) -> None:
    ran = sparknn(*command.split(), "--help")
    assert ran.status == 0
    assert f"usage: sparknn {command}" in ran.out
    assert command == "keys" or len(ran.out.splitlines()) > 10


def test_help_waits_for_no_pyspark(run_python: Callable[..., object]) -> None:
    run_python(
        "import sys\n"
        "from sparknn.cli import main\n"
        "assert main(['experiment', '--help']) == 0\n"
        "sys.exit('it loads pyspark' if 'pyspark' in sys.modules else 0)"
    )


def test_handlers_and_levels_are_put_back(tmp_path: Path, sparknn: Command) -> None:
    log = logging.getLogger("sparknn")
    before = (log.level, log.propagate, list(log.handlers), log.isEnabledFor(logging.INFO))
    sparknn("train", tmp_path / "missing.toml")
    after = (log.level, log.propagate, list(log.handlers), log.isEnabledFor(logging.INFO))
    assert after == before


@pytest.mark.parametrize("hidden", [False, True])
def test_an_interrupt_is_one_line(
    hidden: bool, sparknn: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt:
            if hidden:
                raise Py4JError("Gateway must be connected to send cancel cmd.")  # noqa: B904
            raise

    monkeypatch.setattr(app, "_run", interrupt)
    ran = sparknn("train", "job.toml")
    assert (ran.status, ran.err) == (130, "sparknn: interrupted\n")


def test_an_error_is_one_line_and_a_traceback_if_asked_for(
    sparknn: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ValueError("no\ngood")

    monkeypatch.setattr(app, "_run", fail)
    ran = sparknn("keys")
    assert (ran.status, ran.err) == (1, "sparknn: no good\n")
    assert "Traceback" in sparknn("keys", "--verbose").err
