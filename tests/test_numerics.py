"""Values as NumPy's, gradients finite."""

import jax
import jax.numpy as jnp
import numpy as np

from kgmgt_jax.numerics import square_root


def test_square_root_has_gradient_zero_at_zero():
    x = jnp.array([0.0, 1e-30, 0.25, 4.0])
    np.testing.assert_allclose(square_root(x), np.sqrt(x), rtol=1e-6)
    grad = jax.grad(lambda x: jnp.sum(square_root(x)))(x)
    np.testing.assert_allclose(grad, [0.0, 5e14, 1.0, 0.25], rtol=1e-5)


def test_square_root_of_nan_is_nan():
    root, grad = jax.value_and_grad(square_root)(jnp.nan)
    assert np.isnan(root) and np.isnan(grad)
