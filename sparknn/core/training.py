"""One worker, one round: score the network that arrived, train it on local rows, report."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import cycle, islice, repeat

import numpy as np

from sparknn.core.averaging import Report, Score, Total
from sparknn.core.batches import (
    count_batches,
    fetch,
    largest_batch,
    mean_weight,
    mini_batches,
    random_stream,
    room_for,
    row_bytes,
    same_batches,
    windows,
)
from sparknn.core.learner import Learner, LocalResult, MiniBatch, working_bytes
from sparknn.core.neighbours import neighbours
from sparknn.core.plan import Job
from sparknn.core.rows import Rows
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


def train_locally(job: Job, rows: Rows, round_: int, partition: int) -> LocalResult:
    """Train ``job`` on one worker's rows for one round; a pure function of its arguments.

    Parameters
    ----------
    job : Job
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
    (result,) = _train_together([job], rows, round_, partition)
    return result


def _train_together(
    jobs: Sequence[Job], rows: Rows, round_: int, partition: int
) -> list[LocalResult]:
    """``train_locally`` of jobs that have the same mini-batches, which are picked once for all."""
    started = time.perf_counter()
    room = room_for(rows, jobs[0].plan, _TOGETHER if len(jobs) > 1 else 1)
    scratch = np.empty(max(job.plan.network.n_params for job in jobs), dtype=np.float32)
    learners = [Learner(job, room.shape[1], partition, scratch) for job in jobs]
    batches = _placed(jobs[0], rows, round_, partition, cycle(room))
    for turn in [batches] if len(jobs) == 1 else _turns(batches, len(room)):
        for learner in learners:
            turned = time.perf_counter()
            learner.learn(turn)
            learner.result.seconds += time.perf_counter() - turned
    results = [learner.finish() for learner in learners]
    own = math.fsum(result.seconds for result in results)
    shared = time.perf_counter() - started - own
    for result in results:
        result.seconds += shared / len(results)
    return results


def _turns(batches: Iterator[MiniBatch], together: int) -> Iterator[Iterable[MiniBatch]]:
    """A network comes back to caches that the others have filled: it should stay for a while."""
    while turn := list(islice(batches, together)):
        yield turn


def _placed(
    job: Job, rows: Rows, round_: int, partition: int, slots: Iterator[Float32Array]
) -> Iterator[MiniBatch]:
    """The mini-batches of a round, and where in the fit they are; each in the next slot."""
    plan = job.plan
    stints = range(round_ + job.ahead, round_ + job.ahead + job.n_stints)
    n_planned = [count_batches(rows, plan, stint) for stint in stints]
    n_all = sum(n_planned)
    edge = max(1, round(_EDGE * n_all))
    before = 0
    for stint, n_batches in zip(stints, n_planned, strict=True):
        rng = random_stream(plan.seed, stint, partition)
        # Weights count against the mean weight: against the batch's own, a rare row of weight
        # 100 would count as much as a batch of rows of weight 1. And float32 has limits. A mean of
        # 0 divides nothing: no row weighs anything, so no batch is learned from.
        typical = mean_weight(rows, plan, stint) or 1.0
        drawn = mini_batches(rows, plan, stint, rng, slots, typical)
        for number, batch in enumerate(drawn):
            time_ = stint + (number + 0.5) / n_batches
            first, last = before + number < edge, before + number >= n_all - edge
            yield MiniBatch(batch, typical, stint, time_, first, last)
        before += n_batches


def score(job: Job, rows: Rows) -> Score:
    """Sums over a worker's validation rows: loss, right answers or squared error, and weight."""
    (scored,) = _score_together([job], rows)
    return scored


def _score_together(jobs: Sequence[Job], rows: Rows) -> list[Score]:
    """``score`` of jobs that have the same mini-batches, and so see the same rows."""
    plan = jobs[0].plan
    sums = np.zeros((len(jobs), 2))
    weight_sum = 0.0
    most = min(_SCORE_ROWS, rows.n_rows, max(1, _SCORE_BYTES // (4 * max(rows.n_features, 1))))
    out = np.empty((most, rows.n_features), dtype=np.float32)
    for start, stop in windows(0, rows.n_rows, row_bytes(rows), most):
        n = stop - start
        pieces = fetch(rows.read(start, stop), np.arange(n), -(-n // most), repeat(out), plan)
        for X, y, sample_weight, weight, _ in pieces:
            for job, mine in zip(jobs, sums, strict=True):
                mine += _loss_and_hits(job, X, y, sample_weight)
            weight_sum += weight
    return [
        Score(float(loss_sum), float(hit_sum), weight_sum, rows.n_rows)
        for loss_sum, hit_sum in sums
    ]


def _loss_and_hits(
    job: Job, X: Float32Array, y: TargetArray, weight: FloatArray
) -> tuple[float, float]:
    network = job.plan.network
    logits = network.logits(job.state[0], X)
    losses, hits = network.objective.values(logits, y), network.objective.hits(logits, y)
    return (
        float(np.dot(losses.astype(np.float64), weight)),
        float(np.dot(hits.astype(np.float64), weight)),
    )


def work(
    jobs: Sequence[Job],
    rows: Rows,
    validation: Rows,
    round_: int,
    partition: int,
    unit: float,
) -> list[Total]:
    """What a worker does in a round: for every job, score what arrived, then train it.

    The averaged network of round r is scored by the tasks of round r + 1, at no extra job.
    ``unit`` is ``weight_unit`` of all workers' training rows.
    """
    totals: list[Total] = [Total(None, ())] * len(jobs)
    # A diverging worker is a fact to report, not a warning for its log.
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        for numbers in _groups(jobs, rows.n_rows):
            alike = [jobs[number] for number in numbers]
            scores = (
                _score_together(alike, validation) if validation.n_rows else [None] * len(alike)
            )
            if not alike[0].train or rows.n_rows == 0:
                reports = [Report(partition, score=each) for each in scores]
                found = [Total.of(None, report) for report in reports]
            else:
                results = _train_together(alike, rows, round_, partition)
                trained = zip(alike, results, scores, strict=True)
                found = [_total(*each, partition, unit) for each in trained]
            for number, total in zip(numbers, found, strict=True):
                totals[number] = total
    return totals


def _groups(jobs: Sequence[Job], n_rows: int) -> Iterator[list[int]]:
    """Numbers of the jobs that a worker trains together."""
    for numbers in same_batches(jobs):
        sizes = [
            working_bytes(jobs[number], largest_batch(n_rows, jobs[number].plan))
            for number in numbers
        ]
        for part in neighbours(sizes, _WORKING_BYTES):
            yield numbers[part]


def _total(
    job: Job, result: LocalResult, scored: Score | None, partition: int, unit: float
) -> Total:
    move = result.state[0].astype(np.float64) - job.state[0]
    report = Report(
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
        share=result.weight / (job.plan.local_epochs * job.n_stints * unit),
    )
    return Total.of(result.state, report)
