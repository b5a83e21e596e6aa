"""Over Spark Connect, the engine returns the bytes of the others and leaves nothing behind."""

import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from engines import (
    handles_of,
    leftovers,
    network_for,
    outcome,
    plain_engine,
    shard_bytes,
    shards,
    soon,
    spec,
    trained,
    wait_for_tasks,
)
from pyspark.errors import AnalysisException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from remote import connect_mode

from sparknn.core.config import AveragingConfig, TrainConfig
from sparknn.core.training.fit_state import FitState
from sparknn.core.training.rounds import run
from sparknn.engine import connect as connect_module
from sparknn.engine import open_engine, shared_folder, tasks
from sparknn.engine.connect import ConnectEngine
from sparknn.engine.interface import DataError
from sparknn.engine.spill import ShardHandle
from sparknn.engine.sql import get_conf
from sparknn.engine.worker_errors import WorkerEnvironmentError

pytestmark = pytest.mark.newest_spark

# Trains until somebody stops it.
ENDLESS = {"max_iter": 1, "local_epochs": 1_000_000}


@pytest.fixture(autouse=True)
def nothing_left(spark: SparkSession, connect: SparkSession) -> Iterator[None]:
    """Compare the server and this process before and after each test."""
    cached = spark._jsparkSession.sharedState().cacheManager()
    threads = set(own_threads())
    assert leftovers(spark) == []
    yield
    wait_for_tasks(spark)
    assert leftovers(spark) == []
    # RDDs of checkpoints, of a few hundred bytes, go when the JVM collects garbage.
    assert cached.isEmpty()
    assert connect.catalog.listTables() == []
    assert connect.getTags() == set()
    assert set(own_threads()) - threads == set()
    assert not spark.sparkContext.statusTracker().getActiveJobsIds()


def own_threads() -> list[threading.Thread]:
    """Threads but those of pyspark's client, which stay for the next operation."""
    return [
        t for t in threading.enumerate() if not t.name.startswith(("ThreadPool", "Thread-", "grpc"))
    ]


def skewed(session: SparkSession) -> DataFrame:
    """Partitions of 0, 140, 1, 0 and 62 rows, of which some weigh 0 and some are for validation."""
    starts = "case id when 1 then 0 when 2 then 140 when 4 then 141 end"
    ends = "case id when 1 then 139 when 2 then 140 when 4 then 202 end"
    rows = session.range(0, 5, 1, 5).selectExpr(f"explode(sequence({starts}, {ends})) as i")
    features = ", ".join(f"sin({k} * i + {k})" for k in (1, 2, 3))
    return rows.selectExpr(
        f"array({features}) as features",
        "case when sin(i + 1) > 0.3 then 2 when sin(2 * i + 2) > 0 then 1 else 0 end as label",
        "i % 4 / 2 as weight",
        "i % 5 = 0 as validation",
    )


COLUMNS: dict[str, Any] = {"weight": "weight", "validation_indicator": "validation"}


def config(engine: Any, **changes: Any) -> TrainConfig:
    network = network_for(engine.info, hidden=changes.pop("hidden", 5))
    return TrainConfig(network, **({"seed": 5, "max_iter": 2, "batch_size": 16} | changes))


def fitted(df: DataFrame, n_workers: int, shard_dir: str = "") -> Any:
    """Two networks and what is known of the rows, by the engine of the session."""
    with open_engine(df, spec(n_workers=n_workers, shard_dir=shard_dir, **COLUMNS)) as engine:
        configs = [config(engine), config(engine, solver="adam", local_epochs=2, dropout=0.2)]
        averaging = AveragingConfig("nesterov", 0.5, final="best")
        result = outcome(trained(engine, configs, averaging))
        if isinstance(engine, ConnectEngine) and not engine.rereads:
            assert outcome(trained(plain_engine(engine), configs, averaging)) == result
        statistics = engine.statistics()
        return result, engine.info, engine.digest(), statistics.mean.tobytes(), engine.n_slots


@pytest.fixture(scope="module")
def expected(connect_session: SparkSession) -> Any:
    """What three workers return whose shards stay on their executors."""
    with connect_mode():
        return fitted(skewed(connect_session), 3)


@pytest.mark.parametrize("n_workers", [1, 2, 7])
def test_equals_the_plain_and_the_classic_engine_to_the_byte(
    spark: SparkSession, connect: SparkSession, n_workers: int
) -> None:
    found = fitted(skewed(connect), n_workers)
    with connect_mode(False):
        assert found == fitted(skewed(spark), n_workers)


def test_shards_in_a_shared_directory(
    spark: SparkSession, connect: SparkSession, tmp_path: Path, expected: Any
) -> None:
    assert fitted(skewed(connect), 3, str(tmp_path)) == expected
    with connect_mode(False):
        assert fitted(skewed(spark), 3, str(tmp_path)) == expected
    assert not list(tmp_path.iterdir())


def test_nothing_stays_in_a_shared_directory(
    spark: SparkSession, connect: SparkSession, tmp_path: Path, interrupt: Callable[[], None]
) -> None:
    """Nor on scratch disks; after an error in the rows, a lost shard, and Control-C in a round."""
    shared = spec(shard_dir=str(tmp_path))
    with pytest.raises(DataError):
        open_engine(skewed(connect).withColumn("label", F.lit(-1)), shared)
    assert not list(tmp_path.iterdir())
    engine = open_engine(skewed(connect), shared)
    (folder,) = tmp_path.iterdir()
    assert folder.stat().st_mode & 0o777 == 0o700
    before = engine.digest()
    lost, _ = (Path(handle.folder) for handle in handles_of(engine))
    assert lost.parent == folder
    shutil.rmtree(lost)
    assert engine.digest() == before
    thread = soon(spark, interrupt)
    with pytest.raises(KeyboardInterrupt), engine:
        trained(engine, [config(engine, **ENDLESS)])
    thread.join()
    assert not list(tmp_path.iterdir())


def checkpoints(monkeypatch: pytest.MonkeyPatch, frames: type[DataFrame], answer: str) -> None:
    """Let a session do with checkpoints what platforms without caches may do."""
    checkpoint = frames.localCheckpoint

    def refused(frame: DataFrame) -> DataFrame:
        raise NotImplementedError

    def elsewhere(frame: DataFrame) -> DataFrame:
        kept = checkpoint(frame)
        for (text,) in kept.collect():
            shutil.rmtree(ShardHandle.from_json(text).folder)
        return kept

    answers = {"refused": refused, "ignored": lambda frame: frame, "elsewhere": elsewhere}
    monkeypatch.setattr(frames, "localCheckpoint", answers[answer])


@pytest.mark.parametrize("answer", ["refused", "ignored", "elsewhere"])
def test_without_shards_that_stay_every_round_reads_the_rows(
    spark: SparkSession,
    connect: SparkSession,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    expected: Any,
    answer: str,
) -> None:
    df = skewed(connect)
    checkpoints(monkeypatch, type(df), answer)
    if answer == "refused":
        assert fitted(df, 3) == expected
    else:
        with open_engine(df, spec(n_workers=3, **COLUMNS)) as engine:
            assert engine.rereads
            assert leftovers(spark) == []
            assert engine.digest() == expected[2]
    assert [r.levelname for r in caplog.records if "shardDir" in r.getMessage()] == ["WARNING"]


def test_rows_that_are_read_in_every_round_must_not_change(
    connect: SparkSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    df = skewed(connect)
    checkpoints(monkeypatch, type(df), "refused")
    with open_engine(df, spec()) as engine:
        engine._checksums[0] += 1
        with pytest.raises(DataError) as raised:
            trained(engine, [config(engine)])
        assert raised.value.reason == "changed"
        monkeypatch.setattr(connect_module, "MAX_CLOSURE_BYTES", 100)
        with pytest.raises(RuntimeError, match="shardDir"):
            trained(engine, [config(engine)])


def test_a_directory_that_is_not_there_or_not_shared(
    spark: SparkSession, connect: SparkSession, tmp_path: Path
) -> None:
    with pytest.raises(WorkerEnvironmentError, match=r"shardDir.*No such file"):
        open_engine(skewed(connect), spec(shard_dir=str(tmp_path / "nowhere")))
    written = [[str(tmp_path / "on another host")]]

    def run_everywhere(task: Any) -> list[str]:
        return written.pop() if written else list(task([]))

    with pytest.raises(WorkerEnvironmentError, match="not the same directory"):
        shared_folder.make(run_everywhere, str(tmp_path / "f"))


def test_settings_that_cannot_be_read_have_their_defaults() -> None:
    """As on Databricks serverless."""

    class Conf:
        def get(self, name: str, default: str) -> str:
            raise AnalysisException("[CONFIG_NOT_AVAILABLE]")

    assert get_conf(SimpleNamespace(conf=Conf()), "a", "b") == "b"  # type: ignore[arg-type]


def test_validation_rows_drawn_of_few_are_those_of_the_classic_engine(
    spark: SparkSession, connect: SparkSession
) -> None:
    def drawn(session: SparkSession) -> list[dict[str, bytes]]:
        rows = session.range(0, 2, 1, 2).selectExpr("array(id * 1.5D) as features", "id as label")
        with open_engine(rows, spec(seed=1, validation_fraction=0.2)) as engine:
            assert (engine.info.n_rows, engine.info.n_validation) == (1, 1)
            return shard_bytes(engine)

    found = drawn(connect)
    with connect_mode(False):
        assert found == drawn(spark)


def test_rows_that_change_at_their_source_are_not_read_again(
    connect: SparkSession, tmp_path: Path
) -> None:
    skewed(connect).write.parquet(str(tmp_path / "rows"))
    df = connect.read.parquet(str(tmp_path / "rows"))
    with open_engine(df, spec(**COLUMNS)) as engine:
        before = {handle.folder for handle in handles_of(engine)}
        skewed(connect).write.mode("append").parquet(str(tmp_path / "rows"))
        trained(engine, [config(engine)])
        scratch = Path(handles_of(engine)[0].folder).parent
        assert {str(path) for path in scratch.iterdir()} == before


def test_a_lost_shard_is_written_again(
    connect: SparkSession, caplog: pytest.LogCaptureFixture, expected: Any
) -> None:
    df = skewed(connect)
    with open_engine(df, spec(n_workers=3, **COLUMNS)) as engine:
        configs = [config(engine), config(engine, solver="adam", local_epochs=2, dropout=0.2)]
        fits = [FitState(each, AveragingConfig("nesterov", 0.5, final="best"), 3)
                for each in configs]  # fmt: skip
        folders = [Path(handle.folder) for handle in handles_of(engine)]
        shutil.rmtree(folders[0])
        assert engine.digest() == expected[2]

        def lose(fit: FitState, record: Any) -> None:
            if record.round == 0:
                for folder in (*folders[0].parent.glob("0-*"), folders[1]):
                    shutil.rmtree(folder)

        fits[0].on_round_end = lose
        run(engine, fits)
        assert outcome(fits) == expected[0]
    lost = [record.getMessage() for record in caplog.records if "writing again" in record.msg]
    assert lost == [
        f"{shards} lost or damaged: writing again." for shards in ("1 shard", "2 shards")
    ]


def test_shards_that_are_lost_again_and_again_end_the_fit(
    connect: SparkSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_engine(skewed(connect), spec()) as engine:
        results = engine._results  # type: ignore[attr-defined]
        monkeypatch.setattr(
            engine, "_results", lambda *given: ((n, None) for n, _ in results(*given))
        )
        with pytest.raises(RuntimeError, match="were lost 4 times"):
            engine.digest()


def test_large_networks_travel_in_pieces(
    connect: SparkSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_engine(skewed(connect), spec(**COLUMNS)) as engine:
        # Some 11 MiB: three rows, in two pieces, and as many rows of results.
        changes: dict[str, Any] = {"solver": "sgd", "max_iter": 1, "batch_size": 200}
        configs = [config(engine, hidden=400_000, **changes)]
        expected = outcome(trained(engine, configs))
        monkeypatch.setattr(connect_module, "MAX_CLOSURE_BYTES", 1 << 20)
        monkeypatch.setattr(connect_module, "_PIECE_BYTES", 2 * connect_module.ROW_BYTES)
        sent: list[int] = []
        create = type(connect.range(1)).createTempView
        monkeypatch.setattr(
            type(connect.range(1)),
            "createTempView",
            lambda frame, name: sent.append(1) or create(frame, name),
        )
        assert outcome(trained(engine, configs)) == expected
        assert len(sent) % 2 == 0 < len(sent)


def test_old_versions_are_refused(connect: SparkSession, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connect_module.pyspark, "__version__", "3.5.9")
    with pytest.raises(RuntimeError, match=r"needs pyspark 4\.0"):
        open_engine(skewed(connect), spec())


def test_rows_that_cannot_be_used_are_reported(connect: SparkSession) -> None:
    df = skewed(connect).withColumn("label", F.lit(-1))
    with pytest.raises(DataError, match="negative in 203 of 203 rows"):
        open_engine(df, spec())


def test_an_error_in_a_worker_ends_the_fit(
    connect: SparkSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*arguments: Any) -> Any:
        raise ZeroDivisionError("in a task")

    # Pickled by value, as workers cannot import this file.
    broken.__module__ = "__main__"
    monkeypatch.setattr(tasks, "train_shard", broken)
    with (
        open_engine(skewed(connect), spec()) as engine,
        pytest.raises(Exception, match="in a task"),
    ):
        trained(engine, [config(engine)])


def test_control_c_in_a_round(
    spark: SparkSession, connect: SparkSession, interrupt: Callable[[], None]
) -> None:
    engine = open_engine(skewed(connect), spec())
    thread = soon(spark, interrupt)
    with pytest.raises(KeyboardInterrupt), engine:
        trained(engine, [config(engine, **ENDLESS)])
    thread.join()


def test_control_c_while_rows_are_ingested(
    spark: SparkSession, connect: SparkSession, interrupt: Callable[[], None]
) -> None:
    slow = "case when java_method('java.lang.Thread', 'sleep', 500L) is null then label end"
    df = skewed(connect).withColumn("label", F.expr(slow))
    thread = soon(spark, interrupt)
    with pytest.raises(KeyboardInterrupt):
        open_engine(df, spec())
    thread.join()


def test_an_operation_that_the_user_cancels(spark: SparkSession, connect: SparkSession) -> None:
    engine = open_engine(skewed(connect), spec())
    connect.addTag("the user's")
    thread = soon(spark, lambda: connect.interruptTag("the user's") and None)
    try:
        with pytest.raises(Exception, match="OPERATION_CANCELED"), engine:
            trained(engine, [config(engine, **ENDLESS)])
    finally:
        assert connect.getTags() == {"the user's"}
        connect.removeTag("the user's")
        thread.join()


def test_two_engines_at_once(connect: SparkSession) -> None:
    df = skewed(connect)
    with open_engine(df, spec()) as one, open_engine(df, spec()) as two:
        first = outcome(trained(one, [config(one)]))
        assert outcome(trained(two, [config(two)])) == first
        for (a, _), (b, _) in zip(shards(one), shards(two), strict=True):
            np.testing.assert_array_equal(a.X, b.X)
