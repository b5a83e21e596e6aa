"""Ingest, second half: append a worker's blocks to its shard, and return a small handle to it."""

from __future__ import annotations

import json
import socket
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyspark import TaskContext
from pyspark.sql import Row

from sparknn.core.data.rows import Rows
from sparknn.engine.python_worker import freeze_gc
from sparknn.engine.scatter import NOTES, TRAIN, VALIDATION
from sparknn.engine.shards import SCRATCH_PREFIX, Block, ShardRows, ShardWriter, scratch_folder

HANDLE_SCHEMA = pa.schema([("handle", pa.string())])
HANDLE_DDL = "handle string"


@dataclass(frozen=True)
class Spill:
    """What the second half of ingest must know.

    Parameters
    ----------
    fit_id : str
        Names the folder of this fit's shards.
    keys : tuple of int
        As in ``Scatter``.
    classifies : bool
    """

    fit_id: str
    keys: tuple[int, ...]
    classifies: bool


@dataclass
class ShardHandle:
    """Where a worker's shard is, and what is in it.

    Parameters
    ----------
    partition : int
    host, folder : str
        ``folder`` is unique to the attempt that wrote the shard.
    n_rows, n_validation : int
    weight_sum : float
        Of the training rows.
    class_weights : dict
        Sum of the training weights of each class, 0 if it has validation rows only; keys are
        labels as text.
    notes : list of dict
        What the source partitions said (see ``scatter.Notes``).
    classifies : bool
    """

    partition: int
    host: str
    folder: str
    classifies: bool
    n_rows: int = 0
    n_validation: int = 0
    weight_sum: float = 0.0
    class_weights: dict[str, float] = field(default_factory=dict)
    notes: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def from_json(cls, text: str) -> ShardHandle:
        return cls(**json.loads(text))

    @property
    def location(self) -> tuple[str, str]:
        """Host, and the folder of all shards of this fit there."""
        return self.host, str(Path(self.folder).parent)

    def find_local(self) -> ShardHandle | None:
        """A handle to the shard on this machine's disk; None if it is not there.

        It may have been written again, after its first folder was lost.
        """
        if _read_mark(Path(self.folder)):
            return self
        fit_id = Path(self.folder).parent.name.removeprefix(SCRATCH_PREFIX)
        others = scratch_folder(fit_id, self.partition).glob(f"{self.partition}-*")
        marks = (_read_mark(folder) for folder in sorted(others))
        return next((ShardHandle.from_json(mark) for mark in marks if mark), None)

    def rows(self, n_features: int, n_targets: int) -> tuple[Rows, Rows]:
        """Training and validation rows."""
        folder = Path(self.folder)
        targets = 0 if self.classifies else n_targets
        return (
            ShardRows(folder / "train", self.n_rows, n_features, targets),
            ShardRows(folder / "validation", self.n_validation, n_features, targets),
        )


def spill_batches(task: Spill, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """``spill`` of arrow batches, for ``mapInArrow``."""
    handle = pa.array([spill(task, _rows(batches))])
    yield pa.RecordBatch.from_arrays([handle], schema=HANDLE_SCHEMA)


def spill_rows(task: Spill, rows: Iterable[Row]) -> Iterator[str]:
    """``spill`` of rows, for ``mapPartitions``."""
    yield spill(task, rows)


def _rows(batches: Iterator[pa.RecordBatch]) -> Iterator[Sequence[Any]]:
    for batch in batches:
        columns = [batch.column(i) for i in range(batch.num_columns)]
        for i in range(batch.num_rows):
            numbers = [column[i].as_py() for column in columns[:6]]
            yield *numbers, *(memoryview(column[i].as_buffer()) for column in columns[6:])


def spill(task: Spill, rows: Iterable[Sequence[Any]]) -> str:
    """Write the blocks of this partition, which arrive sorted by role, source and sequence.

    Blocks were fetched in an order that differs from run to run; sorted, a shard that is written
    again is the same shard.

    Parameters
    ----------
    task : Spill
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
    folder = scratch_folder(task.fit_id, partition) / f"{partition}-{context.taskAttemptId()}"
    handle = ShardHandle(partition, socket.gethostname(), str(folder), task.classifies)
    writers = {TRAIN: ShardWriter(folder / "train"), VALIDATION: ShardWriter(folder / "validation")}
    classes: Counter[int] = Counter()
    try:
        for key, role, _, _, n_rows, n_features, *parts in rows:
            if key != task.keys[partition]:
                raise RuntimeError(
                    f"Spark sent a block of worker {task.keys.index(key)} to partition "
                    f"{partition}: its hash partitioner is not the one sparknn knows."
                )
            if role == NOTES:
                handle.notes.append(json.loads(bytes(parts[0])))
                continue
            block = Block(n_rows, n_features, *parts)
            writers[role].append(block)
            w = np.frombuffer(block.w)
            if role == TRAIN:
                handle.weight_sum += float(w.sum())
            if task.classifies:
                _count_classes(classes, np.frombuffer(block.y), w * (role == TRAIN))
        for writer in writers.values():
            writer.finish()
    except OSError as error:
        # `explained` looks for these words.
        raise RuntimeError(
            f"The shard of worker {partition} cannot be written to {folder}: {error}. Shards take "
            f"the size of the features as float32; set spark.local.dir to a disk with room for it."
        ) from error
    finally:
        for writer in writers.values():
            writer.close()
    handle.n_rows = writers[TRAIN].n_rows
    handle.n_validation = writers[VALIDATION].n_rows
    handle.class_weights = {str(label): weight for label, weight in sorted(classes.items())}
    text = json.dumps(asdict(handle))
    _write_mark(folder, text)
    return text


def _write_mark(folder: Path, handle: str) -> None:
    """Only a shard that was written to its end counts as there."""
    (folder / "whole").write_text(f"{_n_bytes(folder)}\n{handle}")


def _read_mark(folder: Path) -> str | None:
    """The handle to a shard that is whole, as JSON; None if it was cut off, or is gone."""
    try:
        n_bytes, handle = (folder / "whole").read_text().split("\n", 1)
        return handle if _n_bytes(folder) == int(n_bytes) else None
    except FileNotFoundError:
        return None


def _n_bytes(folder: Path) -> int:
    parts = ("train", "validation")
    return sum((folder / part / n).stat().st_size for part in parts for n in ShardWriter.NAMES)


def _count_classes(classes: Counter[int], y: Any, w: Any) -> None:
    labels, inverse = np.unique(y, return_inverse=True)
    sums = np.bincount(inverse, weights=w, minlength=len(labels))
    for label, weight in zip(labels.tolist(), sums.tolist(), strict=True):
        classes[int(label)] += weight
