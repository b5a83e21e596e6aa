"""Faults that Spark's Python workers inject into themselves, and fits that meet them.

A fault leaves a file in a folder of proofs, which says that it happened, and how often.
"""

import os
import pickle
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from engines import network_for, outcome, spec, vectors
from hosts import Host
from pyspark import TaskContext
from pyspark.sql import DataFrame, SparkSession
from toys import blobs

from sparknn.core.config import AveragingConfig, TrainConfig
from sparknn.core.training import aggregation
from sparknn.core.training.fit_state import FitState
from sparknn.core.training.rounds import run
from sparknn.engine import ingest, open_engine, rdd, scatter, spill, tasks

Fault = Callable[[], None]


@contextmanager
def session(master: str, scratch: Path, **settings: str) -> Iterator[SparkSession]:
    """A session of its own, which ends with the block."""
    assert SparkSession.getActiveSession() is None
    builder = SparkSession.builder.master(master).appName("sparknn faults")
    settings = {
        "spark.driver.memory": "2g",
        "spark.executor.memory": "512m",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.driver.host": "127.0.0.1",
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.local.dir": str(scratch),
        "spark.sql.shuffle.partitions": "2",
        **settings,
    }
    for name, value in settings.items():
        builder = builder.config(name, value)
    spark = builder.getOrCreate()
    spark.sparkContext.setLogLevel(os.environ.get("SPARKNN_TEST_LOG", "OFF"))
    try:
        yield spark
    finally:
        spark.stop()


def n_executors(spark: SparkSession) -> int:
    # The driver counts, too.
    return int(spark.sparkContext._jsc.sc().getExecutorMemoryStatus().size()) - 1


def rows(spark: SparkSession) -> DataFrame:
    X, y = blobs(200)
    return vectors(spark, X, y, sizes=[50, 150])


def fitted(
    df: DataFrame,
    on_round: Callable[[int], Any] = lambda round_: None,
    n_workers: int = 4,
    max_iter: int = 4,
) -> Any:
    """What must be equal to the byte, after a fit."""
    with open_engine(df, spec(n_workers=n_workers, validation_fraction=0.2)) as engine:
        config = TrainConfig(network_for(engine.info), max_iter=max_iter, batch_size=16)

        def ended(fit: FitState, record: Any) -> None:
            on_round(record.round)

        fits = [FitState(config, AveragingConfig("nesterov", 0.5), n_workers, on_round_end=ended)]
        run(engine, fits)
        assert fits[0].error is None, fits[0].error
        return outcome(fits)


def once(proof: Path) -> bool:
    """Return whether nobody has been here before, on any host."""
    try:
        os.close(os.open(proof, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def fail() -> None:
    raise RuntimeError("injected")


def kill_worker() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def kill_daemon() -> None:
    os.kill(os.getppid(), signal.SIGKILL)


def kill_executor() -> None:
    os.kill(parent(os.getppid()), signal.SIGKILL)
    time.sleep(30)


def _attempt() -> str:
    context = TaskContext.get()
    assert context is not None
    return f"{context.partitionId()}-{context.stageId()}-{context.taskAttemptId()}"


def train(
    fault: Fault, proof: Path, at: int, broadcast: Any, round_: int, *arguments: Any
) -> Iterator[Any]:
    """Train, and meet a fault once, after the work was done, so that doing it twice would show."""
    (proof / f"round-{round_}-{_attempt()}").touch()
    for result in tasks.train(broadcast, round_, *arguments):
        if round_ == at and once(proof / "fault"):
            fault()
        yield result


def scatter_once(fault: Fault, proof: Path, *arguments: Any) -> Iterator[Any]:
    for batch in scatter.scatter(*arguments):
        if once(proof / "fault"):
            fault()
        yield batch


def spill_once(fault: Fault, proof: Path, *arguments: Any) -> Iterator[Any]:
    """Meet a fault once a shard was written."""
    for batch in spill.spill_batches(*arguments):
        if once(proof / "fault"):
            fault()
        yield batch


def inject(monkeypatch: Any, fault: Fault, proof: Path, phase: str, at: int = 1) -> None:
    """Let the next fits of this process meet a fault, once, in some phase."""
    if phase == "round":
        monkeypatch.setattr(tasks, "train", partial(train, fault, proof, at))
    elif phase == "scatter":
        monkeypatch.setattr(ingest, "scatter", partial(scatter_once, fault, proof))
    else:
        monkeypatch.setattr(ingest, "spill_batches", partial(spill_once, fault, proof))


def merge_without_shuffle_files(proof: Path, left: Any, right: Any) -> Any:
    """Merge two sums; an executor's first merge loses the shuffle files of all, then fails.

    The second try then cannot fetch what it needs.
    """
    if TaskContext.get() is not None and once(proof / "fault"):
        disk = Path(os.environ["SPARK_LOCAL_DIRS"].split(",")[0])
        # Those of other executors of this machine lie beside.
        while disk.name.startswith(("blockmgr-", "executor-", "spark-")):
            disk = disk.parent
        files = list(disk.rglob("shuffle_*"))
        for path in files:
            path.unlink(missing_ok=True)
        (proof / "removed").write_text(str(len(files)))
        raise RuntimeError("injected")
    return aggregation.merge_sums(left, right)


def lose_shuffle_files(monkeypatch: Any, proof: Path) -> None:
    monkeypatch.setattr(rdd, "merge_sums", partial(merge_without_shuffle_files, proof))


def attempts(proof: Path, round_: int) -> list[str]:
    """The attempts of tasks in a round."""
    return sorted(path.name for path in proof.glob(f"round-{round_}-*"))


def executor_pids(jvm: int) -> list[int]:
    """Executors that a local cluster's JVM has started."""
    found = []
    for command in Path("/proc").glob("[0-9]*/cmdline"):
        pid = int(command.parent.name)
        try:
            if b"CoarseGrainedExecutorBackend" in command.read_bytes() and parent(pid) == jvm:
                found.append(pid)
        except OSError:
            continue
    return sorted(found)


def seconds_between(event: Path, proof: Path, round_: int) -> float:
    """The time from an event until the first task of a round began."""
    began = min(path.stat().st_mtime for path in proof.glob(f"round-{round_}-*"))
    return began - event.stat().st_mtime


STALL_S = 60


def stall() -> None:
    time.sleep(STALL_S)


def slow_train(
    proof: Path, seconds: float, broadcast: Any, round_: int, *arguments: Any
) -> Iterator[Any]:
    (proof / f"round-{round_}-{_attempt()}").touch()
    time.sleep(seconds)
    yield from tasks.train(broadcast, round_, *arguments)


def slow_down(monkeypatch: Any, proof: Path, seconds: float) -> None:
    """Let every task of a round take some seconds more."""
    monkeypatch.setattr(tasks, "train", partial(slow_train, proof, seconds))


def executors_on(host: Host) -> list[int]:
    """The executors of a host's worker."""
    assert host.worker is not None
    return executor_pids(host.worker.pid)


def fill(path: Path, left: int = 0) -> None:
    """Fill a disk, up to some bytes."""
    free = os.statvfs(path.parent)
    n_bytes = free.f_bavail * free.f_frsize - left
    with path.open("wb") as file:
        block = bytes(1 << 20)
        try:
            while n_bytes > 0:
                n_bytes -= file.write(block[:n_bytes])
                file.flush()
        except OSError:
            # Others write, too; what was free is full.
            pass


def flaky_train(
    proof: Path, share: float, broadcast: Any, round_: int, *arguments: Any
) -> Iterator[Any]:
    context = TaskContext.get()
    assert context is not None
    drawn = np.random.default_rng([round_, context.partitionId()]).random()
    for result in tasks.train(broadcast, round_, *arguments):
        if drawn < share and once(proof / f"{round_}-{context.partitionId()}"):
            raise RuntimeError("injected")
        yield result


def fail_at_random(monkeypatch: Any, proof: Path, share: float) -> None:
    """Let a share of the tasks of rounds fail, once each, drawn by round and worker."""
    monkeypatch.setattr(tasks, "train", partial(flaky_train, proof, share))


def measured_train(proof: Path, broadcast: Any, round_: int, *arguments: Any) -> Iterator[Any]:
    for result in tasks.train(broadcast, round_, *arguments):
        values = [each.values for each in result]
        n_values = sum(0 if each is None else each.size for each in values)
        n_bytes = len(pickle.dumps(result, protocol=5))
        (proof / f"message-{round_}-{_attempt()}").write_text(f"{n_bytes} {n_values}")
        yield result


def measure_messages(monkeypatch: Any, proof: Path) -> None:
    """Write down the sizes of workers' messages, and of the vectors in them."""
    monkeypatch.setattr(tasks, "train", partial(measured_train, proof))
