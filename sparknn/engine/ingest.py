"""Write a DataFrame's rows to shards: ``select -> scatter -> repartition -> spill``; check them.

No row passes through the driver.
"""

from __future__ import annotations

import math
from collections import Counter
from functools import partial
from itertools import chain
from operator import itemgetter
from typing import TYPE_CHECKING

from pyspark.ml.functions import vector_to_array
from pyspark.ml.linalg import VectorUDT
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import ArrayType, ByteType, IntegerType, ShortType

from sparknn.core.nn.input_layer import LEAST_SPARSE
from sparknn.core.types import Float64Array
from sparknn.engine.decode import IngestTask
from sparknn.engine.interface import ColumnProblem, DataError, DatasetInfo, DataSpec
from sparknn.engine.offsets import find_offset
from sparknn.engine.partitioner import partition_keys
from sparknn.engine.row_order import has_fixed_order
from sparknn.engine.scatter import BLOCK_DDL, scatter
from sparknn.engine.spill import HANDLE_DDL, ShardHandle, spill_batches, spill_rows
from sparknn.engine.sql import quote_column
from sparknn.engine.worker_errors import changed_rows

if TYPE_CHECKING:
    # A client of Spark Connect may lack it.
    from pyspark import RDD


def shard_blocks(
    df: DataFrame, spec: DataSpec, fit_id: str, offset: Float64Array | None = None
) -> tuple[DataFrame, IngestTask]:
    """Return a lazy DataFrame of blocks, a partition per worker, and the task that writes them.

    ``offset``, shape (d,), is subtracted from the features before they become float32.
    """
    task = IngestTask(
        fit_id=fit_id,
        keys=partition_keys(spec.n_workers),
        classifies=spec.classifies,
        vectors=isinstance(df.schema[spec.features].dataType, VectorUDT),
        has_weight=spec.weight is not None,
        has_indicator=spec.validation_indicator is not None,
        seed=spec.seed,
        shuffle=spec.shuffle,
        validation_fraction=spec.validation_fraction,
        keep_missing=spec.keep_missing,
        categories=spec.categories,
        center=spec.center,
        offset=offset,
        shard_dir=spec.shard_dir,
    )
    # With shuffling, a block's sequence starts with a random number.
    order = ("sequence", "source") if spec.shuffle else ("source", "sequence")
    rows = df.select(*_columns(df, spec, "float" if offset is None else "double"))
    if spec.shuffle and not has_fixed_order(df):
        # Rows are distributed by position, which is then the same when they are read again.
        rows = rows.sortWithinPartitions(F.xxhash64(*rows.columns))
    blocks = (
        rows.mapInArrow(partial(scatter, task), BLOCK_DDL)
        .repartition(spec.n_workers, "key")
        .sortWithinPartitions("role", *order)
    )
    return blocks, task


def shard_handles(
    df: DataFrame, spec: DataSpec, fit_id: str, offset: Float64Array | None = None
) -> RDD[str]:
    """Return a lazy RDD of one handle per worker, as JSON; evaluating it writes the shards."""
    blocks, task = shard_blocks(df, spec, fit_id, offset)
    if _limits_arrow_bytes(df):
        handles = blocks.mapInArrow(partial(spill_batches, task), HANDLE_DDL)
        return handles.rdd.map(itemgetter(0))
    return blocks.rdd.mapPartitions(partial(spill_rows, task))


def _limits_arrow_bytes(df: DataFrame) -> bool:
    """Return whether Spark limits the bytes of arrow batches, which pyspark 3.5 does not.

    There, one batch would hold up to 10,000 blocks: a whole shard, twice in memory, and at most the
    2 GiB that an arrow column can hold. Pickled, blocks arrive a few at a time.
    """
    return df.sparkSession.conf.isModifiable("spark.sql.execution.arrow.maxBytesPerBatch")


def _columns(df: DataFrame, spec: DataSpec, number: str) -> list[Column]:
    features, label = F.col(quote_column(spec.features)), F.col(quote_column(spec.label))
    columns = []
    if isinstance(df.schema[spec.features].dataType, VectorUDT):
        # Reading the vector's fields takes a fifth of the time of vector_to_array.
        vector = F.unwrap_udt(features)
        columns += [
            vector["values"].cast(f"array<{number}>").alias("x"),
            vector["type"].alias("type"),
            vector["size"].alias("size"),
            vector["indices"].alias("indices"),
        ]
    else:
        element = getattr(df.schema[spec.features].dataType, "elementType", None)
        # Casting small integers in Spark takes 2.4 times as long as passing them on.
        small = isinstance(element, ByteType | ShortType | IntegerType)
        columns.append((features if small else features.cast(f"array<{number}>")).alias("x"))
    label_type = df.schema[spec.label].dataType
    if isinstance(label_type, VectorUDT):
        # vector_to_array refuses null.
        columns.append(F.when(label.isNotNull(), vector_to_array(label)).alias("y"))
    elif isinstance(label_type, ArrayType):
        columns.append(label.cast("array<double>").alias("y"))
    else:
        columns.append(label.cast("double").alias("y"))
    if spec.weight is not None:
        columns.append(F.col(quote_column(spec.weight)).cast("double").alias("w"))
    if spec.validation_indicator is not None:
        columns.append(F.col(quote_column(spec.validation_indicator)).alias("validation"))
    return columns


def check(handles: list[ShardHandle], spec: DataSpec) -> DatasetInfo:
    """Return what was ingested.

    Raises
    ------
    DataError
        If the rows cannot be trained on; the message names all problems. If some were lost or
        duplicated.
    """
    bad: Counter[str] = Counter()
    sizes: Counter[int] = Counter()
    n_seen = n_skipped = sent = 0
    for counts in chain.from_iterable(handle.ingest_counts for handle in handles):
        bad.update(counts["bad"])
        sizes.update({int(size): count for size, count in counts["sizes"].items()})
        n_seen += counts["seen"]
        n_skipped += counts["skipped"]
        sent += counts["sent"]
    if sent != sum(handle.received for handle in handles):
        # Blocks of one source partition came from two tries to read it.
        raise changed_rows()
    if n_seen == 0:
        raise DataError("The DataFrame is empty: there is nothing to train on.", reason="empty")

    label_sizes = _take_label_sizes(bad)
    problems = _problems(bad, spec, n_seen)
    problems += [
        ColumnProblem(
            column,
            "sizes",
            f"column '{column}' has {rows} of different sizes: {_counted(found)}. "
            f"Every row must have the same number of {entries}",
            found.total(),
            n_seen,
        )
        for column, found, rows, entries in (
            (spec.features, sizes, "rows", "features"),
            (spec.label, label_sizes, "targets", "targets"),
        )
        if len(found) > 1
    ]
    if problems:
        raise DataError.of_columns(problems, _advice(bad, spec))

    n_rows = sum(handle.n_rows for handle in handles)
    n_validation = sum(handle.n_validation for handle in handles)
    if n_rows == 0:
        raise DataError(_why_no_rows(spec, n_seen, n_skipped, n_validation))
    n_features = next(iter(sizes))
    if n_features == 0:
        raise DataError(f"Column '{spec.features}' has rows without any features.")
    absent = [feature for feature, _ in spec.categories if feature >= n_features]
    if absent:
        raise DataError(
            f"Feature {absent[0]} is to be a category, but column '{spec.features}' has "
            f"{n_features} features, 0 to {n_features - 1}. Correct categoricalFeatures, or "
            "assemble the column again if its metadata does not fit."
        )
    n_targets = next(iter(label_sizes), 1)
    if n_targets == 0:
        raise DataError(f"Column '{spec.label}' has rows without any targets.")
    classes: Counter[int] = Counter()
    for handle in handles:
        classes.update({int(label): weight for label, weight in handle.class_weights.items()})
    n_sparse = sum(handle.n_rows for handle in handles if handle.sparse)
    return DatasetInfo(
        n_features=n_features,
        n_targets=n_targets,
        n_rows=n_rows,
        n_validation=n_validation,
        n_skipped=n_skipped,
        weight_sum=sum(handle.weight_sum for handle in handles),
        rows_per_worker=tuple(handle.n_rows for handle in handles),
        class_weights=dict(sorted(classes.items())),
        sparse=n_features >= LEAST_SPARSE and 2 * n_sparse > n_rows,
        categories=spec.categories,
    )


def repaired_fraction(handles: list[ShardHandle], spec: DataSpec) -> float | None:
    """Return a fraction that leaves a row on either side, where ``spec`` drew none or all.

    A row is drawn if its number is below the fraction: at the least of them, just one row is, and
    at the greatest, all but one. None if the rows are split already, or cannot be.
    """
    n_rows = sum(handle.n_rows for handle in handles)
    n_validation = sum(handle.n_validation for handle in handles)
    if not spec.validation_fraction or n_rows + n_validation < 2 or (n_rows and n_validation):
        return None
    counts = chain.from_iterable(handle.ingest_counts for handle in handles)
    draws = list(chain.from_iterable(each["draws"] for each in counts))
    return max(draws) if n_validation else math.nextafter(min(draws), 1.0)


def coarse_offset(handles: list[ShardHandle], info: DatasetInfo) -> Float64Array | None:
    """Return what to subtract from features that float32 is too coarse for; None if from none."""
    counts = chain.from_iterable(handle.ingest_counts for handle in handles)
    return find_offset([each["ranges"] for each in counts], info.n_features)


_LABEL_SIZE = "label size "
# What ``decode`` counts besides missing values.
_REASONS = {
    "negative": "negative",
    "not a whole number": "fraction",
    "not a value of a category": "category",
}


def _take_label_sizes(bad: Counter[str]) -> Counter[int]:
    sizes: Counter[int] = Counter()
    for reason in [reason for reason in bad if reason.startswith(_LABEL_SIZE)]:
        sizes[int(reason.removeprefix(_LABEL_SIZE))] = bad.pop(reason)
    return sizes


def _problems(bad: Counter[str], spec: DataSpec, n_seen: int) -> list[ColumnProblem]:
    names = {
        "features": spec.features,
        "label": spec.label,
        "weight": spec.weight,
        "validation indicator": spec.validation_indicator,
    }
    problems = []
    for reason, count in bad.items():
        what, _, fault = reason.partition(": ")
        kind = _REASONS.get(fault, "missing")
        column = names[what]
        if count and column and not (kind == "missing" and spec.skip_invalid):
            message = f"column '{column}' is {fault}"
            problems.append(ColumnProblem(column, kind, message, count, n_seen))
    return problems


def _counted(sizes: Counter[int]) -> str:
    return ", ".join(f"{size} ({count} rows)" for size, count in sizes.most_common(5))


def _advice(bad: Counter[str], spec: DataSpec) -> str:
    advice = ""
    reasons = {reason for reason, count in bad.items() if count}
    if not spec.skip_invalid and any(": null" in r or ": NaN" in r for r in reasons):
        advice += " Set handleInvalid='skip' to skip rows with null, NaN or infinite values"
        advice += "." if spec.keep_missing else ", or 'keep' to keep missing features."
    if reasons & {"label: negative", "label: not a whole number"}:
        advice += (
            " A classifier's labels are class numbers 0, 1, 2, ...: create them with StringIndexer,"
            " or use NeuralNetRegressor for numeric targets."
        )
    if any(reason.endswith("category") for reason in reasons):
        advice += (
            " Values of a category are 0, 1, 2, ..., below the number that the column's metadata "
            "declares: index it with StringIndexer, or set categorical=False to use it as a number."
        )
    return advice


def _why_no_rows(spec: DataSpec, n_seen: int, n_skipped: int, n_validation: int) -> str:
    parts = [f"{n_skipped} were skipped as invalid"] if n_skipped else []
    if n_validation:
        by = spec.validation_indicator
        parts.append(f"{n_validation} are validation rows" + (f" by column '{by}'" if by else ""))
    n_weightless = n_seen - n_skipped - n_validation
    if n_weightless:
        parts.append(f"{n_weightless} have weight 0 in column '{spec.weight}'")
    return f"No rows are left to train on: of {n_seen} rows, " + ", ".join(parts) + "."
