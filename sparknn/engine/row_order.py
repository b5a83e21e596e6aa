"""Find out whether a partition's rows are in the same order whenever they are read."""

from __future__ import annotations

from typing import Any

from pyspark.sql import DataFrame

from sparknn.engine.sql import is_connect

# A shuffle fetches rows in an order that differs from run to run (limits have one inside); so may a
# database answer.
_UNORDERED = {
    "ShuffleExchangeExec",
    "CollectLimitExec",
    "TakeOrderedAndProjectExec",
    "RowDataSourceScanExec",
}


def has_fixed_order(df: DataFrame) -> bool:
    """Return whether no part of the plan reads rows in an order of its own.

    Spark Connect does not show the plan: the answer is yes.
    """
    return is_connect(df) or _is_ordered(df._jdf.queryExecution().executedPlan())


def _is_ordered(plan: Any) -> bool:
    name = plan.getClass().getSimpleName()
    if name in _UNORDERED:
        return False
    if name == "AdaptiveSparkPlanExec":
        return _is_ordered(plan.initialPlan())
    if name == "InMemoryTableScanExec":
        # What is cached is read again where an executor is lost.
        return _is_ordered(plan.relation().cachedPlan())
    if name == "RDDScanExec":
        return bool(plan.rdd().outputDeterministicLevel().toString() == "DETERMINATE")
    children = plan.children()
    return all(_is_ordered(children.apply(i)) for i in range(children.size()))
