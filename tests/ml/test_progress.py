"""The line that is logged for a finished round."""

from scripted import ScriptedEngine, scripted_fit

from sparknn.core.training.fit_state import FitState
from sparknn.core.training.history import RoundRecord
from sparknn.core.training.rounds import run
from sparknn.ml.progress import round_line


def lines_of(**params: bool) -> list[str]:
    lines: list[str] = []

    def log(fit: FitState, record: RoundRecord) -> None:
        lines.append(round_line(record, fit))

    run(ScriptedEngine(), [scripted_fit(20, on_round_end=log, **params)])
    return lines


def test_rounds_of_fixed_length_are_counted() -> None:
    lines = lines_of()
    assert [line.partition("  loss")[0] for line in lines] == [
        f"round {n:>2}/20" for n in range(1, 21)
    ]
    assert " left" not in lines[-1]


def test_rounds_that_adapt_count_units_of_local_work() -> None:
    lines = lines_of(adapt_round_length=True)
    assert len(lines) < 20
    assert f"round {len(lines):>2}  20/20 units  loss" in lines[-1]
    assert " left" not in lines[-1]
