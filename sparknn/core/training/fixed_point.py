"""The format of exact sums: 64-bit fixed-point integers, whose addition is associative."""

from __future__ import annotations

# A worker's values are multiplied by its share (at most 1, summing to at most 1) and by
# 2 ** FRACTION_BITS, and rounded. With values below 2 ** VALUE_BITS the sum over any number of
# workers stays below 2 ** 62; a value of 2 ** VALUE_BITS or more counts as divergence.
VALUE_BITS = 14
FRACTION_BITS = 48
