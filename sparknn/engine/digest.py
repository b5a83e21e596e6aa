"""Hash a set of rows, whatever their order and their workers."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sparknn.core.data.batches import iter_chunks
from sparknn.core.data.rows import Rows

# Size of the rows that are hashed at a time.
_CHUNK_BYTES = 8 << 20
# Seed of the multipliers; any number would do.
_SEED = 0x5EED


def digest(rows: Rows, salt: int = 0) -> int:
    """Sum up hashes of each row's features, targets and weight.

        sum_i mix(salt + sum_j m_j bits_ij)  mod 2^64,  m_j odd random numbers

    Parameters
    ----------
    rows : Rows
    salt : int
        Gives rows of one kind other hashes than equal rows of another.

    Notes
    -----
    Multilinear hashing (Carter and Wegman 1979), then ``mix`` of SplitMix64 (Steele, Lea and Flood
    2014), so that the sums of different sets of rows differ, too.
    """
    width = rows.n_features + rows.n_targets + 1
    m = np.random.PCG64(_SEED).random_raw(width) | np.uint64(1)
    total = 0
    for X, y, weight in iter_chunks(rows, max(1, _CHUNK_BYTES // (8 * width))):
        words = np.hstack(
            # -0.0 counts as 0, as sparse rows do not store it.
            [(X + 0.0).view(np.uint32), _bits(y).reshape(len(X), -1), _bits(weight)[:, None]],
        )
        total += int(_mix(words @ m + np.uint64(salt)).sum(dtype=np.uint64))
    return total % (1 << 64)


def _bits(values: NDArray[np.floating]) -> NDArray[np.uint64]:
    return np.ascontiguousarray(values, dtype=np.float64).view(np.uint64)


def _mix(h: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Finish a hash as SplitMix64 does: every bit of the input reaches every bit of the output."""
    h = (h ^ (h >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    h = (h ^ (h >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return h ^ (h >> np.uint64(31))
