"""Seeded mini-batches over a worker's rows, of which only a window is ever in memory."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import fields
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from sparknn.core.config import RoundRequest, Standardizer, TrainConfig
from sparknn.core.data.rows import Rows, Slice
from sparknn.core.nn.losses import flat_label_index
from sparknn.core.types import Float32Array, FloatArray, IntArray, TargetArray

# Rows are shuffled inside windows of this size; ingest has shuffled them over all shards already.
WINDOW_BYTES = 64 << 20
# Mini-batches that are in memory together take no more, unless one alone does.
_TOGETHER_BYTES = 4 << 20
# What a plan says that its mini-batches do not depend on.
_BATCH_INDEPENDENT_FIELDS = {
    "network",
    "max_iter",
    "solver",
    "step_size",
    "momentum",
    "schedule",
    "l2",
    "dropout",
    "local_state",
    "max_change",
}


class Batch(NamedTuple):
    """Rows as the network sees them.

    Parameters
    ----------
    X : ndarray, shape (n, d), float32
        Standardised if the plan says so.
    y : ndarray, shape (n,), intp, numbers of classes; or (n, k), targets
    sample_weight : ndarray, shape (n,)
        Class weights included.
    weight : float
        Sum of the rows' own weights, whatever ``sample_weight`` was divided by.
    label_index : ndarray, shape (n,), optional
        ``losses.places(y)`` of classes.
    """

    X: Float32Array
    y: TargetArray
    sample_weight: FloatArray
    weight: float
    label_index: IntArray | None = None


def rng_for(seed: int, *where: int) -> np.random.Generator:
    """The random numbers that belong to a place in a fit, and to nothing else.

    ``where`` is (stint, partition) in training, (stint, partition, 1) for dropout. Process, attempt
    and clock play no part, so a task that is run again draws the same numbers.
    """
    # numpy splits large numbers into words of 32 bits and pads with 0: two words for the seed, one
    # for each place, or different places would share a stream.
    words = [seed & 0xFFFFFFFF, (seed >> 32) & 0xFFFFFFFF, *where]
    return np.random.default_rng(np.asarray(words, dtype=np.uint32))


def row_bytes(rows: Rows) -> int:
    """What a row of a window takes: its features, its number, its targets and weight.

    The last two are there twice, as they are stored and as they are drawn; and a class has a place.
    """
    return 4 * rows.n_features + 8 * (1 + 2 * (rows.n_targets + 1) + 1)


def split_range(start: int, stop: int, n_bytes: int, batch_size: int) -> list[tuple[int, int]]:
    """Cut rows ``start`` to ``stop``, of ``n_bytes`` each, into ranges that fit ``WINDOW_BYTES``.

    They are of equal size, to a row, and no smaller than a batch.
    """
    n = stop - start
    if n <= 0:
        return []
    at_most = max(WINDOW_BYTES // n_bytes, batch_size, 1)
    edges = np.linspace(start, stop, -(-n // at_most) + 1).astype(np.int64).tolist()
    return list(pairwise(edges))


def iter_chunks(rows: Rows, most: int) -> Iterator[tuple[Float32Array, FloatArray, FloatArray]]:
    """All rows as they are stored, in order, at most ``most`` at a time.

    Yields
    ------
    X : ndarray, shape (n, d), float32
        Overwritten by the next piece.
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
    """The rows a round draws: the next ``fraction`` of the shard, going round at its end.

    Ingest has shuffled the rows, so consecutive rows are a random draw; taking them in turn uses
    every row equally often, which drawing with replacement does not.
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


def _sampled_windows(rows: Rows, config: TrainConfig, round_: int) -> list[tuple[int, int]]:
    drawn = sampled_ranges(rows.n_rows, config.mini_batch_fraction, round_)
    return [w for a, b in drawn for w in split_range(a, b, row_bytes(rows), config.batch_size)]


def count_batches(rows: Rows, config: TrainConfig, round_: int) -> int:
    """How many mini-batches ``mini_batches`` brings in this round."""
    ranges = _sampled_windows(rows, config, round_)
    per_epoch = sum(-(-(stop - start) // config.batch_size) for start, stop in ranges)
    return per_epoch * config.local_epochs


def mean_weight(rows: Rows, config: TrainConfig, round_: int) -> float:
    """Mean of the weights of the rows that a round draws, class weights included."""
    total, n_rows = 0.0, 0
    for start, stop in _sampled_windows(rows, config, round_):
        chunk = rows.read(start, stop)
        total += float(_weigh(chunk.y, chunk.sample_weight, config).sum(dtype=np.float64))
        n_rows += stop - start
    return total / n_rows if n_rows else 0.0


def largest_batch(n_rows: int, config: TrainConfig) -> int:
    """Rows of a round's mini-batches, at most, on a worker that has ``n_rows``."""
    return min(config.batch_size, _n_sampled(n_rows, config.mini_batch_fraction))


def allocate_buffers(rows: Rows, config: TrainConfig, most: int) -> Float32Array:
    """Room for the ``X`` of ``most`` mini-batches, or of fewer where they are large.

    Returns
    -------
    ndarray, shape (at least 1, rows of the largest mini-batch, d), float32
    """
    size = largest_batch(rows.n_rows, config)
    n_bytes = 4 * max(rows.n_features, 1) * max(size, 1)
    together = max(1, min(most, _TOGETHER_BYTES // n_bytes))
    return np.empty((together, size, rows.n_features), dtype=np.float32)


def mini_batches(
    rows: Rows,
    config: TrainConfig,
    round_: int,
    rng: np.random.Generator,
    slots: Iterator[Float32Array],
    weight_scale: float | None = None,
) -> Iterator[Batch]:
    """Mini-batches of one round: ``local_epochs`` passes over the drawn rows.

    Batches of a window have equal sizes (to a row) of at most ``batch_size``: a short last batch
    would be a noisy step. Each is written to the next of the ``slots``, which are reused in turn
    (see ``allocate_buffers``). Weights are divided by ``weight_scale``, if given, as float32.
    """
    ranges = _sampled_windows(rows, config, round_)
    for _ in range(config.local_epochs):
        order = rng.permutation(len(ranges)) if config.shuffle else np.arange(len(ranges))
        for start, stop in (ranges[i] for i in order):
            n = stop - start
            index = rng.permutation(n) if config.shuffle else np.arange(n)
            n_batches = -(-n // config.batch_size)
            yield from gather_batches(
                rows.read(start, stop), index, n_batches, slots, config, weight_scale
            )


def gather_batches(
    chunk: Slice,
    index: IntArray,
    n_batches: int,
    slots: Iterator[Float32Array],
    config: TrainConfig,
    weight_scale: float | None = None,
) -> Iterator[Batch]:
    """The rows ``index`` of a slice as the network sees them: standardised and class-weighted.

    They come in batches of equal sizes (to a row), each in the next slot, and in the slice's order:
    ``index`` is sorted batch by batch, in place. Weights as in ``mini_batches``.
    """
    size, n_longer = divmod(len(index), n_batches)
    numbers = np.arange(n_batches + 1)
    edges = numbers * size + np.minimum(numbers, n_longer)
    for start, stop in _cut(edges):
        # From one end of memory to the other, rows are picked in four fifths of the time.
        index[start:stop].sort()
    # What there is besides X for all batches at once, and little else for each: matrix products
    # empty the caches, and a call or a line of Python after them takes several times what it
    # does otherwise.
    sample_weight = _weigh(chunk.y, chunk.sample_weight, config)[index]
    weights = np.add.reduceat(sample_weight, edges[:-1], dtype=np.float64)
    if weight_scale is not None:
        sample_weight = (sample_weight / weight_scale).astype(np.float32)
    y, label_index = _targets(chunk.y[index], edges, config)
    standardizer = config.standardizer
    # The slots last: those before them end, and then none is passed over.
    for (start, stop), weight, slot in zip(_cut(edges), weights.data, slots, strict=False):
        X = slot[: stop - start]
        chunk.take(index[start:stop], X)
        if standardizer is not None:
            standardizer.apply(X)
        mine = None if label_index is None else label_index[start:stop]
        yield Batch(X, y[start:stop], sample_weight[start:stop], weight, mine)


def _cut(edges: IntArray) -> Iterator[tuple[int, int]]:
    """Where batches start and stop, as numbers of Python: a list would outweigh narrow rows."""
    return pairwise(edges.data)


def _targets(
    y: FloatArray, edges: IntArray, config: TrainConfig
) -> tuple[TargetArray, IntArray | None]:
    """``y`` as losses take it and, of classes, their places in each batch; may overwrite ``y``."""
    targets = config.target_standardizer
    if targets is not None:
        # In float64 first: targets may be large, and differ by little.
        y = y.astype(np.float64, copy=False)
        y -= targets.shift
        y *= targets.factor
        return y.astype(np.float32), None
    if y.ndim > 1:
        return y, None
    classes = y.astype(np.intp)
    label_index = np.empty(len(y), dtype=np.intp)
    for start, stop in _cut(edges):
        label_index[start:stop] = flat_label_index(classes[start:stop])
    return classes, label_index


def group_by_batches(requests: Sequence[RoundRequest]) -> list[list[int]]:
    """Put the numbers of jobs together whose rows come in the same mini-batches in a round."""
    groups: dict[tuple[Hashable, ...], list[int]] = {}
    for number, request in enumerate(requests):
        config = request.config
        key = [
            _content(getattr(config, each.name))
            for each in fields(config)
            if each.name not in _BATCH_INDEPENDENT_FIELDS
        ]
        groups.setdefault((request.train, request.units_ahead, request.n_units, *key), []).append(
            number
        )
    return list(groups.values())


def _content(value: Any) -> Hashable:
    """What two values have in common that are the same."""
    if isinstance(value, Standardizer):
        return value.shift.tobytes(), value.factor.tobytes()
    return value.tobytes() if isinstance(value, np.ndarray) else value


def _weigh(y: FloatArray, sample_weight: FloatArray, config: TrainConfig) -> FloatArray:
    if config.class_weight is None:
        return sample_weight
    return np.asarray(sample_weight * config.class_weight[y.astype(np.intp)])
