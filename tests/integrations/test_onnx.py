"""ONNX files predict what the model predicts, run by onnxruntime."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from encoded import PLAIN, encoding_of, mixed, rows_of_mixed
from models import classifier
from toys import Array

from sparknn.core.nn.activations import ACTIVATIONS
from sparknn.core.nn.encoding import Encoding
from sparknn.core.nn.losses import LOSSES
from sparknn.core.nn.network import Network
from sparknn.core.predictor import LocalPredictor
from sparknn.integrations import onnx as module
from sparknn.ml.input_columns import InputColumn, InputColumns


def make(
    *layers: int,
    activation: str = "relu",
    loss: str = "crossEntropy",
    encoding: Encoding | None = None,
) -> LocalPredictor:
    if encoding is not None:
        layers = (encoding.n_embedded + encoding.n_dense, *layers)
    network = Network(layers, activation, loss)
    theta = np.random.default_rng(5).normal(scale=0.3, size=network.n_params)
    return LocalPredictor(network, theta.astype(np.float32), encoding=encoding)


def run(path: Path, X: Array) -> dict[str, Array]:
    onnx.checker.check_model(path, full_check=True)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    assert given.name == "X"
    assert given.shape[0] == "batch"
    kind = np.float64 if given.type == "tensor(double)" else np.float32
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {"X": X.astype(kind)}), strict=True))


def assert_same(local: LocalPredictor, X: Array, path: Path) -> None:
    """As well in rows that ``predict`` refuses: these are NaN."""
    local.to_onnx(path)
    raw, found = local.outputs(X), run(path, X)
    valid = np.isfinite(raw).all(axis=1)
    assert valid.sum() > 50
    if local.classifies:
        assert list(found) == ["label", "probabilities"]
        P = local.probabilities(raw)
        np.testing.assert_allclose(found["probabilities"], P, rtol=0, atol=1e-6)
        assert found["label"].dtype == np.int64
        np.testing.assert_array_equal(found["label"][valid], local.decide(raw)[valid])
    else:
        assert list(found) == ["variable"]
        predicted = local.decide(raw).reshape(len(X), -1)
        np.testing.assert_allclose(found["variable"], predicted, rtol=1e-6, atol=2e-6)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("layers", [(5, 3), (5, 8, 7, 2)])
def test_every_activation(activation: str, layers: tuple[int, ...], tmp_path: Path) -> None:
    X = np.random.default_rng(0).normal(size=(200, 5))
    X[3, 1], X[4, 0] = np.nan, np.inf
    # Beyond the range of float32.
    X[5, 0] = 1e39
    with np.errstate(over="ignore"):
        assert_same(make(*layers, activation=activation), X, tmp_path / "model.onnx")


@pytest.mark.parametrize(
    "encoding",
    [
        mixed(),
        replace(mixed(), fill=None, missing=np.empty(0, np.intp)),
        encoding_of(5, [(0, *PLAIN), (1, *PLAIN)], embedded=[(3, 71)]),
        encoding_of(5, [], onehot=[(1, 4), (4, 2)]),
        encoding_of(5, [], embedded=[(3, 71), (4, 2)]),
    ],
    ids=["mixed", "none missing", "no pieces", "one-hot alone", "embedded alone"],
)
def test_encodings(encoding: Encoding, tmp_path: Path) -> None:
    X = rows_of_mixed(600)
    X[5, 3], X[6, 3], X[7, 1] = 2.5, -1, np.inf
    X[8, 0], X[9, 2], X[9, 0] = np.inf, -np.inf, 0
    assert_same(make(9, 3, encoding=encoding), X, tmp_path / "model.onnx")


@pytest.mark.parametrize("loss", [*LOSSES, "quantile:0.1,0.5,0.9"])
@pytest.mark.parametrize("n_outputs", [1, 3])
def test_every_loss_with_offsets(loss: str, n_outputs: int, tmp_path: Path) -> None:
    X = np.random.default_rng(0).normal(size=(200, 5)) + 1e8
    local = replace(make(5, 6, n_outputs, loss=loss), input_offset=np.full(5, 1e8))
    if not (local.classifies or loss == "poisson"):
        local = replace(local, output_offset=np.full(n_outputs, 1e9))
    assert_same(local, X, tmp_path / "model.onnx")


@pytest.mark.parametrize("thresholds", [(0.2, 0.5, 0.3), (0.0, 1.0, 1.0)])
def test_thresholds(thresholds: tuple[float, ...], tmp_path: Path) -> None:
    X = np.random.default_rng(0).normal(size=(200, 4))
    # The probability of the first class becomes 0 in some rows.
    local = replace(make(4, 6, 3), thresholds=thresholds)
    X[:100] *= 1e4
    assert_same(local, X, tmp_path / "model.onnx")


def test_a_model_writes_its_thresholds_and_names(tmp_path: Path) -> None:
    bare = classifier(4, 6, 3)
    columns = InputColumns((InputColumn("v", "vector", 3), InputColumn("t", "text", 1, 1, ("a",))))
    names = ["v_0", "v_1", "v_2", "t"]
    model = type(bare)(bare.network, bare.theta, feature_names=names, inputs=columns)
    model.setThresholds([0.1, 0.5, 0.4])
    path = tmp_path / "model.onnx"
    model.toOnnx(str(path))
    X = np.random.default_rng(0).normal(size=(200, 4)).astype(np.float32)
    np.testing.assert_array_equal(run(path, X)["label"], model.toLocal().predict(X))
    saved = {each.key: json.loads(each.value) for each in onnx.load(path).metadata_props}
    assert saved["featureNames"] == names
    assert InputColumns.from_json(saved["inputCols"]) == columns


def test_without_onnx_the_error_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ImportError, match=r"pip install 'sparknn\[onnx\]'"):
        make(4, 3).to_onnx(tmp_path / "model.onnx")


def test_a_network_that_no_file_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_BYTES", 50)
    with pytest.raises(ValueError, match="at most 2 GiB"):
        make(4, 3).to_onnx(tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())
