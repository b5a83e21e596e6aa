"""A saved model is the same model in another process; a damaged directory says what is wrong."""

import json
import shutil
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from models import classifier, record, regressor
from pyarrow import parquet
from pyspark.ml.feature import VectorAssembler
from pyspark.sql import SparkSession

from sparknn import (
    NeuralNetClassificationModel,
    NeuralNetClassifier,
    NeuralNetRegressionModel,
)
from sparknn.engine import filesystem
from sparknn.ml import weights_io
from sparknn.ml.encode import choose_encoding
from sparknn.ml.persistence import ModelFormatError, metadata_checksum, theta_checksum
from sparknn.ml.summary import TrainingSummary

SUMMARY = TrainingSummary([record(0, validation_loss=0.5), record(1, loss=float("nan"))], n_rows=7)


@pytest.fixture(scope="module")
def saved(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model on disk, to be copied before anything is done to it."""
    path = tmp_path_factory.mktemp("saved") / "model"
    model = classifier(4, 5, 3, summary=SUMMARY).setPredictionCol("guess")
    model.setThresholds([0.5, 0.25, 0.25]).write().session(spark).save(str(path))
    return path


@pytest.fixture
def damaged(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "damaged"))


def metadata_of(path: Path) -> dict[str, Any]:
    (part,) = (path / "metadata").glob("part-*")
    return dict(json.loads(part.read_text()))


def change_metadata(
    path: Path, change: Callable[[dict[str, Any]], object], *, consistent: bool = True
) -> None:
    """Change metadata, and make their checksum match unless it is to be seen."""
    metadata = metadata_of(path)
    change(metadata)
    if consistent and "sparknn" in metadata:
        metadata["sparknn"]["metadataSha256"] = metadata_checksum(metadata)
    rewrite(path, json.dumps(metadata))


def rewrite(path: Path, text: str) -> None:
    (part,) = (path / "metadata").glob("part-*")
    part.write_text(text)
    for crc in (path / "metadata").glob(".*.crc"):
        crc.unlink()


def test_everything_survives(saved: Path, spark: SparkSession) -> None:
    model = NeuralNetClassificationModel.load(str(saved))
    original = classifier(4, 5, 3)
    assert model.theta.tobytes() == original.theta.tobytes()
    assert model.network == original.network
    assert model.uid == metadata_of(saved)["uid"]
    assert model.getPredictionCol() == "guess"
    assert model.isSet(model.predictionCol)
    assert not model.isSet(model.probabilityCol)
    assert model.getThresholds() == [0.5, 0.25, 0.25]
    assert model.summary.history.equals(SUMMARY.history)
    assert model.summary.n_rows == 7


def test_what_is_on_disk(saved: Path, spark: SparkSession) -> None:
    """Spark's own layout, in few files, readable without sparknn."""
    metadata = metadata_of(saved)
    assert metadata["class"] == "sparknn.ml.classifier.NeuralNetClassificationModel"
    assert {"timestamp", "sparkVersion", "uid", "paramMap", "defaultParamMap"} <= metadata.keys()
    assert metadata["sparknn"]["formatVersion"] == 1
    assert metadata["sparknn"]["network"]["layers"] == [4, 5, 3]
    assert len(list((saved / "theta").glob("part-*"))) == 1
    (values,) = [row["values"] for row in spark.read.parquet(str(saved / "theta")).collect()]
    theta = np.array(values, dtype=np.float32)
    assert theta_checksum(theta) == metadata["sparknn"]["sha256"]


def test_a_regressor_survives(spark: SparkSession, tmp_path: Path) -> None:
    model = regressor(3, 2, loss="absolute")
    model.save(str(tmp_path / "model"))
    again = NeuralNetRegressionModel.load(str(tmp_path / "model"))
    assert again.network == model.network
    assert again.theta.tobytes() == model.theta.tobytes()
    df = spark.createDataFrame([([1.0, 2.0, 3.0],)], "features array<double>")
    assert again.transform(df).collect() == model.transform(df).collect()


def test_an_encoding_survives(spark: SparkSession, tmp_path: Path) -> None:
    """In the format that older versions refuse: without it, the network is another function."""
    X = np.random.default_rng(0).normal(size=(50, 2)).astype(np.float32)
    encoding = choose_encoding(X, {}, pieces=4, keeps_missing=True)
    network = classifier(encoding.n_dense, 3)
    model = NeuralNetClassificationModel(
        network.network, network.theta, encoding=encoding, feature_names=["width", "height"]
    )
    model.save(str(tmp_path / "model"))
    assert metadata_of(tmp_path / "model")["sparknn"]["formatVersion"] == 2
    again = NeuralNetClassificationModel.load(str(tmp_path / "model"))
    assert again.numFeatures == 2
    assert again.featureNames == ["width", "height"]
    X[3, 1] = np.nan
    expected = model.toLocal().predict_raw(X)
    np.testing.assert_array_equal(again.toLocal().predict_raw(X), expected)


def test_many_chunks(spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights_io, "CHUNK", 10)
    monkeypatch.setattr(weights_io, "_CHUNKS_PER_FILE", 2)
    model = classifier(4, 5, 3)
    model.save(str(tmp_path / "model"))
    assert len(list((tmp_path / "model" / "theta").glob("part-*"))) > 1
    again = NeuralNetClassificationModel.load(str(tmp_path / "model"))
    assert again.theta.tobytes() == model.theta.tobytes()


def test_nothing_is_saved_beside_what_is_there(spark: SparkSession, tmp_path: Path) -> None:
    (tmp_path / "theirs.txt").write_text("keep")
    for stage in (classifier(4, 3), NeuralNetClassifier()):
        with pytest.raises(FileExistsError, match=r"already exists. Use write\(\).overwrite\(\)"):
            stage.save(str(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["theirs.txt"]


def fail(*_: object) -> None:
    raise OSError("disk full")


def test_a_save_that_fails_leaves_nothing_behind(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sparknn.ml.persistence.write_weights", fail)
    with pytest.raises(OSError, match="disk full"):
        classifier(4, 3).save(str(tmp_path / "model"))
    assert list(tmp_path.iterdir()) == []


def test_a_save_that_fails_leaves_what_it_would_replace(
    saved: Path, spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model"
    shutil.copytree(saved, path)

    def overwrite() -> None:
        classifier(4, 3).write().overwrite().save(str(path))

    with monkeypatch.context() as patched:
        patched.setattr("sparknn.ml.persistence.write_weights", fail)
        with pytest.raises(OSError, match="disk full"):
            overwrite()
    renamed, rename = [], filesystem._rename

    def fail_once(spark: SparkSession, old: str, new: str) -> None:
        renamed.append(new)
        if len(renamed) == 2:
            raise OSError("quota")
        rename(spark, old, new)

    with monkeypatch.context() as patched:
        patched.setattr(filesystem, "_rename", fail_once)
        with pytest.raises(OSError, match="quota"):
            overwrite()
    assert len(renamed) == 3
    assert NeuralNetClassificationModel.load(str(path)).layers == [4, 5, 3]
    assert list(tmp_path.iterdir()) == [path]
    overwrite()
    assert NeuralNetClassificationModel.load(str(path)).layers == [4, 3]
    assert list(tmp_path.iterdir()) == [path]


def test_links_are_replaced_and_not_followed(
    saved: Path, spark: SparkSession, tmp_path: Path
) -> None:
    """By a model of an odd name, too."""
    path, theirs = tmp_path / "mo del[1]{a,b}*%20é", tmp_path / "theirs"
    shutil.copytree(saved, theirs)
    path.symlink_to(theirs)
    for _ in range(2):
        classifier(4, 3).write().overwrite().save(str(path))
        assert NeuralNetClassificationModel.load(str(path)).layers == [4, 3]
        # The second time, what is replaced holds a link.
        (path / "theta" / "link").symlink_to(theirs)
    assert not path.is_symlink()
    assert NeuralNetClassificationModel.load(str(theirs)).layers == [4, 5, 3]
    assert {each.name for each in tmp_path.iterdir()} == {path.name, "theirs"}


def test_an_empty_model_leaves_nothing_behind(spark: SparkSession, tmp_path: Path) -> None:
    path = tmp_path / "model"
    classifier(4, 3).save(str(path))
    with pytest.raises(ValueError, match="has no network"):
        NeuralNetClassificationModel().write().overwrite().save(str(path))
    assert NeuralNetClassificationModel.load(str(path)).layers == [4, 3]


def test_another_class(saved: Path, spark: SparkSession, tmp_path: Path) -> None:
    with pytest.raises(ModelFormatError, match=r"NeuralNetClassificationModel.load\(path\)"):
        NeuralNetRegressionModel.load(str(saved))
    VectorAssembler(inputCols=["a"], outputCol="b").save(str(tmp_path / "other"))
    with pytest.raises(ModelFormatError, match="VectorAssembler"):
        NeuralNetClassificationModel.load(str(tmp_path / "other"))


def test_nothing_there(spark: SparkSession, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no saved NeuralNetClassificationModel at"):
        NeuralNetClassificationModel.load(str(tmp_path / "nowhere"))
    with pytest.raises(TypeError, match="path is a PosixPath; expected a string"):
        NeuralNetClassificationModel.load(tmp_path)  # type: ignore[arg-type]


def newer(m: dict[str, Any]) -> None:
    m["sparknn"] |= {"formatVersion": 3, "version": "9.1.0"}


def deeper(m: dict[str, Any]) -> None:
    m["sparknn"]["network"]["layers"] = [4, 10**9, 3]


def deeper_and_counted(m: dict[str, Any]) -> None:
    m["sparknn"]["network"]["layers"] = [4, 10**9, 3]
    m["sparknn"]["numParams"] = 8 * 10**9 + 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (newer, "saved by sparknn 9.1.0 in format 3.*Upgrade sparknn"),
        (lambda m: m.pop("sparknn"), "not saved by sparknn"),
        (lambda m: m["sparknn"].pop("network"), "description of the network"),
        (lambda m: m["sparknn"].update(sha256="0" * 64), "do not match their checksum"),
        (lambda m: m["sparknn"]["network"].update(layers=[4, -5, 3]), r"layers = \[4, -5, 3\]"),
        (lambda m: m["sparknn"]["network"].update(layers="4-5-3"), "layers = '4-5-3'"),
        (lambda m: m["sparknn"]["network"].update(activation="swish"), "'swish'"),
        (lambda m: m["sparknn"].update(numParams=44), "numParams = 44"),
        (lambda m: m["sparknn"].update(summary={"history": 3}), "training summary"),
        (lambda m: m.pop("paramMap"), "not one line of Spark ML metadata"),
        (lambda m: m["sparknn"]["network"].update(loss="huber"), "loss = 'huber' for a NeuralNetC"),
        (deeper, "numParams = 43"),
        (deeper_and_counted, "8e.09 parameters; expected at most"),
        (lambda m: m["sparknn"].update(formatVersion=True), "no format version"),
    ],
)
def test_metadata_that_was_changed(
    damaged: Path, spark: SparkSession, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    change_metadata(damaged, change)
    with pytest.raises(ModelFormatError, match=message):
        NeuralNetClassificationModel.load(str(damaged))


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m["sparknn"]["network"].update(activation="tanh"),
        # The same number of parameters.
        lambda m: m["sparknn"]["network"].update(layers=[4, 1, 19]),
        lambda m: m["paramMap"].update(thresholds=[0.25, 0.5, 0.25]),
        lambda m: m["defaultParamMap"].update(predictionCol=None),
        lambda m: m["sparknn"]["summary"].update(n_rows=8),
    ],
)
def test_metadata_that_make_sense_but_were_changed(
    damaged: Path, spark: SparkSession, change: Callable[[dict[str, Any]], object]
) -> None:
    change_metadata(damaged, change, consistent=False)
    with pytest.raises(ModelFormatError, match="metadata does not match its checksum"):
        NeuralNetClassificationModel.load(str(damaged))


def test_metadata_without_a_checksum(damaged: Path, spark: SparkSession) -> None:
    change_metadata(damaged, lambda m: m["sparknn"].pop("metadataSha256"), consistent=False)
    with pytest.raises(ModelFormatError, match="metadata does not match its checksum"):
        NeuralNetClassificationModel.load(str(damaged))


def test_params_of_an_estimator_that_were_changed(spark: SparkSession, tmp_path: Path) -> None:
    path = tmp_path / "estimator"
    NeuralNetClassifier(seed=3).save(str(path))
    change_metadata(path, lambda m: m["paramMap"].update(seed=4), consistent=False)
    with pytest.raises(ModelFormatError, match="metadata does not match its checksum"):
        NeuralNetClassifier.load(str(path))


@pytest.mark.parametrize("text", ["", "{", "[1, 2]", "two\nlines"])
def test_metadata_that_is_no_metadata(damaged: Path, spark: SparkSession, text: str) -> None:
    rewrite(damaged, text)
    with pytest.raises(ModelFormatError, match="truncated or edited"):
        NeuralNetClassificationModel.load(str(damaged))


def float_lists(*values: Any, of: Any = None) -> pa.Array:
    return pa.array(values, pa.list_(of or pa.float32()))


def zeros(n: int) -> pa.Array:
    """One list of zeros, which takes few bytes in a file."""
    return pa.ListArray.from_arrays([0, n], np.zeros(n, np.float32))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda theta: ([0], float_lists(theta + 1)), "do not match their checksum"),
        (lambda theta: ([0], float_lists(theta[:10])), "found 10 in chunk 0"),
        (lambda theta: ([0], zeros(150_000_000)), r"a file declares 15000000\d, in"),
        (lambda theta: ([1], float_lists(theta)), "found 43 in chunk 1"),
        (lambda theta: ([0], float_lists(theta, of=pa.float64())), "expected columns chunk, val"),
        (lambda theta: ([0], float_lists(theta * np.nan)), "NaN or infinite"),
        (lambda theta: ([0], float_lists([None] * len(theta))), "NaN or infinite"),
        (lambda theta: ([0, 0], float_lists(theta[:21], theta[:21])), "found 21 in chunk 0"),
        (lambda theta: ([], float_lists()), "in 1 chunks; found 0"),
        (lambda theta: ([0], float_lists(None)), "in 1 chunks; found 0"),
    ],
    ids=["other", "fewer", "more", "misplaced", "doubles", "NaN", "null", "twice", "none", "void"],
)
def test_parameters_that_were_changed(
    damaged: Path, spark: SparkSession, change: Callable[[np.ndarray], Any], message: str
) -> None:
    theta = classifier(4, 5, 3).theta.astype(np.float64)
    chunks, values = change(theta)
    shutil.rmtree(damaged / "theta")
    (damaged / "theta").mkdir()
    changed = pa.table({"chunk": pa.array(chunks, pa.int32()), "values": values})
    part = damaged / "theta" / "part-0.parquet"
    parquet.write_table(changed, part, compression="zstd", store_schema=False)
    assert part.stat().st_size < 5000
    with pytest.raises(ModelFormatError, match=message):
        NeuralNetClassificationModel.load(str(damaged))


def test_parameters_that_are_gone_or_cut_off(damaged: Path, spark: SparkSession) -> None:
    (part,) = (damaged / "theta").glob("part-*")
    part.write_bytes(part.read_bytes()[:100])
    with pytest.raises(ModelFormatError, match="incomplete or was changed"):
        NeuralNetClassificationModel.load(str(damaged))
    shutil.rmtree(damaged / "theta")
    with pytest.raises(ModelFormatError, match="incomplete or was changed"):
        NeuralNetClassificationModel.load(str(damaged))


def test_params_and_values_of_another_version_are_left_out_with_a_warning(
    damaged: Path, spark: SparkSession
) -> None:
    def add(metadata: dict[str, Any]) -> None:
        metadata["paramMap"]["temperature"] = 2.0
        metadata["paramMap"]["averaging"] = "blocks"
        metadata["defaultParamMap"]["pruning"] = "none"
        metadata["defaultParamMap"]["averagingRate"] = "auto"

    change_metadata(damaged, add)
    # pytest.warns would raise what an old pyspark warns of besides.
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = NeuralNetClassificationModel.load(str(damaged))
    (warning,) = [item for item in caught if item.category is UserWarning]
    assert "does not know its params averaging, pruning, temperature, or" in str(warning.message)
    assert model.getPredictionCol() == "guess"


def test_metadata_that_does_not_match_its_file_s_checksum(
    damaged: Path, spark: SparkSession
) -> None:
    (part,) = (damaged / "metadata").glob("part-*")
    part.write_text(part.read_text().replace("guess", "wager"))
    with pytest.raises(ModelFormatError, match=r"metadata cannot be read \(.*[Cc]hecksum"):
        NeuralNetClassificationModel.load(str(damaged))


def test_in_a_thread(saved: Path, spark: SparkSession, tmp_path: Path) -> None:
    """Such as those in which Spark's tuning fits and transforms; no session is active there."""

    def there_and_back() -> NeuralNetClassificationModel:
        NeuralNetClassificationModel.load(str(saved)).save(str(tmp_path / "again"))
        return NeuralNetClassificationModel.load(str(tmp_path / "again"))

    with ThreadPoolExecutor(1) as pool:
        model = pool.submit(there_and_back).result()
    assert model.theta.tobytes() == classifier(4, 5, 3).theta.tobytes()
