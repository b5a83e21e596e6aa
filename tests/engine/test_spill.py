"""A shard counts as there only once it is complete."""

from pathlib import Path

import pytest

from sparknn.engine import spill
from sparknn.engine.shards import ShardWriter


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    """A folder of empty shard files."""
    for part in ("train", "validation"):
        ShardWriter(tmp_path / part).finish()
    return tmp_path


def test_a_marker_is_read_back(shard: Path) -> None:
    spill._write_marker(shard, "the handle")
    assert spill._read_marker(shard) == "the handle"


@pytest.mark.parametrize("size", [0, 1, 5])
def test_a_truncated_marker_counts_as_missing(shard: Path, size: int) -> None:
    spill._write_marker(shard, "the handle")
    marker = shard / spill._MARKER
    marker.write_text(marker.read_text()[:size])
    assert spill._read_marker(shard) is None


def test_an_unreadable_marker_counts_as_missing(shard: Path) -> None:
    (shard / spill._MARKER).mkdir()
    assert spill._read_marker(shard) is None


@pytest.mark.parametrize("name", ["train/x", "validation/w"])
def test_a_shard_of_another_size_or_without_a_file_counts_as_missing(
    shard: Path, name: str
) -> None:
    spill._write_marker(shard, "the handle")
    (shard / name).write_bytes(b"more")
    assert spill._read_marker(shard) is None
    (shard / name).unlink()
    assert spill._read_marker(shard) is None


def test_a_marker_that_is_being_written_is_not_seen(
    shard: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A speculative attempt of the same task may read while the first one writes."""
    seen = []
    replace = spill.os.replace

    def look_first(source: Path, target: Path) -> None:
        seen.append(spill._read_marker(shard))
        replace(source, target)

    monkeypatch.setattr(spill.os, "replace", look_first)
    spill._write_marker(shard, "the handle")
    assert seen == [None]
    assert [path.name for path in shard.iterdir() if path.is_file()] == [spill._MARKER]
