"""Shape buckets: few, large enough, and no larger than need be."""

import itertools
import math

import numpy as np
import pytest

from kgmgt_jax.data.buckets import choose_buckets

SHAPES = [(10, 204, 256), (10, 162, 256), (1, 204, 256), (10, 200, 256), (10, 162, 256)]


def test_with_enough_buckets_every_shape_is_its_own():
    assert choose_buckets(SHAPES, 4) == SHAPES


@pytest.mark.parametrize("n_buckets", [1, 2, 3])
def test_every_slice_fits_into_one_of_few_buckets(n_buckets):
    buckets = choose_buckets(SHAPES, n_buckets)
    assert len(set(buckets)) == n_buckets
    for bucket, shape in zip(buckets, SHAPES, strict=True):
        assert all(b >= s for b, s in zip(bucket, shape, strict=True))


def test_the_cheapest_shapes_share_a_bucket():
    assert choose_buckets(SHAPES, 3)[0] == choose_buckets(SHAPES, 3)[3] == (10, 204, 256)


def test_a_shape_of_many_slices_is_padded_last():
    few, many = [(1, 10, 20)] * 2, [(1, 20, 10)] * 9 + [(1, 20, 12)]
    assert choose_buckets(few + many, 2) == few + [(1, 20, 12)] * 10


def test_a_shape_counts_as_often_as_there_are_slices():
    """30 samples more for one slice are fewer than 20 more for each of ten."""
    shapes = [(1, 10, 10)] * 10 + [(1, 10, 12), (1, 10, 15)]
    assert choose_buckets(shapes, 2) == shapes[:10] + [(1, 10, 15)] * 2


def test_the_first_two_to_share_a_bucket_are_the_cheapest_of_all_pairs():
    rng = np.random.default_rng(0)
    for _ in range(20):
        shapes = [tuple(map(int, sizes)) for sizes in rng.integers(1, 9, (6, 3))]
        pairs = itertools.combinations(sorted(set(shapes)), 2)
        unions = [(pair, tuple(map(max, *pair))) for pair in pairs]
        totals = [
            sum(math.prod(union if shape in pair else shape) for shape in shapes)
            for pair, union in unions
        ]
        buckets = choose_buckets(shapes, len(set(shapes)) - 1)
        assert sum(map(math.prod, buckets)) == min(totals)


def test_no_bucket_at_all_is_refused():
    with pytest.raises(ValueError, match="n_buckets=0"):
        choose_buckets(SHAPES, 0)


def test_rows_stay_as_they_are_where_none_may_be_added():
    shapes = [(1, 16, 12), (3, 16, 20), (1, 15, 12), (1, 15, 8)]
    assert choose_buckets(shapes, 1, same_rows=True) == [(3, 16, 20)] * 2 + [(1, 15, 12)] * 2
    assert choose_buckets(shapes, 4, same_rows=True) == shapes
