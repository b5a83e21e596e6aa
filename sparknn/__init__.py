"""Neural networks for Spark ML: every partition trains a network, the driver averages them.

Public names are imported on first use: ``import sparknn`` is fast, and what ``toLocal()`` returns
works without pyspark.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sparknn.ml.classifier import NeuralNetClassificationModel, NeuralNetClassifier
    from sparknn.ml.doctor import doctor
    from sparknn.ml.multilayer_perceptron import MultilayerPerceptronClassifier
    from sparknn.ml.regressor import NeuralNetRegressionModel, NeuralNetRegressor

__version__ = "0.1.0"

__all__ = [
    "MultilayerPerceptronClassifier",
    "NeuralNetClassificationModel",
    "NeuralNetClassifier",
    "NeuralNetRegressionModel",
    "NeuralNetRegressor",
    "__version__",
    "doctor",
]

_HOME = {
    "MultilayerPerceptronClassifier": "sparknn.ml.multilayer_perceptron",
    "NeuralNetClassificationModel": "sparknn.ml.classifier",
    "NeuralNetClassifier": "sparknn.ml.classifier",
    "NeuralNetRegressionModel": "sparknn.ml.regressor",
    "NeuralNetRegressor": "sparknn.ml.regressor",
    "doctor": "sparknn.ml.doctor",
}


_SPARK = {"pyspark", "py4j", "pandas", "pyarrow"}


def import_spark_part(module: str) -> Any:
    """Import a module that needs pyspark; without it, the error says what to install."""
    try:
        return import_module(module)
    except ImportError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in _SPARK:
            raise
        raise ImportError(
            f"{module} needs {missing}, which is not installed: pip install 'sparknn[spark]'. On a "
            "cluster, use the Python that has the cluster's own pyspark.",
            name=error.name,
        ) from error


def __getattr__(name: str) -> Any:
    """Import a public name from its module, once (PEP 562)."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_spark_part(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(globals().keys() | _HOME.keys())
