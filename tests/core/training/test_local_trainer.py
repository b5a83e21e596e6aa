"""Memory of a local trainer; the training itself is in test_local_training.py."""

import tracemalloc

import numpy as np
import pytest
from toys import blobs, request_of

from sparknn.core.config import TrainConfig
from sparknn.core.data.batches import Batch
from sparknn.core.nn.network import Network
from sparknn.core.training.local_trainer import LocalTrainer, ScheduledBatch, working_bytes


@pytest.mark.parametrize("activation", ["relu", "gelu"])
@pytest.mark.parametrize("solver", ["sgd", "ngsgd"])
@pytest.mark.parametrize("layers", [(2000, 3), (50, 400, 300, 3)], ids=str)
def test_working_bytes_are_about_what_it_takes(
    layers: tuple[int, ...], solver: str, activation: str
) -> None:
    n = 256
    request = request_of(TrainConfig(Network(layers, activation), solver=solver, batch_size=n))
    X, y = blobs(n, d=layers[0])
    rows = Batch(X, y, np.ones(n), float(n))
    batch = ScheduledBatch(rows, 1.0, 0, 0.5, first=True, last=True)
    scratch = np.empty(request.config.network.n_params, np.float32)
    tracemalloc.start()
    trainer = LocalTrainer(request, n, 0, scratch)
    trainer.train([batch])
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    held -= trainer.result.state.nbytes
    assert working_bytes(request, n) / 2 < held < 2 * working_bytes(request, n)
