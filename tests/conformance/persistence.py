"""Check that saved stages are equal when loaded, here and in a fresh process."""

import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conformance.composites import all_of
from conformance.subject import Array, Subject, answers, by_name, same_model

_FRESH = Path(__file__).with_name("fresh.py")
_PATH = os.pathsep.join(str(folder) for folder in _FRESH.parents[1:3])


def check_round_trip_in_this_process(subject: Subject) -> None:
    model_path, estimator_path = (
        str(subject.folder / name) for name in ("here-model", "here-estimator")
    )
    subject.model.save(model_path)
    loaded = type(subject.model).load(model_path)
    assert same_model(loaded, subject.model)
    _assert_same_params(loaded, subject.model)
    assert loaded.summary.history.equals(subject.model.summary.history)

    estimator = subject.other(predictionCol="guess")
    estimator.save(estimator_path)
    again = type(estimator).load(estimator_path)
    _assert_same_params(again, estimator)
    continuing = subject.other(initialModel=subject.model)
    continuing.save(estimator_path + "-continuing")
    again = type(estimator).load(estimator_path + "-continuing")
    assert same_model(again.getInitialModel(), subject.model)
    again.setInitialModel(subject.model)
    _assert_same_params(again, continuing)

    for stage, path in ((subject.model, model_path), (estimator, estimator_path)):
        with pytest.raises(FileExistsError, match="overwrite"):
            stage.save(path)
        stage.write().overwrite().save(path)
    other = subject.estimator.fit(subject.data, subject.params(hiddenLayers=[2], maxIter=1))
    other.write().overwrite().save(model_path)
    assert same_model(type(other).load(model_path), other)
    with pytest.raises(ValueError, match="Load it with"):
        type(estimator).load(model_path)


def _assert_same_params(loaded: Any, saved: Any) -> None:
    assert type(loaded) is type(saved)
    assert loaded.uid == saved.uid
    assert by_name(loaded._paramMap) == by_name(saved._paramMap)
    assert by_name(loaded._defaultParamMap) == by_name(saved._defaultParamMap)
    assert {param.parent for param in loaded.params} == {loaded.uid}


@cache
def _in_a_fresh_process(subject: Subject) -> dict[str, Any]:
    """Save all stages, let one process load them all, and return its results."""
    folder = subject.folder / "fresh"
    folder.mkdir(exist_ok=True)
    stages = {"estimator": subject.estimator, "model": subject.model}
    for name, fitted in all_of(subject).items():
        stages |= {f"{name} estimator": fitted.estimator, name: fitted.model}
    tasks = []
    for name, stage in stages.items():
        path = str(folder / name.replace(" ", "-"))
        stage.write().overwrite().save(path)
        kind = f"{type(stage).__module__}.{type(stage).__name__}"
        tasks.append({"name": name, "class": kind, "path": path})
    config = {"rows": subject.path, "tasks": tasks, "estimator": type(subject.estimator).__name__}
    (folder / "plan.json").write_text(json.dumps(config))
    done = subprocess.run(
        [sys.executable, str(_FRESH), str(folder)],
        env={**os.environ, "PYTHONPATH": _PATH},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, f"exit status {done.returncode}\n{done.stderr}"
    return dict(json.loads((folder / "found.json").read_text()))


def _answers(subject: Subject, name: str) -> Array:
    return np.array(np.load(subject.folder / "fresh" / f"{name}.npy"))


def check_a_fresh_process_loads_everything(subject: Subject) -> None:
    """Estimator, model and every composite give the same numbers and params there."""
    found = _in_a_fresh_process(subject)
    assert found["estimator"]["params"] == by_name(subject.estimator._paramMap)
    assert found["model"]["params"] == by_name(subject.model._paramMap)
    assert np.array_equal(_answers(subject, "model"), subject.answers)
    for name, fitted in all_of(subject).items():
        expected = answers(fitted.model.transform(subject.data))
        assert np.array_equal(_answers(subject, name), expected), name
        for part, stage in ((name, fitted.model), (f"{name} estimator", fitted.estimator)):
            assert found[part]["uid"] == stage.uid, part
    tuned = all_of(subject)["cross validator"].model
    assert found["cross validator"]["metrics"] == tuned.avgMetrics
    submodels = [[model.layers for model in fold] for fold in tuned.subModels]
    assert found["cross validator"]["submodels"] == submodels
    split = all_of(subject)["train validation split"].model
    assert found["train validation split"]["metrics"] == split.validationMetrics


def check_a_fresh_process_fits_the_same_model(subject: Subject) -> None:
    """A loaded estimator, on the same rows, ends with the same bytes."""
    _in_a_fresh_process(subject)
    assert np.array_equal(_answers(subject, "fitted"), subject.answers)


def check_constructing_starts_no_spark(subject: Subject) -> None:
    """Import and construction touch no session."""
    assert _in_a_fresh_process(subject)["sparks started by construction"] == 0
