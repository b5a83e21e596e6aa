"""A shard counts as there only once it is complete, and only while it is intact."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sparknn.engine import spill
from sparknn.engine.shards import Block, ShardWriter
from sparknn.engine.spill import ShardHandle, find_intact


@pytest.fixture
def shard(tmp_path: Path) -> ShardHandle:
    """A shard of one row, and no marker yet."""
    writers = [ShardWriter(tmp_path / "shard" / part) for part in ("train", "validation")]
    writers[0].append(Block(1, 2, bytes(8), bytes(8), bytes(8), b"", b""))
    for writer in writers:
        writer.finish()
    checksum = spill._combine(each for writer in writers for each in writer.checksums.values())
    folder = str(tmp_path / "shard")
    return ShardHandle(0, "host", folder, "scratch", classifies=True, n_rows=1, checksum=checksum)


def test_a_marker_is_read_back(shard: ShardHandle) -> None:
    assert find_intact(Path(shard.folder)) is None
    spill._write_marker(shard)
    assert find_intact(Path(shard.folder)) == shard


def replace(path: Path, content: str | bytes | None) -> None:
    """By other content; None is a folder, which cannot be read, as a file without permission."""
    path.unlink()
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content.encode() if isinstance(content, str) else content)


@pytest.mark.parametrize("name", ["train/x", "validation/w"])
@pytest.mark.parametrize("content", [b"more", None])
def test_a_file_of_another_size_or_kind(
    shard: ShardHandle, name: str, content: bytes | None
) -> None:
    spill._write_marker(shard)
    replace(Path(shard.folder, name), content)
    assert find_intact(Path(shard.folder)) is None


@pytest.mark.parametrize("content", ["", "[", "1", "[24, 1]", '[24, {"odd": 1}]', "\xff", None])
def test_a_marker_that_is_cut_off_or_something_else(
    shard: ShardHandle, content: str | None
) -> None:
    spill._write_marker(shard)
    replace(Path(shard.folder, spill._MARKER), content)
    assert find_intact(Path(shard.folder)) is None


@pytest.mark.parametrize("opened", [False, True])
def test_other_bytes_are_found_and_files_are_read_once(
    shard: ShardHandle, opened: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether they were changed before the shard was first opened, or later."""
    read: list[Any] = []
    checksum: Callable[[Path], int] = spill.file_checksum
    monkeypatch.setattr(spill, "file_checksum", lambda path: read.append(path) or checksum(path))
    folder = Path(shard.folder)
    spill._write_marker(shard)
    if opened:
        assert find_intact(folder) == find_intact(folder) == shard
        assert len(read) == len(set(read)) == 10
    with (folder / "train" / "y").open("r+b") as file:
        file.write(b"\1")
    assert find_intact(folder) is None
    # It is not read in every round.
    read.clear()
    assert find_intact(folder) is None
    assert not read


def test_a_marker_that_is_being_written_is_not_seen(
    shard: ShardHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A speculative attempt of the same task may read while the first one writes."""
    seen = []
    folder = Path(shard.folder)
    replace = spill.os.replace

    def look_first(source: Path, target: Path) -> None:
        seen.append(find_intact(folder))
        replace(source, target)

    monkeypatch.setattr(spill.os, "replace", look_first)
    spill._write_marker(shard)
    assert seen == [None]
    assert [path.name for path in folder.iterdir() if path.is_file()] == [spill._MARKER]
