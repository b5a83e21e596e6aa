"""A fit restored from a snapshot ends with the bytes of an uninterrupted one."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from engines import outcome
from scripted import ScriptedEngine, rounds_seen, scripted_fit
from toys import blobs, data_for, engine_of

from sparknn.core.config import AveragingConfig, TrainConfig
from sparknn.core.nn.network import Network
from sparknn.core.training.fit_state import FitState, Snapshot
from sparknn.core.training.rounds import run
from sparknn.engine.local import LocalEngine

NETWORK = Network((4, 6, 3), "tanh")
REGRESSION = Network((4, 6, 2), "tanh", "squared")
N_ROUNDS = 6

# All state that a fit keeps between rounds: each setting needs the part that it is named for.
SETTINGS: dict[str, tuple[dict[str, Any], AveragingConfig]] = {
    "buffers": ({"solver": "momentum"}, AveragingConfig("nesterov", 0.5)),
    "no buffers": (
        {"solver": "momentum", "local_state": "reset"},
        AveragingConfig("nesterov", 0.5),
    ),
    "natural": ({"solver": "ngsgd"}, AveragingConfig("nesterov", 0.6)),
    "steps": ({"solver": "adam", "step_size": 0.01, "l2": 0.01}, AveragingConfig()),
    "decoupled": ({"solver": "adamw", "step_size": 0.01, "dropout": 0.3}, AveragingConfig()),
    "draws": ({"mini_batch_fraction": 0.4, "local_epochs": 2}, AveragingConfig()),
    "regression": ({"network": REGRESSION, "solver": "adam"}, AveragingConfig()),
}
CHOSEN_BY_SCORE: dict[str, tuple[dict[str, Any], AveragingConfig]] = {
    "best": ({"step_size": 2.0, "max_change": 0.0}, AveragingConfig(final="best")),
    "patience": ({"max_iter": 12}, AveragingConfig(final="best", patience=3, tol=0.05)),
}


class Interrupted(Exception):
    """The driver dies."""


def engine_for(network: Network, *, validation: bool) -> LocalEngine:
    scored = data_for(network, 30, seed=5) if validation else None
    return engine_of(*data_for(network, 70), [30, 25, 15], validation=scored)


def make(config: dict[str, Any], averaging: AveragingConfig) -> FitState:
    settings = {"network": NETWORK, "max_iter": N_ROUNDS, "batch_size": 8, "seed": 3, **config}
    return FitState(TrainConfig(**settings), averaging, 3)


def frozen(saved: Snapshot) -> Snapshot:
    """A read-only deep copy, as if loaded from a disk."""
    arrays = {name: array.copy() for name, array in saved.arrays.items()}
    for array in arrays.values():
        array.flags.writeable = False
    return Snapshot(list(saved.history), dict(saved.numbers), arrays)


def interrupted(engine: Any, fits: list[FitState], n_rounds: int) -> list[Snapshot | None]:
    """Run for ``n_rounds`` and die; return the last snapshot of each fit."""
    found: list[Snapshot | None] = [None] * len(fits)
    for number, fit in enumerate(fits):
        fit.on_checkpoint = stop_after(found, number, n_rounds)
    with pytest.raises(Interrupted):
        run(engine, fits)
    return found


def stop_after(
    found: list[Snapshot | None], number: int, n_rounds: int
) -> Callable[[FitState], None]:
    def on_checkpoint(fit: FitState) -> None:
        found[number] = frozen(fit.snapshot())
        if len(fit.history) == n_rounds:
            raise Interrupted

    return on_checkpoint


class CountingEngine:
    """Records the rounds of a wrapped engine, and the number of requests in each."""

    def __init__(self, engine: Any) -> None:
        self.engine, self.n_workers, self.n_slots = engine, engine.n_workers, engine.n_slots
        self.has_validation = engine.has_validation
        self.asked: list[tuple[int, int]] = []

    def run_round(self, requests: Any, round_: int) -> Any:
        self.asked.append((round_, len(requests)))
        return self.engine.run_round(requests, round_)


CASES = [
    *((name, *case, scored) for name, case in SETTINGS.items() for scored in (False, True)),
    *((name, *case, True) for name, case in CHOSEN_BY_SCORE.items()),
]


@pytest.mark.parametrize("n_rounds", [1, 3, 5])
@pytest.mark.parametrize(
    ("config", "averaging", "validation"),
    [case[1:] for case in CASES],
    ids=[f"{name}{', scored' if scored else ''}" for name, *_, scored in CASES],
)
def test_a_restored_fit_ends_with_the_same_bytes(
    config: dict[str, Any], averaging: AveragingConfig, validation: bool, n_rounds: int
) -> None:
    engine = engine_for(config.get("network", NETWORK), validation=validation)
    whole = make(config, averaging)
    run(engine, [whole])
    (saved,) = interrupted(engine, [make(config, averaging)], n_rounds)
    again = make(config, averaging)
    assert saved is not None
    again.restore(saved)
    counting = CountingEngine(engine)
    run(counting, [again])
    assert outcome([again]) == outcome([whole])
    assert [record.round for record in again.history] == list(range(len(whole.history)))
    trained = [round_ for round_, _ in counting.asked if round_ < len(whole.history)]
    assert trained == list(range(n_rounds, len(whole.history)))


def test_the_cases_differ_from_last_and_stop_early() -> None:
    engine = engine_for(NETWORK, validation=True)
    fits = {name: make(*case) for name, case in CHOSEN_BY_SCORE.items()}
    run(engine, list(fits.values()))
    assert fits["best"].theta is not None
    assert fits["best"].theta.tobytes() != fits["best"].current.tobytes()
    assert 5 < len(fits["patience"].history) < 12


def test_a_snapshot_is_not_changed_by_the_rounds_that_follow() -> None:
    engine = engine_for(NETWORK, validation=False)
    fit = make(*SETTINGS["buffers"])
    kept: list[tuple[Snapshot, Snapshot]] = []

    def keep(fit: FitState) -> None:
        saved = fit.snapshot()
        kept.append((saved, frozen(saved)))

    fit.on_checkpoint = keep
    run(engine, [fit])
    assert len(kept) == N_ROUNDS - 1
    for saved, copied in kept:
        assert len(saved.history) == len(copied.history)
        assert {name: array.tobytes() for name, array in saved.arrays.items()} == {
            name: array.tobytes() for name, array in copied.arrays.items()
        }


def test_fits_at_different_rounds_wait_for_each_other() -> None:
    """One has one round left, one is ahead, one starts from scratch: the same bytes."""
    X, y = blobs(70)
    engine = engine_of(X, y, [30, 25, 15], validation=blobs(20, seed=5))
    cases = [SETTINGS["buffers"], ({"max_iter": 2}, AveragingConfig()), SETTINGS["steps"]]
    whole = [make(*case) for case in cases]
    run(engine, whole)
    saved = interrupted(engine, [make(*case) for case in cases], 3)
    again = [make(*case) for case in cases]
    for fit, state in list(zip(again, saved, strict=True))[:2]:
        assert state is not None
        fit.restore(state)
    assert [len(fit.history) for fit in again] == [3, 1, 0]
    counting = CountingEngine(engine)
    run(counting, again)
    assert outcome(again) == outcome(whole)
    # Round 0 for one, round 1 for two of them, the score of one, then the rest.
    assert counting.asked[:5] == [(0, 1), (1, 2), (2, 1), (2, 1), (3, 2)]


def test_on_checkpoint_is_called_after_every_round_but_the_last() -> None:
    ends: list[int] = []
    losses = [9.0, 3.0, 2.0, 5.0, 6.0, 7.0, 8.0, 9.0]
    stops = scripted_fit(7, AveragingConfig(patience=2), on_checkpoint=lambda fit: ends.append(1))
    run(ScriptedEngine(losses), [stops])
    assert len(stops.history) == len(ends) == 4
    ends.clear()
    run(ScriptedEngine(), [scripted_fit(3, on_checkpoint=lambda fit: ends.append(1))])
    assert len(ends) == 2


def test_halved_steps_and_failed_rounds_are_restored() -> None:
    """Two rounds diverge before the snapshot; a third in a row after it ends the fit."""
    engine = ScriptedEngine(fails=lambda request, round_, partition: round_ >= 2)
    (saved,) = interrupted(engine, [scripted_fit(9)], 4)
    again = scripted_fit(9)
    assert saved is not None
    again.restore(saved)
    assert again.request().step_factor == 0.25
    run(engine, [again])
    assert "3 consecutive rounds" in str(again.error)
    assert len(again.history) == 4


def test_adapted_rounds_continue() -> None:
    engine = ScriptedEngine()
    (saved,) = interrupted(engine, [scripted_fit(20, adapt_round_length=True)], 3)
    assert saved is not None
    again = scripted_fit(20, adapt_round_length=True)
    again.restore(saved)
    before = saved.numbers["n_done"]
    assert 3 < before < 20
    assert again.request().units_ahead == before - 3
    run(engine, [again])
    assert rounds_seen(again) == len(again.history) < 20


def test_arrays_keep_their_type() -> None:
    (saved,) = interrupted(engine_for(NETWORK, validation=False), [make(*SETTINGS["buffers"])], 2)
    assert saved is not None
    types = {key: array.dtype for key, array in saved.arrays.items()}
    assert types.pop("running") == np.float64
    assert set(types.values()) == {np.dtype(np.float32)}
