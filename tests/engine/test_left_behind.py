"""Whatever happens, nothing is left behind: no files, no cached RDDs, no broadcasts, no threads."""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from engines import (
    leftovers,
    network_for,
    outcome,
    running_jobs,
    soon,
    spec,
    trained,
    vectors,
    wait_for_tasks,
)
from py4j.clientserver import ClientServerConnection
from py4j.protocol import MEMORY_COMMAND_NAME
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from toys import blobs

from sparknn.core.config import AveragingConfig, TrainConfig
from sparknn.core.training.fit_state import FitState
from sparknn.core.training.rounds import run
from sparknn.engine import open_engine, rdd, tasks

DESCRIPTION = "spark.job.description"
GROUP = "spark.jobGroup.id"


def broadcast_files(spark: SparkSession) -> set[str]:
    """What the driver keeps of Python broadcasts, commands of large closures included."""
    return {str(path) for path in Path(spark.sparkContext._temp_dir).rglob("*") if path.is_file()}


@pytest.fixture(autouse=True)
def nothing_left(spark: SparkSession) -> Iterator[None]:
    """Compare Spark and this process before and after each test."""
    sc = spark.sparkContext
    sc.setLocalProperty(DESCRIPTION, "the user's own")
    sc.setJobGroup("the user's group", "the user's own")
    files, threads = broadcast_files(spark), set(threading.enumerate())
    assert leftovers(spark) == []
    persisted = set(sc._jsc.getPersistentRDDs().keySet())
    yield
    wait_for_tasks(spark)
    assert leftovers(spark) == []
    assert set(sc._jsc.getPersistentRDDs().keySet()) == persisted
    assert broadcast_files(spark) <= files
    assert set(threading.enumerate()) <= threads
    assert sc.getLocalProperty(DESCRIPTION) == "the user's own"
    assert sc.getLocalProperty(GROUP) == "the user's group"
    assert running_jobs(spark) == 0
    for name in (DESCRIPTION, GROUP):
        sc.setLocalProperty(name, None)  # type: ignore[arg-type]


def data(spark: SparkSession) -> DataFrame:
    X, y = blobs(60)
    return vectors(spark, X, y, sizes=[20, 40])


def fits_of(engine: Any, **changes: Any) -> list[FitState]:
    config = TrainConfig(network_for(engine.info), **({"max_iter": 2, "batch_size": 16} | changes))
    return [FitState(config, AveragingConfig(), engine.n_workers)]


def train(df: DataFrame, on_round_end: Any = None, **changes: Any) -> None:
    with open_engine(df, spec()) as engine:
        (fit,) = fits_of(engine, **changes)
        fit.on_round_end = on_round_end
        run(engine, [fit])
        if fit.error is not None:
            raise fit.error


def test_after_a_fit(spark: SparkSession) -> None:
    with open_engine(data(spark), spec(n_workers=7)) as engine:
        assert leftovers(spark) != []
        run(engine, fits_of(engine))
        engine.statistics()
    engine.close()


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_after_an_error_between_rounds(spark: SparkSession, error: type[BaseException]) -> None:
    def fail(fit: FitState, record: Any) -> None:
        raise error("from the user's callback")

    with pytest.raises(error):
        train(data(spark), on_round_end=fail)


def test_after_an_interrupt_once_a_round_has_ended(
    spark: SparkSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*totals: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(rdd, "_missing_partitions", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(data(spark))


def test_after_an_error_in_the_tasks_of_a_round(
    spark: SparkSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*arguments: Any) -> Any:
        raise ZeroDivisionError("in a task")

    # Pickled by value, as workers cannot import this file.
    broken.__module__ = "__main__"
    monkeypatch.setattr(tasks, "train", broken)
    with pytest.raises(Exception, match="in a task"):
        train(data(spark))


# Trains until somebody stops it.
ENDLESS = {"max_iter": 1, "local_epochs": 1_000_000}


def test_after_an_interrupt_while_a_round_runs(
    spark: SparkSession, interrupt: Callable[[], None]
) -> None:
    engine = open_engine(data(spark), spec())
    thread = soon(spark, interrupt)
    with pytest.raises(KeyboardInterrupt), engine:
        run(engine, fits_of(engine, **ENDLESS))
    thread.join()


def test_after_an_interrupt_during_ingest(
    spark: SparkSession, interrupt: Callable[[], None]
) -> None:
    def slow(label):  # type: ignore[no-untyped-def]
        time.sleep(1)
        return label

    df = data(spark).withColumn("label", F.udf(slow, "double")("label"))
    thread = soon(spark, interrupt)
    with pytest.raises(KeyboardInterrupt):
        open_engine(df, spec())
    thread.join()


def test_after_an_interrupt_in_any_call_of_the_jvm(
    spark: SparkSession, plain_control_c: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Most calls are short, and py4j would hang up on the calls of the clean-up that follow."""
    df = data(spark)
    send = ClientServerConnection.send_command
    n_calls, chosen = 0, 0

    def counted(connection: ClientServerConnection, command: str) -> str:
        nonlocal n_calls
        # Python ignores what is raised while it collects an object of the JVM.
        collects = command.startswith(MEMORY_COMMAND_NAME)
        if threading.current_thread() is threading.main_thread() and not collects:
            n_calls += 1
            if n_calls == chosen:
                signal.raise_signal(signal.SIGINT)
        return str(send(connection, command))

    monkeypatch.setattr(ClientServerConnection, "send_command", counted)
    # The first fit of a process asks for what the second knows.
    for _ in range(2):
        n_calls = 0
        train(df)
    last = n_calls
    assert last > 100
    for call in np.linspace(1, last, 8):
        n_calls, chosen = 0, int(call)
        with pytest.raises(KeyboardInterrupt):
            train(df)
        assert leftovers(spark) == []


def test_two_fits_in_two_threads(spark: SparkSession) -> None:
    def fit(seed: int, into: dict[int, Any]) -> None:
        spark.sparkContext.setLocalProperty(DESCRIPTION, f"thread {seed}")
        with open_engine(data(spark), spec(seed=seed)) as engine:
            into[seed] = outcome(trained(engine, [fits_of(engine)[0].config]))
        into[-seed] = spark.sparkContext.getLocalProperty(DESCRIPTION)

    alone: dict[int, Any] = {}
    together: dict[int, Any] = {}
    for seed in (1, 2):
        thread = threading.Thread(target=fit, args=(seed, alone))
        thread.start()
        thread.join()
    threads = [threading.Thread(target=fit, args=(seed, together)) for seed in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert together == alone
    assert alone[1] != alone[2]
    assert (alone[-1], alone[-2]) == ("thread 1", "thread 2")


def test_no_network_travels_in_a_closure(spark: SparkSession) -> None:
    """Closures above 1 MB are broadcast and stay on the driver's disk; a network is 4 MB here."""
    X, y = blobs(20, d=100)
    with open_engine(vectors(spark, X, y), spec()) as engine:
        before = broadcast_files(spark)
        network = network_for(engine.info, hidden=10_000)
        (fit,) = trained(engine, [TrainConfig(network, max_iter=1)])
        assert fit.theta is not None
        assert np.isfinite(fit.theta).all()
        assert broadcast_files(spark) <= before
