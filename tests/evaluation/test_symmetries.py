"""Symmetric copies of a cine are cines, too."""

import jax.numpy as jnp
import numpy as np
import pytest

from kgmgt_jax.evaluation.cine import CineInput
from kgmgt_jax.evaluation.symmetries import SYMMETRIES, Symmetry
from kgmgt_jax.mri.consistency import forward


def _cine(shape, coils):
    rng = np.random.default_rng(0)

    def draw(*size):
        return jnp.asarray(
            rng.standard_normal(size) + 1j * rng.standard_normal(size), jnp.complex64
        )

    images, sens = draw(3, *shape), coils and draw(1, coils, *shape)
    mask = jnp.asarray(rng.integers(0, 2, (3, *shape)), jnp.float32)
    return CineInput(images, forward(images, mask, sens), mask, sens)


@pytest.mark.parametrize("symmetry", SYMMETRIES, ids=str)
@pytest.mark.parametrize("shape", [(8, 6), (7, 10), (9, 5)])
@pytest.mark.parametrize("coils", [None, 2])
def test_the_copy_s_images_have_its_k_space_and_come_back(symmetry, shape, coils):
    cine = _cine(shape, coils)
    other = symmetry.of_cine(cine)
    expected = forward(other.images, other.mask, other.sens)
    np.testing.assert_allclose(other.kspace, expected, atol=1e-5)
    np.testing.assert_array_equal(symmetry.undone(other.images), cine.images)
    assert other.mask.sum() == cine.mask.sum()


def test_the_first_is_the_cine_itself_and_all_differ():
    cine = _cine((8, 6), 2)
    assert SYMMETRIES[0].of_cine(cine) is cine
    copies = [symmetry.of_cine(cine).images for symmetry in SYMMETRIES]
    for i, one in enumerate(copies):
        assert all(float(jnp.abs(one - other).max()) > 0.1 for other in copies[:i])


def test_mirroring_keeps_the_centre_of_k_space_where_it_is():
    kspace = jnp.zeros((1, 1, 8, 7), jnp.complex64).at[0, 0, 4, 3].set(2.0).at[0, 0, 5, 3].set(1.0)
    cine = CineInput(kspace[:, 0], kspace, jnp.ones((1, 8, 7)))
    other = jnp.abs(Symmetry((-2,)).of_cine(cine).kspace[0, 0])
    np.testing.assert_allclose([other[4, 3], other[3, 3], other.sum()], [2, 1, 3], rtol=1e-6)
