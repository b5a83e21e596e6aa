"""Check the number of classes, from metadata or from the data."""

import logging

import numpy as np
import pytest
from pyspark.sql.types import DoubleType, StructField

from sparknn.core.data.rows import ArrayRows
from sparknn.engine.interface import DataError
from sparknn.engine.statistics import combine, measure
from sparknn.ml.labels import (
    DeclaredClasses,
    balanced_weights,
    count_classes,
    declared_classes,
    warn_of_identifier,
    warn_of_one_class,
    warn_of_outlier,
)


def column(name: str = "y", **attributes: object) -> StructField:
    return StructField(name, DoubleType(), metadata={"ml_attr": attributes} if attributes else {})


def by_metadata(n_classes: int | None) -> DeclaredClasses | None:
    return None if n_classes is None else DeclaredClasses(n_classes, "its metadata", "Index again.")


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        (column(), None),
        (column(type="nominal", vals=["a", "b", "c"]), 3),
        (column(type="nominal", num_vals=4), 4),
        (column(type="binary", vals=["no", "yes"]), 2),
        (column(type="binary"), 2),
        (column(type="nominal"), None),
        (column(type="numeric", min=0), None),
        (StructField("y", DoubleType()), None),
        (column("mc2b$12"), 2),
        (column("mc2b$12", type="nominal", num_vals=4), 4),
        (column("my mc2b$1"), None),
        (column("mc2b$"), None),
    ],
)
def test_declared_classes(field: StructField, expected: int | None) -> None:
    found = declared_classes(field)
    assert (None if found is None else found.n_classes) == expected


@pytest.mark.parametrize(
    ("seen", "declared", "expected"),
    [
        ({0: 5.0, 1: 3.0}, None, 2),
        ({0: 5.0, 2: 3.0}, None, 3),
        ({1: 5.0, 2: 3.0}, 5, 5),
        ({0: 1.0, 99: 1.0}, None, 100),
        (dict.fromkeys(range(2000), 1.0), None, 2000),
        ({0: 1.0, 1: 1.0}, 20_000, 20_000),
    ],
)
def test_count_classes(seen: dict[int, float], declared: int | None, expected: int) -> None:
    assert count_classes("y", seen, by_metadata(declared)) == expected


@pytest.mark.parametrize(
    ("seen", "declared", "says"),
    [
        ({0: 1.0, 3: 1.0}, 3, "has class 3, but its metadata declares 3 classes"),
        ({0: 1.0, 10**9: 1.0}, None, "like an identifier"),
        ({0: 1.0, 101: 1.0}, None, "like an identifier"),
        (dict.fromkeys(range(10_001), 1.0), None, "10001 different values"),
        ({0: 1.0}, None, "one class only"),
        ({1: 1.0}, None, "one class only"),
        ({0: 1.0}, 1, "one class only"),
    ],
)
def test_labels_that_cannot_be_meant(
    seen: dict[int, float], declared: int | None, says: str
) -> None:
    with pytest.raises(DataError, match=says):
        count_classes("y", seen, by_metadata(declared))


def test_one_class_of_several_declared_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "sparknn"):
        assert count_classes("y", {1: 4.0}, by_metadata(3)) == 3
    assert "one class only (1) of the 3 that its metadata declares" in caplog.text


def test_balanced_weights_keep_the_sum() -> None:
    seen = {0: 90.0, 1: 10.0, 3: 20.0}
    factors = balanced_weights(seen, 5)
    totals = [seen[label] * factors[label] for label in seen]
    np.testing.assert_allclose(totals, 40)
    assert factors.shape == (5,)
    assert factors[2] == factors[4] == 1


@pytest.mark.parametrize(
    ("n_classes", "n_rows", "warned"),
    [(2000, 1946, True), (101, 302, True), (101, 303, False), (100, 50, False)],
)
def test_hardly_two_rows_of_a_class_are_a_warning(
    n_classes: int, n_rows: int, warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    warn_of_identifier("who", n_classes, n_rows)
    assert ("is it an identifier?" in caplog.text) == warned


@pytest.mark.parametrize(
    ("weights", "warned"), [({0: 0.0, 1: 5.0}, True), ({1: 5.0}, False), ({0: 1.0, 1: 5.0}, False)]
)
def test_training_rows_of_one_class(
    weights: dict[int, float], warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    warn_of_one_class("bought", weights)
    assert ("All training rows have class 1" in caplog.text) == warned


@pytest.mark.parametrize(("outlier", "warned"), [(4.0, False), (1e12, True), (-1e12, True)])
def test_a_label_that_hides_the_others(
    outlier: float, warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    y = np.append(np.random.default_rng(0).normal(size=199), outlier)
    found = combine([measure(ArrayRows(np.zeros((200, 1), np.float32), y[:, None]))], 1)
    warn_of_outlier("price", found, 200)
    assert ("loss='huber'" in caplog.text) == warned
    if warned:
        assert f"{outlier:.3g}" in caplog.text
