"""Whatever a file holds, readers return what it means or raise their own error; without Spark."""

import copy
import json
import math
import warnings
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from models import network_and_theta, record
from pyarrow import parquet

from sparknn import NeuralNetClassificationModel
from sparknn.core.columns import InputColumn, InputColumns
from sparknn.core.training.fit_state import Snapshot
from sparknn.ml.checkpoint import _check, _checksum, _pack, _unpack
from sparknn.ml.encode import choose_encoding
from sparknn.ml.explain import Explanation
from sparknn.ml.persistence import (
    ModelFormatError,
    ModelReader,
    ModelWriter,
    metadata_checksum,
)
from sparknn.ml.summary import TrainingSummary
from sparknn.ml.weights_io import _decode

NUMBERS = st.sampled_from([0, -1, True, 3, 10**9, 10**18, 1 << 70, 0.5, math.nan, math.inf])
LEAVES = NUMBERS | st.sampled_from([None, "", "inf", "softmax", "../..", "os.system", "x" * 10**6])
VALUES = LEAVES | st.lists(LEAVES, max_size=3) | st.dictionaries(st.text(max_size=3), LEAVES)
VALUES |= st.sampled_from([[1] * 100_000, {}, [[]]])


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every container within JSON values, and the keys or indices of its items."""
    keys = list(value) if isinstance(value, dict) else range(min(len(value), 2))
    found = [(value, key) for key in keys]
    for key in keys:
        if isinstance(value[key], dict | list):
            found += places(value[key])
    return found


def changed(data: st.DataObject, value: Any) -> Any:
    """The value with up to two of its parts removed, or replaced by anything."""
    for _ in range(data.draw(st.integers(1, 2))):
        container, key = data.draw(st.sampled_from(places(value)))
        if data.draw(st.booleans()):
            container[key] = copy.deepcopy(data.draw(VALUES))
        elif isinstance(container, dict):
            container.pop(key, None)
    return value


def model() -> NeuralNetClassificationModel:
    """One with every section."""
    X = np.random.default_rng(0).normal(size=(50, 2)).astype(np.float32)
    encoding = choose_encoding(X, {}, pieces=4, keeps_missing=True)
    network, theta = network_and_theta(encoding.n_dense, 3, 2, loss="crossEntropy")
    text = InputColumn("b", "text", n_values=2, values=("u",))
    return NeuralNetClassificationModel(
        network,
        theta,
        TrainingSummary([record(0), record(1)], n_rows=7),
        encoding,
        ["a", "b"],
        inputs=InputColumns((InputColumn("a", "number"), text)),
        explanation=Explanation(np.zeros(encoding.n_dense, np.float32), np.ones(2)),
        output_offset=np.ones(2),
    ).setThresholds([0.5, 0.5])


MODEL = model()
WRITER: Any = ModelWriter(MODEL)
WRITER._sparkSession = SimpleNamespace(version="4.0.0")
LINE = WRITER._metadata_line()
SNAPSHOT = Snapshot(
    [record(0)],
    {"n_done": 1, "best_loss": math.inf, "best_error": math.nan},
    {"theta": np.ones(5, np.float32), "running": np.ones(5), "buffers": np.ones((2, 5), "f4")},
)


def load(line: str) -> NeuralNetClassificationModel:
    with warnings.catch_warnings():
        # Of params that are not known.
        warnings.simplefilter("ignore")
        return ModelReader(NeuralNetClassificationModel).from_local("m", line, MODEL.theta)


def test_what_was_saved_is_read() -> None:
    assert load(LINE).toLocal().predict_raw([[0.5, 1.0]]).shape == (1, 2)
    vectors, metadata = _pack(SNAPSHOT, "fit")
    found = _unpack(json.dumps(metadata), lambda kind, size: vectors[kind][:size])
    _check(found, SNAPSHOT)
    assert math.isnan(found.numbers["best_error"])


@given(st.data())
@settings(max_examples=150)
def test_a_model_whose_metadata_were_changed(data: st.DataObject) -> None:
    """With a checksum that matches, as whoever changes a file can write."""
    metadata = changed(data, json.loads(LINE))
    if isinstance(metadata.get("sparknn"), dict):
        metadata["sparknn"]["metadataSha256"] = metadata_checksum(metadata)
    try:
        found = load(json.dumps(metadata))
    except ModelFormatError as error:
        message = str(error)
    else:
        message = ""
        assert found.theta.shape == (found.network.n_params,)
    assert len(message) < 800


@given(st.integers(0, len(LINE) - 1), st.text(max_size=3))
@settings(max_examples=50)
def test_a_model_whose_metadata_were_cut(at: int, text: str) -> None:
    with pytest.raises(ModelFormatError):
        load(LINE[:at] + text)


@pytest.mark.parametrize("line", ["[" * 10**6, '{"a":' * 10**5, "9" * 10**5, "null", '"class"'])
def test_metadata_that_are_no_metadata(line: str) -> None:
    with pytest.raises(ModelFormatError, match="not one line of Spark ML metadata"):
        load(line)


@given(st.data())
@settings(max_examples=100)
def test_a_checkpoint_that_was_changed(data: st.DataObject) -> None:
    """It fits to its fit, or is skipped: ``latest`` catches every Exception."""
    vectors, metadata = _pack(SNAPSHOT, "fit")
    metadata = changed(data, json.loads(json.dumps(metadata)))
    if data.draw(st.booleans()):
        vectors["float32"][0] = np.nan
    metadata.pop("sha256", None)
    metadata["sha256"] = _checksum(vectors, metadata)

    def read(kind: str, size: int) -> Any:
        # As ``read_weights``, whose files hold what they hold.
        if size != len(vectors[kind]):
            raise ValueError("size")
        return vectors[kind]

    try:
        found = _unpack(json.dumps(metadata), read)
        _check(found, SNAPSHOT)
    except Exception:
        return
    assert np.isfinite(found.arrays["theta"]).all()
    assert found.numbers.keys() == SNAPSHOT.numbers.keys()


def parquet_bytes() -> bytes:
    values = pa.array([[0.5, 1.5], [2.5]], pa.list_(pa.float32()))
    sink = pa.BufferOutputStream()
    table = pa.table({"chunk": pa.array([0, 1], pa.int32()), "values": values})
    parquet.write_table(table, sink, store_schema=False)
    return bytes(sink.getvalue())


FILE = parquet_bytes()


@given(
    st.lists(st.tuples(st.integers(0, len(FILE) - 1), st.integers(0, 255)), max_size=4),
    st.integers(1, len(FILE)),
)
@settings(max_examples=200)
def test_parameters_that_were_changed(bits: list[tuple[int, int]], length: int) -> None:
    """Bytes replaced, and the start or the end cut off."""
    data = bytearray(FILE)
    for at, value in bits:
        data[at] = value
    for part in (data, data[:length], data[length:]):
        try:
            chunks = list(_decode(bytes(part), np.dtype("<f4"), 3))
        except Exception:
            continue
        assert sum(len(values) for _, values in chunks) < 1000


def test_pages_that_hold_more_than_the_footer_says() -> None:
    """As whoever writes the bytes can: 43 in place of 3,000,000, in as many bytes."""
    n, sink = 3_000_000, pa.BufferOutputStream()
    values = pa.ListArray.from_arrays([0, n], np.zeros(n, np.float32))
    table = pa.table({"chunk": pa.array([0], pa.int32()), "values": values})
    parquet.write_table(table, sink, store_schema=False, compression="zstd")
    data = bytes(sink.getvalue())
    start = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    true, small = b"\x80\x9b\xee\x02", b"\xd6\x80\x80\x00"
    footer = data[start:].replace(true, small)
    data = data[:start] + footer
    assert true not in footer
    assert small in footer
    with pytest.raises(ValueError, match=r"expected 43 values; a file declares 3000\d\d\d, in"):
        list(_decode(data, np.dtype("<f4"), 43))


def test_files_of_arrow_are_not_opened() -> None:
    """Old versions of it run code that their schema may hold."""
    sink = pa.BufferOutputStream()
    parquet.write_table(pa.table({"chunk": [0]}), sink)
    with pytest.raises(ValueError, match="one that Arrow wrote"):
        list(_decode(bytes(sink.getvalue()), np.dtype("<f4"), 1))
