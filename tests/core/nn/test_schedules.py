"""Step sizes over a fit."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparknn.core.nn.schedules import SCHEDULES, WARM_UP

FALLING = ["linear", "cosine"]


@pytest.mark.parametrize("name", sorted(SCHEDULES))
@given(progress=st.floats(0, 1))
def test_a_factor_between_0_and_1(name: str, progress: float) -> None:
    assert 0 <= SCHEDULES[name](progress) <= 1


@given(progress=st.floats(0, 1))
def test_constant_is_1(progress: float) -> None:
    assert SCHEDULES["constant"](progress) == 1


@pytest.mark.parametrize("name", FALLING)
def test_rises_from_0_to_1_and_falls_to_0(name: str) -> None:
    schedule = SCHEDULES[name]
    assert schedule(0) == 0
    assert schedule(WARM_UP / 2) == pytest.approx(0.5)
    assert schedule(WARM_UP) == 1
    assert schedule((1 + WARM_UP) / 2) == pytest.approx(0.5)
    assert schedule(1) == pytest.approx(0, abs=1e-15)


@pytest.mark.parametrize(("name", "expected"), [("linear", 0.75), ("cosine", 0.8535533905932737)])
def test_a_quarter_of_the_way_down(name: str, expected: float) -> None:
    assert SCHEDULES[name](WARM_UP + 0.25 * (1 - WARM_UP)) == pytest.approx(expected)


@pytest.mark.parametrize("name", FALLING)
@given(a=st.floats(0, 1), b=st.floats(0, 1))
def test_never_falls_before_the_top_or_rises_after(name: str, a: float, b: float) -> None:
    low, high = sorted((a, b))
    if high < WARM_UP:
        assert SCHEDULES[name](low) <= SCHEDULES[name](high)
    elif low >= WARM_UP:
        assert SCHEDULES[name](low) >= SCHEDULES[name](high)
