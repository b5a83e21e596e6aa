"""A feed-forward network whose parameters are one flat vector, ``theta``.

Layer by layer, ``theta`` holds a block of shape (inputs + 1, outputs): the weights W, and below
them the bias b as the weight of an input that is always 1. Layers are views into ``theta``, so
averaging, broadcasting, solvers and saving are operations on one array.

    A_0 = X;  Z_l = A_(l-1) W_l + b_l;  A_l = f(Z_l);  logits = Z_L
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise

import numpy as np

from sparknn.core.activations import ACTIVATIONS, Activation
from sparknn.core.losses import LOSSES, Loss
from sparknn.core.types import FloatArray

# Called with (layer, A, dZ) before a layer's gradient A' dZ is formed; returns the two to use.
Precondition = Callable[
    [int, FloatArray, FloatArray, FloatArray | None], tuple[FloatArray, FloatArray]
]


@dataclass(frozen=True)
class Network:
    """The shape of a network and the loss it is trained with.

    Parameters
    ----------
    layers : tuple of int
        Sizes from the inputs to the outputs, ``(784, 300, 10)``.
    activation : str
        Of every hidden layer; a key of ``ACTIVATIONS``.
    loss : str
        A key of ``LOSSES``.
    """

    layers: tuple[int, ...]
    activation: str = "relu"
    loss: str = "crossEntropy"

    @cached_property
    def n_params(self) -> int:
        """The length P of ``theta``."""
        return sum((n_in + 1) * n_out for n_in, n_out in pairwise(self.layers))

    @property
    def hidden(self) -> Activation:
        return ACTIVATIONS[self.activation]

    @property
    def objective(self) -> Loss:
        return LOSSES[self.loss]

    def blocks(self, theta: FloatArray) -> list[FloatArray]:
        """Views of ``theta``, one a layer, of shape (inputs + 1, outputs); the last row is b."""
        blocks, start = [], 0
        for n_in, n_out in pairwise(self.layers):
            stop = start + (n_in + 1) * n_out
            blocks.append(theta[start:stop].reshape(n_in + 1, n_out))
            start = stop
        return blocks

    def init(self, rng: np.random.Generator) -> FloatArray:
        """Initial parameters, shape (P,), float32: uniform weights, biases 0.

        ReLU and GELU: variance 2 / inputs (He et al., arXiv:1502.01852, eq. 10). The others, and
        every last layer: variance 2 / (inputs + outputs) (Glorot and Bengio 2010, eq. 16).
        """
        theta = np.zeros(self.n_params, dtype=np.float32)
        blocks = self.blocks(theta)
        for layer, block in enumerate(blocks):
            n_in, n_out = block.shape[0] - 1, block.shape[1]
            he = self.hidden.gain == 2 and layer < len(blocks) - 1
            variance = 2 / n_in if he else 2 / (n_in + n_out)
            bound = np.sqrt(3 * variance)
            block[:-1] = rng.uniform(-bound, bound, size=(n_in, n_out))
        return theta

    def logits(self, theta: FloatArray, X: FloatArray) -> FloatArray:
        """Outputs of the last layer, shape (n, k), without dropout."""
        A = X
        blocks = self.blocks(theta)
        for block in blocks[:-1]:
            Z = A @ block[:-1]
            Z += block[-1]
            A = np.empty_like(Z) if self.hidden.keeps_input else Z
            self.hidden.forward(Z, A)
        logits: FloatArray = A @ blocks[-1][:-1]
        logits += blocks[-1][-1]
        return logits


@dataclass
class Backprop:
    """Forward and backward pass over mini-batches of at most ``n_rows``, in memory held ready.

    One object serves one round of one worker: every array of a step is allocated once here.
    """

    network: Network
    n_rows: int
    dtype: type[np.floating] = np.float32
    dropout: float = 0.0
    rng: np.random.Generator | None = None
    _Z: list[FloatArray] = field(init=False, repr=False)
    _A: list[FloatArray] = field(init=False, repr=False)
    _dA: list[FloatArray] = field(init=False, repr=False)
    _ones: FloatArray = field(init=False, repr=False)

    def __post_init__(self) -> None:
        sizes = self.network.layers[1:]
        empty = [np.empty((self.n_rows, size), dtype=self.dtype) for size in sizes]
        self._Z = empty
        keeps = self.network.hidden.keeps_input
        self._A = [np.empty_like(Z) for Z in empty[:-1]] if keeps else empty[:-1]
        self._dA = [np.empty_like(Z) for Z in empty[:-1]]
        self._ones = np.ones(self.n_rows, dtype=self.dtype)

    def gradient(
        self,
        blocks: list[FloatArray],
        X: FloatArray,
        y: FloatArray,
        sample_weight: FloatArray,
        out: list[FloatArray],
        scale: float = 1.0,
        precondition: Precondition | None = None,
    ) -> float:
        """Write the gradient of the weighted sum of the losses into ``out``; return the sum.

        Parameters
        ----------
        blocks, out : list of ndarray
            ``network.blocks`` of theta and of the gradient.
        X : ndarray, shape (n, inputs)
        y : ndarray, shape (n,) for classes, (n, outputs) for targets
        sample_weight : ndarray, shape (n,)
        scale : float
            Multiplies the gradient; folded into the outputs' derivatives, it costs nothing.
        precondition : callable, optional
            Replaces a layer's inputs and output derivatives in the product that is its gradient.
        """
        n = len(X)
        hidden = self.network.hidden
        keep = 1 - self.dropout
        inputs, masks = [X], []
        for layer, block in enumerate(blocks):
            Z = np.matmul(inputs[-1], block[:-1], out=self._Z[layer][:n])
            Z += block[-1]
            if layer == len(blocks) - 1:
                break
            A = self._A[layer][:n]
            hidden.forward(Z, A)
            if self.dropout:
                # Inverted dropout (Srivastava et al. 2014, section 10): predicting needs no change.
                assert self.rng is not None
                mask = self.rng.random(A.shape, dtype=np.float32) < keep
                masks.append(mask)
                # `backward` may need f(Z) undropped, so the dropped layer is a copy.
                A = A * mask
                A *= 1 / keep
            inputs.append(A)

        dZ = Z
        loss = self.network.objective.value_and_gradient(dZ, y, sample_weight)
        dZ *= scale
        root_weight = None
        if precondition is not None and (sample_weight != sample_weight[0]).any():
            root_weight = np.sqrt(sample_weight, dtype=dZ.dtype)[:, None]

        for layer in range(len(blocks) - 1, -1, -1):
            A, dZ_out = inputs[layer], dZ
            if precondition is None:
                np.matmul(A.T, dZ_out, out=out[layer][:-1])
                # The bias is the weight of an input that is 1; a product is faster than a sum.
                np.dot(self._ones[:n], dZ_out, out=out[layer][-1])
            else:
                A, dZ_out = precondition(layer, A, dZ_out, root_weight)
                np.matmul(A.T, dZ_out, out=out[layer])
            if layer == 0:
                break
            dA = np.matmul(dZ, blocks[layer][:-1].T, out=self._dA[layer - 1][:n])
            if self.dropout:
                dA *= masks[layer - 1]
                dA *= 1 / keep
            hidden.backward(dA, self._Z[layer - 1][:n], self._A[layer - 1][:n])
            dZ = dA
        return loss
