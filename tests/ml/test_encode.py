"""How encodings are chosen from a sample of rows: knots, categories, scales."""

import numpy as np
import pytest
from toys import Array

from sparknn.core.nn.encoding import Encoder, Encoding
from sparknn.ml.encode import (
    choose_encoding,
    encoded_standardizer,
    encodes_numbers,
    knots,
    number_of_pieces,
)


def f32(*values: float) -> Array:
    return np.array(values, dtype=np.float32)


def choose(
    X: Array,
    categories: dict[int, int] | None = None,
    pieces: int = 16,
    *,
    keeps_missing: bool = False,
) -> Encoding:
    return choose_encoding(
        np.asarray(X, dtype=np.float32),
        categories or {},
        pieces=pieces,
        keeps_missing=keeps_missing,
    )


def encode(encoding: Encoding, X: Array, standardizer: object = None) -> Array:
    """The dense inputs, standardised if there is a standardizer."""
    n = encoding.n_embedded
    parts = [] if standardizer is None else [standardizer.shift[n:], standardizer.factor[n:]]  # type: ignore[attr-defined]
    out = np.empty((len(X), encoding.n_dense), dtype=np.float32)
    return Encoder(encoding, *parts).encode(np.asarray(X, dtype=np.float32), out)


def test_knots_of_distinct_values_are_order_statistics() -> None:
    for n in (50, 1000, 1001):
        values = np.random.default_rng(0).permutation(n).astype(np.float32)
        for pieces in (4, 16):
            found = knots(values, pieces)
            assert found.dtype == np.float32
            assert len(found) == pieces + 1
            # The least value that a share i / pieces of all does not exceed.
            expected = [0, *(int(np.ceil(i * n / pieces)) - 1 for i in range(1, pieces + 1))]
            assert found.tolist() == expected


def test_knots_do_not_depend_on_the_order_of_rows() -> None:
    rng = np.random.default_rng(1)
    values = np.round(rng.exponential(size=3000), 2).astype(np.float32)
    values[rng.random(3000) < 0.4] = 0
    found = knots(values, 16)
    assert knots(rng.permutation(values), 16).tobytes() == found.tobytes()
    assert np.isin(found, values).all()
    assert (np.diff(found) > 0).all()
    assert (found[0], found[-1]) == (values.min(), values.max())


@pytest.mark.parametrize("n_distinct", [1, 2, 3, 16, 17])
def test_few_distinct_values_are_all_knots(n_distinct: int) -> None:
    values = np.arange(n_distinct, dtype=np.float32).repeat(5)
    assert knots(values, 16).tolist() == list(range(n_distinct))


def test_no_values_have_no_knots() -> None:
    assert len(knots(f32(), 16)) == 0


def test_a_heavy_value_and_its_neighbours_are_knots_and_leave_pieces_for_the_others() -> None:
    light = np.arange(1, 1001, dtype=np.float32)
    for n_zeros in (200, 9000):
        found = knots(np.concatenate([np.zeros(n_zeros, np.float32), light]), 16)
        assert found[:2].tolist() == [0, 1]
        # Without zeros, 1000 values would have 16 pieces of 63.
        assert np.diff(found[1:]).max() <= 1000 / 14
        assert 15 <= len(found) <= 18


def test_a_heavy_value_in_the_middle_has_two_neighbours() -> None:
    values = np.concatenate([np.arange(1000), np.full(500, 500)]).astype(np.float32)
    assert {499, 500, 501} <= set(knots(values, 8).tolist())


def test_values_that_are_heavy_among_the_rest() -> None:
    """0 holds nearly all; 1 is a tenth of what is left, and too light for a share of all."""
    values = np.concatenate([np.zeros(100_000), np.ones(100), 2 + np.arange(900)])
    found = knots(values.astype(np.float32), 16)
    assert found[:3].tolist() == [0, 1, 2]


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
@pytest.mark.parametrize("pieces", [1, 2, 16, 32])
def test_pieces_hold_equally_many_light_values(pieces: int, share: float) -> None:
    rng = np.random.default_rng(3)
    values = rng.normal(size=4000).astype(np.float32)
    values[rng.random(4000) < share] = 0.5
    found = knots(values, pieces)
    # A heavy value adds its neighbours.
    assert 2 <= len(found) <= pieces + 1 + 2 * (share > 0)
    inside = values[(values != 0.5)]
    counts, _ = np.histogram(inside, found)
    assert counts.max() <= 2 + np.ceil(len(inside) / max(1, pieces - (share > 0)))


def test_which_numbers_are_encoded() -> None:
    assert encodes_numbers(256, 300)
    assert not encodes_numbers(257, 300)
    assert not encodes_numbers(256, 299)
    assert [number_of_pieces(n, 8) for n in (1, 4096, 8000, 10**6)] == [16, 16, 20, 32]
    assert [number_of_pieces(10**6, d) for d in (64, 100, 256)] == [32, 20, 8]


def test_a_number_is_its_pieces_and_itself() -> None:
    x = np.random.default_rng(0).normal(3, 2, size=500).astype(np.float32)
    encoding = choose(x[:, None])
    assert encoding.n_dense == 17
    assert encoding.low.tolist() == [0] * 16 + [-3]
    assert encoding.high.tolist() == [1] * 16 + [3]
    edges = knots(x, 16)
    np.testing.assert_array_equal(encoding.start[:16], edges[:-1])
    np.testing.assert_allclose(encoding.slope[:16], 1 / np.diff(edges), rtol=1e-5)
    q1, median, q3 = np.quantile(x, [0.25, 0.5, 0.75])
    assert encoding.start[16] == pytest.approx(median)
    assert encoding.slope[16] == pytest.approx(1.349 / (q3 - q1), rel=1e-5)
    inputs = encode(encoding, np.sort(x)[:, None])
    assert inputs[0, :16].tolist() == [0] * 16
    np.testing.assert_allclose(inputs[-1, :16], 1, rtol=1e-6)
    assert (np.diff(inputs, axis=0) >= 0).all()


def test_constant_numbers_and_numbers_of_two_values_are_plain() -> None:
    X = np.column_stack([np.full(400, 7.0), np.arange(400) % 2 * 5.0, np.arange(400)])
    encoding = choose(X)
    assert encoding.feature.tolist() == [0, 1] + [2] * 17
    assert np.isinf(encoding.low[:2]).all()
    assert encode(encoding, X)[:, :2].tolist() == X[:, :2].tolist()
    standardizer = encoded_standardizer(encoding, X.astype(np.float32))
    assert standardizer.factor[0] == 0
    assert standardizer.factor[1] > 0
    assert not encode(encoding, X, standardizer)[:, 0].any()
    kept = encoded_standardizer(encoding, X.astype(np.float32), keep_constant=True)
    assert (kept.factor > 0).all()


def test_only_constant_numbers() -> None:
    X = np.full((400, 2), 3.0, dtype=np.float32)
    encoding = choose(X)
    assert not encoding.changes
    assert encoded_standardizer(encoding, X).factor.tolist() == [0, 0]


def test_without_pieces_numbers_are_plain() -> None:
    X = np.random.default_rng(0).normal(size=(400, 3))
    assert not choose(X, pieces=0).changes
    encoding = choose(np.column_stack([X, np.arange(400) % 4]), {3: 4}, pieces=0)
    assert not encoding.has_pieces
    assert encoding.feature.tolist() == [0, 1, 2]
    assert encoding.onehot.tolist() == [[3, 4]]


def test_missing_numbers() -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(401, 4))
    X[rng.random(401) < 0.3, 0] = np.nan
    X[:, 1] = np.nan
    X[5, 3] = np.nan
    encoding = choose(X, {3: 9}, keeps_missing=True)
    assert encoding.missing.tolist() == [0, 1]
    assert encoding.fill is not None
    present = np.sort(X[:, 0][~np.isnan(X[:, 0])])
    assert encoding.fill[0] == np.float32(present[(len(present) - 1) // 2])
    assert encoding.fill[1] == 0
    assert encoding.fill[2] == np.float32(np.median(X[:, 2]))
    # Knots are those of the values that are there.
    at = encoding.feature == 0
    np.testing.assert_array_equal(encoding.start[at][:16], knots(present.astype("f4"), 16)[:-1])
    assert (encoding.feature == 1).sum() == 1
    inputs = encode(encoding, X)
    assert np.isfinite(inputs).all()
    standardizer = encoded_standardizer(encoding, X.astype(np.float32))
    assert np.isfinite(standardizer.shift).all()
    assert np.isfinite(standardizer.factor).all()
    # What is always missing is two constants.
    all_missing = [int(np.flatnonzero(encoding.feature == 1)[0]), len(encoding.feature) + 1]
    assert standardizer.factor[all_missing].tolist() == [0, 0]


def test_missing_numbers_that_are_not_kept() -> None:
    encoding = choose(np.random.default_rng(0).normal(size=(400, 2)))
    assert encoding.fill is None
    assert encoding.missing.tolist() == []


def test_without_a_missing_number_there_is_no_indicator() -> None:
    encoding = choose(np.random.default_rng(0).normal(size=(400, 2)), keeps_missing=True)
    assert encoding.fill is not None
    assert encoding.missing.tolist() == []


def test_categories_of_few_values_are_one_hot_and_of_many_embedded() -> None:
    X = np.random.default_rng(0).integers(60, size=(500, 5))
    encoding = choose(X, {4: 64, 1: 65, 0: 3000, 3: 1})
    assert encoding.onehot.tolist() == [[3, 1], [4, 64]]
    assert encoding.embedded.tolist() == [[0, 3000], [1, 65]]
    assert set(encoding.feature) == {2}
    assert encoding.n_embedded == 3065
    assert choose(X, {1: 65, 0: 3000, 4: 64, 3: 1}).to_json() == encoding.to_json()


def test_only_categories() -> None:
    X = np.random.default_rng(0).integers(5, size=(500, 2)).astype(np.float32)
    for categories in ({0: 5, 1: 5}, {0: 100, 1: 200}):
        encoding = choose(X, categories)
        standardizer = encoded_standardizer(encoding, X)
        assert len(standardizer.factor) == encoding.n_dense + encoding.n_embedded
        assert np.isfinite(standardizer.factor).all()


@pytest.mark.parametrize("pieces", [0, 16])
@pytest.mark.parametrize("categories", [{}, {3: 5}, {3: 5, 4: 2}, {3: 5, 4: 100, 5: 200}], ids=str)
def test_rows_have_mean_squared_norm_60_and_are_centred(
    pieces: int, categories: dict[int, int]
) -> None:
    rng = np.random.default_rng(5)
    X = np.column_stack(
        [
            rng.normal(100, 3, 600),
            rng.exponential(size=600),
            rng.random(600) < 0.1,
            rng.integers(5, size=600),
            rng.integers(2, size=600),
            rng.integers(200, size=600),
        ]
    ).astype(np.float32)
    X[rng.random(600) < 0.2, 0] = np.nan
    encoding = choose(X, categories, pieces, keeps_missing=True)
    standardizer = encoded_standardizer(encoding, X)
    n = encoding.n_embedded
    assert not standardizer.shift[:n].any()
    assert len(set(standardizer.factor[:n])) <= 1
    inputs = encode(encoding, X, standardizer).astype(np.float64)
    np.testing.assert_allclose(inputs.mean(axis=0), 0, atol=1e-4)
    squared_norm = np.square(inputs).sum(axis=1).mean()
    # Each embedded category is one entry per row.
    embedded = sum(float(standardizer.factor[0]) ** 2 for _ in encoding.embedded)
    assert squared_norm + embedded == pytest.approx(60, rel=1e-3)


def test_a_category_of_two_values_counts_like_a_number_of_two_values() -> None:
    values = (np.random.default_rng(0).random(500) < 0.2).astype(np.float32)
    for n_values in (2, 3):
        X = np.column_stack([values, values, np.arange(500)])
        encoding = choose(X, {1: n_values})
        inputs = encode(encoding, X, encoded_standardizer(encoding, X))
        of_number, of_category = inputs[:, 0], inputs[:, len(encoding.feature) :]
        assert np.square(of_category).sum() == pytest.approx(np.square(of_number).sum(), rel=1e-4)


def test_values_that_the_sample_lacks_are_dropped_unless_a_fit_continues() -> None:
    X = np.column_stack([np.arange(400), np.arange(400) % 3]).astype(np.float32)
    encoding = choose(X, {1: 5})
    factor = encoded_standardizer(encoding, X).factor
    assert (factor[-5:] > 0).tolist() == [True, True, True, False, False]
    assert (encoded_standardizer(encoding, X, keep_constant=True).factor > 0).all()


def test_large_numbers_with_few_digits() -> None:
    x = (1.6e9 + 1e5 * np.random.default_rng(0).random(1000)).astype(np.float32)
    encoding = choose(x[:, None])
    inputs = encode(encoding, x[:, None], encoded_standardizer(encoding, x[:, None]))
    assert np.isfinite(inputs).all()
    assert inputs.mean() == pytest.approx(0, abs=1e-3)


def test_numbers_too_small_to_scale_are_constant() -> None:
    x = (np.random.default_rng(0).uniform(-1, 1, size=1000) * 1e-38).astype(np.float32)
    encoding = choose(x[:, None])
    assert encoded_standardizer(encoding, x[:, None]).factor.tolist() == [0]


@pytest.mark.parametrize("size", [1e-29, 1e-10, 1e30, 3e38])
def test_extreme_numbers(size: float) -> None:
    x = (np.random.default_rng(0).uniform(-1, 1, size=1000) * size).astype(np.float32)
    encoding = choose(x[:, None])
    inputs = encode(encoding, x[:, None], encoded_standardizer(encoding, x[:, None]))
    assert np.isfinite(inputs).all()
    assert np.square(inputs.astype(float)).sum(axis=1).mean() == pytest.approx(60, rel=0.01)
    Encoding.from_json(encoding.to_json())
