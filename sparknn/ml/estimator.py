"""What classifier and regressor have in common: from a DataFrame to models."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, Self

from pyspark.ml.base import Predictor
from pyspark.ml.param import Param
from pyspark.ml.util import MLReadable, MLWritable
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.types import StructField

from sparknn.core.network import Network
from sparknn.core.types import Float32Array
from sparknn.engine.base import Engine, Intake
from sparknn.engine.connect import is_connect
from sparknn.ml.declare import ParamError
from sparknn.ml.fitting import Target
from sparknn.ml.model import NetworkModel
from sparknn.ml.params import NetworkParams
from sparknn.ml.persistence import StageReader, StageWriter
from sparknn.ml.schema import case_matters, check_is_dataframe, check_training_schema
from sparknn.ml.together import Group, ModelIterator
from sparknn.ml.train import train_all

log = logging.getLogger("sparknn")

ParamMap = Mapping[Param[Any], Any]


class NetworkEstimator(NetworkParams, Predictor[Any], MLReadable[Any], MLWritable):
    """Base of both estimators.

    Its state is its Params, and the model to start from if that was given as an object.
    """

    # Set by `setInitialModel`. Copies share it, as a model never changes; a saved estimator keeps
    # only a path, since a model has no place in JSON.
    _initial_model: NetworkModel | None = None

    _model_class: ClassVar[type[NetworkModel]]
    _classifies: ClassVar[bool]

    @abstractmethod
    def _target(self, engine: Engine, label: StructField, initial: Network | None) -> Target:
        """What to predict, from the rows that were taken in and the network to continue from."""

    @abstractmethod
    def _outputs(self) -> list[str]:
        """The columns that the model adds."""

    def setInitialModel(self, value: NetworkModel | str | None) -> Self:
        """Continue from a fitted model instead of starting afresh.

        Parameters
        ----------
        value : model, str or None
            A model, or the path of a saved one; None or '' starts afresh. Features and classes
            must be the same, and hiddenLayers and activation if they are set. A model given as an
            object is shared by copies of the estimator; a saved estimator remembers a path only.

        Raises
        ------
        ParamError
            If it is neither.
        """
        return self._set(initialModel=value)

    def _set(self, **kwargs: Any) -> Self:
        if "initialModel" not in kwargs:
            return super()._set(**kwargs)
        value = kwargs["initialModel"]
        held = value if isinstance(value, self._model_class) else None
        if isinstance(value, NetworkModel) and held is None:
            expected = f"expected a {self._model_class.__name__}, or the path of a saved one"
            problem = f" is a {type(value).__name__}; {expected}."
            raise ParamError(type(self).__name__, {"initialModel": problem})
        super()._set(**{**kwargs, "initialModel": None if held is not None else value})
        self._initial_model = held
        return self

    def copy(self, extra: ParamMap | None = None) -> Self:
        """A copy with the same uid; ``extra`` may hold a model as its ``initialModel``."""
        extra = dict(extra or {})
        held = extra.get(self.initialModel)
        if isinstance(held, NetworkModel):
            del extra[self.initialModel]
        copied = super().copy(extra)
        return copied._set(initialModel=held) if isinstance(held, NetworkModel) else copied

    def clear(self, param: Param[Any]) -> None:
        """Forget a value that was set; the default holds again."""
        super().clear(param)
        if param == self.initialModel:
            self._initial_model = None

    def _fit(self, dataset: DataFrame) -> Any:
        intake = self._intake(dataset)
        (outcome,) = train_all(dataset, intake, [self], [""])
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def fitMultiple(self, dataset: DataFrame, paramMaps: Sequence[ParamMap]) -> ModelIterator[Any]:
        """Fit a model for each parameter map, all of them in one pass over the rows.

        Maps that take in the same rows in the same way train in the same rounds; every model is
        what its own fit would give, to the byte. Nothing is trained before the first model is
        asked for; then that map's whole group is.

        Parameters
        ----------
        dataset : DataFrame
        paramMaps : sequence of dict of Param to value

        Returns
        -------
        ModelIterator
            Of ``(index, model)``; threads may share it. If a map's training fails, only its own
            turn raises.

        Raises
        ------
        ParamError, SchemaError, TypeError
            At once, with a note that names the map.
        """
        copies = [self.copy() for _ in paramMaps]
        names = [_name(index, paramMaps) for index in range(len(paramMaps))]
        groups: dict[tuple[Intake, int], list[int]] = {}
        for index, paramMap in enumerate(paramMaps):
            try:
                self._refuse_strangers(paramMap)
                copies[index] = self.copy(paramMap)
                intake = copies[index]._intake(dataset)
            except Exception as error:
                error.add_note(f"In {names[index]}: {_describe(paramMap)}")
                raise
            groups.setdefault((intake, copies[index].getAggregationDepth()), []).append(index)

        def train(intake: Intake, indices: Sequence[int]) -> list[Any]:
            chosen = [copies[index] for index in indices]
            outcomes = train_all(dataset, intake, chosen, [names[index] for index in indices])
            for index, outcome in zip(indices, outcomes, strict=True):
                if isinstance(outcome, Exception):
                    outcome.add_note(f"In {names[index]}: {_describe(paramMaps[index])}")
            return outcomes

        return ModelIterator(
            [
                Group(indices, partial(train, intake, indices))
                for (intake, _), indices in groups.items()
            ]
        )

    def _refuse_strangers(self, paramMap: ParamMap) -> None:
        """Spark ignores params of other stages; those of a sister estimator are a mistake."""
        for param in paramMap:
            parent = param.parent if isinstance(param, Param) else ""
            if parent != self.uid and parent.rpartition("_")[0] == type(self).__name__:
                raise ValueError(
                    f"Param '{param.name}' belongs to {parent}; this estimator is {self.uid}. "
                    f"Build the parameter maps from the params of the estimator that is fitted."
                )

    def _intake(self, dataset: DataFrame) -> Intake:
        """The rows to take in, once params and columns are known to be usable.

        Raises
        ------
        ParamError, SchemaError, TypeError
        RuntimeError
            On Spark Connect.
        """
        check_is_dataframe(dataset, "fit")
        if is_connect(dataset):
            raise RuntimeError(
                "fit needs a classic Spark session: it runs jobs on RDDs, which Spark Connect does "
                "not have. Fit where the session is not a remote one (on Databricks: on a cluster "
                "of dedicated access), and save the model; load and transform work here too."
            )
        self._check_together()
        weight, indicator = (
            self.getOrDefault(param) or None if self.isDefined(param) else None
            for param in (self.weightCol, self.validationIndicatorCol)
        )
        check_training_schema(
            dataset.schema,
            features=self.getFeaturesCol(),
            label=self.getLabelCol(),
            classifies=self._classifies,
            weight=weight,
            validation_indicator=indicator,
            outputs=self._outputs(),
            case_matters=case_matters(dataset.sparkSession),
        )
        return Intake(
            features=self.getFeaturesCol(),
            label=self.getLabelCol(),
            classifies=self._classifies,
            n_workers=self.getNumWorkers() or default_workers(dataset.sparkSession),
            seed=self.getSeed(),
            weight=weight,
            validation_indicator=indicator,
            validation_fraction=self.getValidationFraction(),
            shuffle=self.getShuffle(),
            skip_invalid=self.getHandleInvalid() == "skip",
        )

    def _check_together(self) -> None:
        """Each param is checked when it is set; here, those that must agree with each other."""
        problems = {}
        indicator = self.isDefined(self.validationIndicatorCol) and bool(
            self.getValidationIndicatorCol()
        )
        fraction = self.getValidationFraction()
        if indicator and fraction:
            problems["validationFraction"] = (
                f" = {fraction}; not together with validationIndicatorCol = "
                f"'{self.getValidationIndicatorCol()}'. Clear one of them."
            )
        if not indicator and not fraction:
            cure = "needs validation rows: set validationIndicatorCol or validationFraction."
            if self.getPatience():
                problems["patience"] = f" = {self.getPatience()}; {cure}"
            if self.getFinalWeights() in ("best", "combine"):
                problems["finalWeights"] = f" = '{self.getFinalWeights()}'; {cure}"
        if problems:
            raise ParamError(type(self).__name__, problems)

    def write(self) -> StageWriter:
        """A writer: ``estimator.write().overwrite().save(path)``."""
        if self._initial_model is not None:
            log.warning(
                "%s starts from a model that was given as an object, which is not saved with it. "
                "Save that model, and give its path to setInitialModel.",
                self.uid,
            )
        return StageWriter(self)

    @classmethod
    def read(cls) -> StageReader[Any]:
        """A reader: ``Estimator.read().load(path)``."""
        return StageReader(cls)

    def _start(self) -> tuple[Network, Float32Array] | None:
        """The network to continue from, if any."""
        model = self._initial_model
        if model is None and self.getInitialModel():
            model = self._model_class.load(self.getInitialModel())
        return None if model is None else (model.network, model.theta)


def default_workers(session: SparkSession) -> int:
    """What ``numWorkers=0`` stands for: Spark's default parallelism at this moment."""
    return max(1, session.sparkContext.defaultParallelism)


def _name(index: int, paramMaps: Sequence[ParamMap]) -> str:
    return f"map {index + 1} of {len(paramMaps)}" if len(paramMaps) > 1 else ""


def _describe(paramMap: ParamMap) -> str:
    pairs = (f"{getattr(param, 'name', param)}={value!r}" for param, value in paramMap.items())
    return "{" + ", ".join(pairs) + "}"
