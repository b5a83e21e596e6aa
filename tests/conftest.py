"""What every test may use. Only the ``spark`` fixture starts a JVM."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import processes
import pytest
import remote
from hypothesis import settings

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

# Byte equality with the engines that run in Spark's Python workers needs the same arithmetic here,
# and Spark gives a worker one thread. Read when numpy loads, so set before anything else.
os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"
os.environ["MKL_NUM_THREADS"] = "1"

# Workers run this very Python; Spark is the installed pyspark, as it comes.
os.environ["PYSPARK_PYTHON"] = os.environ["PYSPARK_DRIVER_PYTHON"] = sys.executable
for name in ("SPARK_HOME", "SPARK_CONF_DIR", "PYSPARK_SUBMIT_ARGS", "SPARK_REMOTE", "MASTER"):
    os.environ.pop(name, None)
os.environ["SPARK_LOCAL_IP"] = "127.0.0.1"
# Tests start many JVMs that live for seconds: compiling little of them, they take half the time.
os.environ["SPARK_SUBMIT_OPTS"] = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"

# Two processes on two cores, each with a Spark: what takes how long says nothing.
settings.register_profile("tests", deadline=None)
settings.load_profile("tests")

ROOT = Path(__file__).resolve().parent.parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip on old pysparks what is marked as needing a newer one."""
    if int(version("pyspark").split(".")[0]) >= 4:
        return
    for item in items:
        if item.get_closest_marker("newest_spark"):
            item.add_marker(pytest.mark.skip(reason="needs pyspark 4 or later"))


@pytest.fixture
def plain_control_c() -> Iterator[None]:
    """Python's own handler of Control-C, as in notebooks, where it replaces Spark's."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    assert signal.signal(signal.SIGINT, before) is signal.default_int_handler


@pytest.fixture
def interrupt(plain_control_c: None) -> Callable[[], None]:
    """Control-C for the main thread, which Spark's own handler does not see."""
    main = threading.get_ident()
    return lambda: signal.pthread_kill(main, signal.SIGINT)


@pytest.fixture(scope="session")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator["SparkSession"]:
    """One Spark for all tests: two slots here, nothing kept outside a temporary folder."""
    from pyspark.sql import SparkSession

    scratch = tmp_path_factory.mktemp("spark")
    builder = (
        SparkSession.builder.master("local[2]")
        .appName("sparknn tests")
        .config("spark.driver.memory", "2g")
        .config("spark.driver.bindAddress", "127.0.0.1")
        .config("spark.driver.host", "127.0.0.1")
        .config("spark.ui.enabled", "false")
        .config("spark.ui.showConsoleProgress", "false")
        .config("spark.local.dir", str(scratch / "local"))
        .config("spark.sql.warehouse.dir", str(scratch / "warehouse"))
        .config("spark.sql.shuffle.partitions", "4")
    )
    for name, value in remote.SETTINGS.items():
        builder = builder.config(name, value)
    session = builder.getOrCreate()
    session.sparkContext.setLogLevel("ERROR")
    yield session
    session.stop()


@pytest.fixture(scope="session")
def connect_server(spark: "SparkSession") -> Iterator[str]:
    """The address of a Spark Connect server in the JVM of ``spark``."""
    with remote.serving(spark) as address:
        yield address


@pytest.fixture(scope="session")
def connect_session(connect_server: str) -> Iterator["SparkSession"]:
    """A session of Spark Connect, to the JVM of ``spark``."""
    with remote.connected(connect_server) as session:
        yield session


@pytest.fixture
def connect(connect_session: "SparkSession") -> Iterator["SparkSession"]:
    """The session of Spark Connect, in a process that works over it while the test runs."""
    with remote.connect_mode():
        yield connect_session


@pytest.fixture(scope="session")
def run_python() -> Callable[..., "subprocess.CompletedProcess[str]"]:
    """Run Python source in a fresh process at the root of the checkout; fail with its stderr."""

    def run(
        source: str, *arguments: str, timeout_s: float = 120
    ) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-c", source, *arguments]
        done = processes.run(command, timeout_s=timeout_s, cwd=ROOT)
        assert done.returncode == 0, f"exit status {done.returncode}\n{done.stderr}"
        return done

    return run
