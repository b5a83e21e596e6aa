"""A small data set, a model trained on it, and the commands themselves."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from sparknn.cli import main

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

COLOURS = ["blue", "green", "red"]

JOB = """
[data]
train = "{data}/points.csv"
features = ["x", "y"]
label = "colour"
[network]
hiddenLayers = [8]
[training]
maxIter = 3
seed = 1
[averaging]
numWorkers = 1
[output]
model = "{out}/model"
"""


@dataclass
class Ran:
    """What a command left behind."""

    status: int
    out: str
    err: str


@pytest.fixture(scope="session")
def points(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with 300 points of three classes that are far apart, as CSV and libsvm."""
    folder = tmp_path_factory.mktemp("points")
    rng = np.random.default_rng(0)
    classes = rng.integers(0, 3, 300)
    X = rng.normal(size=(300, 2)) + 6 * np.array([[0, 0], [1, 0], [0, 1]])[classes]
    rows = [
        f"{i},{x:.4f},{y:.4f},{COLOURS[c]}"
        for i, (x, y), c in zip(range(300), X, classes, strict=True)
    ]
    (folder / "points.csv").write_text("\n".join(["id,x,y,colour", *rows]) + "\n")
    lines = [f"{c} 1:{x:.4f} 2:{y:.4f}" for (x, y), c in zip(X, classes, strict=True)]
    (folder / "points.libsvm").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture
def job(points: Path, tmp_path: Path) -> Path:
    """A job file, whose model goes to ``model`` beside it."""
    path = tmp_path / "job.toml"
    path.write_text(JOB.format(data=points, out=tmp_path))
    return path


@pytest.fixture(scope="session")
def trained(points: Path, tmp_path_factory: pytest.TempPathFactory, spark: "SparkSession") -> Path:
    """The model of the job file, trained once: copy it to change it."""
    out = tmp_path_factory.mktemp("trained")
    (out / "job.toml").write_text(JOB.format(data=points, out=out))
    assert main(["train", str(out / "job.toml")]) == 0
    return out / "model"


@pytest.fixture
def sparknn(capfd: pytest.CaptureFixture[str]) -> Callable[..., Ran]:
    """Run a command in this process."""

    def run(*arguments: object) -> Ran:
        capfd.readouterr()
        status = main([str(argument) for argument in arguments])
        return Ran(status, *capfd.readouterr())

    return run
