"""Frames of a cine as networks are given them."""

import numpy as np
import pytest

from kgmgt_jax.evaluation.cine import CineInput
from tests.classical.reference import complex_array


@pytest.mark.parametrize("maps", [None, (), (1,), (4,)])
def test_each_frame_has_its_own_measurement_and_maps(maps):
    rng, size = np.random.default_rng(0), (3, 6, 5)
    kspace = np.asarray(complex_array(rng, 4, *size))
    sens = None if maps is None else np.asarray(complex_array(rng, *maps, *size))
    mask = np.float32(rng.random((4, 6, 5)) < 0.5)
    found = CineInput(kspace[:, 0], kspace, mask, sens).measurement(np.array([3, 0]))
    np.testing.assert_array_equal(found.kspace, kspace[[3, 0]])
    np.testing.assert_array_equal(found.mask, mask[[3, 0]])
    if sens is None:
        assert found.sens is None
    else:
        each = np.broadcast_to(sens, (4, *size))
        np.testing.assert_array_equal(found.sens, each[[3, 0]])
