"""A feed-forward network whose parameters are one flat vector, ``theta``.

Layer by layer, ``theta`` holds a block of shape (inputs + 1, outputs): the weights W, and below
them the bias b as the weight of an input that is always 1. Layers are views into ``theta``, so
averaging, broadcasting, solvers and saving are operations on one array.

    A_0 = X;  Z_l = A_(l-1) W_l + b_l;  A_l = f(Z_l);  logits = Z_L
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple, Protocol

import numpy as np

from sparknn.core.nn.activations import ACTIVATIONS, Activation
from sparknn.core.nn.losses import Loss, find_loss
from sparknn.core.types import FloatArray, IntArray, TargetArray

# A mistyped size must not end in a MemoryError, or exhaust the machine.
MAX_PARAMS = 1 << 31

# Called with (layer, A, dZ, root_weight) before a layer's gradient A' dZ is formed; returns the
# A and dZ to use.
Precondition = Callable[
    [int, FloatArray, FloatArray, FloatArray | None], tuple[FloatArray, FloatArray]
]


class InputBlock(Protocol):
    """What besides ``X`` a mini-batch gives to the first layer, with its weights.

    See ``input_layer``.
    """

    def add_to(self, Z: FloatArray) -> None:
        """Add what it contributes to the first layer's ``Z``, shape (n, h)."""

    def backward(self, dZ: FloatArray) -> None:
        """Keep the gradient for its weights; ``dZ``, shape (n, h), is that for ``Z``."""


class Block(NamedTuple):
    """The parameters of one layer: views of ``theta``, or of its gradient.

    Parameters
    ----------
    W : ndarray, shape (inputs, outputs)
    b : ndarray, shape (outputs,)
    both : ndarray, shape (inputs + 1, outputs)
        W, and below it b.
    """

    W: FloatArray
    b: FloatArray
    both: FloatArray


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
        See ``find_loss``.
    """

    layers: tuple[int, ...]
    activation: str = "relu"
    loss: str = "crossEntropy"

    @cached_property
    def n_params(self) -> int:
        """The number of parameters P, the length of ``theta``."""
        return sum((n_in + 1) * n_out for n_in, n_out in pairwise(self.layers))

    @property
    def activation_fn(self) -> Activation:
        return ACTIVATIONS[self.activation]

    @property
    def loss_fn(self) -> Loss:
        return find_loss(self.loss)

    def blocks(self, theta: FloatArray) -> list[Block]:
        """Return views of ``theta``, layer by layer."""
        blocks, start = [], 0
        for n_in, n_out in pairwise(self.layers):
            stop = start + (n_in + 1) * n_out
            both = theta[start:stop].reshape(n_in + 1, n_out)
            blocks.append(Block(both[:-1], both[-1], both))
            start = stop
        return blocks

    def init(self, rng: np.random.Generator) -> FloatArray:
        """Draw initial parameters, shape (P,), float32: uniform weights, biases 0.

        Variance 2 / inputs for ReLU and GELU (He et al., arXiv:1502.01852, eq. 10);
        2 / (inputs + outputs) otherwise and for the last layer (Glorot and Bengio 2010, eq. 16).
        """
        theta = np.zeros(self.n_params, dtype=np.float32)
        blocks = self.blocks(theta)
        for layer, (W, _, _) in enumerate(blocks):
            n_in, n_out = W.shape
            he = self.activation_fn.gain == 2 and layer < len(blocks) - 1
            # A first layer may have no dense inputs.
            variance = 2 / max(n_in, 1) if he else 2 / (n_in + n_out)
            bound = np.sqrt(3 * variance)
            W[...] = rng.uniform(-bound, bound, size=(n_in, n_out))
        return theta

    def logits(
        self, theta: FloatArray, X: FloatArray, inputs: InputBlock | None = None
    ) -> FloatArray:
        """Compute the outputs of the last layer, shape (n, k), without dropout."""
        first = self.blocks(theta)[0]
        Z: FloatArray = X @ first.W
        Z += first.b
        if inputs is not None:
            inputs.add_to(Z)
        return self.logits_above(theta, Z)

    def logits_above(self, theta: FloatArray, Z: FloatArray) -> FloatArray:
        """Compute ``logits`` from the first layer's ``Z``, shape (n, h); may overwrite ``Z``."""
        for W, b, _ in self.blocks(theta)[1:]:
            A = np.empty_like(Z) if self.activation_fn.keeps_input else Z
            self.activation_fn.forward(Z, A)
            Z = A @ W
            Z += b
        return Z


class _Workspace(NamedTuple):
    """Memory of a step over n rows: Z of every layer, A and dA of hidden ones, and n ones."""

    Z: list[FloatArray]
    A: list[FloatArray]
    dA: list[FloatArray]
    ones: FloatArray

    @classmethod
    def empty(cls, network: Network, n: int, dtype: type[np.floating]) -> _Workspace:
        Z = [np.empty((n, size), dtype=dtype) for size in network.layers[1:]]
        A = (
            [np.empty_like(each) for each in Z[:-1]]
            if network.activation_fn.keeps_input
            else Z[:-1]
        )
        return cls(Z, A, [np.empty_like(each) for each in Z[:-1]], np.ones(n, dtype=dtype))

    def rows(self, n: int) -> _Workspace:
        """Return views of the first ``n`` rows."""
        Z, A, dA = ([each[:n] for each in arrays] for arrays in (self.Z, self.A, self.dA))
        return _Workspace(Z, A, dA, self.ones[:n])


@dataclass
class Backprop:
    """Forward and backward pass over mini-batches of at most ``n_rows``.

    One object serves one round of one worker: it allocates every array of a step once.
    """

    network: Network
    n_rows: int
    dtype: type[np.floating] = np.float32
    dropout: float = 0.0
    rng: np.random.Generator | None = None

    def __post_init__(self) -> None:
        self._whole = self._held = _Workspace.empty(self.network, self.n_rows, self.dtype)

    def gradient(
        self,
        blocks: list[Block],
        X: FloatArray,
        y: TargetArray,
        sample_weight: FloatArray,
        out: list[Block],
        scale: float = 1.0,
        precondition: Precondition | None = None,
        label_index: IntArray | None = None,
        inputs: InputBlock | None = None,
    ) -> float:
        """Write the gradient of the weighted sum of the losses into ``out``; return the sum.

        Parameters
        ----------
        blocks, out : list of Block
            ``network.blocks`` of theta and of the gradient.
        X : ndarray, shape (n, inputs)
        y : ndarray, shape (n,) for classes, (n, outputs) for targets
        sample_weight : ndarray, shape (n,)
        scale : float
            Multiplies the gradient; applied to the outputs' derivatives, where it costs nothing.
        precondition : callable, optional
            Transforms a layer's inputs and output derivatives before their product is formed.
        label_index : ndarray, shape (n,), optional
            ``losses.flat_label_index(y)`` of classes.
        inputs : InputBlock, optional
            Inputs of the first layer besides ``X``; keeps the gradient of its own weights.
        """
        network, n = self.network, len(X)
        hidden = network.activation_fn
        if n != len(self._held.ones):
            self._held = self._whole.rows(n)
        held, keep = self._held, 1 - self.dropout
        below, masks = [X], []
        for layer, (W, b, _) in enumerate(blocks):
            Z = np.matmul(below[-1], W, out=held.Z[layer])
            Z += b
            if inputs is not None and layer == 0:
                inputs.add_to(Z)
            if layer == len(blocks) - 1:
                break
            A = held.A[layer]
            hidden.forward(Z, A)
            if self.dropout:
                # Inverted dropout (Srivastava et al. 2014, section 10): predicting needs no change.
                assert self.rng is not None
                mask = self.rng.random(A.shape, dtype=np.float32) < keep
                masks.append(mask)
                # `backward` may need f(Z) undropped, so the dropped layer is a copy.
                A = A * mask
                A *= 1 / keep
            below.append(A)

        dZ = Z
        loss = network.loss_fn.value_and_gradient(dZ, y, sample_weight, label_index)
        dZ *= scale
        root_weight = None
        if precondition is not None and (sample_weight != sample_weight[0]).any():
            root_weight = np.sqrt(sample_weight, dtype=dZ.dtype)[:, None]

        for layer in range(len(blocks) - 1, -1, -1):
            A, dZ_out, (dW, db, both) = below[layer], dZ, out[layer]
            if precondition is None:
                np.matmul(A.T, dZ_out, out=dW)
                # The bias is the weight of an input that is 1; a product is faster than a sum.
                np.dot(held.ones, dZ_out, out=db)
            else:
                A, dZ_out = precondition(layer, A, dZ_out, root_weight)
                np.matmul(A.T, dZ_out, out=both)
            if layer == 0:
                if inputs is not None:
                    inputs.backward(dZ_out if root_weight is None else dZ_out * root_weight)
                break
            dA = np.matmul(dZ, blocks[layer].W.T, out=held.dA[layer - 1])
            if self.dropout:
                dA *= masks[layer - 1]
                dA *= 1 / keep
            hidden.backward(dA, held.Z[layer - 1], held.A[layer - 1])
            dZ = dA
        return loss
