"""Split rows into blocks in which a row's products do not depend on the other rows.

BLAS kernels round differently for different numbers of rows, and some for different positions among
them. So rows are always multiplied ``block_rows`` at a time, the last block padded with zeros.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from itertools import pairwise

import numpy as np

from sparknn.core.types import Float32Array, FloatArray

# Rows multiplied at a time. Measured (784-300-10, one thread): 1.15 times the time of one large
# product, and 1.6 times in blocks of 8 rows.
BLOCK_ROWS = 128
_BLOCKS = (BLOCK_ROWS, 16, 8, 4, 1)
# A BLAS repeats its tiles well before this width, so wider layers need no test of their own.
_MAX_WIDTH = 2048


def split_rows(X: FloatArray, n_block: int) -> Iterator[tuple[int, int, Float32Array]]:
    """Split X into float32 arrays, shape (blocks, n_block, d); pad the last block with zeros."""
    n, d = X.shape
    for start in range(0, n, BLOCK_ROWS):
        stop = min(start + BLOCK_ROWS, n)
        rows = np.ascontiguousarray(X[start:stop], dtype=np.float32)
        missing = -len(rows) % n_block
        if missing:
            rows = np.concatenate([rows, np.zeros((missing, d), dtype=np.float32)])
        yield start, stop, rows.reshape(-1, n_block, d)


@lru_cache(maxsize=64)
def block_rows(layers: tuple[int, ...]) -> int:
    """Return the largest block in which a row's result does not depend on its position.

    This depends on the processor: OpenBLAS's kernels for AVX-512 sum the products of every row in
    the same order; those for AVX2 (Haswell, Zen) treat the first six rows of twelve differently
    from the next six, but eight rows equally. So it is measured, once per network.
    """
    shapes = {(min(n_in, _MAX_WIDTH), min(n_out, _MAX_WIDTH)) for n_in, n_out in pairwise(layers)}
    return next(n for n in _BLOCKS if n == 1 or all(_is_position_free(n, *s) for s in shapes))


def _is_position_free(n_rows: int, n_in: int, n_out: int) -> bool:
    """Return whether ``n_rows`` equal rows have equal products, to the last bit."""
    rng = np.random.default_rng(0)
    W = rng.random((n_in, n_out), dtype=np.float32) - 0.5
    # A different order changes only some sums: about a third of the sums of three.
    for _ in range(2 + 64 // n_out):
        row = rng.random(n_in, dtype=np.float32) - 0.5
        Z = np.tile(row, (n_rows, 1)) @ W
        if not np.array_equal(Z, np.broadcast_to(Z[0], Z.shape)):
            return False
    return True
