"""Load what another process saved: ``python fresh.py FOLDER``, as ``persistence.py`` does.

Nothing of sparknn is imported by name before it is loaded: Spark's readers find the classes.
"""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from pyspark import SparkContext
from pyspark.sql import SparkSession


def main(folder: Path) -> None:
    """Load every task's stage, transform the rows with models, and write the results."""
    config = json.loads((folder / "plan.json").read_text())
    found: dict[str, Any] = {}
    loaded: dict[str, dict[str, Any]] = {}
    with session(folder) as spark:
        for subject in config:
            name, rows = subject["name"], spark.read.parquet(subject["rows"])
            found[name], loaded[name] = {}, {}
            # Composites first: they have to find the class of what is in them.
            for task in reversed(subject["tasks"]):
                module, _, kind = task["class"].rpartition(".")
                stage = getattr(import_module(module), kind).load(task["path"])
                loaded[name][task["name"]] = stage
                found[name][task["name"]] = describe(stage)
                if hasattr(stage, "transform"):
                    write(subject["folder"], task["name"], stage.transform(rows))
            fitted = loaded[name]["estimator"].fit(rows)
            write(subject["folder"], "fitted", fitted.transform(rows))
    for subject in config:
        name = subject["name"]
        found[name]["sessions started by construction"] = constructions(name)
        found[name]["loading without a session"] = error_of_loading(name)
    with session(folder) as spark:
        for subject in config:
            rows = spark.read.parquet(subject["rows"])
            predicted = loaded[subject["name"]]["large"].transform(rows)
            write(subject["folder"], "large in the next session", predicted)
    (folder / "found.json").write_text(json.dumps(found))


@contextmanager
def session(folder: Path) -> Iterator[SparkSession]:
    """A Spark that ends with the block."""
    spark = (
        SparkSession.builder.master("local[2]")
        .config("spark.driver.bindAddress", "127.0.0.1")
        .config("spark.driver.host", "127.0.0.1")
        .config("spark.ui.enabled", "false")
        .config("spark.ui.showConsoleProgress", "false")
        .config("spark.local.dir", str(folder / "local"))
        .config("spark.sql.warehouse.dir", str(folder / "warehouse"))
        .config("spark.sql.shuffle.partitions", "4")
        .getOrCreate()
    )
    try:
        yield spark
    finally:
        spark.stop()


def describe(stage: Any) -> dict[str, Any]:
    """Describe a stage with JSON values."""
    facts: dict[str, Any] = {"uid": stage.uid}
    if hasattr(stage, "theta") or hasattr(stage, "hiddenLayers"):
        facts["params"] = {param.name: value for param, value in stage._paramMap.items()}
    for name in ("avgMetrics", "validationMetrics"):
        if hasattr(stage, name):
            facts["metrics"] = getattr(stage, name)
    if hasattr(stage, "avgMetrics"):
        facts["submodels"] = [[model.layers for model in fold] for fold in stage.subModels]
    return facts


def write(folder: str, name: str, predicted: Any) -> None:
    """A model's numbers, in the order of ids."""
    import numpy as np

    from conformance.subject import answers

    np.save(Path(folder, f"{name}.npy"), answers(predicted))


def constructions(estimator: str) -> int:
    """Return the sessions after constructing the estimator in every way."""
    import sparknn

    cls = getattr(sparknn, estimator)
    cls().setParams(maxIter=3).copy()
    cls(hiddenLayers=[3], seed=1)
    return int(SparkContext._active_spark_context is not None)


def error_of_loading(estimator: str) -> str:
    """What an estimator's class says where no session is."""
    import sparknn

    try:
        getattr(sparknn, estimator).load("/nowhere")
    except RuntimeError as error:
        return str(error)
    return "loaded"


if __name__ == "__main__":
    main(Path(sys.argv[1]))
