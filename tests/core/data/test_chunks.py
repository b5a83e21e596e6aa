"""Where a sequence is cut."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from sparknn.core.data.chunks import split_by_size


@given(sizes=st.lists(st.integers(0, 20), max_size=12), most=st.integers(1, 30))
def test_parts_are_as_large_as_they_may_be(sizes: list[int], most: int) -> None:
    parts = [sizes[part] for part in split_by_size(sizes, most)]
    assert [size for part in parts for size in part] == sizes
    assert all(part for part in parts)
    assert all(sum(part) <= most or len(part) == 1 for part in parts)
    for mine, following in pairwise(parts):
        assert sum(mine) + following[0] > most
