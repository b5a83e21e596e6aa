"""Spark Connect, for real: a server, and a client that has no JVM at hand."""

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import pytest
from models import classifier, regressor, rows
from pyspark.ml import PipelineModel
from pyspark.sql import SparkSession
from tables import table

REMOTE = """
import json, re, sys
from pathlib import Path
from pyspark.sql import SparkSession
folder = Path(sys.argv[1])
spark = (
    SparkSession.builder.remote("local[2]")
    .config("spark.connect.grpc.binding.address", "127.0.0.1")
    .config("spark.driver.bindAddress", "127.0.0.1")
    .config("spark.driver.host", "127.0.0.1")
    .config("spark.ui.enabled", "false")
    .config("spark.local.dir", str(folder / "local"))
    .config("spark.sql.warehouse.dir", str(folder / "warehouse"))
    .getOrCreate()
)
from pyspark.ml import PipelineModel
from pyspark.ml.evaluation import MulticlassClassificationEvaluator
from sparknn import NeuralNetClassificationModel, NeuralNetClassifier, NeuralNetRegressionModel

found = {"session": type(spark).__module__}
df = spark.read.parquet(str(folder / "rows"))
for name in ("small", "large"):
    model = NeuralNetClassificationModel.load(str(folder / name))
    scored = model.transform(df).orderBy("id")
    local = model.toLocal()
    X = [row.features.toArray() for row in df.orderBy("id").collect()]
    found[name] = [row.prediction for row in scored.collect()] == local.predict(X).tolist()
    found[name + " calls"] = len(set(re.findall(r"pythonUDF\\d+#\\d+", scored._explain_string())))
    found[name + " bytes"] = scored._plan.to_proto(spark.client).ByteSize()
    if name == "small":
        model.write().overwrite().save(str(folder / "again"))
        model.write().overwrite().save(str(folder / "again"))
        again = NeuralNetClassificationModel.load(str(folder / "again"))
        found[name] &= again.theta.tobytes() == model.theta.tobytes()
evaluator = MulticlassClassificationEvaluator(metricName="accuracy")
found["accuracy"] = evaluator.evaluate(model.transform(df))
found["regressor"] = NeuralNetRegressionModel.load(str(folder / "reg")).transform(df).columns
found["pipeline"] = PipelineModel.load(str(folder / "pipe")).transform(df).columns
try:
    NeuralNetClassifier(numWorkers=2, checkpointDir=str(folder / "c")).fit(df)
except RuntimeError as error:
    found["fit"] = str(error)
print("FOUND", json.dumps(found))
spark.stop()
"""


@pytest.mark.newest_spark
@pytest.mark.slow
def test_models_work_and_fits_say_why_not(
    spark: SparkSession, tmp_path: Path, run_python: Callable[..., CompletedProcess[str]]
) -> None:
    d = 6
    X = rows(40, d)
    df = table(spark, X, np.arange(40) % 3 * 1.0, id=np.arange(40))
    df.write.parquet(str(tmp_path / "rows"))
    # Beyond 1 MB, a classic session broadcasts it.
    models = {
        "small": classifier(d, 4, 3),
        "large": classifier(d, 40_000, 3),
        "reg": regressor(d, 1),
    }
    for name, model in models.items():
        model.save(str(tmp_path / name))
    PipelineModel([models["small"]]).save(str(tmp_path / "pipe"))
    said = run_python(REMOTE, str(tmp_path), timeout_s=300).stdout
    (line,) = [line for line in said.splitlines() if line.startswith("FOUND ")]
    found = json.loads(line.removeprefix("FOUND "))
    assert found["session"].startswith("pyspark.sql.connect")
    assert found["small"]
    assert found["large"]
    assert found["small calls"] == found["large calls"] == 1
    # The network travels once, not with every column.
    assert found["large bytes"] < 1.5 * models["large"].theta.nbytes
    assert 0 <= found["accuracy"] <= 1
    assert found["regressor"][-1] == "prediction"
    assert found["pipeline"][-3:] == ["rawPrediction", "probability", "prediction"]
    assert found["fit"].startswith("fit needs a classic Spark session")
