"""What ``make bench-peers`` runs in a process per peer: fits of one peer, or ``transform`` of two.

Libraries are imported where they are used, so that a peer needs only its own.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from timing import in_turns

MNIST = Path(__file__).resolve().parents[2] / "notebooks/data/mnist"
TEST = str(MNIST / "test.parquet")
HIDDEN, CORES = 300, 2
GOALS = (0.97, 0.975, 0.98)


@dataclass(frozen=True)
class Fitted:
    """A fit's seconds before its first step (None: unknown), and what its model does."""

    setup_s: float | None
    accuracy: Callable[[], float]
    #: Predict all rows of a parquet file, which are read before the returned function is called.
    predictor: Callable[[str], Callable[[], object]] | None = None


#: From the training rows' file, the length of the fit (0: as by default) and the seed.
Fit = Callable[[str, int, int], Fitted]


def arrays(path: str) -> tuple[np.ndarray, np.ndarray]:
    """Grey levels from 0 to 1, float32, and labels."""
    table = pq.read_table(path)
    pixels = table["pixels"].combine_chunks().flatten().to_numpy().reshape(-1, 784)
    return pixels.astype(np.float32) / np.float32(255), table["label"].to_numpy().astype(np.int64)


# -- on Spark ------------------------------------------------------------------------------------


def session() -> Any:
    from pyspark.sql import SparkSession

    builder = SparkSession.builder.master(f"local[{CORES}]").appName("sparknn bench: peers")
    for key in ("spark.driver.bindAddress", "spark.driver.host"):
        builder = builder.config(key, "127.0.0.1")
    return builder.config("spark.ui.enabled", "false").getOrCreate()


def vectors(path: str) -> Any:
    """What Spark's estimators read: vectors of grey levels from 0 to 1, in a partition per core."""
    from pyspark.ml.functions import array_to_vector
    from pyspark.sql import functions as F

    rows = session().read.parquet(path).repartition(CORES)
    grey = F.transform(F.col("pixels"), lambda pixel: pixel / 255.0)
    return rows.select("label", array_to_vector(grey).alias("features"))


def spark_fitted(model: Any, read: Callable[[str], Any], setup_s: float | None = None) -> Fitted:
    def accuracy() -> float:
        hits = model.transform(read(TEST)).where("prediction = label").count()
        return float(hits / read(TEST).count())

    def predictor(path: str) -> Callable[[], object]:
        rows = read(path).cache()
        rows.count()
        return model.transform(rows).write.format("noop").mode("overwrite").save

    return Fitted(setup_s, accuracy, predictor)


def sparknn() -> Fit:
    from sparknn import NeuralNetClassifier

    read = session().read.parquet

    def fit(path: str, length: int, seed: int) -> Fitted:
        net = NeuralNetClassifier(featuresCol="pixels", hiddenLayers=[HIDDEN], seed=seed)
        if length:
            net.setMaxIter(length)
        model = net.fit(read(path))
        return spark_fitted(model, read, model.summary.ingest_s)

    return fit


def mlpc() -> Fit:
    from pyspark.ml.classification import MultilayerPerceptronClassifier

    session()

    def fit(path: str, length: int, seed: int) -> Fitted:
        layers = [784, HIDDEN, 10]
        net = MultilayerPerceptronClassifier(layers=layers, maxIter=length, tol=0.0, seed=seed)
        return spark_fitted(net.fit(vectors(path)), vectors)

    return fit


def xgboost() -> Fit:
    from xgboost.spark import SparkXGBClassifier

    session()

    def fit(path: str, length: int, seed: int) -> Fitted:
        trees = SparkXGBClassifier(
            n_estimators=length,
            learning_rate=0.3,
            max_depth=6,
            max_bin=64,
            colsample_bytree=0.5,
            num_workers=CORES,
            random_state=seed,
        )
        return spark_fitted(trees.fit(vectors(path)), vectors)

    return fit


# -- without Spark, and DDP ----------------------------------------------------------------------


def scikit() -> Fit:
    import warnings

    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPClassifier

    warnings.simplefilter("ignore", ConvergenceWarning)

    def fit(path: str, length: int, seed: int) -> Fitted:
        started = time.perf_counter()
        X, y = arrays(path)
        setup_s = time.perf_counter() - started
        net = MLPClassifier((HIDDEN,), max_iter=length, random_state=seed).fit(X, y)

        def predictor(path: str) -> Callable[[], object]:
            X, _ = arrays(path)
            return lambda: net.predict(X)

        return Fitted(setup_s, lambda: net.score(*arrays(TEST)), predictor)

    return fit


def tensors(path: str, part: slice = slice(None)) -> tuple[Any, Any]:
    """Rows as PyTorch's example of MNIST scales them."""
    import torch

    X, y = arrays(path)
    return torch.from_numpy((X[part] - 0.1307) / 0.3081), torch.from_numpy(y[part])


def make_network() -> Any:
    from torch import nn

    return nn.Sequential(nn.Linear(784, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 10))


def train_torch(network: Any, X: Any, y: Any, epochs: int, peak: float) -> None:
    """Batches of 64, Nesterov momentum, one cycle of the step size."""
    import torch

    n_steps = epochs * math.ceil(len(X) / 64)
    solver = torch.optim.SGD(network.parameters(), peak, momentum=0.9, nesterov=True, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(solver, peak, total_steps=n_steps)
    for _ in range(epochs):
        for batch in torch.randperm(len(X)).split(64):
            solver.zero_grad()
            torch.nn.functional.cross_entropy(network(X[batch]), y[batch]).backward()
            solver.step()
            schedule.step()


def torch_fitted(network: Any, setup_s: float) -> Fitted:
    import torch

    def predict(X: Any) -> Any:
        with torch.inference_mode():
            return torch.cat([network(part).argmax(dim=1) for part in X.split(1000)])

    def accuracy() -> float:
        X, y = tensors(TEST)
        return float((predict(X) == y).float().mean())

    def predictor(path: str) -> Callable[[], object]:
        X, _ = tensors(path)
        return lambda: predict(X)

    return Fitted(setup_s, accuracy, predictor)


def torch_alone() -> Fit:
    import torch

    def fit(path: str, length: int, seed: int) -> Fitted:
        started = time.perf_counter()
        torch.manual_seed(seed)
        X, y = tensors(path)
        setup_s = time.perf_counter() - started
        network = make_network()
        train_torch(network, X, y, length, peak=0.1)
        return torch_fitted(network, setup_s)

    return fit


def train_ddp(path: str, epochs: int, seed: int, started: float) -> tuple[Any, float]:
    """In each of the processes: its share of the rows; return the network and the set-up."""
    import torch
    from torch import distributed
    from torch.nn.parallel import DistributedDataParallel

    torch.set_num_threads(1)
    distributed.init_process_group("gloo")
    torch.manual_seed(seed)
    network = make_network()
    X, y = tensors(path, slice(distributed.get_rank(), None, distributed.get_world_size()))
    X, y = X[: len(y) // 64 * 64], y[: len(y) // 64 * 64]  # as many steps in every process
    parallel = DistributedDataParallel(network)
    torch.manual_seed(seed + distributed.get_rank())
    setup_s = time.time() - started
    train_torch(parallel, X, y, epochs, peak=0.15)
    distributed.destroy_process_group()
    return network.state_dict(), setup_s


def torch_ddp() -> Fit:
    from pyspark.ml.torch.distributor import TorchDistributor

    session()

    def fit(path: str, length: int, seed: int) -> Fitted:
        distributor = TorchDistributor(num_processes=CORES, local_mode=True, use_gpu=False)
        weights, setup_s = distributor.run(train_ddp, path, length, seed, time.time())
        network = make_network()
        network.load_state_dict(weights)
        return torch_fitted(network, setup_s)

    return fit


#: What imports and starts what a peer needs, and returns its fits.
FITS: dict[str, Callable[[], Fit]] = {
    "sparknn": sparknn,
    "mlpc": mlpc,
    "xgboost": xgboost,
    "scikit": scikit,
    "torch": torch_alone,
    "torch-ddp": torch_ddp,
}


# -- what is measured ----------------------------------------------------------------------------


def tree(root: int) -> list[int]:
    """A process and all that it started, where the system has /proc."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parent = int(path.read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(path.parent.name))
    found = [root]
    for pid in found:
        found += children.get(pid, [])
    return found


def cpu_seconds() -> float:
    """What this process and all that it started have used of the cores, ended children included."""
    ticks = 0
    for pid in tree(os.getpid()):
        with contextlib.suppress(OSError):  # it has ended
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += sum(map(int, fields[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


def run_peer(
    kind: str, lengths: list[int], seed: int, train: str, warm: str
) -> Iterator[dict[str, Any]]:
    """Yield what was measured, as soon as it is known: the process may be ended at any time."""
    started = time.perf_counter()
    fit = FITS[kind]()
    fit(warm, 1, seed)
    yield {"start_s": time.perf_counter() - started}
    for length in lengths:
        started, before = time.perf_counter(), cpu_seconds()
        fitted = fit(train, length, seed)
        seconds, cpu_s = time.perf_counter() - started, cpu_seconds() - before
        accuracy = fitted.accuracy()
        fitting = {"length": length, "seconds": seconds, "setup_s": fitted.setup_s, "cpu_s": cpu_s}
        yield {"fit": {**fitting, "accuracy": accuracy}}
        if accuracy >= GOALS[-1]:
            break
    if fitted.predictor is not None:
        predict = fitted.predictor(train)
        predict()
        ((seconds,),) = in_turns(predict, runs=1)
        yield {"rows_per_s": pq.read_metadata(train).num_rows / seconds}


def compare_transform(warm: str) -> Iterator[dict[str, Any]]:
    """Yield rows per second of ``transform``, all three columns, by sparknn and by Spark's MLPC.

    Of the test rows, after every turn, as MLPC takes long.
    """
    from pyspark.ml.classification import MultilayerPerceptronClassifier

    from sparknn import NeuralNetClassifier

    linalg = session()._jvm.org.apache.spark.ml.linalg
    blas = getattr(getattr(linalg, "BLAS$"), "MODULE$").nativeBLAS().getClass().getSimpleName()
    few, rows = vectors(warm), vectors(TEST).cache()
    n_rows = rows.count()
    models = [
        NeuralNetClassifier(hiddenLayers=[HIDDEN], maxIter=1).fit(few),
        MultilayerPerceptronClassifier(layers=[784, HIDDEN, 10], maxIter=1).fit(few),
    ]
    write = [model.transform(rows).write.format("noop").mode("overwrite").save for model in models]
    in_turns(*write, runs=1)
    found: dict[str, Any] = {"blas": blas, "sparknn": [], "mlpc": []}
    for _ in range(5):
        ((ours,), (theirs,)) = in_turns(*write, runs=1)
        found["sparknn"].append(n_rows / ours)
        found["mlpc"].append(n_rows / theirs)
        yield found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=[*FITS, "transform"])
    parser.add_argument("lengths", type=int, nargs="*")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--train", required=True, help="rows to train on")
    parser.add_argument("--warm", required=True, help="rows of a first fit that is not timed")
    parser.add_argument("--output", type=Path, required=True, help="file of JSON lines to write")
    asked = parser.parse_args()
    if asked.kind == "transform":
        measured = compare_transform(asked.warm)
    else:
        measured = run_peer(asked.kind, asked.lengths, asked.seed, asked.train, asked.warm)
    with asked.output.open("w", buffering=1) as lines:
        for found in measured:
            lines.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
