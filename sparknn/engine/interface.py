"""Define what an engine ingests, what it reports about the rows, and the ``Engine`` protocol."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from sparknn.core.training.runner import RoundRunner
from sparknn.core.types import Float32Array, Float64Array


@dataclass(frozen=True)
class ColumnProblem:
    """Values of a column that cannot be trained on.

    Parameters
    ----------
    column : str
    reason : str
        ``missing`` (null, NaN or infinite), ``negative``, ``fraction`` (not a whole number) or
        ``sizes`` (vectors of different sizes) or ``category`` (not a value of a category).
    message : str
        Without the number of rows, such as ``column 'x' is null``.
    count, n_rows : int
        Rows that have such a value, and all rows.
    """

    column: str
    reason: str
    message: str
    count: int
    n_rows: int

    def __str__(self) -> str:
        if self.reason == "sizes":
            return self.message
        return f"{self.message} in {self.count} of {self.n_rows} rows"


class DataError(ValueError):
    """The rows of a DataFrame cannot be trained on; the message says which, how many and why.

    Parameters
    ----------
    message : str
    reason : str
        ``empty``, ``columns`` (see ``problems``), ``one class``, ``changed`` (rows differ when they
        are read again); empty for any other.
    problems : sequence of ColumnProblem
    hint : str
        What to do about the problems; a part of the message.
    """

    def __init__(
        self,
        message: str,
        *,
        reason: str = "",
        problems: Sequence[ColumnProblem] = (),
        hint: str = "",
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.problems = tuple(problems)
        self.hint = hint

    @classmethod
    def of_columns(cls, problems: Sequence[ColumnProblem], hint: str) -> DataError:
        """Return the error of values that cannot be trained on."""
        message = f"The training data cannot be used: {'; '.join(map(str, problems))}.{hint}"
        return cls(message, reason="columns", problems=problems, hint=hint)


@dataclass(frozen=True)
class DataSpec:
    """Define which rows and columns a fit ingests, and how rows are distributed to workers.

    Fits with equal specs share one ingest.

    Parameters
    ----------
    features : str
        A column of vectors (dense or sparse) or of arrays of numbers.
    label : str
        A numeric column of class numbers, or, for a regression, of targets: numeric, vector or
        array.
    classifies : bool
        Whether labels must be whole numbers from 0.
    n_workers : int
        Number of shards.
    seed : int
    weight, validation_indicator : str, optional
        A numeric and a boolean column.
    validation_fraction : float
        Share of rows drawn for validation; 0 with ``validation_indicator``. Of two rows or more,
        at least one is drawn, and one is not.
    shuffle : bool
        Whether rows are distributed at random. If not, a partition's rows stay together.
    skip_invalid : bool
        Whether rows with null, NaN or infinite values are skipped instead of raising an error.
    keep_missing : bool
        Whether rows with null or NaN among their features are kept, with NaN.
    categories : tuple of (int, int)
        Features that are categories, and their number of values: 0 if unknown. Other values are an
        error.
    center : bool
        Whether features that vary too little for float32 are ingested less an offset.
    least_rows : int
        Training rows below which a worker is not worth its task: fewer workers get the rows, but
        at least two. 0 for ``n_workers`` whatever the rows.
    shard_dir : str
        A directory that all executors share, for the shards; empty for the executors' own disks.
    """

    features: str
    label: str
    classifies: bool
    n_workers: int
    seed: int
    weight: str | None = None
    validation_indicator: str | None = None
    validation_fraction: float = 0.0
    shuffle: bool = True
    skip_invalid: bool = False
    keep_missing: bool = False
    categories: tuple[tuple[int, int], ...] = ()
    center: bool = False
    least_rows: int = 0
    shard_dir: str = ""


@dataclass(frozen=True)
class DatasetInfo:
    """Report what was ingested, over all workers.

    Parameters
    ----------
    n_features, n_targets : int
        ``n_targets`` is 1 for a classification.
    n_rows, n_validation : int
        Training and validation rows; rows of weight 0 are not counted.
    n_skipped : int
        Invalid rows.
    weight_sum : float
        Sum of the training rows' weights.
    rows_per_worker : tuple of int
    class_weights : dict of int to float
        Sum of the weights of each class's training rows, 0 for a class that only validation rows
        have; empty for a regression.
    sparse : bool
        Whether rows are wide and mostly empty: features are columns of sparse rows.
    categories : tuple of (int, int)
        As in ``DataSpec``.
    input_offset : ndarray, shape (d,), float64, optional
        What was subtracted from the features before they became float32.
    """

    n_features: int
    n_targets: int
    n_rows: int
    n_validation: int
    n_skipped: int
    weight_sum: float
    rows_per_worker: tuple[int, ...]
    class_weights: dict[int, float] = field(default_factory=dict)
    sparse: bool = False
    categories: tuple[tuple[int, int], ...] = ()
    input_offset: Float64Array | None = None


@dataclass(frozen=True)
class FeatureStatistics:
    """Weighted means, deviations and ranges of the training rows, over all workers.

    Parameters
    ----------
    mean, deviation, low, high : ndarray, shape (d,), float64
    target_mean, target_deviation : ndarray, shape (k,), float64
    filled : ndarray, shape (d,), float64, optional
        Of sparse rows: the share of the weight in which a feature is not 0.
    target_low, target_high : ndarray, shape (k,), float64, optional
    """

    mean: Float64Array
    deviation: Float64Array
    low: Float64Array
    high: Float64Array
    target_mean: Float64Array
    target_deviation: Float64Array
    filled: Float64Array | None = None
    target_low: Float64Array | None = None
    target_high: Float64Array | None = None


class Engine(RoundRunner, Protocol):
    """Train on rows that are distributed to workers. Use it in a ``with`` block, which cleans up.

    ``sparknn.core.training.rounds.run(engine, fits)`` trains on it.

    Attributes
    ----------
    info : DatasetInfo
    ingest_s : float
        Seconds that reading, shuffling and writing the shards took.
    """

    info: DatasetInfo
    ingest_s: float

    def statistics(self) -> FeatureStatistics:
        """Return statistics of features and targets; computed at the first call."""

    def sample(self, n_rows: int) -> Float32Array:
        """Return about ``n_rows`` training rows' features, shape (n, d); dense rows only.

        Computed at the first call, for all fits that share the rows; not to be changed.
        Equal engines return equal rows, in the same order: each worker's share, evenly spaced.
        """

    def digest(self) -> str:
        """Return a hash of all rows that does not depend on their order within a worker.

        Nor on the worker, unless the spec's ``shuffle`` is false.
        """

    def close(self) -> None:
        """Remove everything that the engine has stored anywhere."""
