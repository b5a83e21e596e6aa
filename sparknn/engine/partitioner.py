"""Which integer Spark's hash partitioner sends to which partition.

``DataFrame.repartition(n, column)`` puts a row into partition ``pmod(hash(column), n)``, where
``hash`` is Murmur3 (x86, 32 bits, seed 42). Choosing the integers puts every block where it is
meant to go, on every version of Spark.
"""

from __future__ import annotations

_MASK = 0xFFFFFFFF


def _rotated(value: int, bits: int) -> int:
    return ((value << bits) | (value >> (32 - bits))) & _MASK


def hash_int(value: int, seed: int = 42) -> int:
    """Spark's ``hash`` of an int column: signed 32 bits (Appleby's MurmurHash3_x86_32)."""
    k = (value * 0xCC9E2D51) & _MASK
    k = (_rotated(k, 15) * 0x1B873593) & _MASK
    h = _rotated(seed ^ k, 13)
    h = (h * 5 + 0xE6546B64) & _MASK
    h ^= 4
    h = ((h ^ (h >> 16)) * 0x85EBCA6B) & _MASK
    h = ((h ^ (h >> 13)) * 0xC2B2AE35) & _MASK
    h ^= h >> 16
    return h - (1 << 32) if h & 0x80000000 else h


def partition_keys(n_partitions: int) -> tuple[int, ...]:
    """For each partition the least natural number that lands in it."""
    keys: dict[int, int] = {}
    candidate = 0
    while len(keys) < n_partitions:
        keys.setdefault(hash_int(candidate) % n_partitions, candidate)
        candidate += 1
    return tuple(keys[partition] for partition in range(n_partitions))
