"""A driver of its own: fit an estimator, and write theta. Its tests kill it."""

import json
import sys
from pathlib import Path

from pyspark.sql import SparkSession

from sparknn import NeuralNetClassifier

rows, scratch, out, params = sys.argv[1:]
spark = (
    SparkSession.builder.master("local[2]")
    .config("spark.ui.enabled", "false")
    .config("spark.driver.bindAddress", "127.0.0.1")
    .config("spark.driver.host", "127.0.0.1")
    .config("spark.local.dir", scratch)
    .getOrCreate()
)
df = spark.read.parquet(rows)
estimator = NeuralNetClassifier(**json.loads(params))
Path(out + ".begun").touch()
model = estimator.fit(df)
Path(out).write_bytes(model.theta.tobytes())
spark.stop()
