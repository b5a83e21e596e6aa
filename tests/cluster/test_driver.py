"""A driver that dies, and what becomes of its checkpoints."""

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import faults
import numpy as np
import pytest
from hosts import have_namespaces, wait_for
from pyspark.sql import DataFrame, SparkSession
from tables import table
from toys import blobs
from watching import Interrupted, rounds

from sparknn import NeuralNetClassifier

ROOT = Path(__file__).resolve().parents[2]
N_TRIALS = 10
SETTINGS: dict[str, Any] = {
    "hiddenLayers": [5],
    "maxIter": 6,
    "numWorkers": 2,
    "batchSize": 8,
    "validationFraction": 0.2,
}


@pytest.fixture(scope="module")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SparkSession]:
    with faults.session("local[2]", tmp_path_factory.mktemp("scratch")) as spark:
        yield spark


@pytest.fixture(scope="module")
def path(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = str(tmp_path_factory.mktemp("data") / "rows")
    table(spark, *blobs(200)).coalesce(1).write.parquet(path)
    return path


@pytest.fixture(scope="module")
def df(spark: SparkSession, path: str) -> DataFrame:
    return spark.read.parquet(path)


@pytest.fixture(scope="module")
def expected(df: DataFrame) -> bytes:
    return bytes(fit(df))


def fit(df: DataFrame, folder: Path | None = None, **changes: Any) -> bytes:
    kept = {} if folder is None else {"checkpointDir": str(folder), "checkpointInterval": 1}
    theta = NeuralNetClassifier(**{**SETTINGS, **kept, **changes}).fit(df).theta
    return bytes(theta.tobytes())


def drive(path: str, out: Path, folder: Path, **changes: Any) -> "subprocess.Popen[str]":
    """Start a driver that fits the same, in a process group with its JVM."""
    kept = {"checkpointDir": str(folder), "checkpointInterval": 1}
    params = json.dumps({**SETTINGS, **kept, **changes})
    program = Path(__file__).with_name("fit_of_a_driver.py")
    return subprocess.Popen(
        [sys.executable, str(program), path, f"{out}.scratch", str(out), params],
        cwd=ROOT,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def end(driver: "subprocess.Popen[str]") -> str:
    """Kill a driver, if it still runs, and return what it has written."""
    if driver.poll() is None:
        os.killpg(driver.pid, signal.SIGKILL)
    return driver.communicate(timeout=30)[1]


def finish(driver: "subprocess.Popen[str]", out: Path) -> bytes:
    try:
        _, stderr = driver.communicate(timeout=400)
    finally:
        end_quietly(driver)
    assert driver.returncode == 0, stderr[-4000:]
    return out.read_bytes()


def end_quietly(driver: "subprocess.Popen[str]") -> None:
    if driver.poll() is None:
        os.killpg(driver.pid, signal.SIGKILL)
        driver.wait(timeout=30)


def test_ten_killed_drivers(df: DataFrame, path: str, expected: bytes, tmp_path: Path) -> None:
    """Killed at any moment of the fit, ingest and checkpoints included."""
    whole = drive(path, tmp_path / "whole", tmp_path / "none")
    wait_for((tmp_path / "whole.begun").exists, 240, "the fit begins")
    started = time.monotonic()
    assert finish(whole, tmp_path / "whole") == expected
    length = time.monotonic() - started
    moments = np.random.default_rng(17).uniform(0, 0.9 * length, N_TRIALS)
    first = []
    for trial, moment in enumerate(moments):
        out, folder = tmp_path / f"{trial}", tmp_path / f"checkpoints-{trial}"
        driver = drive(path, out, folder)
        try:
            wait_for((tmp_path / f"{trial}.begun").exists, 240, "the fit begins")
            time.sleep(moment)
        finally:
            stderr = end(driver)
        assert driver.returncode == -signal.SIGKILL, stderr
        with rounds() as seen:
            assert fit(df, folder) == expected
        print(f"killed {moment:.1f} s into {length:.1f} s: continued with round {seen[0]}")
        first.append(seen[0])
        # One that is killed while it tries the folder leaves the few bytes that it wrote there.
        assert [each for each in folder.iterdir() if not each.name.startswith("probe-")] == []
    assert max(first) > 0


@pytest.fixture(scope="module")
def begun(df: DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What fits with seeds 0 (the default) and 1 left when they were interrupted."""
    folder = tmp_path_factory.mktemp("begun")
    for name, changes in (("mine", {}), ("other", {"seed": 1})):
        with rounds(die_at=5), pytest.raises(Interrupted):
            fit(df, folder / name, **changes)
    return folder


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*") if path.is_file()
    }  # fmt: skip


def part(checkpoint: Path, name: str) -> Path:
    (found,) = (checkpoint / name).glob("part-*")
    # Hadoop's own checksum would notice first.
    (checkpoint / name / f".{found.name}.crc").unlink(missing_ok=True)
    return found


def flip(checkpoint: Path, name: str) -> None:
    values = bytearray(part(checkpoint, name).read_bytes())
    values[len(values) // 3] ^= 16
    part(checkpoint, name).write_bytes(values)


def truncate(checkpoint: Path, name: str) -> None:
    os.truncate(part(checkpoint, name), part(checkpoint, name).stat().st_size // 2)


def replace(checkpoint: Path, by: Path) -> None:
    shutil.rmtree(checkpoint)
    shutil.copytree(by, checkpoint)


DAMAGES = {
    "flipped values": lambda mine, other: flip(mine, "float32"),
    "flipped metadata": lambda mine, other: flip(mine, "metadata"),
    "truncated values": lambda mine, other: truncate(mine, "float64"),
    "truncated metadata": lambda mine, other: truncate(mine, "metadata"),
    "no values": lambda mine, other: shutil.rmtree(mine / "float32"),
    "another fit's": replace,
    "another fit's values": lambda mine, other: replace(mine / "float32", other / "float32"),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_or_foreign_checkpoint(
    damage: Any, df: DataFrame, expected: bytes, begun: Path, tmp_path: Path
) -> None:
    """The one before it is used, and the other fit's are left alone."""
    folder = tmp_path / "checkpoints"
    shutil.copytree(begun / "mine", folder)
    ((mine,), (other,)) = (list((begun / name).iterdir()) for name in ("mine", "other"))
    shutil.copytree(other, folder / other.name)
    last = max(path.name for path in mine.iterdir())
    before = files(folder / other.name)
    damage(folder / mine.name / last, folder / other.name / last)
    assert files(folder / other.name) == before
    with rounds() as seen:
        assert fit(df, folder) == expected
    print(f"continued with round {seen[0]}, checkpoints {sorted(p.name for p in mine.iterdir())}")
    assert seen[0] == int(last.removeprefix("round-")) - 2
    assert files(folder / other.name) == before


@pytest.mark.skipif(not have_namespaces(), reason="needs mounts, and so root")
def test_a_full_disk_under_the_checkpoints(
    df: DataFrame, expected: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It fills up during the fit: the fit goes on. It is full from the start: an error."""
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], check=True)
    try:
        kept = {"checkpointDir": str(folder), "checkpointInterval": 1}
        estimator = NeuralNetClassifier(**{**SETTINGS, **kept})
        with rounds() as seen:
            log = logging.getLogger("sparknn")

            class Filler(logging.Handler):
                def emit(self, record: logging.LogRecord) -> None:
                    if getattr(record, "sparknn_round", None) and seen == [0, 1, 2]:
                        faults.fill(folder / "filler")

            filler = Filler()
            log.addHandler(filler)
            try:
                theta = estimator.fit(df).theta.tobytes()
            finally:
                log.removeHandler(filler)
        assert theta == expected
        assert "Could not write the checkpoint" in caplog.text
        # What the checkpoints left.
        faults.fill(folder / "more")
        started = time.monotonic()
        with pytest.raises(OSError, match="checkpointDir") as caught:
            fit(df, folder)
        print(f"full from the start: {time.monotonic() - started:.1f} s: {caught.value}")
    finally:
        # Something of Spark may still have it open.
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_two_drivers_on_one_folder(
    df: DataFrame, path: str, expected: bytes, begun: Path, tmp_path: Path
) -> None:
    """The same fit in two processes at a time, beside checkpoints of another fit."""
    folder = tmp_path / "checkpoints"
    shutil.copytree(begun / "other", folder)
    before = files(folder)
    outs = [tmp_path / "one", tmp_path / "two"]
    drivers = [drive(path, out, folder) for out in outs]
    try:
        found = [finish(*each) for each in zip(drivers, outs, strict=True)]
    finally:
        for driver in drivers:
            end_quietly(driver)
    assert found == [expected, expected]
    assert files(folder) == before
