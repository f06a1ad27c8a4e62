"""The convolution's own gradients against XLA's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from kgmgt_jax.models import convolution as module
from kgmgt_jax.models.convolution import convolution

LAYOUT = ("NHWC", "HWIO", "NHWC")


def _arrays(kernel=(3, 3)):
    keys = jax.random.split(jax.random.key(0), 2)
    return jax.random.normal(keys[0], (2, 6, 7, 3)), jax.random.normal(keys[1], (*kernel, 3, 5))


@pytest.mark.parametrize("block", [1024, 20])
@pytest.mark.parametrize(
    ("kernel", "strides", "padding"),
    [((3, 3), (1, 1), 1), ((5, 5), (1, 1), 2), ((3, 3), (2, 2), 1), ((1, 1), (1, 1), 0)],
)
def test_value_and_gradients_are_those_of_xla(kernel, strides, padding, block, monkeypatch):
    monkeypatch.setattr(module, "_BLOCK_PIXELS", block)
    pad = ((padding, padding),) * 2

    def total(function):
        def loss(x, k):
            return jnp.sum(jnp.sin(function(x, k, strides, pad, dimension_numbers=LAYOUT)))

        return jax.value_and_grad(loss, (0, 1))(*_arrays(kernel))

    got, want = total(convolution), total(lax.conv_general_dilated)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-5), got, want)


def test_gradient_of_a_gradient():
    def penalty(function):
        def slope(x, k):
            out = function(x, k, (1, 1), ((1, 1), (1, 1)), dimension_numbers=LAYOUT)
            return jnp.sum(jnp.sin(out))

        return jax.grad(lambda k, x: jnp.sum(jax.grad(slope)(x, k) ** 2))(*_arrays()[::-1])

    np.testing.assert_allclose(
        penalty(convolution), penalty(lax.conv_general_dilated), rtol=2e-4, atol=2e-4
    )
