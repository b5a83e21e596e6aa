"""Find out in a minute how ``fit`` works in a session: what executors have, where shards stay."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from platform import python_version
from typing import TYPE_CHECKING

import pyspark

from sparknn import __version__
from sparknn.engine import open_engine
from sparknn.engine.interface import DataSpec
from sparknn.engine.sql import default_parallelism, is_connect
from sparknn.engine.worker_errors import WorkerEnvironmentError, root_cause, translate_worker_errors

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import SparkSession

_WORKER_DDL = "host string, versions string, sparknn string, dirs string, free_bytes bigint"


@dataclass(frozen=True)
class Diagnosis:
    """Describe a session; its text is the report.

    Parameters
    ----------
    lines : tuple of (str, str)
        Subjects, and what was found.
    problem : str
        Why ``fit`` cannot work here; empty if it does.
    """

    lines: tuple[tuple[str, str], ...]
    problem: str

    def __str__(self) -> str:
        last = ("problem", self.problem) if self.problem else ("fit", "works in this session")
        return "\n".join(f"{subject:<10}{text}" for subject, text in (*self.lines, last))

    __repr__ = __str__


def doctor(spark: SparkSession, shardDir: str = "") -> Diagnosis:
    """Report how ``fit`` works in a session, by an ingest and two empty rounds of a few rows.

    Parameters
    ----------
    spark : SparkSession
        Of either kind.
    shardDir : str
        As the param of the estimators.

    Examples
    --------
    >>> sparknn.doctor(spark)  # doctest: +SKIP
    """
    kind = "Spark Connect" if is_connect(spark) else "classic"
    here = f"pyspark {pyspark.__version__}, sparknn {__version__}, Python {python_version()}"
    lines = [("session", f"{kind}, Spark {spark.version}; here {here}")]
    problem = ""
    try:
        with translate_worker_errors():
            n_slots = default_parallelism(spark)
            lines.append(("slots", f"{n_slots}, the default of numWorkers"))
            lines += _executors(spark, n_slots)
        lines += _placement(spark, n_slots, shardDir)
    except WorkerEnvironmentError as error:
        problem = str(error)
    except Exception as error:
        # Whatever a platform refuses is what is asked for.
        problem = f"{type(error).__name__}: {root_cause(error)}"
    return Diagnosis(tuple(lines), problem)


def _executors(spark: SparkSession, n_slots: int) -> list[tuple[str, str]]:
    found = spark.range(0, n_slots, 1, n_slots).mapInArrow(_describe_worker, _WORKER_DDL)
    workers = sorted({row.host: row for row in found.collect()}.items())
    by_versions: dict[str, list[str]] = {}
    for host, row in workers:
        by_versions.setdefault(f"{row.versions}, sparknn {row.sparknn}", []).append(host)
    lines = [("executors", f"{', '.join(hosts)}: {each}") for each, hosts in by_versions.items()]
    if any(row.sparknn not in (__version__, "missing") for _, row in workers):
        lines.append(("warning", f"executors have another sparknn than {__version__}, used here"))
    fewest, host = min((row.free_bytes, host) for host, row in workers)
    dirs = dict(workers)[host].dirs or "SPARK_LOCAL_DIRS is not set"
    return [*lines, ("scratch", f"{dirs}: {fewest / 2**30:.1f} GiB free on {host}")]


def _placement(spark: SparkSession, n_slots: int, shard_dir: str) -> list[tuple[str, str]]:
    rows = spark.range(0, 8 * n_slots, 1, n_slots)
    df = rows.selectExpr("array(double(id), double(id % 3)) as features", "id % 2 as label")
    spec = DataSpec("features", "label", True, n_slots, seed=0, shard_dir=shard_dir)
    with open_engine(df, spec) as engine:
        engine.digest()
        started = time.perf_counter()
        engine.digest()
        round_s = time.perf_counter() - started
    if engine.rereads:
        where = "lost between jobs: every round reads all rows again. Set shardDir"
    elif shard_dir:
        where = f"in {shard_dir}, which all executors share"
    else:
        where = "on the executors' disks, where tasks find them again"
    return [("shards", where), ("round", f"takes {round_s:.2f} s without training")]


def _describe_worker(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Describe a Python worker, by functions and modules that are there without sparknn."""
    import os
    import platform
    import shutil
    import socket
    import tempfile
    from importlib import import_module

    import pyarrow

    def version(name: str) -> str:
        try:
            return str(import_module(name).__version__)
        except ImportError:
            return "missing"

    list(batches)
    packages = [f"{name} {version(name)}" for name in ("numpy", "pandas", "pyarrow")]
    versions = ", ".join([f"Python {platform.python_version()}", *packages])
    dirs = os.environ.get("SPARK_LOCAL_DIRS", "")
    free = shutil.disk_usage(dirs.split(",")[0] or tempfile.gettempdir()).free
    row: dict[str, object] = {"host": socket.gethostname(), "versions": versions}
    row |= {"sparknn": version("sparknn"), "dirs": dirs, "free_bytes": free}
    yield pyarrow.RecordBatch.from_pylist([row])


# pickled by value: executors may lack sparknn, which is what is asked for.
_describe_worker.__module__ = "__main__"
