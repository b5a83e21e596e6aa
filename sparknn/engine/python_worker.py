"""What is done once in a Python worker, which Spark keeps for task after task."""

from __future__ import annotations

import gc
from functools import cache


@cache
def freeze_gc() -> None:
    """Take what this worker has imported out of the garbage collector's sight, once.

    Spark collects garbage after each task. To look at the 50,000 to 100,000 objects that numpy,
    pandas, pyarrow and pyspark are made of takes 25 to 45 ms, in which a worker cannot take its
    next task; and rounds are short tasks, one after the other. What is frozen is still freed when
    nothing refers to it any more, unless it is part of a cycle.
    """
    gc.freeze()
