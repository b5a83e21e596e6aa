"""Fit and predict over Spark Connect with a client that has neither a JVM nor py4j.

The server is pyspark's, in this process; the client runs in an environment of its own:

    python3.11 -m venv build/client
    build/client/bin/pip install pyspark-client
    .venv/bin/python tests/cluster/pure_client.py build/client/bin/python

Both need the same minor version of Python. Exit status 0: everything has a classic fit's bytes.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
os.environ["PYSPARK_PYTHON"] = sys.executable
os.environ["PYTHONPATH"] = str(ROOT)
os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"

CLIENT = """
import importlib.util, sys
from pathlib import Path
from pyspark.sql import SparkSession
folder, spark = Path(sys.argv[1]), SparkSession.builder.remote(sys.argv[2]).getOrCreate()
assert importlib.util.find_spec("py4j") is None
import sparknn
from pyspark.ml import Pipeline
from pyspark.ml.evaluation import MulticlassClassificationEvaluator
from pyspark.ml.tuning import CrossValidator, ParamGridBuilder
from sparknn import NeuralNetClassificationModel, NeuralNetClassifier

print(sparknn.doctor(spark), flush=True)
rows = spark.read.parquet(str(folder / "rows"))
for name, shared in (("own", ""), ("shared", str(folder / "shards"))):
    network = NeuralNetClassifier(
        inputCols=["x", "y"], hiddenLayers=[4], maxIter=3, numWorkers=2, shardDir=shared
    )
    network.fit(rows).write().overwrite().save(str(folder / name))
again = NeuralNetClassificationModel.load(str(folder / "own"))
assert again.transform(rows).filter("prediction = label").count() > 30
assert again.evaluate(rows).accuracy > 0.5
grid = ParamGridBuilder().addGrid(network.stepSize, [0.1, 0.5]).build()
assert len(dict(network.fitMultiple(rows, grid))) == 2
evaluator = MulticlassClassificationEvaluator(metricName="accuracy")
search = CrossValidator(
    estimator=network, estimatorParamMaps=grid, evaluator=evaluator, numFolds=2, parallelism=2
)
assert Pipeline(stages=[network]).fit(rows).transform(rows).count() == 60
search.fit(rows)
spark.stop()
"""


def main(python: str) -> int:
    from pyspark.sql import SparkSession
    from remote import SETTINGS, serving

    from sparknn import NeuralNetClassificationModel, NeuralNetClassifier

    builder = SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false")
    local = {"spark.driver.host": "127.0.0.1", "spark.driver.bindAddress": "127.0.0.1"}
    for name, value in (SETTINGS | local).items():
        builder = builder.config(name, value)
    spark = builder.getOrCreate()
    spark.sparkContext.setLogLevel("ERROR")
    with tempfile.TemporaryDirectory() as folder, serving(spark) as address:
        rows = spark.range(0, 60, 1, 2).selectExpr(
            "sin(id) as x", "cos(2 * id) as y", "if(sin(id) > 0, 1, 0) as label"
        )
        rows.write.parquet(f"{folder}/rows")
        Path(folder, "shards").mkdir()
        # By `python -c`, this client takes a session for a doctest.
        script = Path(folder, "client.py")
        script.write_text(CLIENT)
        command = [python, str(script), folder, address]
        status = subprocess.run(command, timeout=300, check=False).returncode
        if not status:
            network = NeuralNetClassifier(
                inputCols=["x", "y"], hiddenLayers=[4], maxIter=3, numWorkers=2
            )
            expected = network.fit(spark.read.parquet(f"{folder}/rows")).theta.tobytes()
            for name in ("own", "shared"):
                model = NeuralNetClassificationModel.load(f"{folder}/{name}")
                assert model.theta.tobytes() == expected, name
            assert not list(Path(folder, "shards").iterdir())
    spark.stop()
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
