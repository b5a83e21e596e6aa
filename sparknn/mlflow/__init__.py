"""Log models and fits with MLflow: ``import sparknn.mlflow``.

A logged model has two flavors. As ``python_function`` it predicts with numpy alone, from arrays, or
from the raw columns of a model with ``inputCols``; ``load_model`` returns the Spark model.

    path/MLmodel, requirements.txt, ...
    path/data/sparknn/predictor.json  what predicts, but for its parameters
    path/data/sparknn/theta.npy       the parameters; baseline.npy, if the model has one
    path/data/sparknn/metadata.json   the Spark model's metadata, as its own ``save`` writes it

Nothing is pickled.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

try:
    import mlflow.pyfunc
    from mlflow.models import Model, ModelSignature, infer_signature
    from mlflow.models.model import ModelInfo
    from mlflow.types.schema import AnyType, Array, ColSpec, DataType, Schema, TensorSpec
    from mlflow.utils.autologging_utils import autologging_integration
except ImportError as error:
    raise ImportError(
        "sparknn.mlflow needs MLflow 3: pip install 'sparknn[mlflow]', or mlflow, which has more."
    ) from error

import sparknn
from sparknn import __version__
from sparknn.core.columns import InputColumn
from sparknn.core.predictor import LocalPredictor
from sparknn.mlflow.autolog import watch_fits
from sparknn.mlflow.callback import MlflowCallback

__all__ = ["MlflowCallback", "autolog", "load_model", "log_model", "save_model"]

FLAVOR_NAME = "sparknn"
#: What a ``python_function`` may return.
PREDICT_FUNCTIONS = ("predict", "predict_proba", "predict_raw")


def log_model(model: Any, name: str, **options: Any) -> ModelInfo:
    """Log a model to the active run; it starts one if there is none.

    Parameters
    ----------
    model, options
        See ``save_model``; and options of ``mlflow.models.Model.log``, such as
        ``registered_model_name``.
    name : str

    Returns
    -------
    ModelInfo
        Its ``model_uri`` is what ``load_model`` and ``mlflow.pyfunc.load_model`` take.
    """
    return Model.log(
        artifact_path=None, name=name, flavor=sys.modules[__name__], model=model, **options
    )


# MLflow's decorator restores what was patched before, and stops here if ``disable`` is True.
@autologging_integration("sparknn")  # type: ignore[untyped-decorator]
def autolog(
    log_models: bool = True,
    registered_model_name: str | None = None,
    disable: bool = False,
    exclusive: bool = False,
    silent: bool = False,
) -> None:
    """Log params, rounds and the model of every fit: to the active run, or else to a new one.

    Parameter maps that are fitted together, as CrossValidator does, have child runs, without
    models. A fit goes on if logging fails.

    Parameters
    ----------
    log_models : bool
    registered_model_name : str, optional
        Registers each model as a version of it.
    disable : bool
        Stop logging.
    exclusive : bool
        Do not log to runs that were started by hand.
    silent : bool
        Keep MLflow's messages and warnings quiet.
    """
    log = partial(log_model, registered_model_name=registered_model_name)
    watch_fits(log if log_models else None)


def save_model(
    model: Any,
    path: str | os.PathLike[str],
    *,
    pyfunc_predict_fn: str = "predict",
    signature: ModelSignature | None = None,
    input_example: Any = None,
    pip_requirements: Any = None,
    mlflow_model: Model | None = None,
    **options: Any,
) -> None:
    """Save a model to a directory on this machine.

    Parameters
    ----------
    model : NeuralNetClassificationModel, NeuralNetRegressionModel, or PipelineModel of only one
    path : str
    pyfunc_predict_fn : str
        What the ``python_function`` returns: ``predict``, ``predict_proba`` or ``predict_raw``.
    signature : ModelSignature, optional
        By default that of ``input_example``, or else what the model knows of its columns.
    input_example : pandas.DataFrame, ndarray or Spark DataFrame, optional
        Rows to predict; of a Spark DataFrame the first five, of the model's columns.
    pip_requirements : list of str, optional
        By default numpy and sparknn, of the versions that are running.
    options
        Those of ``mlflow.pyfunc.save_model``, such as ``code_paths`` or ``metadata``.
    """
    from sparknn.ml.model import NetworkModel
    from sparknn.ml.persistence import ModelWriter

    stages = getattr(model, "stages", [model])
    if len(stages) != 1 or not isinstance(stages[0], NetworkModel):
        raise TypeError(
            f"model is {model}; expected a model of sparknn. Log a pipeline with other stages by "
            "mlflow.spark.log_model, or fit raw columns in one stage, by inputCols."
        )
    (model,) = stages
    if pyfunc_predict_fn not in PREDICT_FUNCTIONS:
        raise ValueError(
            f"pyfunc_predict_fn = {pyfunc_predict_fn!r}; expected one of {PREDICT_FUNCTIONS}."
        )
    local = model.toLocal()
    if hasattr(input_example, "sparkSession"):
        input_example = _collected(input_example, model)
    if signature is None:
        answer = None
        if input_example is not None:
            answer = _Pyfunc(local, pyfunc_predict_fn).predict(input_example)
        signature = _signature(local, pyfunc_predict_fn, input_example, answer)
    mlflow_model = mlflow_model or Model()
    mlflow_model.add_flavor(
        FLAVOR_NAME, sparknn_version=__version__, data="data/sparknn", model=type(model).__name__
    )
    with tempfile.TemporaryDirectory() as scratch:
        data = Path(scratch, "sparknn")
        data.mkdir()
        state = {**local.__getstate__(), "predictFn": pyfunc_predict_fn}
        for key in ("theta", "baseline"):
            if state.pop(key) is not None:
                np.save(data / f"{key}.npy", getattr(local, key), allow_pickle=False)
        (data / "predictor.json").write_text(json.dumps(state), encoding="utf-8")
        (data / "metadata.json").write_text(ModelWriter(model)._metadata_line(), encoding="utf-8")
        mlflow.pyfunc.save_model(
            path,
            loader_module="sparknn.mlflow",
            data_path=str(data),
            mlflow_model=mlflow_model,
            signature=signature,
            input_example=input_example,
            pip_requirements=pip_requirements
            or [f"numpy=={np.__version__}", f"sparknn=={__version__}"],
            **options,
        )


def load_model(model_uri: str, dst_path: str | None = None) -> Any:
    """Return the Spark model of a logged or saved one; no Spark job, no session.

    ``mlflow.pyfunc.load_model(model_uri)`` loads it without pyspark.
    """
    root = mlflow.artifacts.download_artifacts(artifact_uri=model_uri, dst_path=dst_path)
    flavor = Model.load(root).flavors[FLAVOR_NAME]
    data = Path(root, flavor["data"])
    reader = getattr(sparknn, flavor["model"]).read()
    line = (data / "metadata.json").read_text(encoding="utf-8")
    return reader.from_local(str(data), line, np.load(data / "theta.npy", allow_pickle=False))


def _load_pyfunc(path: str) -> _Pyfunc:
    """Load the ``python_function`` flavor, for MLflow."""
    state = json.loads(Path(path, "predictor.json").read_text(encoding="utf-8"))
    predict_fn = state.pop("predictFn")
    state["layers"] = tuple(state["layers"])
    for file in Path(path).glob("*.npy"):
        state[file.stem] = np.load(file, allow_pickle=False).tobytes()
    local = LocalPredictor.__new__(LocalPredictor)
    local.__setstate__(state)
    return _Pyfunc(local, predict_fn)


class _Pyfunc:
    """What MLflow calls to predict."""

    def __init__(self, local: LocalPredictor, predict_fn: str) -> None:
        self._local = local
        self._predict = getattr(local, predict_fn)

    def predict(self, model_input: Any, params: dict[str, Any] | None = None) -> Any:
        return self._predict(model_input)

    def get_raw_model(self) -> LocalPredictor:
        return self._local


def _signature(local: LocalPredictor, predict_fn: str, example: Any, answer: Any) -> ModelSignature:
    if example is not None:
        return infer_signature(example, answer)
    several = predict_fn != "predict" or (not local.classifies and local.n_outputs > 1)
    shape = (-1, local.n_outputs) if several else (-1,)
    inputs = (
        Schema([TensorSpec(np.dtype(np.float64), (-1, local.n_features))])
        if local.inputs is None
        else Schema([ColSpec(_type_of(each), each.name) for each in local.inputs.columns])
    )
    return ModelSignature(inputs, Schema([TensorSpec(np.dtype(np.float64), shape)]))


def _type_of(column: InputColumn) -> Any:
    # Any type of number: MLflow refuses whole numbers where it expects floats.
    kinds = {"text": DataType.string, "vector": Array(DataType.double)}
    return kinds.get(column.kind, AnyType())


def _collected(rows: Any, model: Any) -> Any:
    """Return the first rows of a Spark DataFrame, of the columns that the model takes."""
    from sparknn.ml.schema import with_fields

    inputs = model._inputs
    names = [model.getFeaturesCol()] if inputs is None else inputs.names
    rows, _ = with_fields(rows, names)
    others = [name for name in rows.columns if name not in names]
    frame = rows.drop(*others).limit(5).toPandas()[names]
    for name in names:
        frame[name] = [row.toArray() if hasattr(row, "toArray") else row for row in frame[name]]
    return np.array(frame[names[0]].tolist()) if inputs is None else frame
