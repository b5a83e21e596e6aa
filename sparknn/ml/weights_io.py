"""Write and read parameters as parquet, fast with any arrow settings of the session.

A row holds a chunk of ``CHUNK`` parameters. Between driver and Spark they are bytes, which Python
workers convert exactly to arrays of floats or doubles, and back.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyspark.sql import SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import ArrayType

from sparknn.engine.filesystem import literal
from sparknn.engine.python_worker import freeze_gc
from sparknn.engine.worker_errors import translate_worker_errors

Number = TypeVar("Number", np.float32, np.float64)

# 4 MB of floats per chunk: small enough for a Spark task and a parquet row.
CHUNK = 1 << 20
# Spark reads a file of few rows at once: 64 chunks exceed a driver of 1 GB.
_CHUNKS_PER_FILE = 8
# Spark's names of numpy's little-endian types.
_ELEMENTS = {"<f4": "float", "<f8": "double"}


def write_weights(spark: SparkSession, theta: NDArray[Number], path: str, mode: str) -> None:
    """Write a vector, shape (P,), as rows of (chunk, values); one file per 8 million values."""
    dtype = theta.dtype.newbyteorder("<").str
    flat = np.ascontiguousarray(theta, dtype=dtype)
    rows = [
        (chunk, bytearray(flat[start : start + CHUNK].tobytes()))
        for chunk, start in enumerate(range(0, len(flat), CHUNK))
    ]
    n_files = -(-len(rows) // _CHUNKS_PER_FILE)
    frame = spark.createDataFrame(rows, "chunk int, data binary").coalesce(n_files)
    schema = f"chunk int, values array<{_ELEMENTS[dtype]}>"
    with translate_worker_errors():
        frame.mapInArrow(partial(bytes_to_numbers, dtype), schema).write.mode(mode).parquet(path)


def read_weights(
    spark: SparkSession, path: str, n_params: int, number: type[Number]
) -> NDArray[Number]:
    """Read a vector of exactly ``n_params`` values, shape (n_params,).

    Raises
    ------
    ValueError
        If values are of another type, or chunks are missing, duplicate, or of another size. It
        is raised before anything large is read.
    """
    dtype = np.dtype(number).newbyteorder("<").str
    frame = spark.read.parquet(literal(path))
    columns = {item.name: item.dataType for item in frame.schema.fields}
    values = columns.get("values")
    if not isinstance(values, ArrayType) or values.elementType.typeName() != _ELEMENTS[dtype]:
        raise ValueError(
            f"expected columns chunk, values (of type {_ELEMENTS[dtype]}); found "
            f"{frame.schema.simpleString()}."
        )
    sizes = frame.select("chunk", F.size("values")).limit(-(-n_params // CHUNK) + 1).collect()
    found = sorted((chunk, size) for chunk, size in sizes)
    expected = [
        (chunk, min(CHUNK, n_params - start))
        for chunk, start in enumerate(range(0, n_params, CHUNK))
    ]
    if found != expected:
        raise ValueError(
            f"expected {n_params} values in {len(expected)} chunks; found "
            f"{sum(size for _, size in found)} in {len(found)} that do not fit together."
        )
    to_bytes = partial(numbers_to_bytes, dtype)
    with translate_worker_errors():
        # One file at a time: all of them at once exceed a driver of 1 GB.
        rows = list(frame.mapInArrow(to_bytes, "chunk int, data binary").toLocalIterator())
    ordered = sorted((row["chunk"], row["data"]) for row in rows)
    return np.frombuffer(b"".join(data for _, data in ordered), dtype=dtype).astype(number)


def bytes_to_numbers(dtype: str, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Convert bytes of a little-endian numpy type to arrays of numbers."""
    freeze_gc()
    kind = pa.from_numpy_dtype(np.dtype(dtype))
    for batch in batches:
        lists = [
            pa.array(np.frombuffer(data.as_py(), dtype=dtype), type=kind)
            for data in batch.column(1)
        ]
        offsets = np.cumsum([0, *(len(values) for values in lists)], dtype=np.int32)
        flat = pa.concat_arrays(lists) if lists else pa.array([], type=kind)
        values = pa.ListArray.from_arrays(offsets, flat)
        yield pa.RecordBatch.from_arrays([batch.column(0), values], names=["chunk", "values"])


def numbers_to_bytes(dtype: str, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Convert arrays of numbers to bytes of a little-endian numpy type; a null becomes NaN."""
    freeze_gc()
    for batch in batches:
        data = [
            values.values.to_numpy(zero_copy_only=False).astype(dtype).tobytes()
            for values in batch.column(1)
        ]
        yield pa.RecordBatch.from_arrays(
            [batch.column(0), pa.array(data, type=pa.binary())], names=["chunk", "data"]
        )
