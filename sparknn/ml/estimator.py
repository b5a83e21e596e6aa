"""What classifier and regressor have in common: from a DataFrame to models."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, ClassVar

from pyspark.ml.base import Model, Predictor
from pyspark.ml.param import Param, Params
from pyspark.ml.util import MLReadable, MLWritable
from pyspark.sql import DataFrame, SparkSession

from sparknn.engine.interface import DataSpec
from sparknn.engine.interrupts import defer_interrupts
from sparknn.engine.sql import is_connect
from sparknn.ml.checked_params import ParamError
from sparknn.ml.fit import Trainable, fit_models
from sparknn.ml.model_iterator import FitGroup, ModelIterator
from sparknn.ml.persistence import EstimatorReader, EstimatorWriter
from sparknn.ml.schema import case_matters, check_is_dataframe, check_training_schema

ParamMap = Mapping[Param[Any], Any]
# Whose params those of a class are.
_UNBOUND = Params._dummy().uid


class NetworkEstimator(Trainable, Predictor[Any], MLReadable[Any], MLWritable):
    """Base of both estimators; their whole state is their Params."""

    _classifies: ClassVar[bool]

    @abstractmethod
    def _outputs(self) -> list[str]:
        """The columns that the model adds."""

    def _convert(self, param: Param[Any], value: Any) -> tuple[Any, str | None]:
        """A model must be of this estimator's own kind."""
        wrong = isinstance(value, Model) and not isinstance(value, self._model_class)
        if wrong and param.name == "initialModel":
            wanted = self._model_class.__name__
            return value, f" is a {type(value).__name__}; expected a {wanted}, or a path of one."
        return super()._convert(param, value)

    def fit(self, dataset: DataFrame, params: Any = None) -> Any:
        """A model, or one for each of a list of parameter maps.

        Raises
        ------
        ParamError, SchemaError, DataError, ValueError
        """
        if isinstance(params, Mapping):
            self._check_param_owners(params)
        return super().fit(dataset, params)

    def _fit(self, dataset: DataFrame) -> Any:
        spec = self._spec(dataset)
        (outcome,) = fit_models(dataset, spec, [self], [""])
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
        groups: dict[tuple[DataSpec, int], list[int]] = {}
        for index, paramMap in enumerate(paramMaps):
            try:
                self._check_param_owners(paramMap)
                copies[index] = self.copy(paramMap)
                spec = copies[index]._spec(dataset)
            except Exception as error:
                error.add_note(_note(index, paramMaps))
                raise
            groups.setdefault((spec, copies[index].getAggregationDepth()), []).append(index)

        def train(spec: DataSpec, indices: Sequence[int]) -> list[Any]:
            chosen = [copies[index] for index in indices]
            outcomes = fit_models(dataset, spec, chosen, [names[index] for index in indices])
            for index, outcome in zip(indices, outcomes, strict=True):
                if isinstance(outcome, Exception):
                    outcome.add_note(_note(index, paramMaps))
            return outcomes

        return ModelIterator(
            [
                FitGroup(indices, partial(train, spec, indices))
                for (spec, _), indices in groups.items()
            ]
        )

    def _check_param_owners(self, paramMap: ParamMap) -> None:
        """Spark ignores params of other stages; those of a sister estimator are a mistake."""
        if not isinstance(paramMap, Mapping):
            raise TypeError(
                f"A parameter map is a {type(paramMap).__name__}; expected a dict, param to value."
            )
        for param in paramMap:
            parent = param.parent if isinstance(param, Param) else ""
            if parent == _UNBOUND:
                name = type(self).__name__
                raise ValueError(
                    f"Param '{param.name}' belongs to a class and to no estimator: give estimator."
                    f"{param.name}, of the {name} that is fitted, not {name}.{param.name}."
                )
            if parent != self.uid and parent.rpartition("_")[0] == type(self).__name__:
                raise ValueError(
                    f"Param '{param.name}' belongs to {parent}; this estimator is {self.uid}. "
                    f"Build the parameter maps from the params of the estimator that is fitted."
                )

    @defer_interrupts()
    def _spec(self, dataset: DataFrame) -> DataSpec:
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
        self._check_combinations()
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
        return DataSpec(
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

    def _check_combinations(self) -> None:
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
            hint = "needs validation rows: set validationIndicatorCol or validationFraction."
            if self.getPatience():
                problems["patience"] = f" = {self.getPatience()}; {hint}"
            if self.getFinalWeights() in ("best", "combine"):
                problems["finalWeights"] = f" = '{self.getFinalWeights()}'; {hint}"
        if problems:
            raise ParamError(type(self).__name__, problems)

    def write(self) -> EstimatorWriter:
        """A writer: ``estimator.write().overwrite().save(path)``."""
        return EstimatorWriter(self)

    @classmethod
    def read(cls) -> EstimatorReader[Any]:
        """A reader: ``Estimator.read().load(path)``."""
        return EstimatorReader(cls)


def default_workers(session: SparkSession) -> int:
    """What ``numWorkers=0`` stands for: Spark's default parallelism at this moment."""
    return max(1, session.sparkContext.defaultParallelism)


def _name(index: int, paramMaps: Sequence[ParamMap]) -> str:
    return f"map {index + 1} of {len(paramMaps)}" if len(paramMaps) > 1 else ""


def _note(index: int, paramMaps: Sequence[ParamMap]) -> str:
    """Which map an error belongs to."""
    given = paramMaps[index]
    pairs = given.items() if isinstance(given, Mapping) else ()
    told = ", ".join(f"{getattr(param, 'name', param)}={value!r}" for param, value in pairs)
    return f"In {_name(index, paramMaps) or 'the map'}: {{{told}}}"
