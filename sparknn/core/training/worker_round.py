"""Run one worker's round: score the broadcast network, train it on local rows, report."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import cycle, islice, repeat

import numpy as np

from sparknn.core.config import RoundRequest
from sparknn.core.data.batches import (
    allocate_buffers,
    count_batches,
    gather_batches,
    group_by_batches,
    largest_batch,
    mean_weight,
    mini_batches,
    rng_for,
    row_bytes,
    split_range,
    touched_columns,
)
from sparknn.core.data.chunks import split_by_size
from sparknn.core.data.inputs import Inputs
from sparknn.core.data.rows import Rows
from sparknn.core.nn.input_layer import FixedRows, SparseBatch
from sparknn.core.training.aggregation import WorkerReport, WorkerSum
from sparknn.core.training.local_trainer import (
    LocalResult,
    LocalTrainer,
    ScheduledBatch,
    working_bytes,
)
from sparknn.core.training.row_sums import RowSums
from sparknn.core.training.validation import METRICS, ValidationSums
from sparknn.core.types import Float32Array, Float64Array, FloatArray, TargetArray

# Where networks train interleaved: mini-batches that one takes before the next continues.
_BATCHES_PER_CHUNK = 8
# Memory for networks that train interleaved, besides their state; one alone may need more.
_WORKING_BYTES = 64 << 20
# Rows scored at a time; fewer if they would take more than these bytes.
_SCORE_ROWS = 2048
_SCORE_BYTES = 64 << 20
# Share of a round's mini-batches over which its first and its last loss are averaged.
_EDGE = 0.1


def train_locally(request: RoundRequest, rows: Rows, round_: int, partition: int) -> LocalResult:
    """Train ``request`` on one worker's rows for one round; a pure function of its arguments.

    Parameters
    ----------
    request : RoundRequest
        Its state is read only.
    rows : Rows
    round_, partition : int
        With the seed of the config they determine every random choice.

    Returns
    -------
    LocalResult
        With no step if no row has a positive weight.

    Notes
    -----
    The inner loop of training by model averaging: Su and Chen, arXiv:1507.01239, section 2.
    """
    (result,) = _train_group([request], rows, round_, partition)
    return result


def _train_group(
    requests: Sequence[RoundRequest], rows: Rows, round_: int, partition: int
) -> list[LocalResult]:
    """Train networks that see the same mini-batches, which are gathered once for all of them."""
    started = time.perf_counter()
    n_buffers = _BATCHES_PER_CHUNK if len(requests) > 1 else 1
    buffers = allocate_buffers(rows, requests[0].config, n_buffers)
    # A sparse block has its own gradient, over the rows that a step touches.
    n_params = max(request.config.input_layer.dense.n_params for request in requests)
    scratch = np.empty(n_params, dtype=np.float32)
    config = requests[0].config
    columns = None
    if config.n_sparse:
        columns = touched_columns(rows, config, _units(requests[0], round_))
    inputs = Inputs(config, buffers.shape[1], columns)
    trainers = [
        LocalTrainer(request, buffers.shape[1], partition, scratch, columns) for request in requests
    ]
    batches = _schedule(requests[0], rows, round_, partition, cycle(buffers), inputs)
    for chunk in [batches] if len(requests) == 1 else _chunks(batches, len(buffers)):
        for trainer in trainers:
            resumed = time.perf_counter()
            trainer.train(chunk)
            trainer.result.seconds += time.perf_counter() - resumed
    results = [trainer.finish() for trainer in trainers]
    for result in results:
        result.columns = columns
    # Each network is charged its own steps and an equal part of the shared work.
    own_s = math.fsum(result.seconds for result in results)
    shared_s = time.perf_counter() - started - own_s
    for result in results:
        result.seconds += shared_s / len(results)
    return results


def _chunks(batches: Iterator[ScheduledBatch], size: int) -> Iterator[Iterable[ScheduledBatch]]:
    """Yield ``size`` batches at a time: each switch of networks costs the caches."""
    while chunk := list(islice(batches, size)):
        yield chunk


def _units(request: RoundRequest, round_: int) -> range:
    """Return the units of local work in a round."""
    return range(round_ + request.units_ahead, round_ + request.units_ahead + request.n_units)


def _schedule(
    request: RoundRequest,
    rows: Rows,
    round_: int,
    partition: int,
    buffers: Iterator[Float32Array],
    inputs: Inputs,
) -> Iterator[ScheduledBatch]:
    """Yield a round's mini-batches, each in the next buffer, with their positions in the fit."""
    config = request.config
    units = _units(request, round_)
    n_planned = [count_batches(rows, config, unit) for unit in units]
    n_all = sum(n_planned)
    edge = max(1, round(_EDGE * n_all))
    before = 0
    for unit, n_batches in zip(units, n_planned, strict=True):
        rng = rng_for(config.seed, unit, partition)
        # Divide weights by the mean over the round: with the batch's own mean, a rare row of weight
        # 100 would count as much as a batch of rows of weight 1. Undivided, they could overflow
        # float32. If the mean is 0, no row has a weight and every batch is skipped.
        mean = mean_weight(rows, config, unit) or 1.0
        drawn = mini_batches(rows, config, unit, rng, buffers, inputs, mean)
        for number, batch in enumerate(drawn):
            time_ = unit + (number + 0.5) / n_batches
            first, last = before + number < edge, before + number >= n_all - edge
            yield ScheduledBatch(batch, mean, unit, time_, first, last)
        before += n_batches


def score(request: RoundRequest, rows: Rows) -> ValidationSums:
    """Sum losses, their squares, metrics and weights of validation rows."""
    (scored,) = _score_group([request], rows)
    return scored


def _score_group(requests: Sequence[RoundRequest], rows: Rows) -> list[ValidationSums]:
    """Score networks that see the same mini-batches."""
    config = requests[0].config
    sums = np.zeros((len(requests), 3))
    others: dict[int, Float64Array] = {}
    weight_sum = 0.0
    n_dense = config.n_dense
    most = min(_SCORE_ROWS, rows.n_rows, max(1, _SCORE_BYTES // (4 * max(n_dense, 1))))
    out = np.empty((most, n_dense), dtype=np.float32)
    inputs = Inputs(config, most)
    n_bytes = row_bytes(rows, sparse=config.has_sparse_rows)
    for start, stop in split_range(0, rows.n_rows, n_bytes, most):
        n = stop - start
        batches = gather_batches(
            rows.read(start, stop), np.arange(n), -(-n // most), repeat(out), config, inputs
        )
        for X, y, sample_weight, weight, _, entries in batches:
            for number, request in enumerate(requests):
                logits = _logits(request, X, entries)
                sums[number] += _sums(request, logits, y, sample_weight)
                if request.metric in METRICS:
                    more = METRICS[request.metric].sums(request.config, logits, y, sample_weight)
                    others[number] = others[number] + more if number in others else more
            weight_sum += weight
    return [
        ValidationSums(
            float(loss), float(metric), weight_sum, rows.n_rows, float(square), others.get(n)
        )
        for n, (loss, square, metric) in enumerate(sums)
    ]


def _logits(request: RoundRequest, X: Float32Array, entries: SparseBatch | None) -> FloatArray:
    inputs = None
    if entries is not None and request.rows is not None:
        inputs = FixedRows(entries, request.rows)
    return request.config.input_layer.dense.logits(request.state[0], X, inputs)


def _sums(
    request: RoundRequest, logits: FloatArray, y: TargetArray, weight: FloatArray
) -> tuple[float, float, float]:
    """Return weighted sums of the losses, of their squares, and of the loss's metric."""
    loss_fn = request.config.network.loss_fn
    losses = loss_fn.values(logits, y).astype(np.float64)
    metrics = loss_fn.metrics(logits, y).astype(np.float64)
    return (
        float(np.dot(losses, weight)),
        float(np.dot(np.square(losses), weight)),
        float(np.dot(metrics, weight)),
    )


def run_worker(
    requests: Sequence[RoundRequest],
    rows: Rows,
    validation: Rows,
    round_: int,
    partition: int,
    weight_scale: float,
) -> list[WorkerSum]:
    """Run a worker's round: score each broadcast network, train it and report.

    The averaged network of round r is scored by the tasks of round r + 1, without a Spark job of
    its own. ``weight_scale`` is ``weight_scale_for`` of all workers' training rows.
    """
    sums: list[WorkerSum] = [WorkerSum(None, ())] * len(requests)
    # A diverging worker is reported; numpy need not warn about it.
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        for numbers in _group_by_memory(requests, rows.n_rows):
            group = [requests[number] for number in numbers]
            scores = _score_group(group, validation) if validation.n_rows else [None] * len(group)
            if not group[0].train or rows.n_rows == 0:
                reports = [WorkerReport(partition, score=each) for each in scores]
                found = [WorkerSum.from_worker(None, report) for report in reports]
            else:
                results = _train_group(group, rows, round_, partition)
                trained = zip(group, results, scores, strict=True)
                found = [_worker_sum(*each, partition, weight_scale) for each in trained]
            for number, one in zip(numbers, found, strict=True):
                sums[number] = one
    return sums


def _group_by_memory(requests: Sequence[RoundRequest], n_rows: int) -> Iterator[list[int]]:
    """Yield the indices of requests that see the same mini-batches and fit ``_WORKING_BYTES``."""
    for numbers in group_by_batches(requests):
        sizes = [
            working_bytes(requests[number], largest_batch(n_rows, requests[number].config))
            for number in numbers
        ]
        for part in split_by_size(sizes, _WORKING_BYTES):
            yield numbers[part]


def _worker_sum(
    request: RoundRequest,
    result: LocalResult,
    scored: ValidationSums | None,
    partition: int,
    weight_scale: float,
) -> WorkerSum:
    update = result.state[0].astype(np.float64) - request.state[0]
    square = float(np.dot(update, update))
    share = result.weight / (request.config.local_epochs * request.n_units * weight_scale)
    rows = None
    if result.rows is not None:
        assert request.rows is not None
        assert result.columns is not None
        rows = RowSums.from_worker(result.columns, result.rows, share)
        square += rows.squared_distance(request.rows)
    report = WorkerReport(
        partition,
        weight=result.weight,
        n_rows=result.n_rows,
        n_steps=result.n_steps,
        n_skipped=result.n_skipped,
        loss_sum=result.loss_sum,
        first=result.first,
        last=result.last,
        squared_update_norm=square,
        seconds=result.seconds,
        score=scored,
        left_out="not finite" if result.n_skipped and not result.n_steps else "",
        share=share,
    )
    return WorkerSum.from_worker(result.state, report, rows)
