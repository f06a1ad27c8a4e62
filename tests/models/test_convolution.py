"""The convolution's own gradients against XLA's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from kgmgt_jax.models import convolution as module
from kgmgt_jax.models.convolution import convolution
from kgmgt_jax.models.layers import DepthwiseConv

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


def test_depthwise_convolution_of_any_size_is_xla_s():
    keys = jax.random.split(jax.random.key(0), 3)
    params = {"kernel": jax.random.normal(keys[0], (3, 3, 1, 4)), "bias": jnp.arange(4.0)}
    for size in ((6, 8), (7, 5)):
        x = jax.random.normal(keys[1], (2, *size, 4))
        options = {"dimension_numbers": LAYOUT, "feature_group_count": 4}
        pad = ((1, 1), (1, 1))
        want = lax.conv_general_dilated(x, params["kernel"], (2, 2), pad, **options)
        found = DepthwiseConv().apply({"params": params}, x)
        np.testing.assert_allclose(found, want + params["bias"].reshape(1, 1, 1, 4), atol=1e-5)


def test_gradient_of_a_gradient():
    def penalty(function):
        def slope(x, k):
            out = function(x, k, (1, 1), ((1, 1), (1, 1)), dimension_numbers=LAYOUT)
            return jnp.sum(jnp.sin(out))

        return jax.grad(lambda k, x: jnp.sum(jax.grad(slope)(x, k) ** 2))(*_arrays()[::-1])

    np.testing.assert_allclose(
        penalty(convolution), penalty(lax.conv_general_dilated), rtol=2e-4, atol=2e-4
    )


def test_kernel_gradient_of_half_precision_is_summed_in_single(monkeypatch):
    """Over many blocks of rows: in bfloat16 a sum of 256 equal terms would stop growing."""
    monkeypatch.setattr(module, "_BLOCK_PIXELS", 1)
    x, kernel = jnp.ones((1, 1024, 1, 1), jnp.bfloat16), jnp.ones((3, 3, 1, 1), jnp.bfloat16)
    pad = ((1, 1), (1, 1))
    total = lambda k: jnp.sum(convolution(x, k, (1, 1), pad).astype(jnp.float32))  # noqa: E731
    assert float(jax.grad(total)(kernel)[1, 1, 0, 0]) == 1024
