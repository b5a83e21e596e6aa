"""One network on its way through the rounds: what it hands to the workers, and takes from them."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from sparknn.core.averaging import DIVERGED, Total
from sparknn.core.batches import random_stream
from sparknn.core.final import FinalWeights
from sparknn.core.history import RoundRecord, loss_at_start, mean_score, summarise
from sparknn.core.outer import OUTER_STEPS, OuterState
from sparknn.core.period import next_stints
from sparknn.core.plan import Job, Plan
from sparknn.core.runner import RoundRunner
from sparknn.core.schedules import SCHEDULES, WARM_UP
from sparknn.core.snapshot import Snapshot
from sparknn.core.solvers import SOLVERS
from sparknn.core.times import RoundTimes, training_time
from sparknn.core.types import Float32Array, FloatArray

log = logging.getLogger("sparknn")

# Rounds in a row in which no worker's network could be used, before the fit gives up.
_MAX_USELESS = 3
# Where the stream of the initial network is: at a round that no fit reaches.
_INIT_STREAM = 2**32 - 1


class DivergedError(RuntimeError):
    """No worker's network could be used, in several rounds in a row or in all there were."""


@dataclass(frozen=True)
class Averaging:
    """How workers' networks become one.

    Parameters
    ----------
    rule : str
        A key of ``OUTER_STEPS``.
    momentum, rate : float
    final : str
        Which weights a fit ends with: ``last``, ``best``, ``ema``, ``combine``.
    patience : int
        Rounds without a better validation loss after which the fit stops; 0: never.
    tol : float
        By how much a validation loss must fall to be better.
    """

    rule: str = "mean"
    momentum: float = 0.0
    rate: float = 1.0
    final: str = "last"
    patience: int = 0
    tol: float = 0.0


@dataclass
class Fit:
    """One network on its way through the rounds.

    Parameters
    ----------
    plan : Plan
    averaging : Averaging
    n_workers : int
    theta : ndarray, shape (P,), float32, optional
        Where to start; by default ``plan.network.init`` with the plan's seed.
    on_round : callable, optional
        Called with the fit and a round's record as soon as its score is known: at the end of the
        round, or, with validation rows, when the next round's tasks have scored its network.
    adapt_period : bool
        Whether rounds are as long as their cost asks for (see ``period``). They then depend on
        times, and results with them.
    after_round : callable, optional
        Called with the fit at the end of every round that another one follows.
    """

    plan: Plan
    averaging: Averaging
    n_workers: int
    theta: Float32Array | None = None
    on_round: Callable[[Fit, RoundRecord], None] | None = None
    history: list[RoundRecord] = field(default_factory=list)
    ended: bool = False
    adapt_period: bool = False
    after_round: Callable[[Fit], None] | None = None
    _n_done: int = field(default=0, init=False)
    _n_stints: int = field(default=1, init=False)
    _outer: OuterState = field(init=False)
    _final: FinalWeights = field(init=False)
    _buffers: FloatArray = field(init=False)
    _n_steps: float = field(default=0.0, init=False)
    _step_factor: float = field(default=1.0, init=False)
    _n_useless: int = field(default=0, init=False)
    _since_best: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        if self.theta is None:
            theta = self.plan.network.init(random_stream(self.plan.seed, _INIT_STREAM))
        else:
            theta = self.theta
        self._outer = OuterState.start(theta.astype(np.float32))
        self._final = FinalWeights(self.averaging.final)
        self._buffers = self._empty_buffers()

    def _empty_buffers(self) -> Float32Array:
        averaged = self.plan.local_state == "average"
        n_buffers = SOLVERS[self.plan.solver].n_buffers if averaged else 0
        return np.zeros((n_buffers, self.plan.network.n_params), dtype=np.float32)

    @property
    def current(self) -> Float32Array:
        """The network after the last round, shape (P,)."""
        return self._outer.theta

    def job(self, *, train: bool = True) -> Job:
        """What the workers get next."""
        state = np.vstack([self._outer.broadcast[None], self._buffers]).astype(np.float32)
        ahead = self._n_done - len(self.history)
        return Job(self.plan, state, self._n_steps, self._step_factor, train, self._n_stints, ahead)

    def snapshot(self) -> Snapshot:
        """The state that ``restore`` takes."""
        numbers, arrays = self._final.state()
        return Snapshot(
            list(self.history),
            {
                "n_done": self._n_done,
                "n_stints": self._n_stints,
                "n_steps": self._n_steps,
                "step_factor": self._step_factor,
                "n_useless": self._n_useless,
                "since_best": self._since_best,
                **numbers,
            },
            {
                "theta": self._outer.theta,
                "broadcast": self._outer.broadcast,
                "running": self._outer.running,
                "buffers": self._buffers,
                **arrays,
            },
        )

    def restore(self, saved: Snapshot) -> None:
        """Go on from where a fit with this one's plan, averaging and start was."""
        numbers, arrays = saved.numbers, saved.arrays
        self.history = list(saved.history)
        self._n_done, self._n_stints = int(numbers["n_done"]), int(numbers["n_stints"])
        self._n_steps, self._step_factor = numbers["n_steps"], numbers["step_factor"]
        self._n_useless, self._since_best = int(numbers["n_useless"]), int(numbers["since_best"])
        self._outer = OuterState(arrays["theta"], arrays["broadcast"], arrays["running"])
        self._buffers = arrays["buffers"]
        self._final = FinalWeights.restored(self.averaging.final, numbers, arrays)

    def absorb(self, engine: RoundRunner, total: Total, round_: int, times: RoundTimes) -> None:
        """Take a round's sums in: score the last network, then move to the next one."""
        if engine.has_validation:
            self.absorb_score(total)
            if self.ended:
                return
        if self.history:
            after = loss_at_start(total)
            self.history[-1] = replace(self.history[-1], loss_after=after)
        before, step_factor = self._outer, self._step_factor
        if total.values is not None:
            self._n_useless = 0
            average = total.mean()
            rule = OUTER_STEPS[self.averaging.rule]
            self._outer = rule(
                before, average[0], self.averaging.momentum, self.averaging.rate, self.n_workers
            )
            self._buffers = average[1:].astype(np.float32)
            self._n_steps += _mean_steps(total)
            self._final.add(self._outer.theta)
        elif any(report.left_out != "no rows" for report in total.reports):
            self._n_useless += 1
            self._survive(total, round_)
        record = summarise(total, round_, before, self._outer, step_factor)
        self.history.append(
            replace(
                record,
                seconds=times.seconds,
                broadcast_s=times.broadcast_s,
                job_s=times.job_s,
            )
        )
        if record.workers_left_out:
            _warn_left_out(total, record)
        self._n_done += self._n_stints
        if self.adapt_period:
            self._adapt(training_time([total], engine.n_slots), times.cost_s)
        if not engine.has_validation:
            self._announce()

    @property
    def all_done(self) -> bool:
        """Whether every stint has been trained."""
        return self._n_done >= self.plan.max_iter

    def _adapt(self, training_s: float, cost_s: float | None) -> None:
        factor = SCHEDULES[self.plan.schedule](min(1.0, self._n_done / self.plan.max_iter))
        # While the step size still rises, the rule for its fall says nothing.
        factor = 1.0 if self._n_done < WARM_UP * self.plan.max_iter else factor
        self._n_stints = next_stints(
            self._n_stints, training_s, cost_s, factor, self._n_done, self.plan.max_iter
        )

    def absorb_score(self, total: Total) -> None:
        """Complete the last round's record with the validation score of its network."""
        if not self.history:
            return
        score = mean_score(total)
        if score is not None:
            loss, metric = score
            self.history[-1] = replace(
                self.history[-1], validation_loss=loss, validation_metric=metric
            )
            better = self._final.scored(self._outer.broadcast, loss, self.averaging.tol)
            self._since_best = 0 if better else self._since_best + 1
            if self.averaging.patience and self._since_best >= self.averaging.patience:
                self.ended = True
        self._announce()

    def _announce(self) -> None:
        if self.on_round is not None:
            self.on_round(self, self.history[-1])

    def _survive(self, total: Total, round_: int) -> None:
        diverged = any(report.left_out in DIVERGED for report in total.reports)
        rounds = f"{self._n_useless} rounds in a row (up to round {round_ + 1})"
        last = self._n_done + self._n_stints >= self.plan.max_iter
        nothing_learned = self._n_useless > len(self.history)
        if self._n_useless >= _MAX_USELESS or (last and nothing_learned):
            if not diverged:
                raise DivergedError(f"In {rounds} no worker's result arrived: all were lost.")
            raise DivergedError(
                f"Training diverged: in {rounds} no worker ended with finite weights, although "
                f"the step size was halved each time. It started at "
                f"stepSize={self.plan.step_size}. Set a smaller stepSize, or scale the features "
                f"(standardization=True)."
            )
        if not diverged:
            return
        self._step_factor /= 2
        self._buffers = self._empty_buffers()
        self._n_steps = 0.0
        self._outer = OuterState.start(self._outer.theta)
        log.warning(
            "Round %d: all %d workers diverged; kept the network, halved the step size to %g.",
            round_ + 1,
            len(total.reports),
            self.plan.step_size * self._step_factor,
        )

    def finish(self, engine: RoundRunner) -> None:
        """Score what is left to score, and settle on the final weights."""
        if not self.ended and engine.has_validation and self.history:
            # No round follows: score the network, not where bmuf would have sent the workers.
            self._outer = replace(self._outer, broadcast=self._outer.theta)
            (total,) = engine.run_round([self.job(train=False)], len(self.history)).totals
            self.absorb_score(total)
        self.theta = self._final.choose(self._outer.theta, lambda t: self._score_all(engine, t))
        self.ended = True

    def _score_all(self, engine: RoundRunner, thetas: list[Float32Array]) -> list[float]:
        jobs = [Job(self.plan, theta[None], train=False) for theta in thetas]
        result = engine.run_round(jobs, len(self.history))
        scores = [mean_score(total) for total in result.totals]
        return [np.inf if score is None else score[0] for score in scores]


def _mean_steps(total: Total) -> float:
    used = [report for report in total.reports if report.share]
    # Counted from the least, so that workers which agree, or one alone, give a whole number.
    least = min(report.n_steps for report in used)
    shares = math.fsum(report.share for report in used)
    return least + math.fsum(report.share * (report.n_steps - least) for report in used) / shares


def _warn_left_out(total: Total, record: RoundRecord) -> None:
    reasons: dict[str, int] = {}
    for report in total.reports:
        if report.left_out and report.left_out != "no rows":
            reasons[report.left_out] = reasons.get(report.left_out, 0) + 1
    log.warning(
        "Round %d: %d of %d workers left out (%s).",
        record.round + 1,
        record.workers_left_out,
        len(total.reports),
        ", ".join(f"{reason}: {count}" for reason, count in sorted(reasons.items())),
    )
