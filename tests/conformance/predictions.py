"""Check that predictions depend on the row only."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from pyspark.sql import functions as F

from conformance.subject import Subject, answers

_BATCH = "spark.sql.execution.arrow.maxRecordsPerBatch"


def check_predictions_are_of_rows(subject: Subject) -> None:
    """Independent of row order, partitioning and arrow batch size; to the last bit."""
    for batch, frame in [
        (1, subject.data.where("id < 40")),
        (7, subject.data.repartition(5)),
        (10_000, subject.data.orderBy(F.desc("id"))),
        (13, subject.data.repartition(3, "id").orderBy(F.rand(1))),
    ]:
        with _batch_size(subject, batch):
            found = answers(subject.model.transform(frame))
        assert np.array_equal(found, subject.answers[: len(found)]), f"{batch} rows a batch"


def check_transform_keeps_rows_and_columns(subject: Subject) -> None:
    frame = subject.data.withColumn("a.b", F.lit("kept"))
    predicted = subject.model.transform(frame)
    assert predicted.columns[: len(frame.columns)] == frame.columns
    assert predicted.select("id", "`a.b`").exceptAll(frame.select("id", "`a.b`")).count() == 0
    assert predicted.count() == frame.count()
    # A prediction may be filtered on, and computed once for rows that are used twice.
    first = predicted.first()
    column = subject.model.getPredictionCol()
    assert first is not None
    assert predicted.where(F.col(column) == first[column]).count() >= 1


def check_transform_starts_no_job(subject: Subject) -> None:
    sc = subject.spark.sparkContext
    sc.setJobGroup("sparknn conformance: transform", "")
    try:
        subject.model.transform(subject.data)
        assert sc.statusTracker().getJobIdsForGroup("sparknn conformance: transform") == []
    finally:
        sc.setLocalProperty("spark.jobGroup.id", None)
        sc.setLocalProperty("spark.job.description", None)


@contextmanager
def _batch_size(subject: Subject, n_rows: int) -> Iterator[None]:
    before = subject.spark.conf.get(_BATCH)
    subject.spark.conf.set(_BATCH, str(n_rows))
    try:
        yield
    finally:
        subject.spark.conf.set(_BATCH, before)
