"""Parameters to and from parquet, fast whatever the session's arrow settings are.

A row holds a chunk of ``CHUNK`` parameters. On the driver's side of Spark they travel as bytes,
which Python workers turn into an array of floats and back.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
from pyspark.sql import SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import ArrayType, FloatType

from sparknn.core.types import Float32Array

# 4 MB a chunk: what a Spark task or a parquet row holds with ease.
CHUNK = 1 << 20
_CHUNKS_PER_FILE = 64


def write_theta(spark: SparkSession, theta: Float32Array, path: str, mode: str) -> None:
    """Write a vector, shape (P,), as rows of (chunk, values); one file for 64 million values."""
    flat = np.ascontiguousarray(theta, dtype="<f4")
    rows = [
        (chunk, bytearray(flat[start : start + CHUNK].tobytes()))
        for chunk, start in enumerate(range(0, len(flat), CHUNK))
    ]
    n_files = -(-len(rows) // _CHUNKS_PER_FILE)
    frame = spark.createDataFrame(rows, "chunk int, data binary").coalesce(n_files)
    frame.mapInArrow(bytes_to_floats, "chunk int, values array<float>").write.mode(mode).parquet(
        path
    )


def read_theta(spark: SparkSession, path: str, n_params: int) -> Float32Array:
    """Read a vector of exactly ``n_params`` values, float32, shape (n_params,).

    Raises
    ------
    ValueError
        If chunks are missing, twice there, or of another size. Nothing large was read by then.
    """
    frame = spark.read.parquet(path)
    columns = {item.name: item.dataType for item in frame.schema.fields}
    values = columns.get("values")
    if not isinstance(values, ArrayType) or not isinstance(values.elementType, FloatType):
        raise ValueError(f"expected columns chunk, values; found {frame.schema.simpleString()}.")
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
    rows = frame.mapInArrow(floats_to_bytes, "chunk int, data binary").collect()
    ordered = sorted((row["chunk"], row["data"]) for row in rows)
    return np.frombuffer(b"".join(data for _, data in ordered), dtype="<f4").astype(np.float32)


def bytes_to_floats(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Bytes of float32 to arrays of floats."""
    for batch in batches:
        lists = [
            pa.array(np.frombuffer(data.as_py(), dtype="<f4"), type=pa.float32())
            for data in batch.column(1)
        ]
        offsets = np.cumsum([0, *(len(values) for values in lists)], dtype=np.int32)
        flat = pa.concat_arrays(lists) if lists else pa.array([], type=pa.float32())
        values = pa.ListArray.from_arrays(offsets, flat)
        yield pa.RecordBatch.from_arrays([batch.column(0), values], names=["chunk", "values"])


def floats_to_bytes(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Arrays of floats to bytes of float32; a null becomes NaN."""
    for batch in batches:
        data = [
            values.values.to_numpy(zero_copy_only=False).astype("<f4").tobytes()
            for values in batch.column(1)
        ]
        yield pa.RecordBatch.from_arrays(
            [batch.column(0), pa.array(data, type=pa.binary())], names=["chunk", "data"]
        )
