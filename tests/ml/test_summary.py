"""Check the history of a fit, as a table and as JSON."""

import json
import math
import sys
from dataclasses import fields

import numpy as np
import pytest
from models import record

from sparknn.core.training.history import RoundRecord
from sparknn.ml.summary import TrainingSummary


def summary(*records: RoundRecord) -> TrainingSummary:
    return TrainingSummary(
        list(records), n_rows=100, n_validation=20, n_features=4, n_workers=2, seconds=3.5
    )


def test_history_has_one_row_per_round() -> None:
    found = summary(record(0), record(1, validation_loss=0.75))
    assert list(found.history.columns) == [
        *(item.name for item in fields(RoundRecord)),
        "aggregation_s",
        "rows_per_s",
    ]
    assert found.history["loss"].tolist() == found.objectiveHistory == [1.0, 0.5]
    assert found.totalIterations == len(found.history) == 2
    assert found.history["rows_per_s"].tolist() == [200.0, 200.0]
    assert found.history["n_rows"].dtype == np.int64
    assert math.isnan(found.history["validation_loss"][0])


def test_aggregation_is_the_time_of_a_job_beyond_training() -> None:
    found = summary(record(0, job_s=0.5, compute_s=0.125), record(1, job_s=0.5, compute_s=0.625))
    assert found.history["aggregation_s"].tolist() == [0.375, 0.0]


def test_history_of_no_rounds_and_of_no_time() -> None:
    assert list(summary().history.columns) == list(summary(record(0)).history.columns)
    assert summary().history.empty
    assert math.isnan(summary(record(0, seconds=0.0)).history["rows_per_s"][0])


def test_json_keeps_everything() -> None:
    found = summary(
        record(0, loss=math.nan), record(1, drift=math.inf), record(2, loss=1e-17 + 1 / 3)
    )
    text = json.dumps(found.to_json(), allow_nan=False)
    again = TrainingSummary.from_json(json.loads(text))
    assert again.history.equals(found.history)
    assert again.history.dtypes.equals(found.history.dtypes)
    assert (again.n_rows, again.n_validation, again.n_features, again.n_workers) == (100, 20, 4, 2)
    assert again.seconds == 3.5
    assert math.isnan(again.ingest_s)


def test_json_of_another_version() -> None:
    saved = summary(record(0), record(1)).to_json()
    saved["n_executors"] = 3
    saved["history"]["temperature"] = [1, 2]
    del saved["history"]["drift"], saved["history"]["n_skipped"], saved["n_workers"]
    again = TrainingSummary.from_json(saved)
    assert again.objectiveHistory == [1.0, 0.5]
    assert again.history["drift"].isna().all()
    assert again.history["n_skipped"].tolist() == [0, 0]


@pytest.mark.parametrize("column", [[1.0], ["a", "b"], None])
def test_damaged_json(column: object) -> None:
    saved = summary(record(0), record(1)).to_json()
    saved["history"]["loss"] = column
    with pytest.raises((KeyError, TypeError, ValueError)):
        TrainingSummary.from_json(saved)


def test_plot() -> None:
    pytest.importorskip("matplotlib")
    axes = summary(record(0), record(1)).plot()
    assert [line.get_label() for line in axes.get_lines()] == ["training loss"]
    with_validation = summary(record(0, validation_loss=2.0), record(1, validation_loss=1.0))
    assert with_validation.plot(axes) is axes
    assert len(axes.get_lines()) == 3
    assert axes.get_lines()[-1].get_xdata().tolist() == [1, 2]


def test_plot_without_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"pip install 'sparknn\[plot\]'"):
        summary(record(0)).plot()
