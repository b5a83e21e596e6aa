"""A fit of 28 million parameters, in a driver of its own, whose memory is measured."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import faults
import numpy as np

from sparknn import NeuralNetClassifier

HIDDEN = [4096, 4096, 2048]


def peak_bytes(pid: str = "self") -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def main(scratch: str, n_workers: str, settings: str) -> None:
    path = Path(scratch)
    patch = SimpleNamespace(setattr=setattr)
    faults.measure_messages(patch, path)
    with faults.session("local[2]", path / "spark", **json.loads(settings)) as spark:
        df = spark.range(256).selectExpr(
            "transform(sequence(1, 784), i -> float(sin(id * i))) as features",
            "double(id % 10) as label",
        )
        small = NeuralNetClassifier(
            hiddenLayers=[8], maxIter=1, numWorkers=2, verbose=False, numericEncoding="plain"
        )
        small.fit(df)
        for message in path.glob("message-*"):
            message.unlink()
        before = peak_bytes()
        estimator = small.copy().setParams(
            hiddenLayers=HIDDEN, maxIter=3, numWorkers=int(n_workers)
        )
        model = estimator.fit(df)
        history = model.summary.history
        jvm = peak_bytes(str(spark.sparkContext._gateway.proc.pid))
        messages = [tuple(map(int, m.read_text().split())) for m in path.glob("message-*")]
        print(
            json.dumps(
                {
                    "n_params": model.theta.size,
                    "theta_bytes": model.theta.nbytes,
                    "python_bytes": peak_bytes() - before,
                    "jvm_bytes": jvm,
                    "message_bytes": max(size for size, _ in messages),
                    "message_values": max(n for _, n in messages),
                    "finite": bool(np.isfinite(model.theta).all()),
                    "seconds": history["seconds"].tolist(),
                }
            )
        )


if __name__ == "__main__":
    main(*sys.argv[1:])
