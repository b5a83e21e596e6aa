"""Ingest, second half: write a worker's blocks to its shard, and return a small handle to it."""

from __future__ import annotations

import json
import os
import shutil
import socket
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyspark import TaskContext
from pyspark.sql import Row

from sparknn.core.data.rows import Rows
from sparknn.engine.decode import IngestTask
from sparknn.engine.python_worker import freeze_gc
from sparknn.engine.scatter import COUNTS, TRAIN, VALIDATION, checksum, widen
from sparknn.engine.shards import (
    SCRATCH_PREFIX,
    Block,
    ShardRows,
    ShardWriter,
    file_checksum,
    scratch_dirs,
    scratch_folder,
)
from sparknn.engine.worker_errors import ShardWriteError

HANDLE_SCHEMA = pa.schema([("handle", pa.string())])
HANDLE_DDL = "handle string"

# The file that marks a shard as complete: the size of its files, and its handle.
_MARKER = "_SUCCESS"
# The file that says in which state its files had the right checksum.
_VERIFIED = "_VERIFIED"
_PARTS = ("train", "validation")


@dataclass
class ShardHandle:
    """Locate a worker's shard, and describe its rows.

    Parameters
    ----------
    partition : int
    host, folder : str
        ``folder`` is unique to the task attempt that wrote the shard. ``host`` is empty if all
        executors share it.
    scratch : str
        Spark's first scratch folder of the executor: with ``host``, it identifies the executor.
    n_rows, n_validation : int
    weight_sum : float
        Of the training rows.
    class_weights : dict
        Sum of the training weights of each class, 0 if it has validation rows only; keys are
        labels as text.
    ingest_counts : list of dict
        What source partitions counted (see ``decode.IngestCounts``).
    classifies : bool
    sparse : bool
        Whether the training rows are kept as entries.
    checksum : int
        Of all its files: equal for equal rows in the same order.
    received : int
        Sum of the checksums of its blocks.
    """

    partition: int
    host: str
    folder: str
    scratch: str
    classifies: bool
    n_rows: int = 0
    n_validation: int = 0
    weight_sum: float = 0.0
    class_weights: dict[str, float] = field(default_factory=dict)
    ingest_counts: list[dict[str, Any]] = field(default_factory=list)
    sparse: bool = False
    checksum: int = 0
    received: int = 0

    @classmethod
    def from_json(cls, text: str) -> ShardHandle:
        return cls(**json.loads(text))

    def to_json(self) -> str:
        """Return what ``from_json`` reads."""
        return json.dumps(asdict(self))

    def without_counts(self) -> ShardHandle:
        """Return what a round needs: the driver reads the counts of ingest once."""
        return replace(self, ingest_counts=[])

    @property
    def location(self) -> tuple[str, str]:
        """Return the host, and the folder of this fit's shards there."""
        return self.host, str(Path(self.folder).parent)

    @property
    def executor(self) -> tuple[str, str]:
        """Identify the executor that wrote the shard, across hosts."""
        return self.host, self.scratch

    def find_local(self) -> ShardHandle | None:
        """Return a handle to the shard that this machine can read; None if there is none.

        A damaged shard counts as lost. It may have been written again, to another folder.
        """
        home = Path(self.folder).parent
        if self.host:
            home = scratch_folder(home.name.removeprefix(SCRATCH_PREFIX), self.partition)
        others = sorted(home.glob(f"{self.partition}-*"))
        found = map(find_intact, [Path(self.folder), *others])
        return next((each for each in found if each and each.checksum == self.checksum), None)

    def rows(self, n_features: int, n_targets: int) -> tuple[Rows, Rows]:
        """Return training and validation rows."""
        folder = Path(self.folder)
        targets = 0 if self.classifies else n_targets
        return (
            ShardRows(folder / "train", self.n_rows, n_features, targets),
            ShardRows(folder / "validation", self.n_validation, n_features, targets),
        )


def spill_batches(task: IngestTask, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Call ``spill`` on arrow batches, for ``mapInArrow``."""
    handle = pa.array([spill(task, _rows(batches))])
    yield pa.RecordBatch.from_arrays([handle], schema=HANDLE_SCHEMA)


def spill_rows(task: IngestTask, rows: Iterable[Row]) -> Iterator[str]:
    """Call ``spill`` on rows, for ``mapPartitions``."""
    yield spill(task, rows)


def _rows(batches: Iterator[pa.RecordBatch]) -> Iterator[Sequence[Any]]:
    for batch in batches:
        columns = [batch.column(i) for i in range(batch.num_columns)]
        for i in range(batch.num_rows):
            numbers = [column[i].as_py() for column in columns[:6]]
            yield *numbers, *(memoryview(column[i].as_buffer()) for column in columns[6:])


def spill(task: IngestTask, rows: Iterable[Sequence[Any]]) -> str:
    """Write the blocks of this partition to its shard.

    Spark fetches blocks in an order that differs from run to run. They arrive here sorted, so that
    a shard that is written again has the same bytes.

    Parameters
    ----------
    task : IngestTask
    rows : iterable
        Fields as in ``BLOCK_SCHEMA``.

    Returns
    -------
    str
        The handle as JSON.
    """
    freeze_gc()
    context = TaskContext.get()
    assert context is not None
    partition = context.partitionId()
    home = scratch_folder(task.fit_id, partition, task.shard_dir)
    folder = home / f"{partition}-{context.taskAttemptId()}"
    host = "" if task.shard_dir else socket.gethostname()
    handle = ShardHandle(partition, host, str(folder), scratch_dirs()[0], task.classifies)
    writers: dict[int, ShardWriter] = {}
    classes: Counter[int] = Counter()
    try:
        # Rows are for nobody else to read. A shared folder exists, and is gone when the fit has
        # ended: a cancelled task that still runs must not make it again.
        if not task.shard_dir:
            home.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.mkdir(exist_ok=True)
        for role, name in zip((TRAIN, VALIDATION), _PARTS, strict=True):
            writers[role] = ShardWriter(folder / name)
        for key, role, _, _, n_rows, n_features, *parts in rows:
            if key != task.keys[partition]:
                raise RuntimeError(
                    f"Spark sent a block of worker {task.keys.index(key)} to partition "
                    f"{partition}: its hash partitioner is not the one that sparknn expects."
                )
            if role == COUNTS:
                handle.ingest_counts.append(json.loads(bytes(parts[0])))
                continue
            handle.received += checksum(role, parts)
            block = Block(n_rows, n_features, *parts)
            if not block.sparse:
                block.x = widen(block.x, n_rows * n_features)
            writers[role].append(block)
            w = np.frombuffer(block.w)
            if role == TRAIN:
                handle.weight_sum += float(w.sum())
            if task.classifies:
                _count_classes(classes, np.frombuffer(block.y), w * (role == TRAIN))
        for writer in writers.values():
            writer.finish()
        handle.n_rows = writers[TRAIN].n_rows
        handle.sparse = writers[TRAIN].sparse
        handle.n_validation = writers[VALIDATION].n_rows
        handle.class_weights = {str(label): weight for label, weight in sorted(classes.items())}
        checksums = chain.from_iterable(each.checksums.values() for each in writers.values())
        handle.checksum = _combine(checksums)
        _write_marker(handle)
    except OSError as error:
        param = "shardDir" if task.shard_dir else "spark.local.dir"
        raise ShardWriteError(
            f"The shard of worker {partition} cannot be written to {folder}: {error}. Shards need "
            f"the size of all features as float32. Set {param} to a disk with enough room."
        ) from error
    finally:
        for writer in writers.values():
            writer.close()
    return handle.to_json()


def _write_marker(handle: ShardHandle) -> None:
    """Mark a shard as complete, in one step: other attempts of this task may be reading."""
    folder = Path(handle.folder)
    begun = folder / f"{_MARKER}.tmp"
    begun.write_text(json.dumps([_n_bytes(folder), asdict(handle)]))
    os.replace(begun, folder / _MARKER)


def find_intact(folder: Path) -> ShardHandle | None:
    """Return the handle to a complete shard; None if it is cut off, damaged, or not there."""
    try:
        n_bytes, fields = json.loads((folder / _MARKER).read_text())
        handle = ShardHandle(**fields)
        if _n_bytes(folder) != n_bytes or not _verify(folder, handle.checksum):
            return None
        return handle
    except (OSError, ValueError, TypeError):
        # Whatever is wrong with it, a shard can be written again.
        return None


def _verify(folder: Path, checksum: int) -> bool:
    """Compare a shard with its checksum, and remove it if they differ.

    Reading takes as long as a round may, so it is done once for each state of the files.
    """
    state = json.dumps([path.stat().st_ctime_ns for path in _files(folder)])
    with suppress(OSError, ValueError):
        if (folder / _VERIFIED).read_text() == state:
            return True
    if _combine(map(file_checksum, _files(folder))) != checksum:
        shutil.rmtree(folder, ignore_errors=True)
        return False
    with suppress(OSError):
        (folder / _VERIFIED).write_text(state)
    return True


def _combine(checksums: Iterable[int]) -> int:
    return zlib.crc32(np.array(list(checksums), dtype="<u4").tobytes())


def _n_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in _files(folder))


def _files(folder: Path) -> list[Path]:
    return [folder / part / name for part in _PARTS for name in ShardWriter.NAMES]


def _count_classes(classes: Counter[int], y: Any, w: Any) -> None:
    labels, inverse = np.unique(y, return_inverse=True)
    sums = np.bincount(inverse, weights=w, minlength=len(labels))
    for label, weight in zip(labels.tolist(), sums.tolist(), strict=True):
        classes[int(label)] += weight
