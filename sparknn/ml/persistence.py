"""Save and load stages: Spark's own metadata, and the parameters as numeric parquet.

    path/metadata/      one line of JSON: class, uid, params, and a section "sparknn"
    path/theta/         parquet, one row per chunk: chunk (int), values (array<float>)
    path/initialModel/  the model, saved in the same way, that an estimator continues from

Everything goes through DataFrames, so any file system that Spark supports will do. Nothing is
pickled. Metadata and parameters are checked against checksums, and sizes before memory is
allocated.
"""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar, cast

import numpy as np
from pyspark.errors import AnalysisException, PySparkRuntimeError
from pyspark.ml.base import Model
from pyspark.ml.classification import ClassificationModel
from pyspark.ml.param import Params
from pyspark.ml.util import DefaultParamsWriter, MLReader, MLWriter
from pyspark.sql import SparkSession

from sparknn import __version__
from sparknn.core.columns import InputColumns
from sparknn.core.nn.activations import ACTIVATIONS
from sparknn.core.nn.encoding import Encoding
from sparknn.core.nn.network import MAX_PARAMS, Network
from sparknn.core.types import Float32Array
from sparknn.engine.filesystem import exists, read_lines, replacing, write_line
from sparknn.engine.sql import is_connect
from sparknn.engine.worker_errors import WorkerEnvironmentError, error_class, root_cause
from sparknn.ml.checked_params import CheckedParams, ParamError
from sparknn.ml.explain import Explanation
from sparknn.ml.summary import TrainingSummary
from sparknn.ml.weights_io import read_weights, write_weights

# The newest format. Only models with offsets or an encoding need it, as older versions would
# predict something else from them; all else is written in format 1.
FORMAT_VERSION = 2
SECTION = "sparknn"
METADATA_SHA = "metadataSha256"
INITIAL_MODEL = "initialModel"

P = TypeVar("P", bound=Params)


class ModelFormatError(ValueError):
    """A directory does not hold a valid stage of the wanted class; the message says why."""


class StageWriter(MLWriter):
    """Write what every stage has: its class, uid and params."""

    def __init__(self, instance: Params) -> None:
        super().__init__()
        self.instance = instance

    def save(self, path: str) -> None:
        """Save to a directory, on any file system that Spark supports.

        What ``overwrite()`` replaces stays until all is written, except over Spark Connect, which
        can neither rename nor remove a directory.

        Raises
        ------
        FileExistsError
            If the path exists and ``overwrite()`` was not called.
        """
        _check_path(path)
        # What cannot be saved must fail before anything is deleted.
        self._metadata_line()
        spark = self._session()
        if is_connect(spark):
            self.saveImpl(path)
            return
        if not self.shouldOverwrite and exists(spark, path):
            raise FileExistsError(_taken(path))
        with replacing(spark, path, overwrite=self.shouldOverwrite) as place:
            self.saveImpl(place)

    def saveImpl(self, path: str) -> None:
        """Write the metadata; Spark's composites call this through ``save``."""
        line, folder = self._metadata_line(), os.path.join(path, "metadata")
        try:
            write_line(self._session(), line, folder, self._mode())
        except AnalysisException as error:
            if error_class(error) != "PATH_ALREADY_EXISTS":
                raise
            raise FileExistsError(_taken(path)) from error

    def _session(self) -> SparkSession:
        return self._sparkSession or _active_session()

    def _mode(self) -> str:
        # Over Spark Connect, ``save`` cannot remove a path: Spark's writers replace what is there.
        return "overwrite" if self.shouldOverwrite else "error"

    def _section(self) -> dict[str, Any]:
        """Return the section "sparknn" of the metadata."""
        return {"formatVersion": 1, "version": __version__}

    def _metadata_line(self) -> str:
        # Only the session's version is read from the second argument.
        line = DefaultParamsWriter._get_metadata_to_save(
            self.instance,
            self._session(),  # type: ignore[arg-type,unused-ignore]
            extraMetadata={SECTION: self._section()},
            # An initial model is saved in a directory of its own.
            paramMap={
                param.name: value
                for param, value in self.instance._paramMap.items()
                if not isinstance(value, Model)
            },
        )
        metadata = json.loads(line)
        metadata[SECTION][METADATA_SHA] = metadata_checksum(metadata)
        return json.dumps(metadata)


class EstimatorWriter(StageWriter):
    """Write an estimator: its params, and its initial model if it has one."""

    def saveImpl(self, path: str) -> None:
        """Write the metadata first, so that an interrupted save is recognized as incomplete."""
        super().saveImpl(path)
        if writer := self._initial_model_writer():
            writer.saveImpl(os.path.join(path, INITIAL_MODEL))

    def _initial_model_writer(self) -> ModelWriter | None:
        model = self.instance.getOrDefault(INITIAL_MODEL)
        if not isinstance(model, Model):
            return None
        writer = ModelWriter(model)
        writer.session(self._session())
        if self.shouldOverwrite:
            writer.overwrite()
        return writer

    def _section(self) -> dict[str, Any]:
        writer = self._initial_model_writer()
        if writer is not None:
            # A model that cannot be saved must fail before anything is written.
            writer._metadata_line()
        return {**super()._section(), INITIAL_MODEL: writer is not None}


class ModelWriter(StageWriter):
    """Write a model: its params, network and summary as metadata, its parameters as parquet."""

    def saveImpl(self, path: str) -> None:
        """Write the metadata first, so that an interrupted save is recognized as incomplete."""
        super().saveImpl(path)
        theta = cast(Any, self.instance).theta
        write_weights(self._session(), theta, os.path.join(path, "theta"), self._mode())

    def _section(self) -> dict[str, Any]:
        model: Any = self.instance
        network, section, offsets = model.network, super()._section(), _saved_offsets(model)
        if offsets or model.encoding is not None or model._inputs is not None:
            section["formatVersion"] = FORMAT_VERSION
        return {
            **section,
            "network": {
                "layers": list(network.layers),
                "activation": network.activation,
                "loss": network.loss,
                **offsets,
            },
            "encoding": None if model.encoding is None else model.encoding.to_json(),
            "featureNames": model.featureNames,
            "inputs": None if model._inputs is None else model._inputs.to_json(),
            "explanation": None if model._explanation is None else model._explanation.to_json(),
            "numParams": network.n_params,
            "sha256": theta_checksum(model.theta),
            "summary": model.summary.to_json() if model.hasSummary else None,
        }


class StageReader(MLReader[P]):  # type: ignore[type-var]
    """Read what ``StageWriter`` wrote."""

    def __init__(self, cls: type[P]) -> None:
        super().__init__()
        self.cls = cls

    def _session(self) -> SparkSession:
        return self._sparkSession or _active_session()

    def _metadata(self, path: str) -> dict[str, Any]:
        spark = self._session()
        try:
            lines = read_lines(spark, os.path.join(path, "metadata"))
        except AnalysisException as error:
            raise FileNotFoundError(
                f"There is no saved {self.cls.__name__} at {path}: it has no metadata/ directory "
                "that Spark can read. Is the path complete, and visible to every node?"
            ) from error
        except Exception as error:
            # A damaged file, or a file system that is unknown or not accessible.
            raise ModelFormatError(
                f"{path}/metadata cannot be read ({root_cause(error)})."
            ) from error
        return self._parse(lines, path)

    def _parse(self, lines: list[str], path: str) -> dict[str, Any]:
        """Return the metadata in a file's lines, if they are of a stage of this class."""
        wanted = f"{self.cls.__module__}.{self.cls.__name__}"
        try:
            (line,) = lines
            metadata = json.loads(line)
            kinds = {"class": str, "uid": str, "paramMap": dict, "defaultParamMap": dict}
            for key, kind in kinds.items():
                if not isinstance(metadata[key], kind):
                    raise TypeError(f"{key} is {metadata[key]!r:.100}")
        except (ValueError, LookupError, TypeError, RecursionError) as error:
            raise ModelFormatError(
                f"{path}/metadata is not one line of Spark ML metadata ({error!s:.200}). It was "
                "truncated or edited, or is not a saved stage."
            ) from error
        found = f"{metadata['class']:.100}"
        if found != wanted:
            raise ModelFormatError(
                f"{path} holds a {found}, not a {wanted}. Load it with "
                f"{found.rpartition('.')[2]}.load(path)."
            )
        section = metadata.get(SECTION)
        version = section.get("formatVersion") if isinstance(section, dict) else None
        if type(version) is not int or version < 1:
            raise ModelFormatError(
                f"{path}/metadata has no format version of sparknn. It was not saved by sparknn, "
                "or was edited."
            )
        if version > FORMAT_VERSION:
            raise ModelFormatError(
                f"{path} was saved by sparknn {section.get('version')!s:.20} in format "
                f"{version!s:.20}; "
                f"{__version__} reads up to format {FORMAT_VERSION}. Upgrade sparknn to load it."
            )
        if section.get(METADATA_SHA) != metadata_checksum(metadata):
            raise ModelFormatError(
                f"{path}/metadata does not match its checksum: it was changed after it was saved. "
                "Copy it again, or save again."
            )
        return dict(metadata)


class EstimatorReader(StageReader[P]):
    """Read an estimator that ``EstimatorWriter`` wrote."""

    def load(self, path: str) -> P:
        """Load from a directory; FileNotFoundError or ModelFormatError if that is not possible."""
        _check_path(path)
        metadata = self._metadata(path)
        estimator: Any = self.cls()
        _restore(estimator, metadata)
        if metadata[SECTION].get(INITIAL_MODEL):
            reader = estimator._model_class.read().session(self._session())
            estimator._set(initialModel=reader.load(os.path.join(path, INITIAL_MODEL)))
        return cast(P, estimator)


class ModelReader(StageReader[P]):
    """Read a model that ``ModelWriter`` wrote."""

    def load(self, path: str) -> P:
        """Load from a directory; FileNotFoundError or ModelFormatError if that is not possible."""
        _check_path(path)
        metadata = self._metadata(path)
        section = metadata[SECTION]
        network = _network(path, section, self.cls)
        theta = _theta(self._session(), path, network, section)
        return self._model(path, metadata, network, theta)

    def from_local(self, path: str, line: str, theta: Float32Array) -> P:
        """Return the model of a line of metadata and its parameters, without Spark."""
        metadata = self._parse([line], path)
        network = _network(path, metadata[SECTION], self.cls)
        _check_theta(theta, path, metadata[SECTION])
        return self._model(path, metadata, network, theta)

    def _model(
        self, path: str, metadata: dict[str, Any], network: Network, theta: Float32Array
    ) -> P:
        section = metadata[SECTION]
        with _naming("The training summary", path):
            saved = section["summary"]
            summary = None if saved is None else TrainingSummary.from_json(saved)
        encoding, names = _encoding(path, section, network)
        n_features = network.layers[0] if encoding is None else encoding.n_features
        offsets = _offsets(path, section, n_features, network.layers[-1])
        inputs = _inputs(path, section, n_features)
        explanation = _explanation(path, section, network.layers[0], n_features)
        model = cast(Any, self.cls)(
            network,
            theta,
            summary,
            encoding,
            names,
            inputs=inputs,
            explanation=explanation,
            **offsets,
        )
        _restore(model, metadata)
        return cast(P, model)


def metadata_checksum(metadata: dict[str, Any]) -> str:
    """Return the SHA-256 of all metadata but the checksum itself."""
    section = {name: value for name, value in metadata[SECTION].items() if name != METADATA_SHA}
    text = json.dumps({**metadata, SECTION: section}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def theta_checksum(theta: Float32Array) -> str:
    """Return the SHA-256 of the parameters as little-endian float32."""
    return hashlib.sha256(np.ascontiguousarray(theta, dtype="<f4").data).hexdigest()


@contextmanager
def _naming(part: str, path: str) -> Iterator[None]:
    """Raise a ModelFormatError that names a part of the metadata, whatever is wrong with it."""
    try:
        yield
    except (ArithmeticError, AttributeError, LookupError, MemoryError, TypeError, ValueError) as e:
        # It may quote values of any length.
        raise ModelFormatError(f"{part} in {path}/metadata is damaged ({e!r:.200}).") from e


def _network(path: str, section: dict[str, Any], cls: type[Any]) -> Network:
    """Return the network that the metadata describes, if the description is consistent."""
    with _naming("The description of the network", path):
        saved = section["network"]
        layers = saved["layers"]
        if not all(type(size) is int and size >= 1 for size in layers) or len(layers) < 2:
            raise ValueError(f"layers = {layers!r:.100}")
        if saved["activation"] not in ACTIVATIONS:
            raise ValueError(f"activation = {saved['activation']!r}")
        network = Network(tuple(layers), saved["activation"], str(saved["loss"]))
        if network.loss_fn.classifies != issubclass(cls, ClassificationModel):
            raise ValueError(f"loss = {saved['loss']!r} for a {cls.__name__}")
        if section["numParams"] != network.n_params:
            raise ValueError(f"numParams = {section['numParams']!r} for layers = {layers!r:.100}")
        if network.n_params > MAX_PARAMS:
            raise ValueError(
                f"{network.n_params:.2g} parameters; expected at most {MAX_PARAMS:.2g}"
            )
        if not isinstance(section["sha256"], str):
            raise TypeError(f"sha256 = {section['sha256']!r}")
    return network


def _encoding(
    path: str, section: dict[str, Any], network: Network
) -> tuple[Encoding | None, list[str] | None]:
    """Return the encoding and the names of the features; models of older versions have neither."""
    saved, names = section.get("encoding"), section.get("featureNames")
    with _naming("The description of the features", path):
        encoding = None if saved is None else Encoding.from_json(saved)
        n_features = network.layers[0]
        if encoding is not None:
            n_inputs, n_features = encoding.n_dense + encoding.n_embedded, encoding.n_features
            if n_inputs != network.layers[0]:
                raise ValueError(f"{n_inputs} encoded inputs for {network.layers[0]} of the layers")
        if names is not None and len(names) != n_features:
            raise ValueError(f"{len(names)} names of {n_features} features")
    return encoding, names


def _inputs(path: str, section: dict[str, Any], n_features: int) -> InputColumns | None:
    """Return the columns that features are assembled from, if they are not one column."""
    saved = section.get("inputs")
    with _naming("The description of the input columns", path):
        inputs = None if saved is None else InputColumns.from_json(saved)
        if inputs is not None and sum(each.size for each in inputs.columns) != n_features:
            raise ValueError(f"not {n_features} features")
    return inputs


def _explanation(
    path: str, section: dict[str, Any], n_inputs: int, n_features: int
) -> Explanation | None:
    """Return what predictions are explained by; models of older versions have none."""
    saved = section.get("explanation")
    with _naming("The explanation", path):
        return None if saved is None else Explanation.from_json(saved, n_inputs, n_features)


def _saved_offsets(model: Any) -> dict[str, list[float]]:
    local = model._predictor
    offsets = {"inputOffset": local.input_offset, "outputOffset": local.output_offset}
    return {name: values.tolist() for name, values in offsets.items() if values is not None}


def _offsets(path: str, section: dict[str, Any], n_features: int, n_outputs: int) -> dict[str, Any]:
    """Return the offsets that a model has beside its parameters."""
    saved, found = section["network"], {}
    for key, name, size in (
        ("inputOffset", "input_offset", n_features),
        ("outputOffset", "output_offset", n_outputs),
    ):
        if saved.get(key) is None:
            continue
        with _naming(f"The {key} of the network", path):
            found[name] = np.array(saved[key], dtype=np.float64)
            if found[name].shape != (size,) or not np.isfinite(found[name]).all():
                raise ValueError(f"expected {size} finite numbers")
    return found


def _theta(
    spark: SparkSession, path: str, network: Network, section: dict[str, Any]
) -> Float32Array:
    try:
        theta = read_weights(spark, os.path.join(path, "theta"), network.n_params, np.float32)
    except WorkerEnvironmentError:
        raise
    except Exception as error:
        # Spark has many errors for a damaged file, and settings of a session have others.
        raise ModelFormatError(
            f"The parameters in {path}/theta cannot be read ({root_cause(error)}). Unless a "
            "setting of this session is the cause, the directory is incomplete or was changed: "
            "copy it again, or save the model again."
        ) from error
    _check_theta(theta, path, section)
    return theta


def _check_theta(theta: Float32Array, path: str, section: dict[str, Any]) -> None:
    if not np.isfinite(theta).all():
        raise ModelFormatError(f"The parameters in {path}/theta have NaN or infinite values.")
    if theta_checksum(theta) != section["sha256"]:
        raise ModelFormatError(
            f"The parameters in {path}/theta do not match their checksum: they were changed after "
            "the model was saved."
        )


def _restore(stage: CheckedParams, metadata: dict[str, Any]) -> None:
    """Set uid and params of a stage; warn of params and values that it does not have."""
    defaults, values = metadata["defaultParamMap"], metadata["paramMap"]
    unknown = set[str]()
    for given in (defaults, values):
        try:
            stage._checked(given)
        except ParamError as error:
            unknown.update(error.problems)
    # A removed param that was not set has no effect.
    if reported := unknown - (stage._removed.keys() - values.keys()):
        warnings.warn(
            f"{type(stage).__name__} was saved by sparknn "
            f"{metadata[SECTION].get('version')!s:.20}; sparknn {__version__} does not know its "
            f"params {', '.join(sorted(reported)):.500}, or "
            "their values, and ignores them.",
            stacklevel=3,
        )
    stage._setDefault(**{name: defaults[name] for name in defaults if name not in unknown})
    stage._set(**{name: values[name] for name in values if name not in unknown})
    stage._resetUid(metadata["uid"])


def _taken(path: str) -> str:
    return (
        f"{path} already exists. Use write().overwrite().save(path) to replace what is there, or "
        "save elsewhere."
    )


def _check_path(path: object) -> None:
    if not isinstance(path, str):
        raise TypeError(f"path is a {type(path).__name__}; expected a string.")


def _active_session() -> SparkSession:
    """Return the active session, of this thread or the process; start none, unlike Spark's."""
    try:
        return SparkSession.active()
    except PySparkRuntimeError:
        raise RuntimeError(
            "There is no Spark session. Start one with SparkSession.builder.getOrCreate(), or "
            "give one: write().session(spark), read().session(spark)."
        ) from None
