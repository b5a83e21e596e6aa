"""One network between rounds: what it sends to the workers, and how their results move it."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparknn.core.config import AveragingConfig, RoundRequest, TrainConfig
from sparknn.core.data.batches import rng_for
from sparknn.core.nn.solvers import SOLVERS
from sparknn.core.training.aggregation import DIVERGED, WorkerSum
from sparknn.core.training.averaging import AVERAGING_RULES, AveragingState, average_blocks
from sparknn.core.training.final_weights import FinalWeights
from sparknn.core.training.history import RoundRecord, loss_at_start, make_record
from sparknn.core.training.round_length import RoundTimes, next_round_length, training_time
from sparknn.core.training.runner import RoundRunner
from sparknn.core.training.validation import mean_validation
from sparknn.core.types import Float32Array, FloatArray

log = logging.getLogger("sparknn")

# Consecutive rounds without a usable network after which the fit gives up.
_MAX_FAILED_ROUNDS = 3
# What a snapshot keeps of a fit, and of its ``FinalWeights``, besides arrays.
_NUMBERS = ("n_done", "n_units", "n_steps", "step_factor", "n_failed_rounds", "since_best")
_FINAL_NUMBERS = ("best_loss", "best_error", "last_loss", "reference")
# Random stream of the initial network: a round number that no fit reaches.
_INIT_STREAM = 2**32 - 1


class DivergedError(RuntimeError):
    """No worker returned a usable network, in several consecutive rounds or in all of them."""


class UndefinedMetricError(ValueError):
    """The validation rows do not define the metric that the fit goes by."""


@dataclass(frozen=True)
class Snapshot:
    """The state of a fit after some rounds; ``FitState.restore`` continues from it.

    A network whose validation score arrives with the next round is still unscored.

    Parameters
    ----------
    history : list of RoundRecord
    numbers : dict of str to float
        Counts are int.
    arrays : dict of str to ndarray
        float32 or float64; do not write to them.
    """

    history: list[RoundRecord]
    numbers: dict[str, float]
    arrays: dict[str, NDArray[Any]]


@dataclass
class FitState:
    """One network on its way through the rounds.

    Parameters
    ----------
    config : TrainConfig
    averaging : AveragingConfig
    n_workers : int
    theta : ndarray, shape (P,), float32, optional
        Where to start; by default ``config.initial_theta`` with its seed. When the
        fit has ended, the final parameters.
    on_round_end : callable, optional
        Called with the fit and a round's record as soon as its score is known: at the end of the
        round, or, with validation rows, when the next round's tasks have scored its network. If it
        returns True, the fit ends with this network; if it raises, with that ``error``.
    adapt_round_length : bool
        Whether rounds take as many units of local work as their cost justifies (see
        ``round_length``). Results then depend on measured times.
    on_checkpoint : callable, optional
        Called with the fit after every round but the last.

    Attributes
    ----------
    history : list of RoundRecord
    ended : bool
    error : Exception, optional
        Why the fit ended without a network: DivergedError, UndefinedMetricError, or what
        ``on_round_end`` raised.
    """

    config: TrainConfig
    averaging: AveragingConfig
    n_workers: int
    theta: Float32Array | None = None
    on_round_end: Callable[[FitState, RoundRecord], bool | None] | None = None
    history: list[RoundRecord] = field(default_factory=list)
    ended: bool = False
    adapt_round_length: bool = False
    on_checkpoint: Callable[[FitState], None] | None = None
    error: Exception | None = field(default=None, init=False)
    _n_done: int = field(default=0, init=False)
    _n_units: int = field(default=1, init=False)
    _averaged: AveragingState = field(init=False)
    _final: FinalWeights = field(init=False)
    _buffers: FloatArray = field(init=False)
    _n_steps: float = field(default=0.0, init=False)
    _step_factor: float = field(default=1.0, init=False)
    _n_failed_rounds: int = field(default=0, init=False)
    _since_best: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        if self.theta is None:
            theta = self.config.initial_theta(rng_for(self.config.seed, _INIT_STREAM))
        else:
            theta = self.theta
        self._averaged = self._start(theta.astype(np.float32))
        self._final = FinalWeights(self.averaging.final)
        self._buffers = self._zero_buffers()

    def _start(self, theta: Float32Array) -> AveragingState:
        return AveragingState.start(theta, sparse=self.config.n_sparse > 0)

    def _zero_buffers(self) -> Float32Array:
        averaged = self.config.local_state == "average"
        n_buffers = SOLVERS[self.config.solver].n_buffers if averaged else 0
        n_params = self.config.input_layer.dense.n_params
        return np.zeros((n_buffers, n_params), dtype=np.float32)

    @property
    def current(self) -> Float32Array:
        """The network after the last round, shape (P,)."""
        return self._averaged.theta

    @property
    def message_bytes(self) -> int:
        """Bytes that a worker sends back in a round: the network and the solver's buffers.

        Of a sparse block, all of it: as if the worker's rows touched every column.
        """
        n_params, layer = self.config.network.n_params, self.config.input_layer
        n_buffers = SOLVERS[self.config.solver].n_buffers
        return 4 * (n_params + layer.dense.n_params * n_buffers)

    def request(self, *, train: bool = True) -> RoundRequest:
        """Return what the workers get for the next round."""
        rows, theta = self._split(self.current)
        state = np.vstack([theta[None], self._buffers]).astype(np.float32, copy=False)
        units_ahead = self._n_done - len(self.history)
        return RoundRequest(
            self.config,
            state,
            self._n_steps,
            self._step_factor,
            train,
            self._n_units,
            units_ahead,
            rows,
            self.penalty_factor,
            self.averaging.metric,
        )

    @property
    def penalty_factor(self) -> float:
        """The last round's training loss, relative to ``null_loss``, from 0 to 1.

        The loss that remains estimates the noise of the labels. The penalty that Bayes' rule gives
        for weights of known variance is the noise's variance by that of the weights, by the rows:
        so clean labels are hardly penalised, and noisy ones are not learned by heart.
        """
        null_loss = self.config.null_loss
        if not null_loss or not self.history:
            return 1.0
        loss = self.history[-1].loss
        return min(1.0, loss / null_loss) if math.isfinite(loss) else 1.0

    def _split(self, theta: Float32Array) -> tuple[Float32Array | None, Float32Array]:
        """The weights of the sparse block, if there is one, and the other parameters."""
        if not self.config.n_sparse:
            return None, theta
        return self.config.input_layer.split(theta)

    @property
    def n_done(self) -> int:
        """Units of local work trained so far, of ``config.max_iter``."""
        return self._n_done

    @property
    def all_done(self) -> bool:
        """Whether every unit of local work has been trained."""
        return self._n_done >= self.config.max_iter

    def end_round(
        self, engine: RoundRunner, total: WorkerSum, round_: int, times: RoundTimes
    ) -> None:
        """Score the last network with a round's sums, then average them into the next network.

        If too many rounds failed, the fit ends and ``error`` says why.
        """
        if engine.has_validation:
            self._record_validation(total)
            if self.ended:
                return
        if self.history:
            self.history[-1] = replace(self.history[-1], loss_after=loss_at_start(total))
        before, step_factor = self._averaged, self._step_factor
        mean = None
        if total.values is not None:
            mean = total.mean()
            self._average(mean, total)
        elif any(report.left_out != "no rows" for report in total.reports):
            self._handle_failed_round(total, round_)
            if self.error is not None:
                return
        record = replace(
            make_record(
                total, round_, before, self._averaged, step_factor, mean, self.config.input_layer
            ),
            seconds=times.seconds,
            broadcast_s=times.broadcast_s,
            job_s=times.job_s,
        )
        self.history.append(record)
        if record.workers_left_out:
            _warn_left_out(total, record)
        self._n_done += self._n_units
        if self.adapt_round_length:
            training_s = training_time([total], engine.n_slots)
            self._n_units = next_round_length(
                self._n_units, training_s, times.cost_s, self._n_done, self.config.max_iter
            )
        if not engine.has_validation:
            self._notify()

    def _average(self, mean: FloatArray, total: WorkerSum) -> None:
        self._n_failed_rounds = 0
        rule = AVERAGING_RULES[self.averaging.rule]
        state, momentum = self._averaged, self.averaging.momentum
        if total.rows is None:
            self._averaged = rule(state, mean[0], momentum)
        else:
            layer = self.config.input_layer
            self._averaged = average_blocks(
                rule, layer, state, mean[0], total.rows, momentum, self.n_workers
            )
        self._buffers = mean[1:].astype(np.float32)
        self._n_steps += _mean_steps(total)

    def _record_validation(self, total: WorkerSum) -> None:
        """Complete the last round's record with the validation score of its network."""
        if not self.history:
            return
        scores = [report.score for report in total.ordered() if report.score is not None]
        score = mean_validation(scores, self.averaging.metric)
        if score is not None:
            self.history[-1] = replace(
                self.history[-1], validation_loss=score.loss, validation_metric=score.metric
            )
            if math.isnan(score.objective) and math.isfinite(score.loss):
                self.error, self.ended = self._undefined_metric(), True
                return
            better = self._final.record_loss(
                self.current, score.objective, self.averaging.tol, score.error
            )
            self._since_best = 0 if better else self._since_best + 1
            if self.averaging.patience and self._since_best >= self.averaging.patience:
                self.ended = True
        self._notify()

    def _undefined_metric(self) -> UndefinedMetricError:
        return UndefinedMetricError(
            f"The validation rows do not define {self.averaging.metric}: they have one class only, "
            "or labels that do not vary. Use more validation rows, or another validationMetric."
        )

    def _notify(self) -> None:
        if self.on_round_end is None:
            return
        try:
            stop = self.on_round_end(self, self.history[-1])
        except Exception as error:
            # Fits that share the rounds continue.
            self.error, stop = error, True
        self.ended = self.ended or bool(stop)

    def _handle_failed_round(self, total: WorkerSum, round_: int) -> None:
        """Start again from the same network with half the step size, or give up."""
        self._n_failed_rounds += 1
        diverged = any(report.left_out in DIVERGED for report in total.reports)
        last = self._n_done + self._n_units >= self.config.max_iter
        nothing_learned = self._n_failed_rounds > len(self.history)
        if self._n_failed_rounds >= _MAX_FAILED_ROUNDS or (last and nothing_learned):
            self.error, self.ended = self._divergence(round_, diverged), True
            return
        if not diverged:
            return
        self._step_factor /= 2
        self._buffers = self._zero_buffers()
        self._n_steps = 0.0
        self._averaged = self._start(self._averaged.theta)
        log.warning(
            "Round %d: all %d workers diverged; kept the network, halved the step size to %g.",
            round_ + 1,
            len(total.reports),
            self.config.step_size * self._step_factor,
        )

    def _divergence(self, round_: int, diverged: bool) -> DivergedError:
        n = self._n_failed_rounds
        rounds = f"{n} consecutive rounds" if n > 1 else "the only round"
        rounds = f"{rounds} (up to round {round_ + 1})"
        if not diverged:
            return DivergedError(f"In {rounds} no worker's result arrived: all were lost.")
        halved = ", although the step size was halved each time" if n > 1 else ""
        return DivergedError(
            f"Training diverged: in {rounds} no worker ended with finite weights{halved}. It "
            f"started at stepSize={self.config.step_size}. Set a smaller stepSize, or scale the "
            f"features (standardization=True)."
        )

    def finalize(self, engine: RoundRunner) -> None:
        """Score the last network if there are validation rows, and select the final weights."""
        if self.error is not None:
            return
        if not self.ended and engine.has_validation and self.history:
            (total,) = engine.run_round([self.request(train=False)], len(self.history)).totals
            self._record_validation(total)
        self.theta = self._final.select(self.current)
        self.ended = True

    def snapshot(self) -> Snapshot:
        """Return the state that ``restore`` takes."""
        final, averaged = self._final, self._averaged
        arrays = {"theta": averaged.theta, "running": averaged.running, "buffers": self._buffers}
        if final.best is not None:
            arrays["best"] = final.best
        numbers = {name: getattr(self, f"_{name}") for name in _NUMBERS}
        numbers |= {name: getattr(final, name) for name in _FINAL_NUMBERS}
        return Snapshot(list(self.history), numbers, arrays)

    def restore(self, saved: Snapshot) -> None:
        """Continue from a snapshot of a fit with the same config, averaging and start."""
        numbers, arrays = saved.numbers, saved.arrays
        self.history = list(saved.history)
        for name in _NUMBERS:
            setattr(self, f"_{name}", numbers[name])
        self._averaged = AveragingState(arrays["theta"], arrays["running"])
        self._buffers = arrays["buffers"]
        losses = {name: numbers[name] for name in _FINAL_NUMBERS}
        self._final = FinalWeights(self.averaging.final, best=arrays.get("best"), **losses)


def _mean_steps(total: WorkerSum) -> float:
    used = [report for report in total.reports if report.share]
    # Relative to the least, so that equal counts, or a single worker, give an exact integer.
    least = min(report.n_steps for report in used)
    shares = math.fsum(report.share for report in used)
    return least + math.fsum(report.share * (report.n_steps - least) for report in used) / shares


def _warn_left_out(total: WorkerSum, record: RoundRecord) -> None:
    reasons: dict[str, int] = {}
    for report in total.reports:
        if report.left_out and report.left_out != "no rows":
            reasons[report.left_out] = reasons.get(report.left_out, 0) + 1
    log.warning(
        "Round %d: excluded %d of %d workers (%s).",
        record.round + 1,
        record.workers_left_out,
        len(total.reports),
        ", ".join(f"{reason}: {count}" for reason, count in sorted(reasons.items())),
    )
