"""Check that saved stages are equal when loaded, here and in a fresh process."""

import json
import os
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import processes
import pytest

from conformance.composites import Fitted, cross_validator, pipeline
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


def in_a_fresh_process(subjects: Sequence[Subject], folder: Path) -> None:
    """Save everything there is of every subject, and compare what one new process finds.

    Estimators, models and composites give the same numbers and params there, a loaded estimator
    fits the same model, and a model goes on working in the next session. Nothing but a session's
    builder starts a session.
    """
    config = [_saved(subject, folder / subject.name) for subject in subjects]
    (folder / "plan.json").write_text(json.dumps(config))
    done = processes.run(
        [sys.executable, _FRESH, folder],
        env={**os.environ, "PYTHONPATH": _PATH},
        cwd=folder,
        timeout_s=300,
    )
    assert done.returncode == 0, f"exit status {done.returncode}\n{done.stderr}"
    found = json.loads((folder / "found.json").read_text())
    for subject in subjects:
        _compare(subject, folder / subject.name, found[subject.name])


def _stages(subject: Subject) -> dict[str, Any]:
    """What is saved, by name: a composite after what it may hold."""
    stages = {"estimator": subject.estimator, "model": subject.model, "large": _large(subject)}
    for name, fitted in _composites(subject).items():
        stages |= {f"{name} estimator": fitted.estimator, name: fitted.model}
    return stages


@cache
def _large(subject: Subject) -> Any:
    """A model above 1 MB, which is broadcast."""
    model = subject.estimator.fit(subject.data, subject.params(hiddenLayers=[500, 600], maxIter=1))
    assert model.theta.nbytes > 1 << 20
    return model


def _composites(subject: Subject) -> dict[str, Fitted]:
    return {"pipeline": pipeline(subject), "cross validator": cross_validator(subject)}


def _saved(subject: Subject, folder: Path) -> dict[str, Any]:
    """Save all stages; what the other process needs to know of them."""
    folder.mkdir()
    tasks = []
    for name, stage in _stages(subject).items():
        path = str(folder / name.replace(" ", "-"))
        stage.write().overwrite().save(path)
        kind = f"{type(stage).__module__}.{type(stage).__name__}"
        tasks.append({"name": name, "class": kind, "path": path})
    return {"name": subject.name, "rows": subject.path, "tasks": tasks, "folder": str(folder)}


def _compare(subject: Subject, folder: Path, found: dict[str, Any]) -> None:
    def there(name: str) -> Array:
        return np.array(np.load(folder / f"{name}.npy"))

    for name, stage in _stages(subject).items():
        assert found[name]["uid"] == stage.uid, name
        if hasattr(stage, "transform"):
            expected = answers(stage.transform(subject.data))
            assert np.array_equal(there(name), expected), name
    assert found["estimator"]["params"] == by_name(subject.estimator._paramMap)
    assert found["model"]["params"] == by_name(subject.model._paramMap)
    assert np.array_equal(there("fitted"), subject.answers)
    assert np.array_equal(there("large in the next session"), there("large"))
    tuned = cross_validator(subject).model
    assert found["cross validator"]["metrics"] == tuned.avgMetrics
    submodels = [[model.layers for model in fold] for fold in tuned.subModels]
    # pyspark's reader gives every fold the models of the last one.
    assert found["cross validator"]["submodels"] in (submodels, submodels[-1:] * len(submodels))
    assert found["sessions started by construction"] == 0
    assert "There is no Spark session" in found["loading without a session"]


def check_a_fresh_process_loads_everything(subject: Subject) -> None:
    folder = subject.folder / "fresh"
    folder.mkdir()
    in_a_fresh_process([subject], folder)
