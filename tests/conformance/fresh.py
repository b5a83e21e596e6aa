"""Load what another process saved: ``python fresh.py FOLDER``, as ``persistence.py`` does.

Nothing of sparknn is imported by name before it is loaded: Spark's readers find the classes.
"""

import json
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

from pyspark import SparkContext
from pyspark.sql import SparkSession


def main(folder: Path) -> None:
    """Load every task's stage, transform the rows with models, and write the results."""
    config = json.loads((folder / "plan.json").read_text())
    found: dict[str, Any] = {}
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
        rows = spark.read.parquet(config["rows"])
        loaded = {}
        # Composites first: they have to find the class of what is in them.
        for task in reversed(config["tasks"]):
            module, _, name = task["class"].rpartition(".")
            loaded[task["name"]] = stage = getattr(import_module(module), name).load(task["path"])
            found[task["name"]] = describe(stage)
            if hasattr(stage, "transform"):
                write(folder, task["name"], stage.transform(rows))
        write(folder, "fitted", loaded["estimator"].fit(rows).transform(rows))
    finally:
        spark.stop()
    found["sparks started by construction"] = constructions(config["estimator"])
    (folder / "found.json").write_text(json.dumps(found))


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


def write(folder: Path, name: str, predicted: Any) -> None:
    """A model's numbers, in the order of ids."""
    import numpy as np

    from conformance.subject import answers

    np.save(folder / f"{name}.npy", answers(predicted))


def constructions(estimator: str) -> int:
    """Return the sessions after constructing the estimator in every way."""
    import sparknn

    cls = getattr(sparknn, estimator)
    cls().setParams(maxIter=3).copy()
    cls(hiddenLayers=[3], seed=1)
    return int(SparkContext._active_spark_context is not None)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
