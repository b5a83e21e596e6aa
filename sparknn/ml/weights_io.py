"""Write and read parameters as parquet, fast with any arrow settings of the session.

A row holds a chunk of ``CHUNK`` parameters. From the driver they go to Spark as bytes, which Python
workers convert exactly to arrays of floats or doubles; back, the driver decodes the files itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import parquet
from pyspark.sql import SparkSession

from sparknn.engine.filesystem import literal
from sparknn.engine.python_worker import freeze_gc
from sparknn.engine.worker_errors import translate_worker_errors
from sparknn.ml.parquet_pages import declared

Number = TypeVar("Number", np.float32, np.float64)

# 4 MB of floats per chunk: small enough for a Spark task and a parquet row.
CHUNK = 1 << 20
# Spark reads a file of few rows at once: 64 chunks exceed a driver of 1 GB.
_CHUNKS_PER_FILE = 8
# What a file may take besides twice its values, for each of its chunks.
_OVERHEAD = 1 << 16
# More than any network has.
_MOST_FILES = 1 << 16
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

    Spark returns files as bytes, one at a time, which a driver of 1 GB can hold. Its own reader
    would decode whatever a few bytes of parquet declare, such as 150 million zeros.

    Raises
    ------
    ValueError
        If values are of another type, or chunks are missing, duplicate, or of another size. It
        is raised before anything large is read.
    """
    dtype, n_chunks = np.dtype(number).newbyteorder("<"), -(-n_params // CHUNK)
    files = spark.read.format("binaryFile").load(literal(path)).select("path", "length")
    found = files.limit(_MOST_FILES).collect()
    n_bytes, most = sum(row["length"] for row in found), 2 * dtype.itemsize * n_params
    # Spark writes the first file even if it is empty.
    if not 0 < len(found) <= n_chunks + 1 or n_bytes > most + n_chunks * _OVERHEAD:
        raise ValueError(
            f"expected {n_params} values in {n_chunks} chunks; found {n_bytes} bytes in "
            f"{len(found)} files."
        )
    # Takes memory only as it is filled.
    theta, seen = np.empty(n_params, dtype=dtype), set[int]()
    for row in found:
        file = spark.read.format("binaryFile").load(literal(row["path"])).select("content").first()
        for chunk, values in _decode(bytes(file[0]) if file else b"", dtype, n_params):
            fits = 0 <= chunk < n_chunks and len(values) == len(theta[chunk * CHUNK :][:CHUNK])
            if not fits or chunk in seen:
                raise ValueError(
                    f"expected {n_params} values in {n_chunks} chunks; found {len(values)} in "
                    f"chunk {chunk}, or it is there twice."
                )
            seen.add(chunk)
            theta[chunk * CHUNK :][:CHUNK] = values
    if len(seen) < n_chunks:
        raise ValueError(f"expected {n_params} values in {n_chunks} chunks; found {len(seen)}.")
    return theta.astype(number, copy=False)


def _decode(data: bytes, dtype: np.dtype[Any], most: int) -> Iterator[tuple[int, NDArray[Any]]]:
    """Yield the chunks of a file that declares at most some values; a null becomes NaN."""
    # Spark writes none, and pyarrow before 14.0.1 may run code that it holds (CVE-2023-47248).
    if b"ARROW:schema" in data:
        raise ValueError("expected a file that Spark wrote; found one that Arrow wrote.")
    n_values, n_bytes = declared(data)
    # Those of chunks, and in dictionaries, count too.
    if n_values > 2 * most + _OVERHEAD or n_bytes > 2 * dtype.itemsize * most + _OVERHEAD:
        raise ValueError(f"expected {most} values; a file declares {n_values}, in {n_bytes} bytes.")
    file = parquet.ParquetFile(pa.BufferReader(data))
    schema = file.schema_arrow
    kinds = [getattr(field.type, "value_type", field.type) for field in schema]
    if schema.names != ["chunk", "values"] or kinds != [pa.int32(), pa.from_numpy_dtype(dtype)]:
        raise ValueError(
            f"expected columns chunk, values (of type {_ELEMENTS[dtype.str]}); found columns "
            f"{', '.join(schema.names):.100} of types {', '.join(map(str, kinds)):.100}."
        )
    table = file.read()
    for chunk, values in zip(table["chunk"].to_pylist(), table["values"], strict=True):
        if chunk is not None and values.is_valid:
            yield chunk, values.values.to_numpy(zero_copy_only=False)


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
