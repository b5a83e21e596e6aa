"""Ways of averaging against each other, on MNIST: ``make bench-averaging``.

Workers are simulated by the local engine: the same arithmetic, to the byte, as on Spark, and no
scheduling to time. Rows are counted over all workers: one epoch is 60,000. Every fit is planned for
its budget, so a table's rows are fits of their own, not points on the way of a longer one.

    make bench-averaging                       # what the README states
    make bench-averaging ARGS='grid --seeds 3' # workers x averaging x solver x local state
"""

from __future__ import annotations

import os

os.environ["OPENBLAS_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"] = "1"

import argparse
import itertools
import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from sparknn import NeuralNetClassifier
from sparknn.core.averaging import weight_unit
from sparknn.core.batches import random_stream
from sparknn.core.network import Network
from sparknn.core.plan import Plan
from sparknn.core.rounds import Averaging, Fit, run
from sparknn.core.rows import ArrayRows
from sparknn.engine.local import LocalEngine
from sparknn.engine.moments import combine, measure
from sparknn.ml.fitting import resolve_defaults
from sparknn.ml.standardize import robust_standardizer

MNIST = Path(__file__).parents[2] / "notebooks/data/mnist"
LAYERS = (784, 300, 10)
GOAL = 0.98
# Workers, and the epochs within which they shall reach the goal.
BUDGETS = {1: 2.0, 2: 2.6, 4: 3.3, 8: 4.2, 16: 5.5}
ROUNDS = 10
# What sparknn is compared with: the plain mean of momentum SGD.
PLAIN = {"solver": "momentum", "averaging": "mean"}


@dataclass(frozen=True)
class Setting:
    """One fit: workers, epochs, seed, and the params that are not left to the defaults."""

    workers: int
    epochs: float
    seed: int
    params: tuple[tuple[str, Any], ...] = ()
    rounds: int = ROUNDS
    sort: str = "shuffled"
    dropped: float = 0.0


@cache
def mnist(name: str) -> tuple[np.ndarray, np.ndarray]:
    table = pq.read_table(MNIST / f"{name}.parquet")
    pixels = table["pixels"].combine_chunks().flatten().to_numpy().reshape(-1, LAYERS[0])
    return pixels.astype(np.float32), table["label"].to_numpy().astype(np.float64)


def deal(setting: Setting) -> list[ArrayRows]:
    """The rows of each worker: at random, as ingest deals them, whatever their order was.

    ``sorted``: the input is sorted by label, then dealt at random by ingest (the default).
    ``kept``: it is sorted, and each worker keeps a run of it (``shuffle=False``).
    """
    X, y = mnist("train")
    order = np.argsort(y, kind="stable") if setting.sort != "shuffled" else np.arange(len(y))
    if setting.sort != "kept":
        order = order[random_stream(setting.seed, 2**31).permutation(len(y))]
    return [ArrayRows(X[part], y[part]) for part in np.array_split(order, setting.workers)]


def curve(setting: Setting) -> list[float]:
    """Test accuracy after every round."""
    shards = deal(setting)
    share = setting.epochs / setting.rounds
    local_epochs = max(1, math.ceil(share))
    net = NeuralNetClassifier(
        hiddenLayers=list(LAYERS[1:-1]),
        maxIter=setting.rounds,
        localEpochs=local_epochs,
        miniBatchFraction=share / local_epochs,
        seed=setting.seed,
        **dict(setting.params),
    )
    n_rows = sum(shard.n_rows for shard in shards)
    chosen = resolve_defaults(net, setting.workers, n_rows, has_validation=False, classifies=True)
    sums = [measure(shard, 1) for shard in shards]
    standardizer = robust_standardizer(combine(sums, LAYERS[0]))
    network = Network(LAYERS)
    plan = Plan(
        network,
        seed=setting.seed,
        max_iter=setting.rounds,
        solver=chosen.solver,
        step_size=chosen.stepSize,
        momentum=net.getMomentum(),
        schedule=net.getStepSizeSchedule(),
        batch_size=chosen.batchSize,
        local_epochs=local_epochs,
        mini_batch_fraction=share / local_epochs,
        local_state=chosen.localState,
        max_change=net.getMaxChange(),
        standardizer=standardizer,
    )
    averaging = Averaging(
        chosen.averaging, chosen.averagingMomentum, chosen.averagingRate, final=chosen.finalWeights
    )
    X, y = mnist("test")
    X = X.copy()
    standardizer.apply(X)
    accuracies = []

    def note(fit: Fit, record: object) -> None:
        hits = network.logits(fit.current, X).argmax(axis=1) == y
        accuracies.append(float(hits.mean()))

    none = ArrayRows(X[:0], y[:0])
    engine = LocalEngine(
        [(shard, none) for shard in shards], weight_unit(n_rows), drop=_dropper(setting)
    )
    fit = Fit(plan, averaging, setting.workers, on_round=note)
    run(engine, [fit])
    assert fit.theta is not None
    accuracies[-1] = float((network.logits(fit.theta, X).argmax(axis=1) == y).mean())
    return accuracies


def _dropper(setting: Setting) -> Callable[[int, int], bool] | None:
    if not setting.dropped:
        return None
    return lambda round_, worker: (
        random_stream(setting.seed, 2**31 + 1, round_, worker).random() < setting.dropped
    )


def measure_all(settings: Sequence[Setting]) -> dict[Setting, list[float]]:
    """All curves, on as many processes as there are cores."""
    with ProcessPoolExecutor() as pool:
        return dict(zip(settings, pool.map(curve, settings), strict=True))


def until_goal(setting: Setting, accuracies: list[float]) -> float:
    """Epochs until the goal; infinite if it was not reached."""
    rounds = next((n for n, a in enumerate(accuracies, start=1) if a >= GOAL), math.inf)
    return rounds * setting.epochs / setting.rounds


def row(settings: Iterable[Setting], curves: dict[Setting, list[float]]) -> str:
    """Accuracy at the end, and epochs until the goal: median and range over seeds."""
    mine = list(settings)
    ends = [100 * curves[s][-1] for s in mine]
    epochs = [until_goal(s, curves[s]) for s in mine]
    reached = sum(math.isfinite(e) for e in epochs)
    median = statistics.median(epochs)
    shown = f"{median:.1f}" if math.isfinite(median) else "not reached"
    return (
        f"{statistics.median(ends):.2f} ({min(ends):.2f} to {max(ends):.2f}) | {shown} | "
        f"{reached} of {len(mine)}"
    )


HEAD = "final test accuracy, %: median (range) | epochs until 98.0 %, median | fits that reach it"


def targets(seeds: Sequence[int]) -> None:
    """sparknn's defaults against plain averaging, at the budget of each number of workers."""
    kinds = {"defaults": (), "plain mean, momentum SGD": tuple(PLAIN.items())}
    settings = [
        Setting(k, epochs, seed, params)
        for (k, epochs), params, seed in itertools.product(BUDGETS.items(), kinds.values(), seeds)
    ]
    curves = measure_all(settings)
    print(f"\n| workers | epochs | rounds | | {HEAD} |\n|{' --- |' * 7}")
    for (k, epochs), (name, params) in itertools.product(BUDGETS.items(), kinds.items()):
        mine = [s for s in settings if (s.workers, s.params) == (k, params)]
        print(f"| {k} | {epochs} | {ROUNDS} | {name} | {row(mine, curves)} |", flush=True)


def hard(seeds: Sequence[int]) -> None:
    """8 workers against one, sorted input, and lost results, at 8 epochs."""
    cases = {
        "1 worker": Setting(1, 8.0, 0, rounds=20),
        "8 workers": Setting(8, 8.0, 0, rounds=20),
        "8 workers, input sorted by label": Setting(8, 8.0, 0, rounds=20, sort="sorted"),
        "the same, shuffle=False": Setting(8, 8.0, 0, rounds=20, sort="kept"),
        "8 workers, 30 % of results lost": Setting(8, 8.0, 0, rounds=20, dropped=0.3),
        "8 workers, plain mean, momentum SGD": Setting(8, 8.0, 0, tuple(PLAIN.items()), rounds=20),
    }
    runs = {name: [replace(case, seed=seed) for seed in seeds] for name, case in cases.items()}
    curves = measure_all([setting for mine in runs.values() for setting in mine])
    print(f"\n| 8 epochs, 20 rounds | {HEAD} |\n|{' --- |' * 4}")
    for name, mine in runs.items():
        print(f"| {name} | {row(mine, curves)} |", flush=True)


def grid(seeds: Sequence[int]) -> None:
    """Workers x solver x averaging x local state, at 3, 5 and 8 epochs."""
    choices = itertools.product(
        BUDGETS, (3.0, 5.0, 8.0), ("momentum", "ngsgd"), ("mean", "momentum", "nesterov", "bmuf"),
        ("average", "reset"),
    )  # fmt: skip
    print(f"\n| workers | epochs | solver | averaging | local state | {HEAD} |\n|{' --- |' * 8}")
    for k, epochs, solver, averaging, state in choices:
        params = (("solver", solver), ("averaging", averaging), ("localState", state))
        mine = [Setting(k, epochs, seed, params) for seed in seeds]
        print(
            f"| {k} | {epochs:g} | {solver} | {averaging} | {state} | "
            f"{row(mine, measure_all(mine))} |",
            flush=True,
        )


TABLES = {"targets": targets, "hard": hard, "grid": grid}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tables", nargs="*", help=f"some of {', '.join(TABLES)}")
    parser.add_argument("--seeds", type=int, default=5, help="how many, from 1 (default 5)")
    chosen = parser.parse_args()
    unknown = set(chosen.tables) - set(TABLES)
    if unknown:
        parser.error(f"no table {', '.join(sorted(unknown))}; there are {', '.join(TABLES)}")
    for name in chosen.tables or ["targets", "hard"]:
        TABLES[name](range(1, chosen.seeds + 1))


if __name__ == "__main__":
    main()
