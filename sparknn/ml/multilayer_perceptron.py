"""Run code that was written for Spark's own MultilayerPerceptronClassifier."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from pyspark.ml.param import TypeConverters
from pyspark.ml.param.shared import HasBlockSize
from pyspark.sql import DataFrame
from pyspark.sql.types import StructField

from sparknn.core.nn.network import Network
from sparknn.core.nn.solvers import SOLVERS
from sparknn.engine.interface import Engine
from sparknn.ml.checked_params import AUTO, CheckedParam, ParamError, getter, setter
from sparknn.ml.classifier import NeuralNetClassificationModel, NeuralNetClassifier
from sparknn.ml.estimator import ParamMap
from sparknn.ml.keywords import PerceptronKeywords, documented
from sparknn.ml.model_iterator import ModelIterator
from sparknn.ml.training_setup import Target
from sparknn.ml.validators import OneOf, Range

if TYPE_CHECKING:
    from typing import Self, Unpack

log = logging.getLogger("sparknn")


class _Layers:
    """Accept the sizes of an input layer, hidden layers, and an output layer of classes."""

    def problem(self, value: Any) -> str | None:
        usable = len(value) >= 2 and min(value) >= 1 and value[-1] >= 2
        return None if usable else f"expected {self}"

    def __str__(self) -> str:
        return "features, hidden units, classes: two sizes or more, and two classes or more"


@documented
class MultilayerPerceptronClassifier(NeuralNetClassifier, HasBlockSize):
    """A NeuralNetClassifier with the params of Spark's classifier of this name.

    The network is the same: sigmoid hidden layers, and softmax over the classes; so are the order
    and number of its weights. The training is this package's: ``maxIter`` counts rounds, each of
    one pass over the rows or more. ``solver="l-bfgs"`` stands for the
    defaults, without ``stepSize``, which L-BFGS does not use; ``gd`` for ``sgd``. ``blockSize``,
    and ``tol`` without validation rows, have no effect. All params of NeuralNetClassifier work too,
    but for ``hiddenLayers`` and ``numClasses``, which come from ``layers``.

    Examples
    --------
    >>> MultilayerPerceptronClassifier(layers=[4, 5, 3], solver="l-bfgs").getLayers()
    [4, 5, 3]
    """

    layers = CheckedParam("layers", "sizes of all layers", TypeConverters.toListInt, rule=_Layers())
    blockSize = CheckedParam(
        "blockSize", "not used; batchSize is for mini-batches", TypeConverters.toInt, 128, Range(1)
    )
    initialWeights = CheckedParam(
        "initialWeights",
        "weights to start from, layer by layer, as model.weights has them",
        TypeConverters.toListFloat,
    )
    solver = CheckedParam(
        "solver",
        NeuralNetClassifier.solver.doc.partition(" (")[0],
        TypeConverters.toString,
        NeuralNetClassifier.solver.default,
        OneOf((AUTO, "l-bfgs", "gd", *SOLVERS)),
    )

    setLayers, getLayers = setter(layers), getter(layers)
    setBlockSize = setter(blockSize)
    setInitialWeights, getInitialWeights = setter(initialWeights), getter(initialWeights)

    def __init__(self, **params: Unpack[PerceptronKeywords]) -> None:
        super().__init__()
        self._setDefault(
            activation="sigmoid", numericEncoding="plain", categorical=False, maxIter=100
        )
        self._set(**params)

    def setParams(self, **params: Unpack[PerceptronKeywords]) -> Self:
        """Set several params; one error reports all that are wrong."""
        return self._set(**params)

    def _fit(self, dataset: DataFrame) -> Any:
        return super(MultilayerPerceptronClassifier, self._translated())._fit(dataset)

    def fitMultiple(self, dataset: DataFrame, paramMaps: Sequence[ParamMap]) -> ModelIterator[Any]:
        """Fit a model for each parameter map, all of them in one pass over the rows."""
        for paramMap in paramMaps:
            self._check_param_owners(paramMap)
        maps = [self.copy(paramMap)._translated()._paramMap for paramMap in paramMaps]
        return super().fitMultiple(dataset, maps)

    def _translated(self) -> Self:
        """Return a copy with the params of NeuralNetClassifier that mean the same."""
        if not self.isDefined(self.layers):
            problem = " is not set; expected features, hidden units and classes, as in [4, 5, 3]."
            raise ParamError(type(self).__name__, {"layers": problem})
        layers, solver = self.getLayers(), self.getSolver()
        values: dict[str, Any] = {"hiddenLayers": layers[1:-1], "numClasses": layers[-1]}
        ignored = ["blockSize"] if self.isSet("blockSize") else []
        if self.isSet("tol") and not (
            self.getValidationFraction() or self._optional_column("validationIndicatorCol")
        ):
            values["tol"] = 0.0
            ignored.append("tol")
        if solver == "l-bfgs":
            values |= {"solver": NeuralNetClassifier.solver.default, "stepSize": AUTO}
            ignored.append("solver='l-bfgs'")
        elif solver == "gd":
            values["solver"] = "sgd"
        if self.isDefined(self.initialWeights):
            values["initialModel"] = self._initial_model(layers)
        if ignored:
            log.info("%s of Spark's MultilayerPerceptronClassifier: not used.", ", ".join(ignored))
        return self.copy()._set(**values)

    def _initial_model(self, layers: list[int]) -> NeuralNetClassificationModel:
        network = Network(tuple(layers), self.getActivation(), "crossEntropy")
        theta = np.array(self.getInitialWeights(), dtype=np.float32)
        if theta.size != network.n_params:
            problem = f" has {theta.size} numbers; layers {layers} have {network.n_params}."
            raise ParamError(type(self).__name__, {"initialWeights": problem})
        return NeuralNetClassificationModel(network, theta)

    def _target(self, engine: Engine, label: StructField, initial: Network | None) -> Target:
        layers, n_features = self.getLayers(), engine.info.n_features
        if layers[0] != n_features:
            problem = f" = {layers}; rows have {n_features} features. Begin layers with that."
            raise ParamError(type(self).__name__, {"layers": problem})
        return super()._target(engine, label, initial)
