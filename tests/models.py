"""Make models with random parameters for tests."""

import numpy as np
from pyspark.sql import DataFrame

from sparknn import NeuralNetClassificationModel, NeuralNetRegressionModel
from sparknn.core.nn.network import Network
from sparknn.core.training.history import RoundRecord
from sparknn.ml.summary import TrainingSummary


def network_and_theta(*layers: int, loss: str, activation: str = "relu"):  # type: ignore[no-untyped-def]
    network = Network(layers, activation, loss)
    rng = np.random.default_rng(sum(layers))
    return network, rng.normal(scale=0.5, size=network.n_params).astype(np.float32)


def classifier(
    *layers: int, summary: TrainingSummary | None = None
) -> NeuralNetClassificationModel:
    return NeuralNetClassificationModel(
        *network_and_theta(*layers, loss="crossEntropy"), summary=summary
    )


def regressor(*layers: int, loss: str = "squared") -> NeuralNetRegressionModel:
    return NeuralNetRegressionModel(*network_and_theta(*layers, loss=loss))


def record(round_: int, **changes: float) -> RoundRecord:
    values = {
        "round": round_,
        "loss": 1 / (round_ + 1),
        "n_rows": 100,
        "n_steps": 10,
        "n_skipped": 0,
        "compute_s": 0.25,
        "drift": 0.5,
        "agreement": 0.75,
        "step_norm": 0.125,
        "workers_left_out": 0,
        "step_factor": 1.0,
        "seconds": 0.5,
    }
    return RoundRecord(**{**values, **changes})  # type: ignore[arg-type]


def rows(n: int, d: int, seed: int = 3) -> np.ndarray:
    """Rows half of whose entries are 0, exact in float32."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, d)).astype(np.float32).astype(np.float64)
    X[rng.random(X.shape) < 0.5] = 0
    return X


_CLOSED = "Socket is closed"


def error_of(df: DataFrame) -> str:
    """Return the message of a job that fails in Python.

    pyspark 3.5 sometimes gives the next task a failed task's worker with a closed socket, and that
    task fails before it runs any code of the test: try again, and leave no such worker behind.
    """
    for _ in range(5):
        try:
            df.collect()
        except Exception as error:
            message = str(error)
        else:
            raise AssertionError("The job did not fail.")
        if _CLOSED not in message:
            break
    sound = df.sparkSession.createDataFrame([(0,), (1,)], "a int")
    for _ in range(5):
        try:
            sound.mapInArrow(lambda batches: batches, "a int").collect()
            break
        except Exception as error:
            if _CLOSED not in str(error):
                raise
    return message
