"""Features of raw columns, without Spark."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from sparknn.core.columns import InputColumn, InputColumns
from sparknn.core.nn.network import Network
from sparknn.core.predictor import LocalPredictor

NAN = float("nan")
INPUTS = InputColumns(
    (
        InputColumn("age", "number"),
        InputColumn("city", "text", 1, 3, ("Oslo", "Rome")),
        InputColumn("plan", "text", 1, 1, ("a",)),
        InputColumn("point", "vector", 2),
    )
)
TABLE = {
    "point": [[1.0, 2.0], [3.0, 4.0], None],
    "age": [30, None, True],
    "city": ["Rome", None, "Lima"],
    "plan": ["a", None, "b"],
}
# Null is a value of city, as training rows had it, and none of plan.
FEATURES = [[30, 1, 0, 1, 2], [NAN, 2, NAN, 3, 4], [1, NAN, NAN, NAN, NAN]]


@pytest.mark.parametrize(
    "table",
    [
        TABLE,
        pd.DataFrame(TABLE),
        pd.DataFrame(TABLE).astype({"age": "Int64", "city": "string"}),
        pd.DataFrame({**TABLE, "unused": 0, "age": [30, NAN, 1]}),
    ],
)
def test_a_table_is_taken_by_name(table: Any) -> None:
    np.testing.assert_array_equal(INPUTS.features(table), FEATURES)
    assert INPUTS.from_json(INPUTS.to_json()) == INPUTS


def test_one_row_is_a_table() -> None:
    row = {"age": np.float32(30), "city": "Rome", "plan": "a", "point": [1, 2]}
    assert INPUTS.features(row).tolist() == FEATURES[:1]
    assert INPUTS.features(pd.DataFrame(TABLE).iloc[:0]).shape == (0, 5)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("age", ["30", "31", "32"]),
        ("age", [[1], [2], [3]]),
        ("age", np.array(["2020-01-01"] * 3, dtype="M8[D]")),
        ("city", [1.0, 2.0, 3.0]),
        ("city", ["Oslo", 1, None]),
        ("point", [[1.0], [2.0], [3.0]]),
    ],
)
def test_values_of_another_kind(name: str, values: Any) -> None:
    with pytest.raises(ValueError, match=f"'{name}' has values of"):
        INPUTS.features({**TABLE, name: values})


def test_tables_that_do_not_do() -> None:
    with pytest.raises(ValueError, match=r"no columns \['age'\]"):
        INPUTS.features(pd.DataFrame(TABLE).drop(columns="age"))
    with pytest.raises(ValueError, match="different numbers of rows"):
        INPUTS.features({**TABLE, "age": [1]})


def test_contributions_take_a_table_by_name_too() -> None:
    columns = InputColumns((InputColumn("a", "number"), InputColumn("b", "number")))
    theta = np.float32([1, 0, 0, 10, 0, 0])
    local = LocalPredictor(
        Network((2, 2), loss="squared"), theta, baseline=np.zeros(2, np.float32), inputs=columns
    )
    table = pd.DataFrame({"b": [1.0, 2.0], "a": [3.0, 4.0]})
    expected = local.contributions(table[["a", "b"]].to_numpy())
    np.testing.assert_array_equal(local.contributions(table), expected)
    np.testing.assert_array_equal(local.contributions(table.to_dict("list")), expected)
