"""How much local work lies between two averages: fixed, or as much as a round's cost asks for.

A *stint* is the local work of a round of fixed period: ``local_epochs`` passes over
``mini_batch_fraction`` of the rows. A fit has ``max_iter`` stints; a longer round takes several.
"""

from __future__ import annotations

import math

# Local work should take at least this many times what a round costs besides it.
_WORTH = 2.0
# However dear rounds are, a fit has about this many: averaging still has to happen.
_LEAST_ROUNDS = 5


def next_stints(
    last: int, training_s: float, cost_s: float | None, factor: float, n_done: int, n_stints: int
) -> int:
    """Stints of the next round.

    Parameters
    ----------
    last : int
        Stints of the last round.
    training_s, cost_s : float
        What its local work took, and what the round cost besides; None if that is not known.
    factor : float
        What the schedule now makes of the step size, in [0, 1].
    n_done, n_stints : int
        Stints so far and in the whole fit.

    Notes
    -----
    As many as are worth the round, but no more than twice the last: a single round may have been
    disturbed. And as the step size falls, workers drift apart more slowly: the quadratic rule,
    H = (alpha / step size)^2 (Gu et al., arXiv:2310.14423, eq. 3), with alpha such that H is one
    stint at the full step size.
    """
    paying = last
    if cost_s is not None:
        enough = _WORTH * cost_s * last
        if enough > 2 * last * training_s:
            paying = 2 * last
        elif training_s:
            paying = math.ceil(enough / training_s)
    quadratic = math.floor(min(1 / max(factor, 1e-3) ** 2, n_stints)) if n_done else 1
    most = min(max(1, n_stints // _LEAST_ROUNDS), n_stints - n_done)
    return max(1, min(max(paying, quadratic), most))
