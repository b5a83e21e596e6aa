"""Which checkpoints belong to a fit, and how it goes on from the last one."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from itertools import chain, count
from typing import Any

import numpy as np
from pyspark.sql import SparkSession

from sparknn import __version__
from sparknn.core.training.fit_state import FitState
from sparknn.engine.interface import Engine
from sparknn.engine.interrupts import defer_interrupts
from sparknn.ml.checkpoint import FORMAT_VERSION, Checkpoints, probe
from sparknn.ml.params import NetworkParams

log = logging.getLogger("sparknn")

Reserve = Callable[[str], str]

# Places where fits of this process now keep their checkpoints, and the lock on them.
_reserved: set[str] = set()
_reserving = threading.Lock()


@contextmanager
def reserve_dirs() -> Iterator[Reserve]:
    """Keep fits that train alike from writing over each other, as long as the block lasts.

    Two maps may differ in nothing but thresholds, and Spark's tuning fits pipelines in threads. The
    second that wants a place gets ``PLACE-2``, and later finds it again: which is which of fits
    that are the same does not matter.
    """
    mine: set[str] = set()

    def reserve(path: str) -> str:
        with _reserving:
            places = chain([path], (f"{path}-{n}" for n in count(2)))
            free = next(place for place in places if place not in _reserved)
            _reserved.add(free)
        mine.add(free)
        return free

    try:
        yield reserve
    finally:
        with _reserving:
            _reserved.difference_update(mine)


def wants_checkpoints(params: NetworkParams) -> bool:
    """Whether there is somewhere to write them to, and a time to do it."""
    return bool(params.getCheckpointDir()) and params.getCheckpointInterval() >= 1


@defer_interrupts()
def probe_all(spark: SparkSession, estimators: Iterable[NetworkParams]) -> None:
    """See that every folder that checkpoints are wanted in can hold them.

    Raises
    ------
    CheckpointError
    """
    for folder in {each.getCheckpointDir() for each in estimators if wants_checkpoints(each)}:
        probe(spark, folder)


def resume_all(
    spark: SparkSession,
    engine: Engine,
    fits: Sequence[tuple[NetworkParams, FitState]],
    reserve: Reserve,
) -> None:
    """Give every fit that wants checkpoints a place for them, and let it go on from the last one.

    The place is named after all that decides the fit, so that fits which would differ in a single
    bit, those of a grid or of a CrossValidator's folds, can share a ``checkpointDir``.
    """
    wanting = [(params, fit) for params, fit in fits if wants_checkpoints(params)]
    if not wanting:
        return
    digest = engine.digest()
    for params, fit in wanting:
        path = reserve(os.path.join(params.getCheckpointDir(), fingerprint(fit, digest)))
        checkpoints = Checkpoints(spark, path, params.getCheckpointInterval())
        saved = checkpoints.latest()
        if saved is None:
            log.info(
                "There is no checkpoint of these settings and rows in %s: starting at round 1.",
                params.getCheckpointDir(),
            )
        else:
            fit.restore(saved)
            n_done = len(saved.history)
            log.info(
                "Continuing from round %d of %d, checkpoint %s.",
                n_done + 1,
                fit.config.max_iter,
                checkpoints.folder(n_done),
            )
        fit.on_checkpoint = checkpoints


def fingerprint(fit: FitState, digest: str) -> str:
    """A name for all that decides how a fit that has not begun will end.

    Parameters
    ----------
    fit : FitState
        Its plan, its averaging and the network it starts from.
    digest : str
        Of its rows.

    Notes
    -----
    What is computed from the rows (means, scales, weights of classes) counts as float32: the last
    bits of a sum depend on the order in which Spark returns the rows.
    """
    decisive = [FORMAT_VERSION, __version__, fit.config, fit.averaging, fit.n_workers]
    decisive += [fit.adapt_round_length, fit.current, digest]
    text = json.dumps(decisive, default=_plain, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _plain(value: Any) -> Any:
    """What JSON has no form for, as something that it has one for."""
    if is_dataclass(value):
        return {item.name: getattr(value, item.name) for item in fields(value)}
    if isinstance(value, np.ndarray):
        return [value.shape, hashlib.sha256(value.astype("<f4").tobytes()).hexdigest()]
    raise TypeError(f"A {type(value).__name__} has no place in a fingerprint.")
