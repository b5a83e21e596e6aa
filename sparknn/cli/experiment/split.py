"""The rows of an experiment, and their random divisions into training and test."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sparknn.cli import columns, stages
from sparknn.cli.config import TrainConfig
from sparknn.cli.experiment.settings import Settings
from sparknn.cli.mistakes import UsageError
from sparknn.engine.sql import quote_column

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, SparkSession

# Numbers that a row's hash is folded to.
_STEPS = 1 << 24
# The stream of hashes that draws `data.rows`; those of splits start at 1.
_DRAW = 0


@dataclass(frozen=True)
class Rows:
    """The rows of an experiment, in memory, and the columns that a network reads.

    Parameters
    ----------
    data : DataFrame
    features, label : str
    count : int
    """

    data: DataFrame
    features: str
    label: str
    count: int


def read_rows(spark: SparkSession, settings: Settings) -> Rows:
    """Read the rows, draw ``data.rows`` of them, and make the columns that a network needs.

    Raises
    ------
    UsageError
        If columns are missing or of the wrong type.
    ValueError
        If there are no rows.
    """
    from pyspark.ml import Pipeline

    data = settings.source.read(spark, "data.train")
    found = columns.look_at(
        data.schema,
        TrainConfig(
            name=settings.name,
            task="classification",
            train=settings.source,
            test=None,
            features=settings.features,
            label=settings.label,
            weight=None,
            validation_indicator=None,
        ),
    )
    if found.mistakes:
        raise UsageError(settings.name, found.mistakes)
    before = stages.around(found)
    if before:
        data = Pipeline(stages=before).fit(data).transform(data)
    data = data.select(quote_column(found.features), quote_column(found.label))
    if settings.rows is not None:
        share = settings.rows / max(data.count(), 1)
        place = _place(found.features, found.label, settings.seed, _DRAW)
        data = data.where(place < share)
    data = data.persist()
    count = data.count()
    if count == 0:
        raise ValueError(f"There are no rows in {settings.source.path}.")
    return Rows(data, found.features, found.label, count)


def with_test_column(rows: Rows, settings: Settings, split: int) -> tuple[DataFrame, str]:
    """The rows with a boolean column that marks the test rows of a split, and its name."""
    name = columns.free_name(rows.data.schema, "test")
    place = _place(rows.features, rows.label, settings.seed, split)
    return rows.data.withColumn(name, place < settings.test_fraction), name


def _place(features: str, label: str, seed: int, stream: int) -> Column:
    """A random number from 0 up to 1, which depends on nothing but the row's own content.

    So a split is the same however the rows are partitioned, and equal rows stay together: none is
    both trained and tested on.
    """
    from pyspark.sql import functions as F

    content = (F.col(quote_column(name)) for name in (features, label))
    hashed = F.xxhash64(F.lit(seed), F.lit(stream), *content)
    return F.pmod(hashed, F.lit(_STEPS)) / F.lit(_STEPS)
