"""An experiment file: TOML in, ``Settings`` out, or every mistake in it at once. No Spark yet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sparknn.cli.config import Table, apply_override, check_value, heading, kind_of, read_toml
from sparknn.cli.experiment_keys import (
    ARM_PARAMS,
    NETWORK_PARAMS,
    OWN_KEYS,
    REDRAW,
    SECTIONS,
    TAKEN,
)
from sparknn.cli.keys import Key
from sparknn.cli.mistakes import UsageError
from sparknn.cli.tables import Source
from sparknn.ml.checked_params import ParamError
from sparknn.ml.validators import did_you_mean


@dataclass(frozen=True)
class Arm:
    """One way to train and average, run with every number of workers.

    Parameters
    ----------
    name : str
    params : dict
        Values of Params, by name.
    redraw : bool
        Whether as many rows are drawn afresh instead of going over one draw several times.
    """

    name: str
    params: Table = field(default_factory=dict, hash=False)
    redraw: bool = False


@dataclass(frozen=True)
class Settings:
    """What an experiment is asked for; the fields are the keys of ``experiment_keys.OWN_KEYS``.

    Parameters
    ----------
    name : str
        Of the file, for messages.
    network : dict
        Values of Params, by name.
    arms : tuple of Arm
        The first is what the others are compared to.
    as_given : dict
        The file's tables, overrides applied.
    """

    name: str
    source: Source
    features: tuple[str, ...]
    label: str
    rows: int | None
    splits: int
    test_fraction: float
    workers: tuple[int, ...]
    iterations: int
    period: int
    periods: tuple[int, ...]
    fraction: float
    target: float | None
    seed: int
    network: Table
    arms: tuple[Arm, ...]
    folder: str
    overwrite: bool
    as_given: Table = field(repr=False)


def load(path: str, overrides: Sequence[str] = ()) -> Settings:
    """Read an experiment file, apply ``section.key=value`` overrides, and check both.

    Raises
    ------
    UsageError
        Naming every mistake.
    """
    table = read_toml(path)
    mistakes = [fault for text in overrides for fault in apply_override(table, text)]
    own = _own_values(table, mistakes)
    network = _params(table.get("network", {}), "network", NETWORK_PARAMS, mistakes)
    arms = _arms(table.get("arms"), mistakes)
    mistakes += _clashes(own)
    if mistakes:
        raise UsageError(heading(path, overrides), mistakes)
    features = own.get("data.features", "features")
    period = own.get("experiment.period", 5)
    others = own.get("experiment.periods", [])
    return Settings(
        name=heading(path, overrides),
        source=Source.of(own["data.train"], own.get("data.format"), own.get("data.options", {})),
        features=tuple(features) if isinstance(features, list) else (features,),
        label=own.get("data.label", "label"),
        rows=own.get("data.rows"),
        splits=own.get("experiment.splits", 3),
        test_fraction=own.get("experiment.testFraction", 0.2),
        workers=tuple(sorted(set(own.get("experiment.workers", [1, 2, 4, 8])))),
        iterations=own.get("experiment.iterations", 100),
        period=period,
        periods=tuple(sorted(set(others) - {period})),
        fraction=own.get("experiment.miniBatchFraction", 0.1),
        target=own.get("experiment.target"),
        seed=own.get("experiment.seed", 0),
        network=network,
        arms=tuple(arms),
        folder=own["output.folder"],
        overwrite=own.get("output.overwrite", False),
        as_given=table,
    )


def _own_values(table: Table, mistakes: list[str]) -> Table:
    """The experiment's own values by ``section.name``."""
    own: Table = {}
    for name, value in table.items():
        if name not in SECTIONS:
            what = f"[{name}]: unknown section" if isinstance(value, dict) else f"{name}: unknown"
            known = ", ".join(f"[{section}]" for section in SECTIONS)
            mistakes.append(
                what + (did_you_mean(name, SECTIONS) or f"; an experiment has {known}.")
            )
        elif not isinstance(value, dict):
            mistakes.append(f"{name}: expected a section [{name}], got {kind_of(value)}.")
    for section, keys in OWN_KEYS.items():
        values = table.get(section, {})
        if not isinstance(values, dict):
            continue
        for name, value in values.items():
            if name not in keys:
                mistakes.append(f"{section}.{name}: unknown key{_hint(name, section)}")
                continue
            fault = _fault(keys[name], value)
            if fault:
                mistakes.append(f"{section}.{name}: {fault}")
            else:
                own[f"{section}.{name}"] = value
        mistakes += [
            f"{section}.{name}: missing. {key.about}"
            for name, key in keys.items()
            if key.required and name not in values
        ]
    return own


def _hint(name: str, section: str) -> str:
    here = did_you_mean(name, OWN_KEYS[section])
    if here:
        return here
    if name in ARM_PARAMS:
        return f"; it belongs to an arm: [arms.NAME] {name} = ..."
    return "; `sparknn experiment --help` lists them."


def _fault(key: Key, value: Any) -> str:
    """What is wrong with a value; empty if nothing is."""
    match key.kind:
        case "count" | "number":
            least = 1 if key.kind == "count" else 0
            right = _whole(value, least)
            expected = f"a whole number from {least}"
        case "counts":
            right = isinstance(value, list) and all(_whole(v, 1) for v in value)
            expected = "a list of whole numbers from 1, such as [1, 2, 4]"
        case "share" | "part":
            number = isinstance(value, int | float) and not isinstance(value, bool)
            right = number and (0 < value < 1 or (key.kind == "part" and value == 1))
            expected = f"a number above 0 and {'below' if key.kind == 'share' else 'up to'} 1"
        case _:
            return check_value(key, value)
    return "" if right else f"expected {expected}, got {kind_of(value)}."


def _whole(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _clashes(own: Mapping[str, Any]) -> list[str]:
    """What does not go together."""
    mistakes = []
    if 1 not in own.get("experiment.workers", [1]):
        mistakes.append(
            "experiment.workers: 1 is missing, the sequential network that others are compared to."
        )
    iterations, period = own.get("experiment.iterations", 100), own.get("experiment.period", 5)
    named = [("period", period), *(("periods", p) for p in own.get("experiment.periods", []))]
    mistakes += [
        f"experiment.{name}: {value} does not divide the {iterations} of experiment.iterations "
        f"into whole rounds."
        for name, value in named
        if iterations % value
    ]
    return mistakes


def _arms(tables: Any, mistakes: list[str]) -> list[Arm]:
    if tables is None or tables == {}:
        mistakes.append("arms: missing. At least one section [arms.NAME], which may be empty.")
        return []
    if not isinstance(tables, dict):
        return []
    arms = []
    for name, values in tables.items():
        full = f"arms.{name}"
        if not isinstance(values, dict):
            mistakes.append(f"{full}: expected a section [{full}], got {kind_of(values)}.")
            continue
        given = dict(values)
        redraw = given.pop("redraw", False)
        fault = check_value(REDRAW, redraw)
        if fault:
            mistakes.append(f"{full}.redraw: {fault}")
        params = _params(given, full, ARM_PARAMS, mistakes)
        arms.append(Arm(name, params, redraw is True))
    return arms


def _params(values: Any, section: str, known: Sequence[str], mistakes: list[str]) -> Table:
    """The Params of a section, as the estimator takes them."""
    from sparknn import NeuralNetClassifier

    if not isinstance(values, dict):
        return {}  # named already
    usable: Table = {}
    for name, value in values.items():
        if name in known:
            usable[name] = value
        elif name in TAKEN:
            mistakes.append(f"{section}.{name}: is set by {TAKEN[name]}.")
        else:
            names = [*known, *(["redraw"] if known is ARM_PARAMS else [])]
            hint = did_you_mean(name, names) or "; `sparknn experiment --help` lists them."
            mistakes.append(f"{section}.{name}: unknown key{hint}")
    try:
        NeuralNetClassifier().setParams(**usable)
    except ParamError as error:
        mistakes += [f"{section}.{name}{problem}" for name, problem in error.problems.items()]
    return usable
