"""What happens to hosts: executors that come and go, slow ones, full disks, and a cut network."""

import ast
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import faults
import processes
import pyspark
import pytest
from hosts import Cluster, Host, have_namespaces, wait_for
from pyspark.sql import SparkSession

from sparknn.engine.worker_errors import WorkerEnvironmentError

ROOT = Path(__file__).resolve().parents[2]
namespaces = pytest.mark.skipif(
    not have_namespaces(), reason="needs network namespaces and mounts, and so root"
)


@contextmanager
def session(cluster: Cluster, scratch: Path, **settings: str) -> Iterator[SparkSession]:
    """A session with an executor on either host."""
    with faults.session(cluster.url, scratch, **{**cluster.settings, **settings}) as spark:
        wait_for(lambda: faults.n_executors(spark) == 2, 200, "two executors")
        yield spark
    wait_for(lambda: not any(leftovers(cluster)), 10, f"no leftovers but {leftovers(cluster)}")


def leftovers(cluster: Cluster) -> list[str]:
    return [path for host in cluster.hosts for path in host.leftovers()]


@pytest.fixture(scope="module")
def expected(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> dict[int, Any]:
    with session(cluster, tmp_path_factory.mktemp("scratch")) as spark:
        return {n: faults.fitted(faults.rows(spark), n_workers=n) for n in (4, 8)}


SUBMITTED = """
import sys
from pyspark.sql import SparkSession
spark = SparkSession.builder.getOrCreate()

def where(_):
    import socket, sparknn
    yield socket.gethostname(), sparknn.__file__

found = set(spark.sparkContext.parallelize(range(16), 16).mapPartitions(where).collect())
print("WHERE", sorted(found))
from sparknn import NeuralNetClassifier
df = spark.range(400).selectExpr(
    "array(sin(id), cos(id), sin(3 * id)) as features", "double(sin(id) > 0) as label"
)
model = NeuralNetClassifier(hiddenLayers=[8], maxIter=5, numWorkers=4).fit(df)
print("ACCURACY", model.evaluate(df).accuracy)
"""


def test_a_program_submitted_with_the_zip(cluster: Cluster, tmp_path: Path) -> None:
    built = subprocess.run(
        [sys.executable, ".ci/build-zip", str(tmp_path)],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.strip()  # fmt: skip
    program = tmp_path / "program.py"
    program.write_text(SUBMITTED)
    conf = {**cluster.settings, "spark.ui.enabled": "false", "spark.local.dir": str(tmp_path)}
    command = [str(Path(pyspark.__file__).parent / "bin" / "spark-submit")]
    command += ["--master", cluster.url, "--py-files", built]
    command += [part for name, value in conf.items() for part in ("--conf", f"{name}={value}")]
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = processes.run([*command, program], timeout_s=400, cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stderr[-4000:]
    lines = dict(line.split(" ", 1) for line in done.stdout.splitlines() if " " in line)
    found = ast.literal_eval(lines["WHERE"])
    assert all(".zip" in path for _, path in found), found
    assert len({host for host, _ in found}) == (2 if have_namespaces() else 1)
    assert float(lines["ACCURACY"]) > 0.9
    wait_for(lambda: not leftovers(cluster), 30, "no leftovers")


def test_speculation(
    cluster: Cluster, expected: dict[int, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stalled task is run again on the other host, to which its shard is written."""
    settings = {
        "spark.speculation": "true",
        "spark.speculation.interval": "200ms",
        "spark.speculation.quantile": "0.5",
        "spark.speculation.minTaskRuntime": "1s",
        "spark.locality.wait": "1s",
    }
    faults.inject(monkeypatch, faults.stall, tmp_path, "round")
    with session(cluster, tmp_path, **settings) as spark:
        assert faults.fitted(faults.rows(spark)) == expected[4]
    assert len(faults.attempts(tmp_path, 1)) > 4
    stalled_s = faults.seconds_between(tmp_path / "fault", tmp_path, 2)
    print(
        f"speculation: the next round began {stalled_s:.0f} s after the stall of {faults.STALL_S}"
    )
    assert stalled_s < faults.STALL_S


def test_executors_removed_and_added(
    cluster: Cluster, expected: dict[int, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Dynamic allocation with shuffle tracking; a slow callback leaves all executors idle."""
    settings = {
        "spark.dynamicAllocation.enabled": "true",
        "spark.dynamicAllocation.shuffleTracking.enabled": "true",
        "spark.dynamicAllocation.initialExecutors": "2",
        "spark.dynamicAllocation.executorIdleTimeout": "1s",
        "spark.dynamicAllocation.cachedExecutorIdleTimeout": "2s",
        "spark.dynamicAllocation.shuffleTracking.timeout": "2s",
    }
    with faults.session(cluster.url, tmp_path, **{**cluster.settings, **settings}) as spark:

        def idle(round_: int) -> None:
            if round_ == 1:
                wait_for(lambda: faults.n_executors(spark) == 0, 60, "all removed")

        assert faults.fitted(faults.rows(spark), idle) == expected[4]
        # They came back.
        assert faults.n_executors(spark) > 0
    wait_for(lambda: not leftovers(cluster), 10, "no leftovers")


def test_a_decommissioned_executor(
    cluster: Cluster, expected: dict[int, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Spark moves the cached handles of its shards to another executor, but not the shards."""
    settings = {
        "spark.decommission.enabled": "true",
        "spark.storage.decommission.enabled": "true",
        "spark.storage.decommission.rddBlocks.enabled": "true",
        "spark.storage.decommission.shuffleBlocks.enabled": "true",
    }
    gone: list[int] = []
    with session(cluster, tmp_path, **settings) as spark:

        def decommission(round_: int) -> None:
            if round_ == 1:
                (pid,) = faults.executors_on(cluster.hosts[0])
                os.kill(pid, signal.SIGPWR)
                wait_for(lambda: not Path(f"/proc/{pid}").exists(), 90, "it has ended")
                gone.append(pid)

        with caplog.at_level(logging.WARNING, logger="sparknn"):
            assert faults.fitted(faults.rows(spark), decommission) == expected[4]
    assert len(gone) == 1


@contextmanager
def full(hosts: list[Host], left: int = 0) -> Iterator[None]:
    """Fill scratch disks while the block lasts."""
    fillers = [host.disk / "filler" for host in hosts]
    for path in fillers:
        faults.fill(path, left)
    try:
        yield
    finally:
        for path in fillers:
            path.unlink()


@namespaces
@pytest.mark.parametrize("phase", ["ingest", "round"])
def test_full_disks_are_an_error(phase: str, cluster: Cluster, tmp_path: Path) -> None:
    """A round of eight workers writes shuffle files."""
    with session(cluster, tmp_path) as spark:
        df = faults.rows(spark)
        filled: list[Any] = []

        def fill(round_: int) -> None:
            if round_ == 0:
                filled.append((full(cluster.hosts), time.monotonic()))
                filled[0][0].__enter__()

        try:
            if phase == "ingest":
                fill(0)
            with pytest.raises(WorkerEnvironmentError, match=r"spark\.local\.dir") as caught:
                faults.fitted(df, fill, n_workers=8)
            ((_, since),) = filled
            seconds = time.monotonic() - since
            print(f"full disk, {phase}: {seconds:.1f} s: {caught.value}")
            assert seconds < 120
        finally:
            for disks, _ in filled:
                disks.__exit__(None, None, None)


@namespaces
def test_one_full_disk_is_survived_where_spark_may_avoid_it(
    cluster: Cluster, expected: dict[int, Any], tmp_path: Path
) -> None:
    settings = {
        "spark.excludeOnFailure.enabled": "true",
        "spark.excludeOnFailure.task.maxTaskAttemptsPerNode": "1",
        "spark.excludeOnFailure.task.maxTaskAttemptsPerExecutor": "1",
    }
    with session(cluster, tmp_path, **settings) as spark, full(cluster.hosts[:1]):
        assert faults.fitted(faults.rows(spark), n_workers=8) == expected[8]


@namespaces
@pytest.mark.parametrize("timeout", ["120s", "20s"])
def test_a_network_cut_of_a_minute(
    timeout: str, cluster: Cluster, expected: dict[int, Any], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Spark waits for the host, by default, or gives it up, and its work goes to the other."""
    settings = {"spark.network.timeout": timeout}
    if timeout != "120s":
        settings |= {"spark.executor.heartbeatInterval": "4s", "spark.locality.wait": "1s"}
        settings |= {"spark.storage.blockManagerHeartbeatTimeoutMs": "20s"}
    host = cluster.hosts[0]
    cut: list[float] = []

    def cut_off() -> None:
        wait_for(lambda: faults.attempts(tmp_path, 1), 60, "round 2 runs")
        started = time.monotonic()
        with host.cut_off():
            time.sleep(60)
        cut.append(time.monotonic() - started)

    # Every task of the round takes a second, so that it is cut in the middle.
    faults.slow_down(monkeypatch, tmp_path, 1.0)
    thread = threading.Thread(target=cut_off)
    with session(cluster, tmp_path, **settings) as spark:
        thread.start()
        started = time.monotonic()
        try:
            assert faults.fitted(faults.rows(spark)) == expected[4]
        finally:
            seconds = time.monotonic() - started
            thread.join(timeout=120)
        n_attempts = len(faults.attempts(tmp_path, 1))
    print(f"cut of {cut} s, timeout {timeout}: fit {seconds:.0f} s, {n_attempts} attempts")
    assert cut
    assert (n_attempts > 4) == (timeout == "20s")
    assert (seconds > 60) == (timeout == "120s")
