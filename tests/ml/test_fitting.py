"""What becomes of a fit's parameters when they leave it."""

import numpy as np
import pytest

from sparknn.core.network import Network
from sparknn.ml.fitting import centred


@pytest.mark.parametrize("layers", [(5, 2), (5, 7, 3)])
def test_centred_logits_are_the_same_classifier(layers: tuple[int, ...]) -> None:
    network = Network(layers)
    rng = np.random.default_rng(0)
    theta = rng.normal(size=network.n_params).astype(np.float32)
    X = rng.normal(size=(50, 5)).astype(np.float32)

    moved = centred(network, theta)

    logits, before = network.logits(moved, X), network.logits(theta, X)
    assert moved.dtype == np.float32
    np.testing.assert_allclose(logits.mean(axis=1), 0, atol=1e-5)
    # Softmax sees differences only.
    np.testing.assert_allclose(logits - logits[:, :1], before - before[:, :1], atol=1e-4)
    np.testing.assert_allclose(centred(network, moved), moved, atol=1e-6)
