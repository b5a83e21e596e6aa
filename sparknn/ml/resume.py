"""Find the checkpoints of a fit, and continue it from the last one."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields, is_dataclass, replace
from itertools import chain, count
from typing import Any

import numpy as np
from pyspark.sql import SparkSession

from sparknn import __version__
from sparknn.core.training.fit_state import FitState
from sparknn.engine.interface import DataSpec, Engine
from sparknn.engine.interrupts import defer_interrupts
from sparknn.ml.checkpoint import FORMAT_VERSION, Checkpoints, probe
from sparknn.ml.params import NetworkParams

log = logging.getLogger("sparknn")

Reserve = Callable[[str], str]

# Directories in use by the fits of this process, and the lock on them.
_reserved: set[str] = set()
_lock = threading.Lock()


@contextmanager
def reserve_dirs() -> Iterator[Reserve]:
    """Keep identical fits from overwriting each other's checkpoints while the block lasts.

    Two maps may differ in thresholds only, and Spark's tuning fits pipelines in threads. The second
    fit that reserves DIR gets ``DIR-2``, and finds it again when it is repeated: the checkpoints of
    identical fits are interchangeable.
    """
    mine: set[str] = set()

    def reserve(path: str) -> str:
        with _lock:
            candidates = chain([path], (f"{path}-{n}" for n in count(2)))
            free = next(candidate for candidate in candidates if candidate not in _reserved)
            _reserved.add(free)
        mine.add(free)
        return free

    try:
        yield reserve
    finally:
        with _lock:
            _reserved.difference_update(mine)


def wants_checkpoints(params: NetworkParams) -> bool:
    """Return whether both a directory and an interval are set."""
    return bool(params.getCheckpointDir()) and params.getCheckpointInterval() >= 1


@defer_interrupts()
def probe_all(spark: SparkSession, estimators: Iterable[NetworkParams]) -> None:
    """Check that every checkpoint directory can be written, read and removed.

    Raises
    ------
    CheckpointError
    """
    for folder in {each.getCheckpointDir() for each in estimators if wants_checkpoints(each)}:
        probe(spark, folder)


def resume_all(
    spark: SparkSession,
    engine: Engine,
    spec: DataSpec,
    fits: Sequence[tuple[NetworkParams, FitState]],
    reserve: Reserve,
) -> None:
    """Continue every fit that has a checkpoint, and let all that want checkpoints write them.

    A directory is named after everything that decides the bytes of the fit, so that different fits,
    those of a grid or of the folds of a CrossValidator, can share a ``checkpointDir``.
    """
    wanting = [(params, fit) for params, fit in fits if wants_checkpoints(params)]
    if not wanting:
        return
    digest, offset = engine.digest(), engine.info.input_offset
    # Few rows may have gone to fewer workers than the session has slots.
    spec = replace(spec, n_workers=len(engine.info.rows_per_worker))
    if offset is not None:
        # The digest is of rows less the offset.
        digest += hashlib.sha256(offset.tobytes()).hexdigest()
    for params, fit in wanting:
        name = fingerprint(fit, spec, digest)
        path = reserve(os.path.join(params.getCheckpointDir(), name))
        checkpoints = Checkpoints(spark, path, params.getCheckpointInterval(), name)
        saved = checkpoints.latest(fit.snapshot())
        if saved is None:
            log.info(
                "No checkpoint for these settings and rows in %s: starting at round 1.",
                params.getCheckpointDir(),
            )
        else:
            fit.restore(saved)
            log.info(
                "Continuing from %s %d of %d, checkpoint %s.",
                "unit" if fit.adapt_round_length else "round",
                fit.n_done + 1,
                fit.config.max_iter,
                checkpoints.folder(len(saved.history)),
            )
        fit.on_checkpoint = checkpoints


def fingerprint(fit: FitState, spec: DataSpec, digest: str) -> str:
    """Return a hash of everything that decides the result of a fit, before its first round.

    Parameters
    ----------
    fit : FitState
        Its config, its averaging and the network it starts from.
    spec : DataSpec
        How its rows are split.
    digest : str
        Hash of its rows.

    Notes
    -----
    Values computed from the rows (means, scales, class weights) are hashed as float32: the last
    bits of a sum depend on the order in which Spark returns the rows. The values of a validation
    indicator are in ``digest``.
    """
    decisive = [FORMAT_VERSION, __version__, fit.config, fit.averaging, fit.n_workers]
    decisive += [fit.adapt_round_length, fit.current, digest]
    decisive += [spec.n_workers, spec.validation_fraction, spec.validation_indicator is not None]
    text = json.dumps(decisive, default=_plain, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _plain(value: Any) -> Any:
    """Convert dataclasses and arrays to values that JSON can represent."""
    if is_dataclass(value):
        return {item.name: getattr(value, item.name) for item in fields(value)}
    if isinstance(value, np.ndarray):
        return [value.shape, hashlib.sha256(value.astype("<f4").tobytes()).hexdigest()]
    raise TypeError(f"A {type(value).__name__} cannot be part of a fingerprint.")
