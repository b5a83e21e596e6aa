"""What a network holds while it learns; what it learns is in test_training.py."""

import tracemalloc

import numpy as np
import pytest
from toys import blobs, job_of

from sparknn.core.batches import Batch
from sparknn.core.learner import Learner, MiniBatch, working_bytes
from sparknn.core.network import Network
from sparknn.core.plan import Plan


@pytest.mark.parametrize("activation", ["relu", "gelu"])
@pytest.mark.parametrize("solver", ["sgd", "ngsgd"])
@pytest.mark.parametrize("layers", [(2000, 3), (50, 400, 300, 3)], ids=str)
def test_working_bytes_are_about_what_it_takes(
    layers: tuple[int, ...], solver: str, activation: str
) -> None:
    n = 256
    job = job_of(Plan(Network(layers, activation), solver=solver, batch_size=n))
    X, y = blobs(n, d=layers[0])
    rows = Batch(X, y, np.ones(n), float(n))
    batch = MiniBatch(rows, 1.0, 0, 0.5, first=True, last=True)
    scratch = np.empty(job.plan.network.n_params, np.float32)
    tracemalloc.start()
    learner = Learner(job, n, 0, scratch)
    learner.learn([batch])
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    held -= learner.result.state.nbytes
    assert working_bytes(job, n) / 2 < held < 2 * working_bytes(job, n)
