"""Windows of a map: their masks and displacements against the reference network's, their tokens."""

import jax.numpy as jnp
import numpy as np
import pytest

from kgmgt_jax.models.windows import (
    merge_windows,
    pad_to_windows,
    padding_logits,
    partition_windows,
    relative_position_index,
    shift_mask,
)
from tests.models.fixtures import Fixture


@pytest.mark.parametrize("size", [(16, 16), (24, 16)])
def test_masks_of_shifted_windows_equal_reference(fixtures_dir, size):
    expected = Fixture(fixtures_dir, "b_window_attention")[f"out/{size[0]}x{size[1]}_shift4/mask"]
    np.testing.assert_array_equal(np.where(shift_mask(*size, 8, 4), -100.0, 0.0), expected)


@pytest.mark.parametrize(
    ("query", "key", "name"), [((4, 4), (8, 8), "index_a2w"), ((8, 8), (4, 4), "index_w2a")]
)
def test_indices_of_displacements_equal_reference(fixtures_dir, query, key, name):
    expected = Fixture(fixtures_dir, "c_mixed_attention")[f"out/{name}"]
    np.testing.assert_array_equal(relative_position_index(query, key), expected)


def test_a_token_of_a_window_is_a_pixel():
    x = jnp.arange(2 * 4 * 6 * 4.0).reshape(2, 4, 6, 4)
    tokens = partition_windows(x, (2, 3), heads=2)
    assert tokens.shape == (2, 4, 2, 6, 2)
    # the second window of the second row of windows, its second row and third column, second head
    np.testing.assert_array_equal(tokens[1, 3, 1, 5], x[1, 3, 5, 2:])
    np.testing.assert_array_equal(merge_windows(tokens, (2, 3), 4), x)


@pytest.mark.parametrize(("h", "w"), [(4, 6), (3, 6), (4, 5), (1, 1)])
def test_logits_hide_what_padding_appends(h, w):
    padded = pad_to_windows(jnp.ones((1, h, w, 1)), (2, 3))
    inside = np.asarray(partition_windows(padded, (2, 3), heads=1))[0, :, 0, :, 0]
    assert inside.sum() == h * w
    logits = padding_logits(h, w, (2, 3))
    if logits is None:
        assert inside.all()
    else:
        np.testing.assert_array_equal(logits[:, 0], np.where(inside, 0, -1e4))
