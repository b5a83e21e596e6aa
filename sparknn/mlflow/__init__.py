"""Log models and fits with MLflow: ``import sparknn.mlflow``.

A logged model has two flavors. As ``python_function`` it predicts with numpy alone, from arrays, or
from the raw columns of a model with ``inputCols``; ``load_model`` returns the Spark model.

    path/MLmodel, requirements.txt, ...
    path/data/sparknn/predictor.json  what predicts, but for its parameters
    path/data/sparknn/theta.npy       the parameters; baseline.npy, if the model has one
    path/data/sparknn/metadata.json   the Spark model's metadata, as its own ``save`` writes it

Nothing is pickled.
"""

try:
    import mlflow.pyfunc  # noqa: F401
except ImportError as error:
    raise ImportError(
        "sparknn.mlflow needs MLflow 3: pip install 'sparknn[mlflow]', or mlflow, which has more."
    ) from error

from sparknn.mlflow.autolog import autolog
from sparknn.mlflow.callback import MlflowCallback
from sparknn.mlflow.model import load_model, log_model, save_model

__all__ = ["MlflowCallback", "autolog", "load_model", "log_model", "save_model"]
