"""Rows in and out: whatever Spark reads and writes, by format and path, or by a table's name."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pyspark.errors import AnalysisException
from pyspark.ml.functions import vector_to_array
from pyspark.ml.linalg import VectorUDT
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import ArrayType, MapType, StructField, StructType

from sparknn.cli.keys import OUTPUT_FORMATS
from sparknn.engine import filesystem
from sparknn.engine.interrupts import defer_interrupts
from sparknn.engine.sql import is_connect, quote_column
from sparknn.engine.worker_errors import error_class, root_cause

_FORMATS = {".csv": "csv", ".json": "json", ".orc": "orc", ".libsvm": "libsvm"}
_FORMATS |= {".jsonl": "json", ".svm": "libsvm"}
# A CSV file with neither a header nor types is of no use here; options override both.
_CSV_OPTIONS = {"header": "true", "inferschema": "true"}


def guess_format(path: str) -> str:
    """Return the format that a path's ending names; parquet, Spark's default, if it names none."""
    ending = Path(path.removesuffix(".gz")).suffix.lower()
    return _FORMATS.get(ending, "parquet")


@dataclass(frozen=True)
class Source:
    """Where rows come from: a path on any file system that Spark knows, or a table's name."""

    path: str
    format: str
    options: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, path: str, format_: str | None, options: Mapping[str, Any]) -> Source:
        """Fill in what is not given: the format by the path's ending, and options for CSV."""
        format_ = format_ or guess_format(path)
        # Spark's options do not mind case. TOML has true, for which Python says True.
        texts = {k: str(v).lower() if isinstance(v, bool) else str(v) for k, v in options.items()}
        given = {name.lower(): text for name, text in texts.items()}
        return cls(path, format_, _CSV_OPTIONS | given if format_ == "csv" else given)

    def with_features(self, count: int) -> Source:
        """Return the same with the vectors' size set, which a libsvm file does not know."""
        if self.format != "libsvm":
            return self
        return replace(self, options={"numfeatures": str(count), **self.options})

    def read(self, spark: SparkSession) -> DataFrame:
        """Return the rows, lazily."""
        reader = spark.read.options(**self.options)
        if self.format == "table":
            return reader.table(self.path)
        return reader.format(self.format).load(self.path)

    def problem(self, spark: SparkSession, key: str) -> str:
        """Return why there is nothing to read; empty if there is."""
        try:
            # Text finds the files, but reads none of them, as other formats do for their schema.
            replace(self, format="table" if self.format == "table" else "text").read(spark)
        except AnalysisException as error:
            if error_class(error) not in ("PATH_NOT_FOUND", "TABLE_OR_VIEW_NOT_FOUND"):
                return f"{key}: {self.path} cannot be read ({root_cause(error)})."
            hint = "" if "/" in self.path else f" It was read as {self.format}; see the format."
            return f"{key}: there is no {self.path}.{hint}"
        return ""


@dataclass(frozen=True)
class Target:
    """Where rows, or a model (of format ``model``), go."""

    path: str
    format: str
    overwrite: bool = False

    @classmethod
    def of(cls, path: str, format_: str | None, overwrite: bool = False) -> Target:
        """Fill in the format by the path's ending."""
        return cls(path, format_ or guess_format(path), overwrite)

    def format_problem(self, key: str) -> str:
        """Return why no rows can be written in a format; empty if they can."""
        known = ", ".join(OUTPUT_FORMATS)
        text = f"{key}: {self.path} would be written as {self.format}; use one of {known}."
        return "" if self.format in OUTPUT_FORMATS else text

    def problem(self, spark: SparkSession, key: str) -> str:
        """Return why nothing can be written there; empty if something can, which is tried."""
        how = "overwrite = true in [output]" if key.startswith("output.") else "--overwrite"
        try:
            if not self.overwrite and self._exists(spark):
                return f"{key}: {self.path} exists already. Name another path, or use {how}."
            if self.format != "table" and not is_connect(spark):
                filesystem.probe_parent(spark, self.path)
        except Exception as error:  # every file system has errors of its own
            return f"{key}: {self.path} cannot be written ({root_cause(error)})."
        return ""

    def _exists(self, spark: SparkSession) -> bool:
        if self.format == "table":
            return spark.catalog.tableExists(self.path)
        # Without a JVM at hand, Spark's writer finds it.
        return not is_connect(spark) and filesystem.exists(spark, self.path)

    def write(self, rows: DataFrame) -> None:
        """Write rows. CSV holds no vectors or arrays: there they become text, as in JSON."""
        if self.format == "csv":
            rows = rows.select(*map(_as_text, rows.schema.fields))
        writer = rows.write.mode("overwrite" if self.overwrite else "errorifexists")
        spark = rows.sparkSession
        # An interrupt cancels the write, and waits for its end.
        remote = is_connect(spark)
        waiting = nullcontext() if remote else defer_interrupts(spark.sparkContext.cancelAllJobs)
        with self._replacing(spark) as path, waiting:
            if self.format == "table":
                writer.saveAsTable(path)
            else:
                options = {"header": "true"} if self.format == "csv" else {}
                writer.format(self.format).options(**options).save(path)

    def save(self, model: Any, spark: SparkSession) -> None:
        """Save a model or pipeline, whose own writer deletes what it overwrites before it saves."""
        with self._replacing(spark) as path:
            writer = model.write()
            (writer.overwrite() if self.overwrite else writer).save(path)

    def _replacing(self, spark: SparkSession) -> AbstractContextManager[str]:
        """Give the path to write to; what is there stays until all is written, where it can."""
        if self.format == "table" or is_connect(spark):
            return nullcontext(self.path)
        return filesystem.replacing(spark, self.path, overwrite=self.overwrite)


def overlaps(
    spark: SparkSession, inputs: Iterable[tuple[str, Source]], outputs: Iterable[tuple[str, Target]]
) -> Iterator[str]:
    """Yield the outputs that would replace an input, or one another."""

    def resolved(place: Source | Target) -> str:
        is_table = place.format == "table"
        return place.path.lower() if is_table else filesystem.qualify(spark, place.path) + "/"

    if is_connect(spark):  # which has no JVM to ask
        return
    others = [(key, resolved(source)) for key, source in inputs]
    for key, target in outputs:
        own = resolved(target)
        for other, path in others:
            if path.startswith(own) and (target.overwrite or other.startswith("output.")):
                yield f"{key}: {target.path} would replace {other}. Name another path."
        others.append((key, own))


def _as_text(field: StructField) -> Column:
    """Return a column, as JSON text if it holds vectors or a nested type."""
    value, kind = F.col(quote_column(field.name)), field.dataType
    if isinstance(kind, VectorUDT):
        value = vector_to_array(value)
    is_flat = not isinstance(kind, VectorUDT | ArrayType | MapType | StructType)
    return value if is_flat else F.to_json(value).alias(field.name)
