"""Write a fitted network as an ONNX graph, of plain operators that any runtime has.

    X            float [batch, d]: the features (float64 if the model subtracts an offset first)
    label        int64 [batch]: the class; with ``probabilities``, float [batch, k]
    variable     float [batch, k]: the targets of a regression (float64 if an offset is added)

Outputs have the names that sklearn-onnx gives them. In a row that ``predict`` refuses, as a value
is missing or infinite, probabilities and targets are NaN, and the label means nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from os import PathLike, fspath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparknn import __version__
from sparknn.core.forward import ForwardPass
from sparknn.core.nn.activations import GELU_CUBIC, GELU_SCALE
from sparknn.core.nn.encoding import Encoding
from sparknn.core.nn.input_layer import InputLayer
from sparknn.core.types import Float64Array

# Runtimes from 2021 on have this version of the operators, and read this version of the format.
_OPSET, _IR_VERSION = 15, 8
# An ONNX file is one protobuf message; the graph itself takes a part of the rest.
_MOST_BYTES = (1 << 31) - (1 << 20)


def save_onnx(
    forward: ForwardPass,
    path: str | PathLike[str],
    *,
    output_offset: Float64Array | None = None,
    thresholds: tuple[float, ...] | None = None,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write a network to a local file; see the module docstring.

    Parameters
    ----------
    forward : ForwardPass
    path : str or path
    output_offset, thresholds
        See ``LocalPredictor``.
    metadata : mapping of str to str, optional
        Properties of the file.

    Raises
    ------
    ImportError
        If onnx is absent.
    ValueError
        If the parameters take more than 2 GiB, which no ONNX file can hold.
    """
    try:
        onnx = import_module("onnx")
    except ImportError as error:
        raise ImportError("ONNX files need onnx: pip install 'sparknn[onnx]'.") from error
    if forward.theta.nbytes > _MOST_BYTES:
        raise ValueError(
            f"The network's parameters take {forward.theta.nbytes / (1 << 30):.1f} GiB; an ONNX "
            "file holds at most 2 GiB. Train with fewer features or hiddenLayers."
        )
    graph = _Graph(onnx)
    double, single = onnx.TensorProto.DOUBLE, onnx.TensorProto.FLOAT
    value_info = onnx.helper.make_tensor_value_info
    d, k = forward.n_features, forward.n_outputs
    x = value_info("X", single if forward.input_offset is None else double, ["batch", d])
    logits = _logits(graph, forward)
    if forward.network.loss_fn.classifies:
        probability = graph.add("Softmax", graph.cast(logits, double), axis=1)
        score = logits if thresholds is None else _scaled(graph, probability, thresholds)
        graph.add("ArgMax", score, out="label", axis=1, keepdims=0)
        graph.cast(probability, single, out="probabilities")
        outputs = [
            value_info("label", onnx.TensorProto.INT64, ["batch"]),
            value_info("probabilities", single, ["batch", k]),
        ]
    else:
        kind = single
        if output_offset is not None:
            kind, logits = double, graph.add("Add", graph.cast(logits, double), output_offset)
        _RESPONSES[forward.network.loss.partition(":")[0]](graph, logits, k)
        outputs = [value_info("variable", kind, ["batch", k])]
    model = onnx.helper.make_model(
        onnx.helper.make_graph(graph.nodes, "sparknn", [x], outputs, graph.constants),
        opset_imports=[onnx.helper.make_opsetid("", _OPSET)],
        ir_version=_IR_VERSION,
        producer_name="sparknn",
        producer_version=__version__,
    )
    onnx.helper.set_model_props(model, dict(metadata or {}))
    onnx.save(model, fspath(path))


class _Graph:
    """Nodes and constants of a graph, each with a name of its own."""

    def __init__(self, onnx: Any) -> None:
        self.onnx = onnx
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def add(
        self,
        operator: str,
        *inputs: str | NDArray[Any],
        out: str = "",
        also: str = "",
        **attributes: Any,
    ) -> str:
        """Add a node; arrays become constants. Return the name of its first result."""
        names = [each if isinstance(each, str) else self._constant(each) for each in inputs]
        out = out or f"{operator}_{len(self.nodes)}"
        results = [out, also] if also else [out]
        self.nodes.append(self.onnx.helper.make_node(operator, names, results, **attributes))
        return out

    def cast(self, name: str, kind: int, out: str = "") -> str:
        return self.add("Cast", name, out=out, to=kind)

    def _constant(self, value: NDArray[Any]) -> str:
        name = f"constant_{len(self.constants)}"
        value = np.ascontiguousarray(value)
        self.constants.append(self.onnx.numpy_helper.from_array(value, name))
        return name


def _logits(graph: _Graph, forward: ForwardPass) -> str:
    """Add the forward pass; NaN in rows with a number that is not finite."""
    numbers, encoding = "X", forward.encoding
    if forward.input_offset is not None:
        numbers = graph.add("Sub", numbers, forward.input_offset)
        numbers = graph.cast(numbers, graph.onnx.TensorProto.FLOAT)
    if encoding is None:
        (W, b, _), *layers = forward.network.blocks(forward.theta)
        Z = graph.add("Gemm", numbers, W, b)
    else:
        layer = InputLayer(forward.network, encoding.n_embedded)
        rows_of_weights, theta = layer.split(forward.theta)
        (W, b, _), *layers = layer.dense.blocks(theta)
        features = numbers
        if encoding.fill is not None:
            numbers = graph.add("Where", graph.add("IsNaN", features), encoding.fill, features)
        if encoding.n_embedded:
            Z = graph.add("Add", _embedded(graph, features, encoding, rows_of_weights), b)
        if encoding.n_dense:
            inputs = _encoded(graph, features, numbers, encoding)
            Z = graph.add("Gemm", inputs, W, Z if encoding.n_embedded else b)
        if len(encoding.categories):
            others = np.setdiff1d(np.arange(encoding.n_features), encoding.categories)
            numbers = graph.add("Gather", numbers, others, axis=1) if len(others) else ""
    for W, b, _ in layers:
        Z = graph.add("Gemm", _ACTIVATIONS[forward.network.activation](graph, Z), W, b)
    if not numbers:
        return Z
    # x - x is 0, or NaN if x is not finite, which ReLU and the bounds of pieces would hide.
    invalid = graph.add("ReduceSum", graph.add("Sub", numbers, numbers), _AXIS_1, keepdims=1)
    return graph.add("Add", Z, invalid)


def _encoded(graph: _Graph, features: str, numbers: str, encoding: Encoding) -> str:
    """Add ``Encoder.encode``; ``numbers`` are the features with missing ones replaced."""
    single = graph.onnx.TensorProto.FLOAT
    parts = []
    if len(encoding.feature):
        inputs = graph.add("Gather", numbers, encoding.feature.astype(np.int64), axis=1)
        inputs = graph.add("Mul", graph.add("Sub", inputs, encoding.start), encoding.slope)
        parts.append(graph.add("Min", graph.add("Max", inputs, encoding.low), encoding.high))
    if len(encoding.missing):
        inputs = graph.add("Gather", features, encoding.missing.astype(np.int64), axis=1)
        parts.append(graph.cast(graph.add("IsNaN", inputs), single))
    if len(encoding.onehot):
        which, n_values = encoding.onehot.T.astype(np.int64)
        inputs = graph.add("Gather", features, np.repeat(which, n_values), axis=1)
        values = np.concatenate([np.arange(n, dtype=np.float32) for n in n_values])
        parts.append(graph.cast(graph.add("Equal", inputs, values), single))
    return graph.add("Concat", *parts, axis=1)


def _embedded(graph: _Graph, features: str, encoding: Encoding, W: NDArray[Any]) -> str:
    """Add the sum of the rows of ``W`` that categories use; unknown values use a row of zeros."""
    which, n_values = encoding.embedded.T.astype(np.int64)
    values = graph.add("Gather", features, which, axis=1)
    known = graph.add(
        "And",
        graph.add("Equal", values, graph.add("Floor", values)),
        graph.add(
            "And",
            graph.add("GreaterOrEqual", values, _of(0)),
            graph.add("Less", values, n_values.astype(np.float32)),
        ),
    )
    numbers = graph.add("Where", known, values, _of(0))
    numbers = graph.cast(numbers, graph.onnx.TensorProto.INT64)
    numbers = graph.add("Add", numbers, np.cumsum(n_values) - n_values)
    numbers = graph.add("Where", known, numbers, np.array([len(W)]))
    rows = graph.add("Gather", np.concatenate([W, np.zeros_like(W[:1])]), numbers, axis=0)
    return graph.add("ReduceSum", rows, _AXIS_1, keepdims=0)


def _scaled(graph: _Graph, probability: str, thresholds: tuple[float, ...]) -> str:
    """Add ``probability / threshold``; 0 / 0 is less than anything, as in ``decide``."""
    scaled = graph.add("Div", probability, np.array(thresholds))
    return graph.add("Where", graph.add("IsNaN", scaled), np.array([-np.inf]), scaled)


def _of(value: float) -> NDArray[Any]:
    return np.array([value], dtype=np.float32)


def _gelu(graph: _Graph, Z: str) -> str:
    cube = graph.add("Mul", graph.add("Mul", Z, Z), Z)
    inner = graph.add("Add", Z, graph.add("Mul", cube, _of(GELU_CUBIC)))
    inner = graph.add("Tanh", graph.add("Mul", inner, _of(GELU_SCALE)))
    half = graph.add("Mul", Z, _of(0.5))
    return graph.add("Mul", half, graph.add("Add", inner, _of(1)))


def _same(graph: _Graph, logits: str, k: int) -> None:
    graph.add("Identity", logits, out="variable")


def _exp(graph: _Graph, logits: str, k: int) -> None:
    graph.add("Exp", logits, out="variable")


def _sort(graph: _Graph, logits: str, k: int) -> None:
    graph.add("TopK", logits, np.array([k]), out="variable", also="order", axis=1, largest=0)


# ``Loss.response``, by loss.
_RESPONSES: dict[str, Callable[[_Graph, str, int], None]] = {
    "squared": _same,
    "absolute": _same,
    "huber": _same,
    "poisson": _exp,
    "quantile": _sort,
}
_AXIS_1 = np.array([1])
_ACTIVATIONS: dict[str, Callable[[_Graph, str], str]] = {
    "relu": lambda graph, Z: graph.add("Relu", Z),
    "tanh": lambda graph, Z: graph.add("Tanh", Z),
    "sigmoid": lambda graph, Z: graph.add("Sigmoid", Z),
    "gelu": _gelu,
    "identity": lambda graph, Z: Z,
}
