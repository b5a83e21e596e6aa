"""The training time of a round."""

import pytest

from sparknn.core.training.aggregation import WorkerReport, WorkerSum
from sparknn.core.training.round_length import training_time


def of(*seconds: float) -> WorkerSum:
    """The sums of a round whose workers trained for these seconds."""
    # Not in the order of partitions: reports arrive as the tasks end.
    reports = [WorkerReport(partition, seconds=s) for partition, s in enumerate(seconds)]
    return WorkerSum(None, tuple(reports[::-1]))


@pytest.mark.parametrize(
    ("seconds", "n_slots", "expected"),
    [
        ([3.0, 1.0, 2.0], 3, 3.0),
        ([3.0, 1.0, 2.0], 16, 3.0),
        ([3.0, 1.0, 2.0], 1, 6.0),
        # The third starts when the second ends.
        ([3.0, 1.0, 2.0, 1.0], 2, 4.0),
        ([1.0] * 8, 2, 4.0),
        ([0.0, 0.0], 2, 0.0),
    ],
)
def test_workers_take_turns(seconds: list[float], n_slots: int, expected: float) -> None:
    assert training_time([of(*seconds)], n_slots) == expected


def test_networks_of_one_round_add_up() -> None:
    assert training_time([of(1.0, 2.0), of(3.0, 1.0)], 2) == 4.0
