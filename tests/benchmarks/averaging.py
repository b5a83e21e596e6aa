"""Compare averaging rules on MNIST: ``make bench-averaging``.

The local engine simulates the workers: the same arithmetic as on Spark, to the byte, without
scheduling. Rows are counted over all workers: one epoch is 60,000. The schedule of every fit spans
its own budget, so the rows of a table are separate fits, not points of a longer one.

    make bench-averaging                       # what the README states
    make bench-averaging ARGS='grid --seeds 3' # workers x averaging x solver x local state
    make bench-averaging ARGS='local-work --seeds 3' # long rounds and short ones
    make bench-averaging ARGS=other-data       # solvers by workers, on other data and networks

The grids take hours on two cores; ``--epochs 5 --workers 8 16`` measures a part of them.
"""

from __future__ import annotations

import os

os.environ["OPENBLAS_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"] = "1"

import argparse
import itertools
import math
import statistics
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from sklearn import datasets

from sparknn import NeuralNetClassifier
from sparknn.core.config import AveragingConfig, TrainConfig
from sparknn.core.data.batches import rng_for
from sparknn.core.data.rows import ArrayRows
from sparknn.core.nn.network import Network
from sparknn.core.training.aggregation import weight_scale_for
from sparknn.core.training.averaging import AVERAGING_RULES
from sparknn.core.training.fit_state import FitState
from sparknn.core.training.rounds import run
from sparknn.engine.local import LocalEngine
from sparknn.engine.statistics import combine, measure
from sparknn.ml.standardize import robust_standardizer
from sparknn.ml.training_setup import resolve_defaults

MNIST = Path(__file__).parents[2] / "notebooks/data/mnist"
GOAL = 0.98
# Workers, and the epochs in which they should reach the goal.
BUDGETS = {1: 2.0, 2: 2.6, 4: 3.3, 8: 4.2, 16: 5.5}
ROUNDS = 10
# Budgets of the grids.
GRID_EPOCHS = (3.0, 5.0, 8.0)
#: Hidden layers and activation on each data set.
NETWORKS = {
    "mnist": ([300], "relu"),
    "mnist, 3 x tanh": ([100, 100, 100], "tanh"),
    "digits": ([100], "relu"),
    "noisy labels": ([100], "relu"),
    "two spirals": ([50, 50], "relu"),
}
# What sparknn is compared with: the plain mean of momentum SGD.
PLAIN = {"solver": "momentum", "averaging": "mean"}


@dataclass(frozen=True)
class Setting:
    """One fit: workers, epochs, seed, and the params that differ from the defaults.

    Without epochs, a worker's passes in a round are those of the defaults.
    """

    workers: int
    epochs: float | None
    seed: int
    params: tuple[tuple[str, Any], ...] = ()
    rounds: int = ROUNDS
    sort: str = "shuffled"
    dropped: float = 0.0
    data: str = "mnist"


@cache
def rows_of(data: str, part: str) -> tuple[np.ndarray, np.ndarray]:
    """Features and labels of a data set's part, train or test."""
    if data.startswith("mnist"):
        table = pq.read_table(MNIST / f"{part}.parquet")
        pixels = table["pixels"].combine_chunks().flatten().to_numpy().reshape(-1, 784)
        return pixels.astype(np.float32), table["label"].to_numpy().astype(np.float64)
    X, y = OTHERS[data]()
    test = np.random.default_rng(0).permutation(len(y)) < len(y) // 4
    chosen = test if part == "test" else ~test
    return X[chosen].astype(np.float32), y[chosen].astype(np.float64)


def noisy_labels() -> tuple[np.ndarray, np.ndarray]:
    """8 classes in several clusters each, a tenth of the labels drawn at random."""
    found: tuple[np.ndarray, np.ndarray] = datasets.make_classification(
        12_000,
        50,
        n_informative=20,
        n_classes=8,
        n_clusters_per_class=3,
        flip_y=0.1,
        random_state=0,
    )
    return found


def two_spirals() -> tuple[np.ndarray, np.ndarray]:
    """Two turns each, in the plane, with noise."""
    rng = np.random.default_rng(0)
    y = np.arange(8_000) % 2
    angle = 4 * np.pi * np.sqrt(rng.uniform(0.02, 1, len(y)))
    spirals = np.stack([np.cos(angle + np.pi * y), np.sin(angle + np.pi * y)], axis=1)
    return angle[:, None] * spirals + rng.normal(0, 0.5, (len(y), 2)), y


OTHERS = {
    "digits": lambda: datasets.load_digits(return_X_y=True),
    "noisy labels": noisy_labels,
    "two spirals": two_spirals,
}


def distribute(setting: Setting) -> list[ArrayRows]:
    """The rows of each worker.

    ``shuffled``, ``sorted``: ingest distributes the input at random, however it was ordered.
    ``kept``: the input is sorted, and each worker gets consecutive rows (``shuffle=False``).
    """
    X, y = rows_of(setting.data, "train")
    order = np.argsort(y, kind="stable") if setting.sort != "shuffled" else np.arange(len(y))
    if setting.sort != "kept":
        order = order[rng_for(setting.seed, 2**31).permutation(len(y))]
    return [ArrayRows(X[part], y[part]) for part in np.array_split(order, setting.workers)]


def curve(setting: Setting) -> list[float]:
    """Test accuracy after every round."""
    shards = distribute(setting)
    hidden, activation = NETWORKS[setting.data]
    net = NeuralNetClassifier(
        hiddenLayers=hidden,
        activation=activation,
        maxIter=setting.rounds,
        seed=setting.seed,
        **dict(setting.params),
    )
    if setting.epochs is not None:
        share = setting.epochs / setting.rounds
        net.setLocalEpochs(math.ceil(share)).setMiniBatchFraction(share / math.ceil(share))
    n_rows = sum(shard.n_rows for shard in shards)
    chosen = resolve_defaults(
        net, setting.workers, n_rows, float(n_rows), has_validation=False, classifies=True
    )
    sums = [measure(shard) for shard in shards]
    X, y = rows_of(setting.data, "test")
    standardizer = robust_standardizer(combine(sums, X.shape[1]))
    network = Network((X.shape[1], *hidden, int(y.max()) + 1), activation)
    config = TrainConfig(
        network,
        seed=setting.seed,
        max_iter=setting.rounds,
        solver=chosen.solver,
        step_size=chosen.stepSize,
        momentum=net.getMomentum(),
        schedule=net.getStepSizeSchedule(),
        l2=chosen.regParam,
        batch_size=chosen.batchSize,
        local_epochs=chosen.localEpochs,
        mini_batch_fraction=net.getMiniBatchFraction(),
        local_state=chosen.localState,
        max_change=net.getMaxChange(),
        standardizer=standardizer,
    )
    averaging = AveragingConfig(
        chosen.averaging, chosen.averagingMomentum, final=chosen.finalWeights
    )
    X = X.copy()
    standardizer.apply(X)
    accuracies = []

    def record_accuracy(fit: FitState, record: object) -> None:
        correct = network.logits(fit.current, X).argmax(axis=1) == y
        accuracies.append(float(correct.mean()))

    none = ArrayRows(X[:0], y[:0])
    engine = LocalEngine(
        [(shard, none) for shard in shards], weight_scale_for(n_rows), drop=_dropper(setting)
    )
    fit = FitState(config, averaging, setting.workers, on_round_end=record_accuracy)
    run(engine, [fit])
    assert fit.theta is not None
    accuracies[-1] = float((network.logits(fit.theta, X).argmax(axis=1) == y).mean())
    return accuracies


def _dropper(setting: Setting) -> Callable[[int, int], bool] | None:
    if not setting.dropped:
        return None
    return lambda round_, worker: (
        rng_for(setting.seed, 2**31 + 1, round_, worker).random() < setting.dropped
    )


@dataclass(frozen=True)
class Part:
    """Which part of a table to measure."""

    seeds: Sequence[int]
    epochs: Sequence[float]
    workers: Sequence[int]


def until_goal(setting: Setting, accuracies: list[float]) -> float:
    """Epochs until the goal; infinite if it was not reached."""
    rounds = next((n for n, a in enumerate(accuracies, start=1) if a >= GOAL), math.inf)
    return math.inf if setting.epochs is None else rounds * setting.epochs / setting.rounds


def row(mine: Sequence[Setting], curves: dict[Setting, list[float]]) -> str:
    """Accuracy at the end, and epochs until the goal: median and range over seeds."""
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


class Table:
    """Cells and their fits, shown in order, each as soon as its fits are done."""

    def __init__(self, *columns: str) -> None:
        self._columns = columns
        self._cells: list[tuple[tuple[str, ...], list[Setting]]] = []

    def add(self, cell: tuple[str, ...], settings: list[Setting]) -> None:
        self._cells.append((cell, settings))

    def show(self) -> None:
        print(f"\n| {' | '.join(self._columns)} | {HEAD} |\n|{' --- |' * (len(self._columns) + 3)}")
        with ProcessPoolExecutor() as pool:
            curves = pool.map(curve, [s for _, mine in self._cells for s in mine])
            for cell, mine in self._cells:
                found = dict(zip(mine, itertools.islice(curves, len(mine)), strict=True))
                print(f"| {' | '.join(cell)} | {row(mine, found)} |", flush=True)


def targets(part: Part) -> None:
    """sparknn's defaults against plain averaging, at the budget of each number of workers."""
    table = Table("workers", "epochs", "rounds", "")
    kinds = {"defaults": (), "plain mean, momentum SGD": tuple(PLAIN.items())}
    # The default number of rounds, and half of it.
    for rounds, k, (name, params) in itertools.product((20, ROUNDS), part.workers, kinds.items()):
        cell = (str(k), f"{BUDGETS[k]:g}", str(rounds), name)
        table.add(cell, [Setting(k, BUDGETS[k], s, params, rounds) for s in part.seeds])
    table.show()


def hard(part: Part) -> None:
    """8 workers against one, sorted input, and lost results, at 8 epochs."""
    eight = Setting(8, 8.0, 0, rounds=20)
    cases = {
        "1 worker": replace(eight, workers=1),
        "8 workers": eight,
        "8 workers, input sorted by label": replace(eight, sort="sorted"),
        "the same, shuffle=False": replace(eight, sort="kept"),
        "8 workers, 30 % of results lost": replace(eight, dropped=0.3),
        "8 workers, plain mean, momentum SGD": replace(eight, params=tuple(PLAIN.items())),
    }
    table = Table("8 epochs, 20 rounds")
    for name, case in cases.items():
        table.add((name,), [replace(case, seed=seed) for seed in part.seeds])
    table.show()


def grid(part: Part) -> None:
    """Workers x solver x averaging x local state, at 3, 5 and 8 epochs."""
    table = Table("workers", "epochs", "solver", "averaging", "local state")
    choices = itertools.product(
        part.epochs, part.workers, ("momentum", "ngsgd"), AVERAGING_RULES, ("average", "reset")
    )
    for epochs, k, solver, averaging, state in choices:
        # The average of one network is that network.
        if k > 1 or averaging == "mean":
            params = (("solver", solver), ("averaging", averaging), ("localState", state))
            cell = (str(k), f"{epochs:g}", solver, averaging, state)
            table.add(cell, [Setting(k, epochs, seed, params) for seed in part.seeds])
    table.show()


def local_work(part: Part) -> None:
    """Workers x rounds, with the defaults: the same rows in few long rounds or many short ones."""
    table = Table("workers", "epochs", "rounds")
    several = [k for k in part.workers if k > 1]
    for epochs, k, rounds in itertools.product(part.epochs, several, (5, 10, 20, 40)):
        cell = (str(k), f"{epochs:g}", str(rounds))
        table.add(cell, [Setting(k, epochs, seed, rounds=rounds) for seed in part.seeds])
    table.show()


def other_data(part: Part) -> None:
    """Solvers by workers on all data sets, in 20 rounds; nothing else is set."""
    print(f"\n| data | solver | {' | '.join(f'{k} workers' for k in part.workers)} |")
    print("| --- " * (2 + len(part.workers)) + "|")
    for data, solver in itertools.product(NETWORKS, ("momentum", "ngsgd", "adam")):
        # MNIST at a budget: its first table has the defaults'.
        epochs = 4.0 if data.startswith("mnist") else None
        cells = []
        with ProcessPoolExecutor() as pool:
            for k in part.workers:
                settings = [
                    Setting(k, epochs, s, (("solver", solver),), 20, data=data) for s in part.seeds
                ]
                ends = [100 * curve_[-1] for curve_ in pool.map(curve, settings)]
                cells.append(f"{statistics.median(ends):.2f} ({min(ends):.2f} to {max(ends):.2f})")
        print(f"| {data} | {solver} | {' | '.join(cells)} |", flush=True)


TABLES = {
    "targets": targets,
    "hard": hard,
    "grid": grid,
    "local-work": local_work,
    "other-data": other_data,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tables", nargs="*", help=f"some of {', '.join(TABLES)}")
    parser.add_argument("--seeds", type=int, default=5, help="how many, from 1 (default 5)")
    parser.add_argument("--epochs", type=float, nargs="+", default=GRID_EPOCHS, metavar="N")
    parser.add_argument("--workers", type=int, nargs="+", default=list(BUDGETS), choices=BUDGETS)
    chosen = parser.parse_args()
    unknown = set(chosen.tables) - set(TABLES)
    if unknown:
        parser.error(f"no table {', '.join(sorted(unknown))}; there are {', '.join(TABLES)}")
    for name in chosen.tables or ["targets", "hard"]:
        TABLES[name](Part(range(1, chosen.seeds + 1), chosen.epochs, chosen.workers))


if __name__ == "__main__":
    main()
