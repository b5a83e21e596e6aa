"""Write a worker's rows to its local disk, and read them back, a range at a time.

A shard is a folder of raw numbers, row after row: ``x`` (float32), ``y`` and ``w`` (float64). For
sparse rows, ``x`` holds the nonzero entries only, ``columns`` (int32) their columns, and ``counts``
(int64) the entries per row; for dense rows these two are empty. Mapping ranges into memory, never
whole files, keeps a worker within its address space (``spark.executor.pyspark.memory``) however
large its shard is.
"""

from __future__ import annotations

import os
import tempfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from sparknn.core.data.rows import DenseSlice, SparseSlice
from sparknn.core.types import FloatArray

# Size of the rows that are made dense at a time.
_DENSE_BYTES = 4 << 20
# Size of the first rows, by which a shard is made dense or sparse.
_HELD_BYTES = 4 << 20
# How much of a file is read at a time for its checksum.
_READ_BYTES = 1 << 20
# Prefix of the folder of a fit's shards.
SCRATCH_PREFIX = "sparknn-"

Bytes = memoryview | bytearray | bytes


@dataclass
class Block:
    """Hold some rows on their way to a shard, as bytes.

    Parameters
    ----------
    n_rows, n_features : int
    x, y, w : bytes-like
        As in a shard.
    columns, counts : bytes-like
        As in a shard; empty for dense rows.
    """

    n_rows: int
    n_features: int
    x: Bytes
    y: Bytes
    w: Bytes
    columns: Bytes
    counts: Bytes

    @property
    def sparse(self) -> bool:
        return len(self.counts) > 0

    def as_entries(self) -> Block:
        """Return these dense rows as sparse ones."""
        X = np.frombuffer(self.x, np.float32).reshape(self.n_rows, self.n_features)
        counts = np.count_nonzero(X, axis=1).astype(np.int64)
        columns = np.nonzero(X)[1].astype(np.int32)
        return replace(self, x=X[X != 0].data, columns=columns.data, counts=counts.data)

    def as_dense(self) -> Iterator[Block]:
        """Yield these sparse rows as dense ones, a few at a time, as they may be wide."""
        counts = np.frombuffer(self.counts, np.int64)
        starts = np.concatenate([[0], np.cumsum(counts)])
        values, columns = np.frombuffer(self.x, np.float32), np.frombuffer(self.columns, np.int32)
        y, w = (np.frombuffer(part).reshape(self.n_rows, -1) for part in (self.y, self.w))
        step = max(1, _DENSE_BYTES // (4 * max(self.n_features, 1)))
        for a in range(0, self.n_rows, step):
            b = min(a + step, self.n_rows)
            rows = SparseSlice(values, columns, starts[a : b + 1], y[a:b], w[a:b])
            X = np.empty((b - a, self.n_features), np.float32)
            rows.take(np.arange(b - a), X)
            yield Block(b - a, self.n_features, X.data, y[a:b].data, w[a:b].data, b"", b"")


class ShardWriter:
    """Append blocks to a shard's files: all sparse or all dense, as most of the first rows are.

    The first blocks are held back until they are some megabytes, so that one block with a few dense
    rows does not make a whole shard of wide rows dense.

    Parameters
    ----------
    folder : Path
        Created if it does not exist.
    """

    NAMES = ("x", "y", "w", "columns", "counts")

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.n_rows = 0
        # CRC-32 of each file.
        self.checksums = dict.fromkeys(self.NAMES, 0)
        self._held: list[Block] = []
        self._n_held = 0
        self._sparse: bool | None = None
        self._files: dict[str, IO[bytes]] = {n: (folder / n).open("wb") for n in self.NAMES}

    @property
    def sparse(self) -> bool:
        """Whether rows are written as entries; known once it is finished."""
        return bool(self._sparse)

    def append(self, block: Block) -> None:
        self.n_rows += block.n_rows
        self._held.append(block)
        self._n_held += sum(len(getattr(block, name)) for name in self.NAMES)
        if self._sparse is not None or self._n_held >= _HELD_BYTES:
            self._write_held()

    def _write_held(self) -> None:
        if self._sparse is None:
            n_sparse = sum(block.n_rows for block in self._held if block.sparse)
            self._sparse = 2 * n_sparse > self.n_rows
        for block in self._held:
            if block.sparse == self._sparse:
                self._write(block)
            elif self._sparse:
                self._write(block.as_entries())
            else:
                for part in block.as_dense():
                    self._write(part)
        self._held.clear()

    def _write(self, block: Block) -> None:
        for name, file in self._files.items():
            part = getattr(block, name)
            file.write(part)
            self.checksums[name] = zlib.crc32(part, self.checksums[name])

    def finish(self) -> None:
        """Write the blocks held back, and close the files."""
        self._write_held()
        self.close()

    def close(self) -> None:
        """Close the files, finished or not."""
        for file in self._files.values():
            file.close()


def file_checksum(path: Path) -> int:
    """Return a file's CRC-32, as ``ShardWriter`` computes it."""
    checksum = 0
    with path.open("rb", buffering=0) as file:
        while part := file.read(_READ_BYTES):
            checksum = zlib.crc32(part, checksum)
    return checksum


class ShardRows:
    """Read the rows of a shard, as ``sparknn.core.data.rows.Rows``.

    Parameters
    ----------
    folder : Path
    n_rows, n_features : int
    n_targets : int
        0 where ``y`` holds class numbers, shape (n,); otherwise its second dimension.
    """

    def __init__(self, folder: Path, n_rows: int, n_features: int, n_targets: int) -> None:
        self.n_rows = n_rows
        self.n_features = n_features
        self.n_targets = max(n_targets, 1)
        self._folder = folder
        self._in_columns = n_targets > 0
        self._starts: NDArray[np.int64] | None = None
        if n_rows and (folder / "counts").stat().st_size:
            counts = self._column("counts", np.int64, 0, n_rows)
            self._starts = np.concatenate([[0], np.cumsum(counts)])

    @property
    def n_entries(self) -> int:
        """Numbers that the shard holds: of sparse rows, those that are not 0."""
        if self._starts is None:
            return self.n_rows * self.n_features
        return int(self._starts[-1])

    def read(self, start: int, stop: int) -> DenseSlice | SparseSlice:
        """Map rows ``start`` to ``stop``."""
        k = self.n_targets
        y: FloatArray = self._column("y", np.float64, start * k, stop * k)
        if self._in_columns:
            y = y.reshape(stop - start, k)
        w = self._column("w", np.float64, start, stop)
        if self._starts is None:
            d = self.n_features
            X = self._mapped("x", np.float32, start * d, stop * d).reshape(stop - start, d)
            return DenseSlice(X, y, w)
        starts = self._starts[start : stop + 1]
        first, last = int(starts[0]), int(starts[-1])
        values = self._mapped("x", np.float32, first, last)
        columns = self._mapped("columns", np.int32, first, last)
        return SparseSlice(values, columns, starts - first, y, w)

    def _column(self, name: str, dtype: DTypeLike, start: int, stop: int) -> NDArray[Any]:
        size = np.dtype(dtype).itemsize
        return np.fromfile(self._folder / name, dtype, stop - start, offset=start * size)

    def _mapped(self, name: str, dtype: DTypeLike, start: int, stop: int) -> NDArray[Any]:
        if stop == start:
            return np.empty(0, dtype)
        size = np.dtype(dtype).itemsize
        mapped = np.memmap(
            self._folder / name, dtype, mode="r", offset=start * size, shape=(stop - start,)
        )
        return np.asarray(mapped)


def scratch_dirs() -> list[str]:
    """Return the executor's directories for temporary files, one per disk.

    Spark sets SPARK_LOCAL_DIRS in its Python workers, and removes these directories when the
    executor ends. A platform that isolates Python workers may not.
    """
    dirs = [d for d in os.environ.get("SPARK_LOCAL_DIRS", "").split(",") if d]
    return dirs or [tempfile.gettempdir()]


def scratch_folder(fit_id: str, partition: int, shard_dir: str = "") -> Path:
    """Return the folder of a fit's shards: in ``shard_dir``, or on one of the executor's disks."""
    dirs = [shard_dir] if shard_dir else scratch_dirs()
    return Path(dirs[partition % len(dirs)]) / f"{SCRATCH_PREFIX}{fit_id}"
