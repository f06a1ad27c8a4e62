"""Some of many slices."""

import pytest

from kgmgt_jax.data.slices import spread


@pytest.mark.parametrize(
    ("n_items", "n", "expected"),
    [(8, 4, [0, 2, 5, 7]), (5, 1, [0]), (3, 5, [0, 1, 2]), (4, 4, [0, 1, 2, 3])],
)
def test_chosen_slices_lie_evenly_from_the_first_to_the_last(n_items, n, expected):
    assert spread(n_items, n) == expected
