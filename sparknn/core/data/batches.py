"""Draw seeded mini-batches from a worker's rows; only a window of rows is in memory at a time."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import fields
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from sparknn.core.config import RoundRequest, Standardizer, TrainConfig
from sparknn.core.data.inputs import Inputs, count_columns, shifted_columns
from sparknn.core.data.rows import Rows, Slice
from sparknn.core.nn.encoding import Encoding
from sparknn.core.nn.input_layer import SparseBatch
from sparknn.core.nn.losses import flat_label_index
from sparknn.core.types import Float32Array, FloatArray, IntArray, TargetArray

# Rows are shuffled inside windows of this size; ingest has already shuffled them over all shards.
WINDOW_BYTES = 64 << 20
# Memory of the mini-batches that are held at a time; one alone may need more.
_BUFFERS_BYTES = 4 << 20
# Fields of TrainConfig that mini-batches do not depend on.
_BATCH_INDEPENDENT_FIELDS = {
    "network",
    "max_iter",
    "solver",
    "step_size",
    "momentum",
    "schedule",
    "l2",
    "null_loss",
    "dropout",
    "local_state",
    "max_change",
}


class Batch(NamedTuple):
    """A mini-batch as the network sees it.

    Parameters
    ----------
    X : ndarray, shape (n, d), float32
        The dense inputs: encoded and standardised, if the config says so.
    y : ndarray, shape (n,), intp, class indices; or (n, k), targets
    sample_weight : ndarray, shape (n,)
        Class weights included.
    weight : float
        Sum of the weights before ``sample_weight`` was divided.
    label_index : ndarray, shape (n,), optional
        ``losses.flat_label_index(y)`` of classes.
    sparse : SparseBatch, optional
        The inputs of the sparse block.
    """

    X: Float32Array
    y: TargetArray
    sample_weight: FloatArray
    weight: float
    label_index: IntArray | None = None
    sparse: SparseBatch | None = None


def rng_for(seed: int, *where: int) -> np.random.Generator:
    """Return the random stream of one position in a fit.

    ``where`` is (unit of local work, partition), or (unit, partition, 1) for dropout. A task that
    is run again draws the same numbers.
    """
    # numpy splits large numbers into 32-bit words and pads with 0. A fixed width (two words for the
    # seed, one per index) keeps the streams of different positions apart.
    words = [seed & 0xFFFFFFFF, (seed >> 32) & 0xFFFFFFFF, *where]
    return np.random.default_rng(np.asarray(words, dtype=np.uint32))


def row_bytes(rows: Rows, *, sparse: bool = False) -> int:
    """Return the memory that a window takes per row: features, index, targets and weight.

    Targets and weight are held twice, as stored and as drawn; classes also have a label index.
    With ``sparse``, features are held as entries.
    """
    n_bytes = 4 * rows.n_features
    if sparse:
        n_bytes = 8 * rows.n_entries // max(rows.n_rows, 1)
    return n_bytes + 8 * (1 + 2 * (rows.n_targets + 1) + 1)


def split_range(start: int, stop: int, n_bytes: int, batch_size: int) -> list[tuple[int, int]]:
    """Split rows ``start`` to ``stop``, of ``n_bytes`` each, into ranges within ``WINDOW_BYTES``.

    Sizes differ by at most one row; a range may exceed the limit to hold a whole batch.
    """
    n = stop - start
    if n <= 0:
        return []
    at_most = max(WINDOW_BYTES // n_bytes, batch_size, 1)
    edges = np.linspace(start, stop, -(-n // at_most) + 1).astype(np.int64).tolist()
    return list(pairwise(edges))


def iter_chunks(rows: Rows, most: int) -> Iterator[tuple[Float32Array, FloatArray, FloatArray]]:
    """Iterate over all rows as they are stored, in order, at most ``most`` at a time.

    Yields
    ------
    X : ndarray, shape (n, d), float32
        Overwritten by the next chunk.
    y : ndarray, shape (n,) or (n, k)
    sample_weight : ndarray, shape (n,)
    """
    out = np.empty((min(most, rows.n_rows), rows.n_features), dtype=np.float32)
    for start, stop in split_range(0, rows.n_rows, row_bytes(rows), most):
        chunk = rows.read(start, stop)
        for first in range(0, stop - start, most):
            index = np.arange(first, min(first + most, stop - start))
            X = out[: len(index)]
            chunk.take(index, X)
            yield X, chunk.y[index], chunk.sample_weight[index]


def sampled_ranges(n_rows: int, fraction: float, round_: int) -> list[tuple[int, int]]:
    """Return the rows that a round draws: the next ``fraction`` of the shard, cyclically.

    Ingest has shuffled the rows, so consecutive rows are a random sample, and cycling through them
    uses every row equally often.
    """
    n_drawn = _n_sampled(n_rows, fraction)
    if n_drawn == n_rows:
        return [(0, n_rows)]
    start = (round_ * n_drawn) % n_rows
    stop = start + n_drawn
    if stop <= n_rows:
        return [(start, stop)]
    return [(start, n_rows), (0, stop - n_rows)]


def _n_sampled(n_rows: int, fraction: float) -> int:
    return min(n_rows, max(1, round(fraction * n_rows)))


def sampled_windows(rows: Rows, config: TrainConfig, round_: int) -> list[tuple[int, int]]:
    """The windows that a round reads, in the shard's order."""
    drawn = sampled_ranges(rows.n_rows, config.mini_batch_fraction, round_)
    n_bytes = row_bytes(rows, sparse=config.has_sparse_rows)
    return [w for a, b in drawn for w in split_range(a, b, n_bytes, config.batch_size)]


def count_batches(rows: Rows, config: TrainConfig, round_: int) -> int:
    """Count the mini-batches that ``mini_batches`` yields in this round."""
    ranges = sampled_windows(rows, config, round_)
    per_epoch = sum(-(-(stop - start) // config.batch_size) for start, stop in ranges)
    return per_epoch * config.local_epochs


def mean_weight(rows: Rows, config: TrainConfig, round_: int) -> float:
    """Return the mean weight of the rows that a round draws, class weights included."""
    total, n_rows = 0.0, 0
    for start, stop in sampled_windows(rows, config, round_):
        chunk = rows.read(start, stop)
        total += float(_effective_weight(chunk, config).sum(dtype=np.float64))
        n_rows += stop - start
    return total / n_rows if n_rows else 0.0


def largest_batch(n_rows: int, config: TrainConfig) -> int:
    """Return the size of a round's largest mini-batch on a worker that has ``n_rows``."""
    return min(config.batch_size, _n_sampled(n_rows, config.mini_batch_fraction))


def allocate_buffers(rows: Rows, config: TrainConfig, most: int) -> Float32Array:
    """Allocate buffers for the ``X`` of ``most`` mini-batches, or of fewer if these are large.

    Returns
    -------
    ndarray, shape (at least 1, rows of the largest mini-batch, d), float32
        d counts the dense inputs.
    """
    size = largest_batch(rows.n_rows, config)
    n_bytes = 4 * max(config.n_dense, 1) * max(size, 1)
    if config.has_sparse_rows:
        # About half of the entries are in columns that no other row of a mini-batch has.
        n_columns = min(config.n_sparse, size * rows.n_entries // (2 * max(rows.n_rows, 1)))
        n_bytes = 4 * max(n_columns, 1) * max(size, 1)
    n_buffers = max(1, min(most, _BUFFERS_BYTES // n_bytes))
    return np.empty((n_buffers, size, config.n_dense), dtype=np.float32)


def touched_columns(rows: Rows, config: TrainConfig, units: Iterable[int]) -> IntArray:
    """Return the columns of the sparse block that a round touches, those with most entries first.

    In this order, the weights that nearly every step needs stay in the processor's caches, which
    makes a step faster by a tenth to a fifth.
    """
    counts = np.zeros(config.n_sparse, dtype=np.int64)
    counts[shifted_columns(config)] = np.iinfo(np.int64).max // 2
    for unit in units:
        for start, stop in sampled_windows(rows, config, unit):
            counts += count_columns(rows.read(start, stop), stop - start, config)
    touched = np.flatnonzero(counts)
    return touched[np.argsort(-counts[touched], kind="stable")]


def mini_batches(
    rows: Rows,
    config: TrainConfig,
    round_: int,
    rng: np.random.Generator,
    buffers: Iterator[Float32Array],
    inputs: Inputs,
    weight_scale: float | None = None,
) -> Iterator[Batch]:
    """Yield the mini-batches of one round: ``local_epochs`` passes over the drawn rows.

    Batches of a window have equal sizes (up to one row) of at most ``batch_size``: a short last
    batch would be a noisy step. Each is written to the next of the ``buffers`` (see
    ``allocate_buffers``). Weights are divided by ``weight_scale``, if given, and become float32.
    """
    ranges = sampled_windows(rows, config, round_)
    for _ in range(config.local_epochs):
        order = rng.permutation(len(ranges)) if config.shuffle else np.arange(len(ranges))
        for start, stop in (ranges[i] for i in order):
            n = stop - start
            index = rng.permutation(n) if config.shuffle else np.arange(n)
            n_batches = -(-n // config.batch_size)
            yield from gather_batches(
                rows.read(start, stop), index, n_batches, buffers, config, inputs, weight_scale
            )


def gather_batches(
    chunk: Slice,
    index: IntArray,
    n_batches: int,
    buffers: Iterator[Float32Array],
    config: TrainConfig,
    inputs: Inputs,
    weight_scale: float | None = None,
) -> Iterator[Batch]:
    """Yield the rows ``index`` of a slice as batches of ``inputs``, class-weighted.

    Batches have equal sizes (up to one row). ``index`` is sorted in place within each batch.
    Buffers and weights are as in ``mini_batches``.
    """
    size, n_longer = divmod(len(index), n_batches)
    numbers = np.arange(n_batches + 1)
    edges = numbers * size + np.minimum(numbers, n_longer)
    for start, stop in _ranges(edges):
        # Gathering rows in memory order takes four fifths of the time.
        index[start:stop].sort()
    # Prepare all but X for all batches at once: matrix products evict the caches, and Python code
    # that runs between them takes several times as long as elsewhere.
    sample_weight = _effective_weight(chunk, config)[index]
    weights = np.add.reduceat(sample_weight, edges[:-1], dtype=np.float64)
    if weight_scale is not None:
        sample_weight = (sample_weight / weight_scale).astype(np.float32)
    y, label_index = _targets(chunk.y[index], edges, config)
    # `buffers` goes last: zip stops at the end of an earlier one without consuming a buffer.
    for (start, stop), weight, buffer in zip(_ranges(edges), weights.data, buffers, strict=False):
        X, entries = inputs.take(chunk, index[start:stop], buffer)
        mine = None if label_index is None else label_index[start:stop]
        yield Batch(X, y[start:stop], sample_weight[start:stop], weight, mine, entries)


def _ranges(edges: IntArray) -> Iterator[tuple[int, int]]:
    """Yield each batch's start and stop as int; a list would take more memory than narrow rows."""
    return pairwise(edges.data)


def _targets(
    y: FloatArray, edges: IntArray, config: TrainConfig
) -> tuple[TargetArray, IntArray | None]:
    """Convert ``y`` to the losses' form, and index the labels of classes; may overwrite ``y``."""
    targets = config.target_standardizer
    if targets is not None:
        # Subtract in float64: targets may be large and differ by little.
        y = y.astype(np.float64, copy=False)
        y -= targets.shift
        y *= targets.factor
        return y.astype(np.float32), None
    if y.ndim > 1:
        return y, None
    classes = y.astype(np.intp)
    label_index = np.empty(len(y), dtype=np.intp)
    for start, stop in _ranges(edges):
        label_index[start:stop] = flat_label_index(classes[start:stop])
    return classes, label_index


def group_by_batches(requests: Sequence[RoundRequest]) -> list[list[int]]:
    """Group the indices of requests that see the same mini-batches in a round."""
    groups: dict[tuple[Hashable, ...], list[int]] = {}
    for number, request in enumerate(requests):
        config = request.config
        key = [
            _hashable(getattr(config, each.name))
            for each in fields(config)
            if each.name not in _BATCH_INDEPENDENT_FIELDS
        ]
        groups.setdefault((request.train, request.units_ahead, request.n_units, *key), []).append(
            number
        )
    return list(groups.values())


def _hashable(value: Any) -> Hashable:
    """Return a key that equal values share."""
    if isinstance(value, Standardizer | Encoding):
        return tuple(_hashable(getattr(value, item.name)) for item in fields(value))
    return value.tobytes() if isinstance(value, np.ndarray) else value


def _effective_weight(chunk: Slice, config: TrainConfig) -> FloatArray:
    if config.class_weight is None:
        return chunk.sample_weight
    return np.asarray(chunk.sample_weight * config.class_weight[chunk.y.astype(np.intp)])
