"""Rows in and out: whatever Spark reads and writes, by format and path, or by a table's name."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from sparknn.cli import places
from sparknn.cli.mistakes import PathError
from sparknn.engine.interrupts import defer_interrupts
from sparknn.engine.sql import is_connect, quote_column

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, SparkSession

_ENDINGS = {
    ".parquet": "parquet",
    ".csv": "csv",
    ".csv.gz": "csv",
    ".libsvm": "libsvm",
    ".svm": "libsvm",
    ".json": "json",
    ".jsonl": "json",
    ".orc": "orc",
}
# A CSV file with neither a header nor types is of no use here; options override both.
_CSV_OPTIONS = {"header": "true", "inferSchema": "true"}


class PathExistsError(PathError):
    """Something is already where output is to be written."""


class NothingThereError(PathError):
    """There is nothing where rows are to be read."""


def guess_format(path: str) -> str:
    """The format that a path's ending names; parquet, as Spark's own default, if it names none."""
    lower = path.rstrip("/").lower()
    return next((name for ending, name in _ENDINGS.items() if lower.endswith(ending)), "parquet")


def option_text(value: str | int | float | bool) -> str:
    """A reader option as Spark wants it: text, with lower-case booleans."""
    return str(value).lower() if isinstance(value, bool) else str(value)


@dataclass(frozen=True)
class Source:
    """Where rows come from.

    Parameters
    ----------
    path : str
        A path on any file system that Spark knows, or a table's name. A relative path starts at
        the working directory in a local job, and at the default file system's home on a cluster.
    format : str
    options : dict of str to str
        For Spark's reader.
    """

    path: str
    format: str
    options: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        path: str,
        format_: str | None = None,
        options: Mapping[str, str | int | float | bool] | None = None,
    ) -> Source:
        """Fill in what is not said: the format by the path's ending, and sensible CSV options."""
        format_ = format_ or guess_format(path)
        given = {name: option_text(value) for name, value in (options or {}).items()}
        if format_ == "csv":
            # Spark's options do not mind case, so neither may the defaults.
            names = {name.lower() for name in given}
            given |= {n: v for n, v in _CSV_OPTIONS.items() if n.lower() not in names}
        return cls(path, format_, given)

    def with_features(self, count: int) -> Source:
        """The same, with the vectors' size said: a libsvm file does not know it."""
        if self.format != "libsvm" or any(n.lower() == "numfeatures" for n in self.options):
            return self
        return replace(self, options={**self.options, "numFeatures": str(count)})

    def read(self, spark: SparkSession, key: str) -> DataFrame:
        """The rows, lazily.

        Parameters
        ----------
        key : str
            What named the rows, for the message.

        Raises
        ------
        NothingThereError
        """
        from pyspark.errors import AnalysisException

        try:
            if self.format == "table":
                return spark.read.options(**self.options).table(self.path)
            return spark.read.format(self.format).options(**self.options).load(self.path)
        except AnalysisException as error:
            if not places.is_missing(error):
                raise
            raise NothingThereError(self._nothing(key)) from None

    def missing(self, key: str) -> str:
        """What can be said before Spark starts: a line if there is nothing, otherwise empty."""
        if not self.path or self.format == "table" or places.local(self.path) in (None, True):
            return ""
        return self._nothing(key)

    def _nothing(self, key: str) -> str:
        if self.format == "table":
            return f"{key}: there is no table {self.path}."
        # A table's name has neither slashes nor an ending that names a format.
        might_be_table = re.fullmatch(r"\w+(\.\w+){0,2}", self.path) and not any(
            self.path.lower().endswith(ending) for ending in _ENDINGS
        )
        how = "--format table" if key.startswith("--") else "format = 'table' in [data]"
        hint = f" If it is a table, say {how}." if might_be_table else ""
        return f"{key}: there is no {self.path}.{hint}"


@dataclass(frozen=True)
class Target:
    """Where output goes: rows, or a model.

    Parameters
    ----------
    path : str
        A path or a table's name, as for ``Source``.
    format : str
    overwrite : bool
        Whether to replace what is there; otherwise it is an error.
    """

    path: str
    format: str
    overwrite: bool = False

    @classmethod
    def of(cls, path: str, format_: str | None = None, *, overwrite: bool = False) -> Target:
        format_ = format_ or guess_format(path)
        return cls(path, "parquet" if format_ == "libsvm" else format_, overwrite)

    def check_free(self, spark: SparkSession, key: str) -> None:
        """Say before the work, not after it, that there is something in the way.

        Raises
        ------
        PathExistsError
        PathError
            If nothing can be written there.
        """
        if not self.overwrite and self._exists(spark):
            raise PathExistsError(self._taken(key))
        if self.format != "table":
            unwritable = self._unwritable(key, places.where_spark_writes(spark, self.path))
            if unwritable:
                raise PathError(unwritable)

    def in_the_way(self, key: str) -> str:
        """What can be said before Spark starts: a line if something is there, otherwise empty.

        So it is where nothing can be written.
        """
        if self.format == "table":
            return ""
        if not self.overwrite and places.local(self.path):
            return self._taken(key)
        return self._unwritable(key, places.on_this_machine(self.path))

    def _unwritable(self, key: str, here: str | None) -> str:
        reason = "" if here is None else places.why_not_writable(here)
        return f"{key}: {self.path} cannot be written: {reason}." if reason else ""

    def _taken(self, key: str) -> str:
        what = "table" if self.format == "table" else "path"
        return (
            f"{key}: the {what} {self.path} exists already. Name another one, or say "
            f"{'overwrite = true in [output]' if key.startswith('output.') else '--overwrite'}."
        )

    def _exists(self, spark: SparkSession) -> bool:
        if self.format == "table":
            return spark.catalog.tableExists(self.path)
        return places.exists(spark, self.path)

    def write(self, rows: DataFrame) -> None:
        """Write the rows. CSV holds no vectors or arrays: there they become text, as in JSON.

        A path that a failed run has begun is removed, for the next run would find it in its way.
        """
        from pyspark.errors import AnalysisException

        ours = self.format != "table" and not self._exists(rows.sparkSession)
        try:
            with _interrupts_cancel(rows.sparkSession):
                self._write(rows)
        except AnalysisException:  # nothing was begun: another program's path may be there by now
            raise
        except BaseException:
            if ours:
                places.remove(rows.sparkSession, self.path)
            raise

    def _write(self, rows: DataFrame) -> None:
        if self.format == "csv":
            rows = rows.select(*_flat(rows))
        mode = "overwrite" if self.overwrite else "errorifexists"
        if self.format == "table":
            rows.write.mode(mode).saveAsTable(self.path)
        elif self.format == "csv":
            rows.write.mode(mode).option("header", "true").csv(self.path)
        else:
            rows.write.mode(mode).format(self.format).save(self.path)


def _interrupts_cancel(spark: SparkSession) -> AbstractContextManager[None]:
    """On an interrupt cancel what Spark does, and wait for it."""
    if is_connect(spark):  # its calls can be broken off anywhere
        return nullcontext()
    return defer_interrupts(spark.sparkContext.cancelAllJobs)


def _flat(rows: DataFrame) -> list[Column]:
    """A DataFrame's columns, with vectors and nested types as JSON text."""
    from pyspark.ml.functions import vector_to_array
    from pyspark.ml.linalg import VectorUDT
    from pyspark.sql import functions as F
    from pyspark.sql.types import ArrayType, MapType, StructType

    columns = []
    for column in rows.schema.fields:
        value = F.col(quote_column(column.name))
        if isinstance(column.dataType, VectorUDT):
            value = F.to_json(vector_to_array(value)).alias(column.name)
        elif isinstance(column.dataType, ArrayType | MapType | StructType):
            value = F.to_json(value).alias(column.name)
        columns.append(value)
    return columns
