"""Print how good predictions are: a page of text."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from sparknn.ml.evaluation import RegressionSummary, confusion_matrix

# A wider matrix does not fit on a screen; its commonest mistakes are listed instead.
_MAX_CLASSES, _MAX_CONFUSIONS = 20, 10


def counted(number: int, what: str) -> str:
    """Return ``1 worker``, ``2 workers``."""
    return f"{number:,} {what}" + ("" if number == 1 else "s")


def confusion_lines(counts: pd.DataFrame, names: Sequence[str] = ()) -> list[str]:
    """Return accuracy, and the matrix or, for many classes, the commonest mistakes.

    ``names`` are the texts of the classes, by number. A label that is no class number is wrong.
    """
    known = counts.dropna(subset=["actual", "predicted"])
    wrong = known[known["actual"] != known["predicted"]]
    n_rows, n_wrong = known["count"].sum(), wrong["count"].sum()
    if not n_rows:
        return ["no rows with a label"]
    lines = [f"accuracy {1 - n_wrong / n_rows:.2%} ({n_wrong:,} of {counted(n_rows, 'row')} wrong)"]
    if n_unlabelled := counts["count"].sum() - n_rows:
        lines.append(f"{counted(n_unlabelled, 'row')} without a label left out")
    classes = sorted({*known["actual"], *known["predicted"]})
    texts = {number: f"{number:g}" for number in classes} | dict(enumerate(names))
    if len(classes) > _MAX_CLASSES:
        order = ["count", "actual", "predicted"]
        most = wrong.sort_values(order, ascending=[False, True, True]).head(_MAX_CONFUSIONS)
        pairs = most[["actual", "predicted", "count"]].itertuples(index=False)
        commonest = [f"  {texts[a]} for {texts[p]}: {n:,}" for a, p, n in pairs]
        return [*lines, "", "most often mistaken:", *commonest]
    matrix = confusion_matrix(known, "count").astype(int)
    right, titles = np.diag(matrix), [texts[number] for number in classes]
    shown = matrix.astype(str).replace("0", ".")
    shown["recall"] = _shares(right, matrix.sum(axis=1))
    shown.loc["precision"] = [*_shares(right, matrix.sum(axis=0)), ""]
    shown.index = pd.Index([*titles, "precision"], name="actual \\ predicted")
    shown.columns = pd.Index([*titles, "recall"])
    return [*lines, "", *shown.reset_index().to_string(index=False).splitlines()]


def _shares(part: np.ndarray, whole: pd.Series) -> list[str]:
    return [f"{100 * a / b:.1f}%" if b else "-" for a, b in zip(part, whole, strict=True)]


def regression_lines(found: RegressionSummary) -> list[str]:
    """Return root mean squared error, mean absolute error and R2 of every target or quantile."""
    lines, table = [], found.targets
    for target, row in table.iterrows():
        name = f"{table.index.name} {target}: " if len(table) > 1 else ""
        errors = f"RMSE {row.rmse:.4g}, mean absolute error {row.mae:.4g}, R2 {row.r2:.4f}"
        lines.append(f"{name}{errors} ({counted(int(row['count']), 'row')})")
    return lines or ["no rows with a label"]
