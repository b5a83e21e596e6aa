"""Choose integers that Spark's hash partitioner sends to given partitions.

``DataFrame.repartition(n, column)`` puts a row into partition ``pmod(hash(column), n)``, where
``hash`` is Murmur3 (x86, 32 bits, seed 42). Choosing the integers sends every block to its worker,
on every version of Spark (``repartitionById`` exists from Spark 4.1 on).
"""

from __future__ import annotations

_MASK = 0xFFFFFFFF


def _rotate(value: int, bits: int) -> int:
    return ((value << bits) | (value >> (32 - bits))) & _MASK


def hash_int(value: int, seed: int = 42) -> int:
    """Compute Spark's ``hash`` of an int column: signed 32 bits (Appleby's MurmurHash3_x86_32)."""
    k = (value * 0xCC9E2D51) & _MASK
    k = (_rotate(k, 15) * 0x1B873593) & _MASK
    h = _rotate(seed ^ k, 13)
    h = (h * 5 + 0xE6546B64) & _MASK
    h ^= 4
    h = ((h ^ (h >> 16)) * 0x85EBCA6B) & _MASK
    h = ((h ^ (h >> 13)) * 0xC2B2AE35) & _MASK
    h ^= h >> 16
    return h - (1 << 32) if h & 0x80000000 else h


def partition_keys(n_partitions: int) -> tuple[int, ...]:
    """Return for each partition the smallest natural number that is sent to it."""
    keys: dict[int, int] = {}
    candidate = 0
    while len(keys) < n_partitions:
        keys.setdefault(hash_int(candidate) % n_partitions, candidate)
        candidate += 1
    return tuple(keys[partition] for partition in range(n_partitions))
