"""Tasks, Python workers, daemons, executors and shuffle files that are lost: the same bytes."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import faults
import pytest
from hosts import wait_for
from pyspark.sql import SparkSession


@pytest.fixture(scope="module")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SparkSession]:
    scratch = tmp_path_factory.mktemp("scratch")
    with faults.session("local-cluster[2,2,1024]", scratch, **{"spark.cores.max": "4"}) as spark:
        yield spark
    assert list(scratch.rglob("sparknn-*")) == []


@pytest.fixture(scope="module")
def expected(spark: SparkSession) -> dict[int, Any]:
    wait_for(lambda: faults.n_executors(spark) == 2, 200, "two executors")
    return {n: faults.fitted(faults.rows(spark), n_workers=n) for n in (4, 8)}


FAULTS = {
    "a task fails": faults.fail,
    "a Python worker is killed": faults.kill_worker,
    "the daemon of Python workers is killed": faults.kill_daemon,
    "an executor is killed": faults.kill_executor,
}


@pytest.mark.parametrize("phase", ["scatter", "spill", "round"])
@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_a_lost_task_changes_nothing(
    fault: faults.Fault,
    phase: str,
    spark: SparkSession,
    expected: dict[int, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wait_for(lambda: faults.n_executors(spark) == 2, 200, "two executors")
    faults.inject(monkeypatch, fault, tmp_path, phase)
    assert faults.fitted(faults.rows(spark)) == expected[4]
    assert (tmp_path / "fault").exists()


def test_fetch_failures_between_levels_of_the_sum(
    spark: SparkSession, expected: dict[int, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eight workers are summed over two levels, with a shuffle between them."""
    wait_for(lambda: faults.n_executors(spark) == 2, 200, "two executors")
    faults.inject(monkeypatch, faults.fail, tmp_path / "no", "round", at=-1)
    (tmp_path / "no").mkdir()
    faults.lose_shuffle_files(monkeypatch, tmp_path)
    assert faults.fitted(faults.rows(spark), n_workers=8) == expected[8]
    assert int((tmp_path / "removed").read_text()) > 0
    # Tasks of the level below ran again.
    assert len(faults.attempts(tmp_path / "no", 0)) > 8
