"""Lost files, lost executors and failing tasks change nothing; broken workers are explained."""

import json
import os
import shutil
import stat
import sys
import sysconfig
import venv
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import numpy as np
import pytest
from engines import handles_of, leftovers, network_for, outcome, spec, trained, vectors
from pyspark.sql import SparkSession
from toys import blobs

from sparknn.core.config import TrainConfig
from sparknn.engine import open_engine
from sparknn.engine.interface import DataError
from sparknn.engine.spill import find_intact

RunPython = Callable[..., CompletedProcess[str]]

PREAMBLE = """
import json, os, sys, tempfile, time
from pathlib import Path
sys.path[:0] = [os.getcwd(), os.path.join(os.getcwd(), "tests")]
import numpy as np
from pyspark.sql import SparkSession
from engines import spec, network_for, outcome, vectors
from toys import blobs
from sparknn.core.config import AveragingConfig, TrainConfig
from sparknn.core.training.fit_state import FitState
from sparknn.core.training.rounds import run
from sparknn.engine import open_engine, rdd, spark_engine, tasks

def session(master, **settings):
    builder = SparkSession.builder.master(master).appName("sparknn faults")
    settings = {
        "spark.driver.memory": "1g", "spark.executor.memory": "512m",
        "spark.driver.bindAddress": "127.0.0.1", "spark.driver.host": "127.0.0.1",
        "spark.ui.enabled": "false", "spark.ui.showConsoleProgress": "false",
        "spark.local.dir": sys.argv[1], "spark.sql.shuffle.partitions": "2", **settings,
    }
    for name, value in settings.items():
        builder = builder.config(name, value)
    spark = builder.getOrCreate()
    spark.sparkContext.setLogLevel("OFF")
    return spark

def rows(spark):
    X, y = blobs(200)
    return vectors(spark, X, y, sizes=[50, 150])

def fitted(spark, on_round=lambda n: None, n_workers=4, df=None):
    df = df or rows(spark)
    with open_engine(df, spec(n_workers=n_workers, validation_fraction=0.2)) as engine:
        config = TrainConfig(network_for(engine.info), max_iter=4, batch_size=16)
        ended = lambda fit, record: on_round(record.round)
        fits = [FitState(config, AveragingConfig("nesterov", 0.5), n_workers, on_round_end=ended)]
        run(engine, fits)
        return outcome(fits)
"""


@pytest.fixture(scope="module")
def engine(spark: SparkSession) -> Iterator[Any]:
    X, y = blobs(120)
    df = vectors(spark, X, y, sizes=[50, 70])
    with open_engine(df, spec(n_workers=3, validation_fraction=0.2)) as engine:
        yield engine
    assert leftovers(spark) == []


@pytest.fixture(scope="module")
def expected(engine: Any) -> Any:
    config = TrainConfig(network_for(engine.info), max_iter=2, batch_size=16)
    return config, outcome(trained(engine, [config])), engine.digest()


def write_nan(shard: Path) -> None:
    X = np.memmap(shard / "train" / "x", np.float32, "r+")
    X[:4] = np.nan
    X.flush()


def put_a_folder_in_place_of(path: Path) -> None:
    """It cannot be read as a file, by root neither."""
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    (path / "x").mkdir(parents=True)


DAMAGES: dict[str, Callable[[Path], Any]] = {
    "deleted": shutil.rmtree,
    # As a disk that filled up, or failed, may leave it.
    "truncated": lambda shard: os.truncate(shard / "train" / "x", 100),
    "NaN in features": write_nan,
    "labels out of range": lambda shard: np.full(
        (shard / "validation" / "y").stat().st_size // 8, 1e9
    ).tofile(shard / "validation" / "y"),
    "unreadable file": lambda shard: put_a_folder_in_place_of(shard / "train" / "w"),
    "unreadable marker": lambda shard: put_a_folder_in_place_of(shard / "_SUCCESS"),
    "truncated marker": lambda shard: os.truncate(shard / "_SUCCESS", 30),
    "another folder": put_a_folder_in_place_of,
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_shard_is_written_again_and_once(
    damage: Callable[[Path], Any], engine: Any, expected: Any, caplog: pytest.LogCaptureFixture
) -> None:
    config, result, digest = expected
    # The last of each worker's folders is intact; the others were damaged by other cases.
    (root,) = {Path(handle.folder).parent for handle in handles_of(engine)}
    (shard,) = filter(find_intact, root.glob("1-*"))
    damage(shard)
    assert outcome(trained(engine, [config])) == result
    assert engine.digest() == digest
    (message,) = [text for text in caplog.messages if "again" in text]
    assert "1 shard" in message


def test_other_rows_in_a_shard_that_was_written_again_end_the_fit(
    engine: Any, expected: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "_checksums", [0, 0, 0])
    with pytest.raises(DataError, match="checkpoint") as caught:
        trained(engine, [expected[0]])
    assert caught.value.reason == "changed"


def test_shards_are_for_their_owner_only(engine: Any) -> None:
    root = Path(handles_of(engine)[0].folder).parent
    assert stat.S_IMODE(root.stat().st_mode) == 0o700


def test_local_encryption_is_refused(spark: SparkSession, monkeypatch: pytest.MonkeyPatch) -> None:
    """The setting is Spark's own from its start on, so the session is not asked."""
    monkeypatch.setattr(type(spark.conf), "get", lambda self, key, default=None: "true")
    with pytest.raises(RuntimeError, match=r"spark\.io\.encryption\.enabled"):
        open_engine(spark.range(3), spec())
    assert leftovers(spark) != []


def test_failing_tasks_are_tried_again(run_python: RunPython, tmp_path: Path) -> None:
    run_python(
        PREAMBLE
        + """
from pyspark import TaskContext
from pyspark.sql import functions as F
spark = session("local[2,3]")
expected = fitted(spark)

train, from_json = tasks.train, rdd.ShardHandle.from_json

def flaky_train(broadcast, round_, weight_scale, shape, handles):
    for result in train(broadcast, round_, weight_scale, shape, handles):
        # After the work was done, so that doing it twice would show.
        if TaskContext.get().attemptNumber() == 0 and round_ % 2:
            raise RuntimeError("lost on the way")
        yield result

class FlakyHandle:
    @staticmethod
    def from_json(text):
        if TaskContext.get().attemptNumber() == 0:
            raise RuntimeError("lost after the shard was written")
        return from_json(text)

tasks.train, rdd.ShardHandle = flaky_train, FlakyHandle
assert fitted(spark) == expected
assert not list(Path(sys.argv[1]).rglob("sparknn-*"))
spark.stop()
""",
        str(tmp_path),
        timeout_s=300,
    )


def test_a_killed_executor_is_survived(run_python: RunPython, tmp_path: Path) -> None:
    run_python(
        PREAMBLE
        + """
import signal
import logging, remote
from pyspark.sql import functions as F
from sparknn.engine.interface import DataError
# Files of executors that were killed need not be asked for again and again.
once = {"spark.shuffle.io.maxRetries": "1", "spark.shuffle.io.retryWait": "100ms"}
settings = {"spark.cores.max": "2", **once, **remote.SETTINGS}
spark = session("local-cluster[2,1,1024]", **settings)
jvm = spark.sparkContext._gateway.proc.pid

def executors():
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
            command = (stat.parent / "cmdline").read_bytes()
        except OSError:
            continue
        if parent == jvm and b"CoarseGrainedExecutorBackend" in command:
            found.append(int(stat.parent.name))
    return sorted(found)

def wait_for_both():
    while spark.sparkContext._jsc.sc().getExecutorMemoryStatus().size() < 3:
        time.sleep(0.1)

wait_for_both()
counted, warn = [], spark_engine._warn_if_skewed
spark_engine._warn_if_skewed = lambda handles, n_executors: counted.append(n_executors)
# What is read again behind a shuffle comes in another order.
df = rows(spark).repartition(3, "label")
expected = fitted(spark, df=df)
assert counted == [2]
spark_engine._warn_if_skewed = warn
killed = []

def kill(round_):
    if round_ == 1:
        killed.append(executors()[0])
        os.kill(killed[0], signal.SIGKILL)

assert fitted(spark, kill, df=df) == expected
assert len(killed) == 1
assert killed[0] not in executors()

# Rows that are others when they are read again.
path = Path(sys.argv[1], "add")
path.write_text("0")

def label(value):
    return (value + int(path.read_text())) % 3

changing = df.withColumn("label", F.udf(label, "double")("label"))
killed.clear()
wait_for_both()

def change_and_kill(round_):
    # All executors, so that rows are read again.
    path.write_text("1")
    if round_ == 1:
        killed.extend(executors())
        for pid in killed:
            os.kill(pid, signal.SIGKILL)

try:
    fitted(spark, change_and_kill, df=changing)
except DataError as error:
    assert error.reason == "changed"
else:
    raise AssertionError("nothing was noticed")
assert len(killed) == 2

# Over Spark Connect, handles that an executor held are gone, not made again by lineage.
path = sys.argv[1] + "/rows"
rows(spark).write.parquet(path)
expected = fitted(spark, df=spark.read.parquet(path))
said = []
handler = logging.Handler()
handler.emit = lambda record: said.append(record.getMessage())
logging.getLogger("sparknn").addHandler(handler)
killed.clear()
wait_for_both()
with remote.serving(spark) as address, remote.connected(address) as client, remote.connect_mode():
    assert fitted(client, kill, df=client.read.parquet(path)) == expected
    assert client.catalog.listTables() == []
assert len(killed) == 1
assert [text for text in said if "lost with their executors" in text]
left = [str(found) for found in Path(sys.argv[1]).rglob("sparknn-*")]
assert left == []
spark.stop()
""",
        str(tmp_path),
        timeout_s=400,
    )


@pytest.fixture
def bare_python(tmp_path: Path) -> Path:
    """A Python of this version with nothing installed."""
    venv.create(tmp_path / "bare", with_pip=False)
    return tmp_path / "bare" / "bin" / "python"


def test_workers_without_numpy_or_sparknn_are_explained(
    run_python: RunPython, tmp_path: Path, bare_python: Path
) -> None:
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    done = run_python(
        PREAMBLE
        + """
import numpy as np
from sparknn.engine.worker_errors import WorkerEnvironmentError
from sparknn.ml.weights_io import read_weights, write_weights
# Workers must not find sparknn by the way it is found here.
os.environ.pop("PYTHONPATH", None)
root = os.getcwd()
os.chdir(sys.argv[1])
os.environ["PYSPARK_PYTHON"] = sys.argv[2]

def said():
    spark = session("local[2]")
    started = time.monotonic()
    df = spark.range(10).selectExpr("array(double(id)) as features", "id % 2 as label")
    saved = spark.range(1).selectExpr("int(id) as chunk", "array(float(1)) as values")
    saved.write.mode("overwrite").parquet("saved")
    messages = []
    for call in (
        lambda: open_engine(df, spec()),
        lambda: read_weights(spark, "saved", 1, np.float32),
        lambda: write_weights(spark, np.ones(1, np.float32), "begun", "overwrite"),
    ):
        try:
            call()
        except WorkerEnvironmentError as error:
            messages.append(str(error))
    seconds = time.monotonic() - started
    spark.stop()
    return [messages, seconds]

# A path file lends the bare Python sparknn alone, then, in its place, all packages but sparknn
# (the other environment's own path files play no part).
lent = Path(sys.argv[3], "lent.pth")
lent.write_text(root)
first = said()
lent.write_text(sys.argv[4])
print(json.dumps([first, said()]))
""",
        str(tmp_path),
        str(bare_python),
        str(bare_python.parent.parent / "lib" / version / "site-packages"),
        sysconfig.get_paths()["purelib"],
        timeout_s=300,
    )
    (numpy_less, numpy_s), (sparknn_less, sparknn_s) = json.loads(done.stdout)
    assert "could not be removed" not in done.stderr
    # A fit and a save; a load needs no workers.
    assert (len(numpy_less), len(sparknn_less)) == (2, 2)
    for message in numpy_less:
        assert "which sparknn needs" in message
        assert "Set PYSPARK_PYTHON" in message
    for message in sparknn_less:
        assert "cannot import sparknn" in message
        assert "Set PYSPARK_PYTHON" in message
        assert "--py-files" in message
    assert max(numpy_s, sparknn_s) < 100
