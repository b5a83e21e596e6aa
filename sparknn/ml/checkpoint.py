"""Write and read checkpoints: the state of a fit after some of its rounds.

    path/round-7/float32/    parquet, see ``weights_io``: all arrays of a type, concatenated
    path/round-7/float64/
    path/round-7/metadata/   one line of JSON: shapes, numbers, history, checksum; written last

A directory without metadata is incomplete and ignored. One that cannot be read, or does not match
its checksum, is skipped in favour of the one before it. Everything goes through DataFrames, so any
file system that Spark supports will do, and nothing is pickled.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pyspark.sql import SparkSession

from sparknn.core.training.fit_state import FitState, Snapshot
from sparknn.engine import filesystem
from sparknn.engine.filesystem import list_names, read_lines, remove, write_line
from sparknn.engine.interrupts import defer_interrupts
from sparknn.engine.worker_errors import root_cause
from sparknn.ml.summary import TrainingSummary, json_number
from sparknn.ml.weights_io import read_weights, write_weights

log = logging.getLogger("sparknn")

FORMAT_VERSION = 2
# The last one, and one more in case the last one is damaged.
_KEPT = 2
_TYPES: Mapping[str, Any] = {"float32": np.float32, "float64": np.float64}


class CheckpointError(OSError):
    """A checkpoint cannot be written; the message says where and why."""


@dataclass
class Checkpoints:
    """The checkpoints of one fit; as ``FitState.on_checkpoint`` it writes them.

    Parameters
    ----------
    spark : SparkSession
    path : str
        A directory for this fit only.
    every : int
        Rounds between two checkpoints.
    fit : str
        The fit's fingerprint: checkpoints of other fits that were copied here are skipped.
    """

    spark: SparkSession
    path: str
    every: int
    fit: str = ""
    # Numbers of rounds that have a checkpoint, oldest first.
    _rounds: list[int] = field(default_factory=list, init=False)

    def __call__(self, fit: FitState) -> None:
        """Write a checkpoint if it is due. If that fails, log it and let the fit continue."""
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
        problem = f"Could not write the checkpoint after round {n_rounds} to {self.path}"
        last = max(self._rounds, default=0)
        left = f"the last checkpoint is of round {last}" if last else "there is no checkpoint"
        with _checkpoint_errors(problem, f"Training continues; {left}."):
            # A driver may have died while writing it.
            remove(self.spark, folder)
            vectors, metadata = _pack(saved, self.fit)
            for name, vector in vectors.items():
                write_weights(self.spark, vector, os.path.join(folder, name), "error")
            write_line(self.spark, json.dumps(metadata), os.path.join(folder, "metadata"))
            self._rounds = [*(old for old in self._rounds if old != n_rounds), n_rounds]
            while len(self._rounds) > _KEPT:
                remove(self.spark, self.folder(self._rounds.pop(0)))

    @defer_interrupts()
    def latest(self, start: Snapshot | None = None) -> Snapshot | None:
        """Return the last checkpoint that can be read, or None.

        Unreadable ones are not removed, as the storage may only be temporarily unavailable; nor
        are those that do not fit to ``start``, the state of the fit before its first round.
        """
        self._rounds = []
        found = self._found()
        for n_rounds in reversed(found):
            folder = self.folder(n_rounds)
            try:
                saved = _read(self.spark, folder, self.fit)
                if start is not None:
                    _check(saved, start)
            except Exception as error:
                # Spark has many errors for a damaged file.
                log.warning("Skipped unreadable checkpoint %s: %s", folder, root_cause(error))
                continue
            self._rounds = [other for other in found if other <= n_rounds]
            return saved
        return None

    @defer_interrupts()
    def clear(self) -> None:
        """Remove all checkpoints, once the fit has its model."""
        try:
            remove(self.spark, self.path)
        except Exception as error:
            # The model matters more.
            log.warning("Could not remove the checkpoints in %s: %s", self.path, root_cause(error))

    def folder(self, n_rounds: int) -> str:
        """Return the directory of the checkpoint after ``n_rounds`` rounds."""
        return os.path.join(self.path, f"round-{n_rounds}")

    def _found(self) -> list[int]:
        """Return the numbers of rounds that have a complete checkpoint."""
        matches = (re.fullmatch(r"round-(\d+)", name) for name in list_names(self.spark, self.path))
        rounds = sorted(int(match[1]) for match in matches if match)
        return [n_rounds for n_rounds in rounds if self._is_complete(n_rounds)]

    def _is_complete(self, n_rounds: int) -> bool:
        names = list_names(self.spark, os.path.join(self.folder(n_rounds), "metadata"))
        return any(name.startswith("part-") for name in names)


def probe(spark: SparkSession, folder: str) -> None:
    """Check that checkpoints can be written to a directory, read and removed, before a fit starts.

    Raises
    ------
    CheckpointError
    """
    problem = f"checkpointDir = {folder!r} cannot be used"
    with _checkpoint_errors(problem, "Set one that the driver and the executors can write to."):
        filesystem.probe(spark, folder)


@contextmanager
def _checkpoint_errors(problem: str, hint: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        # Every file system has its own errors.
        raise CheckpointError(f"{problem} ({root_cause(error)}). {hint}") from error


def _pack(saved: Snapshot, fit: str) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Return one vector per type of number, and everything else as JSON values."""
    layout = [[name, str(array.dtype), array.shape] for name, array in saved.arrays.items()]
    vectors = {
        kind: np.concatenate([a.ravel() for a in saved.arrays.values() if a.dtype == kind])
        for kind in _TYPES
    }
    metadata = {
        "formatVersion": FORMAT_VERSION,
        "fit": fit,
        "arrays": layout,
        "numbers": {name: json_number(value) for name, value in saved.numbers.items()},
        "history": TrainingSummary(saved.history).to_json(),
    }
    return vectors, {**metadata, "sha256": _checksum(vectors, metadata)}


def _read(spark: SparkSession, folder: str, fit: str) -> Snapshot:
    """Return a fit's snapshot in a directory; raise any kind of error if it is damaged."""
    lines = read_lines(spark, os.path.join(folder, "metadata"))
    if len(lines) != 1:
        raise ValueError("expected one line of metadata.")
    return _unpack(
        lines[0],
        lambda kind, size: read_weights(spark, os.path.join(folder, kind), size, _TYPES[kind]),
        fit,
    )


def _unpack(line: str, read: Callable[[str, int], NDArray[Any]], fit: str = "") -> Snapshot:
    """Return the snapshot of a line of metadata and of vectors, read by type and size."""
    metadata = json.loads(line)
    if metadata["formatVersion"] != FORMAT_VERSION:
        raise ValueError(f"its format is not {FORMAT_VERSION}.")
    checksum, layout = metadata.pop("sha256"), metadata["arrays"]
    sizes = dict.fromkeys(_TYPES, 0)
    for _, kind, shape in layout:
        if not all(type(size) is int and size >= 0 for size in shape):
            raise ValueError(f"expected sizes of an array, found {shape!r:.100}.")
        sizes[kind] += math.prod(shape)
    vectors = {kind: read(kind, size) for kind, size in sizes.items()}
    if _checksum(vectors, metadata) != checksum:
        raise ValueError("it does not match its checksum.")
    # Earlier versions do not say.
    if fit and metadata.get("fit", fit) != fit:
        raise ValueError("it is of another fit.")
    arrays = {}
    starts = dict.fromkeys(_TYPES, 0)
    for name, kind, shape in layout:
        stop = starts[kind] + math.prod(shape)
        arrays[name] = vectors[kind][starts[kind] : stop].reshape(shape)
        starts[kind] = stop
    numbers = {
        # Infinities are strings in JSON, and NaN is null.
        name: math.nan if value is None else float(value) if isinstance(value, str) else value
        for name, value in metadata["numbers"].items()
    }
    if not all(type(value) in (int, float) for value in numbers.values()):
        raise ValueError(f"expected numbers, found {numbers!r:.200}.")
    return Snapshot(list(TrainingSummary.from_json(metadata["history"]).records), numbers, arrays)


def _check(saved: Snapshot, start: Snapshot) -> None:
    """Raise ValueError if a fit that began with ``start`` cannot continue from a snapshot."""
    shapes = {name: array.shape for name, array in saved.arrays.items()}
    expected = {name: array.shape for name, array in start.arrays.items()}
    if "best" in shapes:
        expected["best"] = expected["theta"]
    if shapes != expected or saved.numbers.keys() != start.numbers.keys():
        raise ValueError("it is of another network or another fit.")
    if not np.isfinite(saved.arrays["theta"]).all():
        raise ValueError("its parameters are not finite.")


def _checksum(vectors: Mapping[str, NDArray[Any]], metadata: Mapping[str, Any]) -> str:
    """Return the SHA-256 of everything in a checkpoint."""
    sha = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
    for kind in sorted(vectors):
        dtype = np.dtype(kind).newbyteorder("<")
        sha.update(np.ascontiguousarray(vectors[kind], dtype=dtype).data)
    return sha.hexdigest()
