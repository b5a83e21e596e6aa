"""From a job file's Params to an estimator, and what it says about its keys."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Any, TypeAlias

from sparknn.cli.config import TrainConfig
from sparknn.cli.keys import OWN_KEYS, PARAM_KEYS, SECTIONS, TASKS
from sparknn.ml.checked_params import ParamError

if TYPE_CHECKING:
    from sparknn.cli.columns import Columns
    from sparknn.ml.classifier import NeuralNetClassifier
    from sparknn.ml.regressor import NeuralNetRegressor
    from sparknn.ml.schema import SchemaError

    Estimator: TypeAlias = NeuralNetClassifier | NeuralNetRegressor


#: Only names that are no words of English are found in a sentence.
_KEYS_OF_PARAMS = {
    name: f"{section}.{name}"
    for section, names in PARAM_KEYS.items()
    for name in names
    if name != name.lower()
} | {
    "featuresCol": "data.features",
    "labelCol": "data.label",
    "weightCol": "data.weight",
    "validationIndicatorCol": "data.validationIndicator",
    "NeuralNetRegressor": "task = 'regression'",
    "NeuralNetClassifier": "task = 'classification'",
}


def estimator_for(task: str) -> Estimator:
    """The estimator of a task, with its defaults."""
    from sparknn import NeuralNetClassifier, NeuralNetRegressor

    return NeuralNetRegressor() if task == "regression" else NeuralNetClassifier()


def build(config: TrainConfig) -> tuple[Estimator, list[str]]:
    """The estimator with a job file's Params, and every mistake in them.

    The estimator judges its own Params; here their names become keys again.
    """
    estimator = estimator_for(config.task)
    keys = {key.split(".")[1]: key for key in config.params}
    mistakes = [
        f"{key}: not for task = {config.task!r}, which has no such setting."
        for name, key in keys.items()
        if not estimator.hasParam(name)
    ]
    values = {name: config.params[key] for name, key in keys.items() if estimator.hasParam(name)}
    wrong: set[str] = set()
    try:
        estimator.setParams(**values)
    except ParamError as error:
        mistakes += [f"{keys[name]}{problem}" for name, problem in error.problems.items()]
        wrong = set(error.problems)
    return estimator, mistakes + _needs_validation(config, wrong)


def _needs_validation(config: TrainConfig, wrong: Collection[str]) -> list[str]:
    """What asks for validation rows where there are none."""
    params = config.params
    if config.validation_indicator or params.get("data.validationFraction"):
        return []
    asking = []
    if params.get("training.patience") and "patience" not in wrong:
        asking.append("training.patience")
    if params.get("averaging.finalWeights") in ("best", "combine"):
        asking.append("averaging.finalWeights")
    return [
        f"{key} = {params[key]!r}; needs validation rows: set data.validationFraction or "
        f"data.validationIndicator."
        for key in asking
    ]


def in_keys(text: str, columns: Columns) -> str:
    """What the library says of Params and of columns that stages made, as a job file knows them."""
    for name, key in _KEYS_OF_PARAMS.items():
        text = re.sub(rf"(?<![\w.]){name}(?!\w)", key, text)
    if columns.indexed:
        text = text.replace(f"'{columns.label}'", f"'{columns.indexed}'")
    return text


def mistakes_in_keys(error: ParamError | SchemaError, columns: Columns) -> list[str]:
    """The mistakes that the estimator names, each by its key."""
    if isinstance(error, ParamError):
        return [in_keys(f"{name}{problem}", columns) for name, problem in error.problems.items()]
    return [in_keys(line, columns) for line in str(error).splitlines()]


def point_to(estimator: Estimator, config: TrainConfig, columns: Columns) -> None:
    """Tell the estimator its columns."""
    named: dict[str, Any] = {"featuresCol": columns.features, "labelCol": columns.label}
    if config.weight:
        named["weightCol"] = config.weight
    if config.validation_indicator:
        named["validationIndicatorCol"] = config.validation_indicator
    estimator.setParams(**named)


def key_lines() -> Iterator[str]:
    """Every key that a job file may have, with what it does, by section."""
    for section in ("", *SECTIONS):
        yield f"[{section}]" if section else ""
        for name, key in OWN_KEYS.get(section, {}).items():
            choices = f" One of {', '.join(key.choices)}." if key.choices else ""
            yield f"  {name}: {key.about}{choices}"
        for name in PARAM_KEYS.get(section, ()):
            yield f"  {name}: {_about(name)}"
        yield ""


def _about(name: str) -> str:
    """A Param's doc and default; of either estimator, or of the one that has it."""
    for task in ("classification", "regression"):
        estimator = estimator_for(task)
        if estimator.hasParam(name):
            param = estimator.getParam(name)
            only = "" if all(estimator_for(t).hasParam(name) for t in TASKS) else f" Only {task}."
            default = ""
            if estimator.hasDefault(param):
                default = f" Default {estimator.getOrDefault(param)!r}."
            return f"{param.doc.rstrip('.')}.{only}{default}"
    raise KeyError(name)
