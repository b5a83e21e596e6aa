"""A digest depends on the values of rows, not on their order."""

import numpy as np
import pytest

from sparknn.core.data.rows import ArrayRows
from sparknn.engine.digest import digest

WHOLE = 1 << 64


def rows(n: int = 50, d: int = 3, k: int | None = None) -> ArrayRows:
    rng = np.random.default_rng(0)
    y = rng.integers(3, size=n) * 1.0 if k is None else rng.normal(size=(n, k))
    return ArrayRows(rng.normal(size=(n, d)).astype(np.float32), y, rng.uniform(1, 2, size=n))


def part(of: ArrayRows, index: object) -> ArrayRows:
    assert of.sample_weight is not None
    return ArrayRows(of.X[index], of.y[index], of.sample_weight[index])


@pytest.mark.parametrize("k", [None, 2])
def test_order_and_division_do_not_matter(k: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    every = rows(k=k)
    found = digest(every)
    assert digest(part(every, np.random.default_rng(1).permutation(50))) == found
    halves = [part(every, slice(20)), part(every, slice(20, None))]
    assert sum(digest(half) for half in halves) % WHOLE == found
    monkeypatch.setattr("sparknn.engine.digest._CHUNK_BYTES", 100)
    assert digest(every) == found


def test_every_number_matters() -> None:
    every = rows()
    assert every.sample_weight is not None
    found = {digest(every), digest(every, salt=1), digest(part(every, slice(49)))}
    for place in [every.X[7], every.y[7:8], every.sample_weight[7:8]]:
        kept = place[0].copy()
        place[0] = np.nextafter(kept, place.dtype.type(9))
        found.add(digest(every))
        place[0] = kept
    # Two rows that change their labels leave all counts and means as they are.
    one, two = np.flatnonzero(every.y == 0)[0], np.flatnonzero(every.y == 1)[0]
    every.y[[one, two]] = 1, 0
    found.add(digest(every))
    assert len(found) == 7


def test_the_sign_of_zero_does_not_matter() -> None:
    """It is lost where a shard keeps its rows as entries."""
    one, two = rows(), rows()
    one.X[3, 1], two.X[3, 1] = 0.0, -0.0
    assert digest(one) == digest(two)


def test_no_rows() -> None:
    assert digest(rows(0)) == 0
