"""Prepare a Python worker, which Spark reuses for many tasks."""

from __future__ import annotations

import gc
from functools import cache


@cache
def freeze_gc() -> None:
    """Exclude what this worker has imported from garbage collection, once per worker.

    Spark collects garbage after each task. Scanning the 50,000 to 100,000 objects of numpy, pandas,
    pyarrow and pyspark takes 25 to 45 ms before the next task can start, and the tasks of rounds
    are short. Frozen objects are still freed when their last reference goes, unless they are part
    of a cycle.
    """
    gc.freeze()
