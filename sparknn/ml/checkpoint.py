"""Checkpoints: the state of a fit after some of its rounds, for a driver that has to start again.

    path/round-7/float32/    parquet, see ``theta_io``: all arrays of a type, one after the other
    path/round-7/float64/
    path/round-7/metadata/   one line of JSON: shapes, numbers, history, checksum; written last

A folder whose metadata is missing was cut off, and is not seen. One that cannot be read, or does
not match its checksum, is passed over, and the one before it is there still. Everything goes
through DataFrames, so any file system that Spark knows will do, and nothing is pickled.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pyspark.sql import SparkSession

from sparknn.core.training.fit_state import FitState, Snapshot
from sparknn.engine import filesystem
from sparknn.engine.filesystem import list_names, literal, remove
from sparknn.engine.interrupts import defer_interrupts
from sparknn.engine.worker_errors import root_cause
from sparknn.ml.summary import TrainingSummary, json_number
from sparknn.ml.weights_io import read_weights, write_weights

log = logging.getLogger("sparknn")

FORMAT_VERSION = 2
# The last one, and the one before it in case the last one is damaged.
_KEPT = 2
_TYPES: Mapping[str, Any] = {"float32": np.float32, "float64": np.float64}


class CheckpointError(OSError):
    """A checkpoint cannot be written or removed; the message says where, and why."""


@dataclass
class Checkpoints:
    """The checkpoints of one fit; as ``FitState.on_checkpoint`` it writes them.

    Parameters
    ----------
    spark : SparkSession
    path : str
        A folder of their own.
    every : int
        Rounds between two.
    """

    spark: SparkSession
    path: str
    every: int
    # Rounds after which there is one; the first are the first to be removed.
    _rounds: list[int] = field(default_factory=list, init=False)

    def __call__(self, fit: FitState) -> None:
        """A round has ended. A full disk must not cost the fit: it goes on, and says so."""
        if len(fit.history) % self.every:
            return
        started = time.perf_counter()
        try:
            self.write(fit.snapshot())
        except CheckpointError as error:
            log.warning("%s", error)
        else:
            seconds = time.perf_counter() - started
            log.info("Wrote a checkpoint after round %d in %.1f s.", len(fit.history), seconds)

    @defer_interrupts()
    def write(self, saved: Snapshot) -> None:
        """Write a checkpoint, then remove those that are no longer needed.

        Raises
        ------
        CheckpointError
        """
        n_rounds = len(saved.history)
        folder = self.folder(n_rounds)
        what = f"The checkpoint after round {n_rounds} cannot be written to {self.path}"
        last = max(self._rounds, default=0)
        left = f"the last one is of round {last}" if last else "there is none before it"
        hint = f"The fit goes on; {left}."
        with _explained(what, hint):
            # What a driver left that died while it wrote.
            remove(self.spark, folder)
            vectors, metadata = _pack(saved)
            for name, vector in vectors.items():
                write_weights(self.spark, vector, os.path.join(folder, name), "error")
            _write_line(self.spark, json.dumps(metadata), os.path.join(folder, "metadata"))
            self._rounds = [*(old for old in self._rounds if old != n_rounds), n_rounds]
            while len(self._rounds) > _KEPT:
                remove(self.spark, self.folder(self._rounds.pop(0)))

    @defer_interrupts()
    def latest(self) -> Snapshot | None:
        """The last checkpoint that can be read; None if there is none.

        Those that cannot are left where they are: the storage may answer tomorrow.
        """
        self._rounds = []
        found = self._found()
        for n_rounds in reversed(found):
            folder = self.folder(n_rounds)
            try:
                saved = _read(self.spark, folder)
            except Exception as error:
                # Spark reports a damaged file in many ways.
                log.warning(
                    "The checkpoint %s cannot be read, and is passed over: %s",
                    folder,
                    root_cause(error),
                )
                continue
            self._rounds = [other for other in found if other <= n_rounds]
            return saved
        return None

    @defer_interrupts()
    def clear(self) -> None:
        """Remove all of them, once the fit has given its model."""
        try:
            remove(self.spark, self.path)
        except Exception as error:
            # Must not stand between the user and the model.
            log.warning(
                "The checkpoints in %s could not be removed: %s", self.path, root_cause(error)
            )

    def folder(self, n_rounds: int) -> str:
        """Where the checkpoint after so many rounds is."""
        return os.path.join(self.path, f"round-{n_rounds}")

    def _found(self) -> list[int]:
        """Rounds after which a checkpoint was written to its end."""
        matches = (re.fullmatch(r"round-(\d+)", name) for name in list_names(self.spark, self.path))
        rounds = sorted(int(match[1]) for match in matches if match)
        return [n_rounds for n_rounds in rounds if self._is_whole(n_rounds)]

    def _is_whole(self, n_rounds: int) -> bool:
        names = list_names(self.spark, os.path.join(self.folder(n_rounds), "metadata"))
        return any(name.startswith("part-") for name in names)


def probe(spark: SparkSession, folder: str) -> None:
    """See that checkpoints can be written to a folder, read and removed, before a fit needs it.

    Raises
    ------
    CheckpointError
    """
    what = f"checkpointDir = {folder!r} cannot be used"
    with _explained(what, "Give a folder that the driver and the executors can write to."):
        filesystem.probe(spark, folder)


@contextmanager
def _explained(what: str, hint: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        # Every file system has errors of its own; the cause is kept.
        raise CheckpointError(f"{what} ({root_cause(error)}). {hint}") from error


def _write_line(spark: SparkSession, line: str, path: str) -> None:
    spark.createDataFrame([(line,)], "value string").coalesce(1).write.text(path)


def _read_line(spark: SparkSession, path: str) -> str:
    lines = spark.read.text(literal(path)).head(2)
    if len(lines) != 1:
        raise ValueError(f"expected one line in {path}, found {len(lines) or 'none'}.")
    return str(lines[0][0])


def _pack(saved: Snapshot) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """A snapshot as a vector for each type of number, and what JSON can hold."""
    layout = [[name, str(array.dtype), array.shape] for name, array in saved.arrays.items()]
    vectors = {
        kind: np.concatenate([a.ravel() for a in saved.arrays.values() if a.dtype == kind])
        for kind in _TYPES
    }
    metadata = {
        "formatVersion": FORMAT_VERSION,
        "arrays": layout,
        "numbers": {name: json_number(value) for name, value in saved.numbers.items()},
        "history": TrainingSummary(saved.history).to_json(),
    }
    return vectors, {**metadata, "sha256": _checksum(vectors, metadata)}


def _read(spark: SparkSession, folder: str) -> Snapshot:
    """The snapshot in a folder.

    Raises
    ------
    Exception
        Of some kind, if it is not whole.
    """
    metadata = json.loads(_read_line(spark, os.path.join(folder, "metadata")))
    checksum = metadata.pop("sha256")
    sizes = dict.fromkeys(_TYPES, 0)
    for _, kind, shape in metadata["arrays"]:
        sizes[kind] += int(np.prod(shape))
    vectors = {
        kind: read_weights(spark, os.path.join(folder, kind), size, _TYPES[kind])
        for kind, size in sizes.items()
    }
    if _checksum(vectors, metadata) != checksum:
        raise ValueError("it does not match its checksum.")
    arrays = {}
    starts = dict.fromkeys(_TYPES, 0)
    for name, kind, shape in metadata["arrays"]:
        stop = starts[kind] + int(np.prod(shape))
        arrays[name] = vectors[kind][starts[kind] : stop].reshape(shape)
        starts[kind] = stop
    numbers = {
        # JSON has no word for infinity.
        name: float(value) if isinstance(value, str) else value
        for name, value in metadata["numbers"].items()
    }
    return Snapshot(list(TrainingSummary.from_json(metadata["history"]).records), numbers, arrays)


def _checksum(vectors: Mapping[str, NDArray[Any]], metadata: Mapping[str, Any]) -> str:
    """SHA-256 of all that a checkpoint holds."""
    whole = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
    for kind in sorted(vectors):
        dtype = np.dtype(kind).newbyteorder("<")
        whole.update(np.ascontiguousarray(vectors[kind], dtype=dtype).tobytes())
    return whole.hexdigest()
