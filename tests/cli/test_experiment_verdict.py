"""From rounds to seconds, and from seconds to who has won."""

import math
from collections.abc import Sequence

import pytest

from sparknn.cli.experiment import tables, verdict
from sparknn.cli.experiment.settings import Arm
from sparknn.cli.experiment.trials import Point, Run, Trial, points
from sparknn.core.training.history import RoundRecord

_POSTER, _OURS = Arm("poster"), Arm("ours")


def record(round_: int, seconds: float, compute_s: float, accuracy: float) -> RoundRecord:
    return RoundRecord(
        round=round_,
        loss=1.0,
        n_rows=100,
        n_steps=10,
        n_skipped=0,
        compute_s=compute_s,
        drift=1.0,
        agreement=1.0,
        step_norm=1.0,
        workers_left_out=0,
        step_factor=1.0,
        validation_loss=1.0,
        validation_metric=accuracy,
        seconds=seconds,
        broadcast_s=0.1,
        job_s=seconds - 0.1,
    )


def run(
    arm: Arm,
    workers: int,
    accuracies: Sequence[float],
    *,
    split: int = 1,
    seconds: float = 1.0,
    compute_s: float = 0.5,
) -> Run:
    records = [record(i, seconds, compute_s, a) for i, a in enumerate(accuracies)]
    return Run(Trial(arm, split, workers, 5), points(records, workers, n_slots=8))


def test_a_model_is_compute_and_overhead() -> None:
    two = [record(0, 5.0, 1.0, 0.5), record(1, 3.0, 1.0, 0.6)]
    # 8 workers on 2 cores: four waves of a second each, and a second besides.
    first, last = points(two, n_workers=8, n_slots=2)
    assert (first.compute_s, first.overhead_s, first.model_s) == (1.0, 1.0, 2.0)
    # A round that was faster than its slowest worker four times over has no overhead.
    assert (last.compute_s, last.overhead_s, last.seconds) == (2.0, 1.0, 8.0)
    assert (last.n_rows, last.round, last.accuracy) == (200, 2, 0.6)


def test_with_a_core_a_worker_the_model_is_the_measurement() -> None:
    (only,) = points([record(0, 5.0, 1.0, 0.5)], n_workers=2, n_slots=2)
    assert only.model_s == only.seconds == 5.0


def test_one_worker_needs_no_spark() -> None:
    (only,) = points([record(0, 5.0, 1.0, 0.5)], n_workers=1, n_slots=2)
    assert (only.seconds, only.overhead_s, only.model_s) == (5.0, 4.0, 1.0)


def test_wins_and_losses() -> None:
    # Two workers take twice the rounds to 80 %, in a quarter of the time each.
    runs = [
        run(_POSTER, 1, [0.7, 0.9, 0.9, 0.9], seconds=4.0, compute_s=4.0),
        run(_POSTER, 2, [0.3, 0.5, 0.7, 0.8], seconds=1.0, compute_s=0.8),
    ]
    (found,) = verdict.against_sequential(runs, target=0.8)
    assert found.accuracy == pytest.approx(-0.1)
    assert found.ratios == pytest.approx((2.0, 0.5, 0.5))
    assert found.outcomes() == ("loses", "loses", "wins", "wins")
    assert verdict.lines([found], 0.8) == [
        "  poster  every  5  accuracy: loses with 2",
        "  poster  every  5  rows to 80.0%: loses with 2",
        "  poster  every  5  seconds to 80.0%: wins with 2",
        "  poster  every  5  seconds (model) to 80.0%: wins with 2",
    ]


def test_not_getting_there_is_losing() -> None:
    runs = [run(_POSTER, 1, [0.9]), run(_POSTER, 2, [0.7])]
    (found,) = verdict.against_sequential(runs, target=0.8)
    assert found.outcomes() == ("loses", "loses", "loses", "loses")
    assert all(math.isnan(ratio) for ratio in found.ratios)
    (neither,) = verdict.against_sequential(runs, target=0.95)
    assert neither.outcomes() == ("loses", "-", "-", "-")
    assert verdict.lines([neither], 0.95)[1].endswith("rows to 95.0%: not reached")


def test_splits_that_disagree_are_even() -> None:
    runs = [
        *(run(_POSTER, 1, [0.90], split=1), run(_POSTER, 1, [0.90], split=2)),
        *(run(_POSTER, 2, [0.95], split=1), run(_POSTER, 2, [0.89], split=2)),
    ]
    (found,) = verdict.against_sequential(runs, target=0.8)
    assert (found.better, found.n_splits) == (1, 2)
    assert found.outcomes()[:3] == ("even", "even", "even")


def test_arms_are_compared_with_the_first() -> None:
    runs = [run(_POSTER, 2, [0.5, 0.9]), run(_OURS, 2, [0.9, 0.95])]
    (found,) = verdict.against_first_arm(runs, 0.9, "poster")
    assert (found.arm, found.workers, found.ratios[0]) == ("ours", 2, 0.5)
    assert verdict.against_sequential(runs, 0.9) == []


def test_what_failed_is_not_compared() -> None:
    failed = Run(Trial(_POSTER, 1, 2, 5), [], problem="diverged")
    assert verdict.against_sequential([run(_POSTER, 1, [0.9]), failed], 0.8) == []


def test_times_are_relative_to_one_worker() -> None:
    runs = [
        run(_POSTER, 1, [0.9, 0.9], seconds=4.0, compute_s=4.0),
        run(_POSTER, 2, [0.9, 0.9], seconds=2.0, compute_s=1.5),
    ]
    found = tables.time(runs)
    headings = [heading for heading, _ in found.headings]
    one, two = (dict(zip(headings, row, strict=True)) for row in found.rows)
    assert (one["measured"], one["times as fast"]) == (8.0, 1.0)
    assert (two["measured"], two["times as fast"], two["overhead"]) == (4.0, 2.0, 1.0)
    assert "not measured" in found.note


def test_accuracy_over_training() -> None:
    runs = [
        run(_POSTER, 1, [0.5, 0.9], seconds=4.0),
        run(_POSTER, 2, [0.4, 0.8], seconds=1.0),
    ]
    by_rows = tables.by_rows(runs)
    assert by_rows.rows == [["poster", 1, 100, 0.5, 0.4], ["poster", 2, 200, 0.9, 0.8]]
    by_seconds = tables.by_seconds(runs, "seconds").rows
    assert by_seconds[0] == ["poster", 0.8, None, None]
    assert by_seconds[1][2:] == [None, 0.4]
    assert by_seconds[-1] == ["poster", 8.0, 0.9, 0.8]


def test_a_table_can_be_read() -> None:
    found = tables.Table(
        "t", "Title", [("arm", ""), ("share", ".1%")], [["a", 0.5], ["long", math.nan]], "Note."
    )
    assert found.lines() == ["Title", "  arm   share", "  a     50.0%", "  long      -", "Note."]
    assert found.to_json()["rows"] == [{"arm": "a", "share": 0.5}, {"arm": "long", "share": None}]


def test_points_are_of_the_network_a_round_ends_with() -> None:
    point = Point(1, 1, 0.5, 0.1, 1.0, 0.6, 0.4, 1.0, 0.0, 1.0)
    assert Run(Trial(_OURS, 1, 1, 5), [point]).reaching(0.5) is point
    assert Run(Trial(_OURS, 1, 1, 5), [point]).reaching(0.6) is None
