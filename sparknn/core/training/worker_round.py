"""One worker, one round: score the network that arrived, train it on local rows, report."""

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
)
from sparknn.core.data.chunks import split_by_size
from sparknn.core.data.rows import Rows
from sparknn.core.training.aggregation import ValidationSums, WorkerReport, WorkerSum
from sparknn.core.training.local_trainer import (
    LocalResult,
    LocalTrainer,
    ScheduledBatch,
    working_bytes,
)
from sparknn.core.types import Float32Array, FloatArray, TargetArray

# Mini-batches that a network learns from before the next one's turn, if there are several.
_TOGETHER = 8
# What networks that learn together may hold besides their state, unless one alone needs more.
_WORKING_BYTES = 64 << 20
# Rows scored at a time; fewer where they are so wide that they take more than these bytes.
_SCORE_ROWS = 2048
_SCORE_BYTES = 64 << 20
# Share of a round's mini-batches that tells the loss at its start and at its end.
_EDGE = 0.1


def train_locally(request: RoundRequest, rows: Rows, round_: int, partition: int) -> LocalResult:
    """Train ``request`` on one worker's rows for one round; a pure function of its arguments.

    Parameters
    ----------
    request : RoundRequest
        Its state is read only.
    rows : Rows
    round_, partition : int
        With the plan's seed they decide every random choice.

    Returns
    -------
    LocalResult
        Without a step if there is no row of positive weight.

    Notes
    -----
    The inner loop of training by model averaging: Su and Chen, arXiv:1507.01239, section 2.
    """
    (result,) = _train_group([request], rows, round_, partition)
    return result


def _train_group(
    requests: Sequence[RoundRequest], rows: Rows, round_: int, partition: int
) -> list[LocalResult]:
    """``train_locally`` of jobs that have the same mini-batches, which are picked once for all."""
    started = time.perf_counter()
    room = allocate_buffers(rows, requests[0].config, _TOGETHER if len(requests) > 1 else 1)
    scratch = np.empty(
        max(request.config.network.n_params for request in requests), dtype=np.float32
    )
    trainers = [LocalTrainer(request, room.shape[1], partition, scratch) for request in requests]
    batches = _placed(requests[0], rows, round_, partition, cycle(room))
    for turn in [batches] if len(requests) == 1 else _turns(batches, len(room)):
        for trainer in trainers:
            turned = time.perf_counter()
            trainer.learn(turn)
            trainer.result.seconds += time.perf_counter() - turned
    results = [trainer.finish() for trainer in trainers]
    label_index = math.fsum(result.seconds for result in results)
    shared = time.perf_counter() - started - label_index
    for result in results:
        result.seconds += shared / len(results)
    return results


def _turns(batches: Iterator[ScheduledBatch], together: int) -> Iterator[Iterable[ScheduledBatch]]:
    """A network comes back to caches that the others have filled: it should stay for a while."""
    while turn := list(islice(batches, together)):
        yield turn


def _placed(
    request: RoundRequest, rows: Rows, round_: int, partition: int, slots: Iterator[Float32Array]
) -> Iterator[ScheduledBatch]:
    """The mini-batches of a round, and where in the fit they are; each in the next slot."""
    config = request.config
    units = range(round_ + request.units_ahead, round_ + request.units_ahead + request.n_units)
    n_planned = [count_batches(rows, config, unit) for unit in units]
    n_all = sum(n_planned)
    edge = max(1, round(_EDGE * n_all))
    before = 0
    for unit, n_batches in zip(units, n_planned, strict=True):
        rng = rng_for(config.seed, unit, partition)
        # Weights count against the mean weight: against the batch's own, a rare row of weight
        # 100 would count as much as a batch of rows of weight 1. And float32 has limits. A mean of
        # 0 divides nothing: no row weighs anything, so no batch is learned from.
        typical = mean_weight(rows, config, unit) or 1.0
        drawn = mini_batches(rows, config, unit, rng, slots, typical)
        for number, batch in enumerate(drawn):
            time_ = unit + (number + 0.5) / n_batches
            first, last = before + number < edge, before + number >= n_all - edge
            yield ScheduledBatch(batch, typical, unit, time_, first, last)
        before += n_batches


def score(request: RoundRequest, rows: Rows) -> ValidationSums:
    """Sums over a worker's validation rows: loss, right answers or squared error, and weight."""
    (scored,) = _score_group([request], rows)
    return scored


def _score_group(requests: Sequence[RoundRequest], rows: Rows) -> list[ValidationSums]:
    """``score`` of jobs that have the same mini-batches, and so see the same rows."""
    config = requests[0].config
    sums = np.zeros((len(requests), 2))
    weight_sum = 0.0
    most = min(_SCORE_ROWS, rows.n_rows, max(1, _SCORE_BYTES // (4 * max(rows.n_features, 1))))
    out = np.empty((most, rows.n_features), dtype=np.float32)
    for start, stop in split_range(0, rows.n_rows, row_bytes(rows), most):
        n = stop - start
        iter_chunks = gather_batches(
            rows.read(start, stop), np.arange(n), -(-n // most), repeat(out), config
        )
        for X, y, sample_weight, weight, _ in iter_chunks:
            for request, mine in zip(requests, sums, strict=True):
                mine += _loss_and_hits(request, X, y, sample_weight)
            weight_sum += weight
    return [
        ValidationSums(float(loss_sum), float(metric_sum), weight_sum, rows.n_rows)
        for loss_sum, metric_sum in sums
    ]


def _loss_and_hits(
    request: RoundRequest, X: Float32Array, y: TargetArray, weight: FloatArray
) -> tuple[float, float]:
    network = request.config.network
    logits = network.logits(request.state[0], X)
    losses, metrics = network.loss_fn.values(logits, y), network.loss_fn.metrics(logits, y)
    return (
        float(np.dot(losses.astype(np.float64), weight)),
        float(np.dot(metrics.astype(np.float64), weight)),
    )


def run_worker(
    requests: Sequence[RoundRequest],
    rows: Rows,
    validation: Rows,
    round_: int,
    partition: int,
    weight_scale: float,
) -> list[WorkerSum]:
    """What a worker does in a round: for every job, score what arrived, then train it.

    The averaged network of round r is scored by the tasks of round r + 1, at no extra job.
    ``weight_scale`` is ``weight_scale_for`` of all workers' training rows.
    """
    totals: list[WorkerSum] = [WorkerSum(None, ())] * len(requests)
    # A diverging worker is a fact to report, not a warning for its log.
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        for numbers in _groups(requests, rows.n_rows):
            alike = [requests[number] for number in numbers]
            scores = _score_group(alike, validation) if validation.n_rows else [None] * len(alike)
            if not alike[0].train or rows.n_rows == 0:
                reports = [WorkerReport(partition, score=each) for each in scores]
                found = [WorkerSum.from_worker(None, report) for report in reports]
            else:
                results = _train_group(alike, rows, round_, partition)
                trained = zip(alike, results, scores, strict=True)
                found = [_total(*each, partition, weight_scale) for each in trained]
            for number, total in zip(numbers, found, strict=True):
                totals[number] = total
    return totals


def _groups(requests: Sequence[RoundRequest], n_rows: int) -> Iterator[list[int]]:
    """Numbers of the jobs that a worker trains together."""
    for numbers in group_by_batches(requests):
        sizes = [
            working_bytes(requests[number], largest_batch(n_rows, requests[number].config))
            for number in numbers
        ]
        for part in split_by_size(sizes, _WORKING_BYTES):
            yield numbers[part]


def _total(
    request: RoundRequest,
    result: LocalResult,
    scored: ValidationSums | None,
    partition: int,
    weight_scale: float,
) -> WorkerSum:
    move = result.state[0].astype(np.float64) - request.state[0]
    report = WorkerReport(
        partition,
        weight=result.weight,
        n_rows=result.n_rows,
        n_steps=result.n_steps,
        n_skipped=result.n_skipped,
        loss_sum=result.loss_sum,
        first=result.first,
        last=result.last,
        squared_move=float(np.dot(move, move)),
        seconds=result.seconds,
        score=scored,
        left_out="not finite" if result.n_skipped and not result.n_steps else "",
        share=result.weight / (request.config.local_epochs * request.n_units * weight_scale),
    )
    return WorkerSum.from_worker(result.state, report)
