"""Fit models on a DataFrame: the base of classifier and regressor.

The way of a fit: params and columns are checked here; ``fit.fit_models`` trains on an engine;
``core.training.rounds`` is its loop and ``core.training.worker_round`` the work of one worker in
one round; ``model`` is the result.
"""

from __future__ import annotations

import sys
from abc import abstractmethod
from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import cache, partial
from typing import Any, ClassVar

from pyspark.ml.base import Model, Predictor
from pyspark.ml.param import Param, Params
from pyspark.ml.util import MLReadable, MLWritable
from pyspark.sql import DataFrame
from pyspark.sql.types import StructType

from sparknn.core.columns import InputColumns
from sparknn.engine.interface import DataSpec
from sparknn.engine.interrupts import defer_interrupts
from sparknn.engine.sql import default_parallelism, is_connect
from sparknn.ml.attributes import categories_of
from sparknn.ml.checked_params import AUTO, ParamError
from sparknn.ml.fit import Trainable, fit_models, load_initial_model
from sparknn.ml.input_columns import FEATURES, assemble, column_problems, find_columns
from sparknn.ml.model_iterator import FitGroup, ModelIterator
from sparknn.ml.persistence import EstimatorReader, EstimatorWriter
from sparknn.ml.progress import map_name
from sparknn.ml.resume import wants_checkpoints
from sparknn.ml.schema import (
    SchemaProblem,
    ambiguous_problems,
    case_matters,
    check_is_dataframe,
    feature_problem,
    raise_all,
    training_problems,
    with_fields,
)
from sparknn.ml.training_setup import params_that_need_validation

ParamMap = Mapping[Param[Any], Any]
# Parent of the params of a class, which belong to no instance.
_UNBOUND = Params._dummy().uid
# Rows per worker, where numWorkers is not set: iris on 64 workers takes 9 times as long as on 2,
# for the same accuracy.
_LEAST_ROWS = 1_000
# Params that name the columns of a fit besides features.
_OTHER_COLUMNS = ("labelCol", "weightCol", "validationIndicatorCol")


class NetworkEstimator(Trainable, Predictor[Any], MLReadable[Any], MLWritable):
    """Base of both estimators; their whole state is their Params."""

    _classifies: ClassVar[bool]

    @abstractmethod
    def _output_names(self) -> list[str]:
        """Return the names of the columns that the model adds."""

    def _convert(self, param: Param[Any], value: Any) -> tuple[Any, str | None]:
        """Convert a value; an initial model must be of the estimator's model class."""
        wrong = isinstance(value, Model) and not isinstance(value, self._model_class)
        if wrong and param.name == "initialModel":
            wanted = self._model_class.__name__
            return value, f" is a {type(value).__name__}; expected a {wanted}, or the path of one."
        if param.name == "featuresCol" and isinstance(value, list | tuple):
            return value, f" = {value!r}; expected one column. Set inputCols to several."
        return super()._convert(param, value)

    def fit(self, dataset: DataFrame, params: Any = None) -> Any:
        """Fit a model, or one for each of a list of parameter maps.

        Raises
        ------
        ParamError, SchemaError, DataError, ValueError
        """
        if isinstance(params, Mapping):
            self._check_param_owners(params)
        return super().fit(dataset, params)

    def _fit(self, dataset: DataFrame) -> Any:
        inputs, rows = self._assemble(self._check(dataset))
        spec = self._spec(rows, partial(default_parallelism, rows.sparkSession))
        (outcome,) = fit_models(rows, spec, [self], inputs=inputs)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def fitMultiple(self, dataset: DataFrame, paramMaps: Sequence[ParamMap]) -> ModelIterator[Any]:
        """Fit a model for each parameter map, all of them in one pass over the rows.

        Maps that ingest the same rows in the same way train in the same rounds; every model has
        the bytes that its own fit would give. Training starts when the first model is requested,
        and then covers that map's whole group.

        Parameters
        ----------
        dataset : DataFrame
        paramMaps : sequence of dict of Param to value

        Returns
        -------
        ModelIterator
            Of ``(index, model)``; threads may share it. If the training of a map fails, only the
            request for its model raises.

        Raises
        ------
        ParamError, SchemaError, TypeError
            Immediately, with a note that names the map.
        """
        copies = [self.copy() for _ in paramMaps]
        # Over Spark Connect, it takes a job.
        n_slots = cache(lambda: default_parallelism(dataset.sparkSession))
        groups: dict[tuple[DataSpec, int, Hashable], list[int]] = {}
        assembled: dict[Hashable, tuple[InputColumns | None, DataFrame]] = {}
        for index, paramMap in enumerate(paramMaps):
            try:
                self._check_param_owners(paramMap)
                copies[index] = self.copy(paramMap)
                checked = copies[index]._check(dataset)
                # Codes of text are the initial model's.
                names = tuple(copies[index].getInputCols())
                initial = copies[index].getInitialModel() if names else ""
                columns = names, *copies[index]._columns(), initial
                if columns not in assembled:
                    assembled[columns] = copies[index]._assemble(checked)
                spec = copies[index]._spec(assembled[columns][1], n_slots)
            except Exception as error:
                _add_note(error, index, paramMaps)
                raise
            group = spec, copies[index].getAggregationDepth(), columns
            groups.setdefault(group, []).append(index)

        def train(spec: DataSpec, columns: Hashable, indices: Sequence[int]) -> list[Any]:
            chosen = [copies[index] for index in indices]
            inputs, rows = assembled[columns]
            outcomes = fit_models(rows, spec, chosen, indices, len(paramMaps), inputs)
            for index, outcome in zip(indices, outcomes, strict=True):
                if isinstance(outcome, Exception):
                    _add_note(outcome, index, paramMaps)
            return outcomes

        return ModelIterator(
            [
                FitGroup(indices, partial(train, spec, columns, indices))
                for (spec, _, columns), indices in groups.items()
            ]
        )

    def _check_param_owners(self, paramMap: ParamMap) -> None:
        """Refuse params of another instance of this class; like Spark, ignore other stages'."""
        if not isinstance(paramMap, Mapping):
            raise TypeError(
                f"A parameter map is a {type(paramMap).__name__}; expected a dict, Param to value."
            )
        for param in paramMap:
            parent = param.parent if isinstance(param, Param) else ""
            if parent == _UNBOUND:
                name = type(self).__name__
                raise ValueError(
                    f"Param '{param.name}' belongs to the class {name}, not to an instance. Use "
                    f"estimator.{param.name} of the estimator that is fitted."
                )
            if parent != self.uid and parent.rpartition("_")[0] == type(self).__name__:
                raise ValueError(
                    f"Param '{param.name}' belongs to {parent}; this estimator is {self.uid}. "
                    f"Use estimator.{param.name} of the estimator that is fitted."
                )

    def _columns(self) -> list[str]:
        """Return the names of the columns that a fit reads: features first."""
        features = self.getInputCols() or [self.getFeaturesCol()]
        return [*features, *filter(None, map(self._optional_column, _OTHER_COLUMNS))]

    @defer_interrupts()
    def _check(self, dataset: DataFrame) -> DataFrame:
        """Check params and columns; return the rows with fields of structs as columns.

        Raises
        ------
        ParamError, SchemaError, TypeError
        """
        check_is_dataframe(dataset, "fit")
        self._check_combinations(remote=is_connect(dataset))
        dataset, _ = with_fields(dataset, self._columns())
        raise_all(self._column_problems(dataset.schema, case_matters(dataset.sparkSession)))
        return dataset

    def _column_problems(
        self, schema: StructType, case_matters: bool, kinds: Mapping[str, str] | None = None
    ) -> list[SchemaProblem]:
        """Return the columns that are missing, of the wrong type, or in the way.

        Parameters
        ----------
        schema : StructType
        case_matters : bool
        kinds : mapping of str to str, optional
            What ``inputCols`` have to be.
        """
        if names := self.getInputCols():
            features = column_problems(schema, names, kinds)
        else:
            features = list(filter(None, [feature_problem(schema, self.getFeaturesCol())]))
        param = "inputCols" if names else "featuresCol"
        used = [(param, name) for name in names or [self.getFeaturesCol()]]
        features += ambiguous_problems(schema, used, case_matters)
        return features + training_problems(
            schema,
            label=self.getLabelCol(),
            classifies=self._classifies,
            weight=self._optional_column("weightCol"),
            validation_indicator=self._optional_column("validationIndicatorCol"),
            outputs=[*self._output_names(), self._optional_column("contributionsCol") or ""],
            case_matters=case_matters,
        )

    @defer_interrupts()
    def _assemble(self, dataset: DataFrame) -> tuple[InputColumns | None, DataFrame]:
        """Return ``inputCols`` as a fit found them, if they are set, and rows with features.

        A fit that continues an initial model has its values of text columns.

        Raises
        ------
        ParamError, DataError
        """
        names = self.getInputCols()
        if not names:
            return None, dataset
        initial = load_initial_model(self, dataset.sparkSession)
        inputs: InputColumns | None = None if initial is None else initial._inputs
        if inputs is None or inputs.names != names:
            inputs = find_columns(dataset, names)
        expected = None if initial is None else initial.featureNames
        if expected and inputs.feature_names != expected:
            hint = f" = {names}; the initial model was trained on {expected}, in this order."
            raise ParamError(type(self).__name__, {"inputCols": hint})
        return inputs, assemble(inputs, dataset)

    @defer_interrupts()
    def _spec(self, dataset: DataFrame, n_slots: Callable[[], int]) -> DataSpec:
        """Return which rows to ingest and how.

        Parameters
        ----------
        dataset : DataFrame
        n_slots : callable
            Returns Spark's default parallelism, for estimators without ``numWorkers``.

        Raises
        ------
        SchemaError
            If categories are named that do not exist.
        """
        features = FEATURES if self.getInputCols() else self.getFeaturesCol()
        categories = categories_of(
            dataset.schema[features],
            self.getCategoricalFeatures(),
            use_metadata=self.getCategorical(),
        )
        return DataSpec(
            features=features,
            label=self.getLabelCol(),
            classifies=self._classifies,
            n_workers=self.getNumWorkers() or n_slots(),
            seed=self.getSeed(),
            weight=self._optional_column("weightCol"),
            validation_indicator=self._optional_column("validationIndicatorCol"),
            validation_fraction=self.getValidationFraction(),
            shuffle=self.getShuffle(),
            skip_invalid=self.getHandleInvalid() == "skip",
            keep_missing=self.getHandleInvalid() == "keep",
            categories=tuple(sorted(categories.items())),
            center=self.getStandardization(),
            least_rows=0 if self.getNumWorkers() else _LEAST_ROWS,
            shard_dir=self.getShardDir(),
        )

    def _check_combinations(self, *, remote: bool = False) -> None:
        """Check params against each other; each one alone was checked when it was set."""
        problems = {}
        names = self.getInputCols()
        used = [(param, self._optional_column(param)) for param in _OTHER_COLUMNS]
        if taken := [f"{param} is '{name}'" for param, name in used if name in names]:
            problems["inputCols"] = f" = {names}; {', '.join(taken)}, which is no feature."
        indicator = self._optional_column("validationIndicatorCol")
        fraction = self.getValidationFraction()
        if indicator and fraction:
            problems["validationFraction"] = (
                f" = {fraction}; not together with validationIndicatorCol = "
                f"'{indicator}'. Clear one of them."
            )
        if not indicator and not fraction:
            hint = "needs validation rows: set validationIndicatorCol or validationFraction."
            for name in params_that_need_validation(self):
                problems[name] = f" = {self.getOrDefault(name)!r}; {hint}"
        if self.getAveraging() == "mean":
            momentum = self.getAveragingMomentum()
            if momentum not in (AUTO, 0.0):
                problems["averagingMomentum"] = (
                    f" = {momentum}; averaging='mean' does not use it. Set averaging to "
                    "'nesterov', or clear averagingMomentum."
                )
        if self.getSolver() == "sgd" and self.isSet("momentum") and self.getMomentum():
            problems["momentum"] = (
                f" = {self.getMomentum()}; solver='sgd' does not use it. Set solver to 'momentum', "
                "or clear momentum."
            )
        if remote and wants_checkpoints(self):
            problems["checkpointDir"] = (
                f" = {self.getCheckpointDir()!r}; Spark Connect cannot remove files, and "
                "checkpoints would stay. Clear checkpointDir, or fit in a classic session."
            )
        if problems:
            raise ParamError(type(self).__name__, problems)

    def write(self) -> EstimatorWriter:
        """Return a writer: ``estimator.write().overwrite().save(path)``."""
        return EstimatorWriter(self)

    @classmethod
    def read(cls) -> EstimatorReader[Any]:
        """Return a reader: ``Estimator.read().load(path)``."""
        return EstimatorReader(cls)


def _add_note(error: Exception, index: int, paramMaps: Sequence[ParamMap]) -> None:
    """Add to an error which map it belongs to."""
    given = paramMaps[index]
    pairs = given.items() if isinstance(given, Mapping) else ()
    values = ", ".join(f"{getattr(param, 'name', param)}={value!r}" for param, value in pairs)
    note = f"In {map_name(index, len(paramMaps)) or 'the map'}: {{{values}}}"
    if sys.version_info >= (3, 11):
        error.add_note(note)
    else:
        vars(error).setdefault("__notes__", []).append(note)
