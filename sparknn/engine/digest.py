"""Hash a set of rows, whatever their order and their workers."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sparknn.core.data.batches import row_bytes, split_range
from sparknn.core.data.rows import Rows
from sparknn.core.entries import Entries

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
    d = rows.n_features
    m = np.random.PCG64(_SEED).random_raw(d + rows.n_targets + 1) | np.uint64(1)
    total = 0
    n_bytes = row_bytes(rows, sparse=True)
    step = max(1, _CHUNK_BYTES // n_bytes)
    for start, stop in split_range(0, rows.n_rows, n_bytes, 1):
        chunk = rows.read(start, stop)
        for first in range(0, stop - start, step):
            index = np.arange(first, min(first + step, stop - start))
            others = np.column_stack([_bits(chunk.y[index]), _bits(chunk.sample_weight[index])])
            words = _hash_entries(chunk.entries(index), m) + others @ m[d:]
            total += int(_mix(words + np.uint64(salt)).sum(dtype=np.uint64))
    return total % (1 << 64)


def _hash_entries(entries: Entries, m: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return the features' part of each row's sum. The bits of 0 are 0, so entries suffice."""
    bits = np.ascontiguousarray(entries.values, dtype=np.float32).view(np.uint32)
    # Differences of running sums are right modulo 2^64.
    sums = np.concatenate([[np.uint64(0)], np.cumsum(bits * m[entries.columns], dtype=np.uint64)])
    ends = np.cumsum(entries.counts)
    return sums[ends] - sums[ends - entries.counts]


def _bits(values: NDArray[np.floating]) -> NDArray[np.uint64]:
    return np.ascontiguousarray(values, dtype=np.float64).view(np.uint64)


def _mix(h: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Finish a hash as SplitMix64 does: every bit of the input reaches every bit of the output."""
    h = (h ^ (h >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    h = (h ^ (h >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return h ^ (h >> np.uint64(31))
