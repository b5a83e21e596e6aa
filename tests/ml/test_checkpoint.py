"""A checkpoint is read as it was written, or not at all."""

import json
import logging
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from models import record
from pyspark.sql import SparkSession

from sparknn.core.training.fit_state import Snapshot
from sparknn.ml import weights_io
from sparknn.ml.checkpoint import CheckpointError, Checkpoints, probe
from sparknn.ml.summary import TrainingSummary
from sparknn.ml.weights_io import read_weights, write_weights


def snapshot(n_rounds: int) -> Snapshot:
    """One with numbers that are hard to write: no float64 here is a float32."""
    rng = np.random.default_rng(n_rounds)
    return Snapshot(
        [record(i, validation_loss=math.pi if i else math.nan) for i in range(n_rounds)],
        {"n_done": n_rounds, "n_steps": 1 / 3, "best_loss": math.inf, "goal": 1e-300},
        {
            "theta": rng.normal(size=23).astype(np.float32),
            "running": rng.normal(size=23) * 1e-300,
            "buffers": rng.normal(size=(2, 23)).astype(np.float32),
            "recent": np.zeros((0, 23), np.float32),
        },
    )


def same(one: Snapshot | None, other: Snapshot) -> bool:
    assert one is not None
    tables = [TrainingSummary(each.history).history for each in (one, other)]
    assert tables[0].equals(tables[1])
    assert one.numbers == other.numbers
    assert [type(n) for n in one.numbers.values()] == [type(n) for n in other.numbers.values()]
    for name, array in other.arrays.items():
        assert one.arrays[name].dtype == array.dtype
        assert one.arrays[name].shape == array.shape
        assert one.arrays[name].tobytes() == array.tobytes()
    return one.arrays.keys() == other.arrays.keys()


@pytest.fixture
def checkpoints(spark: SparkSession, tmp_path: Path) -> Checkpoints:
    # Spark would take the brackets for a pattern.
    return Checkpoints(spark, str(tmp_path / "fit[1]"), 1)


def again(checkpoints: Checkpoints) -> Checkpoints:
    """Return what a restarted driver finds."""
    return Checkpoints(checkpoints.spark, checkpoints.path, checkpoints.every)


def on_disk(checkpoints: Checkpoints) -> list[str]:
    return sorted(path.name for path in Path(checkpoints.path).iterdir())


def rewrite(folder: str, text: str) -> None:
    """Replace the metadata, and the checksum that a local disk keeps of it."""
    (part,) = Path(folder, "metadata").glob("part-*")
    part.write_text(text)
    for crc in part.parent.glob(".*.crc"):
        crc.unlink()


def test_it_comes_back_to_the_bit(
    checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights_io, "CHUNK", 10)
    checkpoints.write(snapshot(3))
    assert same(again(checkpoints).latest(), snapshot(3))


@pytest.mark.parametrize("number", [np.float32, np.float64])
def test_a_vector_keeps_its_type(spark: SparkSession, tmp_path: Path, number: Any) -> None:
    values = np.random.default_rng(0).normal(size=7).astype(number)
    write_weights(spark, values, str(tmp_path / "v"), "error")
    found = read_weights(spark, str(tmp_path / "v"), 7, number)
    assert (found.dtype, found.tobytes()) == (values.dtype, values.tobytes())
    other = np.float64 if number is np.float32 else np.float32
    with pytest.raises(ValueError, match="expected columns chunk, values"):
        read_weights(spark, str(tmp_path / "v"), 7, other)
    # As many as damaged metadata may claim.
    with pytest.raises((ValueError, MemoryError)):
        read_weights(spark, str(tmp_path / "v"), 10**18, number)


def test_there_is_none_before_the_first(checkpoints: Checkpoints) -> None:
    assert checkpoints.latest() is None
    checkpoints.clear()


def test_the_last_two_are_kept(checkpoints: Checkpoints) -> None:
    for n_rounds in (9, 10, 11):
        checkpoints.write(snapshot(n_rounds))
    assert on_disk(checkpoints) == ["round-10", "round-11"]
    found = again(checkpoints)
    assert same(found.latest(), snapshot(11))
    found.write(snapshot(12))
    assert on_disk(checkpoints) == ["round-11", "round-12"]
    found.clear()
    assert not Path(checkpoints.path).exists()


def truncate_values(folder: Path) -> None:
    (part,) = (folder / "float64").glob("part-*")
    part.write_bytes(part.read_bytes()[:-8])


def swap_values(folder: Path) -> None:
    """Whole files, of the right size, of another checkpoint."""
    shutil.rmtree(folder / "float32")
    shutil.copytree(folder.parent / "round-1" / "float32", folder / "float32")


def change_number(folder: Path) -> None:
    (part,) = (folder / "metadata").glob("part-*")
    metadata = json.loads(part.read_text())
    metadata["numbers"]["n_steps"] = 5.0
    rewrite(str(folder), json.dumps(metadata))


def flip_bits(folder: Path) -> None:
    """The disk's own checksum notices."""
    (part,) = (folder / "metadata").glob("part-*")
    part.write_bytes(part.read_bytes().replace(b"numbers", b"nombres"))


@pytest.mark.parametrize(
    ("damage", "warned"),
    [
        (lambda folder: shutil.rmtree(folder / "float32"), True),
        (truncate_values, True),
        (swap_values, True),
        (change_number, True),
        (flip_bits, True),
        (lambda folder: rewrite(str(folder), ""), True),
        (lambda folder: rewrite(str(folder), '{"formatVersion": 1, "arr'), True),
        # What a driver leaves that dies before the end: it is not even looked at.
        (lambda folder: shutil.rmtree(folder / "metadata"), False),
        (lambda folder: [path.unlink() for path in (folder / "metadata").iterdir()], False),
    ],
)
def test_unreadable_checkpoints_are_skipped(
    two_rounds: Path,
    checkpoints: Checkpoints,
    damage: Callable[[Path], object],
    warned: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    shutil.copytree(two_rounds, checkpoints.path)
    damage(Path(checkpoints.folder(2)))
    found = again(checkpoints)
    assert same(found.latest(), snapshot(1))
    warnings = [item.getMessage() for item in caplog.records if item.levelno == logging.WARNING]
    assert [
        "Skipped unreadable" in text and checkpoints.folder(2) in text for text in warnings
    ] == ([True] if warned else [])


@pytest.fixture(scope="module")
def two_rounds(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoints after rounds 1 and 2, to be copied."""
    path = tmp_path_factory.mktemp("checkpoints") / "fit"
    for n_rounds in (1, 2):
        Checkpoints(spark, str(path), 1).write(snapshot(n_rounds))
    return path


def test_another_fit_s_checkpoint_is_skipped(
    spark: SparkSession, two_rounds: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert Checkpoints(spark, str(two_rounds), 1, "another").latest() is None
    assert caplog.text.count("of another fit") == 2


def test_an_unreadable_checkpoint_is_overwritten(
    two_rounds: Path, checkpoints: Checkpoints
) -> None:
    shutil.copytree(two_rounds, checkpoints.path)
    truncate_values(Path(checkpoints.folder(2)))
    found = again(checkpoints)
    assert same(found.latest(), snapshot(1))
    # It does not count among the two that are kept.
    found.write(snapshot(3))
    found.write(snapshot(2))
    assert same(again(checkpoints).latest(), snapshot(3))
    assert {"round-2", "round-3"} <= set(on_disk(checkpoints))
    assert "round-1" not in on_disk(checkpoints)


def test_what_cannot_be_read_now_may_be_read_later(
    checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A storage that fails for an hour must not cost what was written before."""
    for n_rounds in (9, 10):
        checkpoints.write(snapshot(n_rounds))

    def fail(*_: object) -> None:
        raise TimeoutError("the storage does not answer")

    found = again(checkpoints)
    with monkeypatch.context() as patched:
        patched.setattr("sparknn.ml.checkpoint._read", fail)
        assert found.latest() is None
    for n_rounds in (1, 2, 3):
        found.write(snapshot(n_rounds))
    assert on_disk(checkpoints) == ["round-10", "round-2", "round-3", "round-9"]
    assert same(again(checkpoints).latest(), snapshot(10))


def test_a_folder_that_cannot_be_used_is_named(spark: SparkSession, tmp_path: Path) -> None:
    probe(spark, str(tmp_path / "made" / "now"))
    assert list((tmp_path / "made" / "now").iterdir()) == []
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CheckpointError, match=r"checkpointDir = '.*file/ckpt' cannot be used"):
        probe(spark, str(tmp_path / "file" / "ckpt"))
    with pytest.raises(CheckpointError, match="No FileSystem for scheme"):
        probe(spark, "nowhere://host/ckpt")
    # No pattern, although Spark's readers would take it for one.
    probe(spark, str(tmp_path / "a[1]"))


def test_a_failed_write_says_what_is_left(
    checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints.write(snapshot(1))
    full = Path(checkpoints.folder(2))
    full.mkdir()
    monkeypatch.setattr("sparknn.ml.checkpoint.remove", lambda spark, path: None)
    (full / "float32").write_text("in the way")
    with pytest.raises(CheckpointError, match=r"after round 2 .*last checkpoint is of round 1"):
        checkpoints.write(snapshot(2))
    assert same(again(checkpoints).latest(), snapshot(1))


def test_what_cannot_be_removed_is_no_reason_to_lose_a_model(
    checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(spark: SparkSession, path: str) -> None:
        raise PermissionError("not yours")

    monkeypatch.setattr("sparknn.ml.checkpoint.remove", refuse)
    checkpoints.clear()
    assert "Could not remove the checkpoints" in caplog.text
    assert "not yours" in caplog.text
