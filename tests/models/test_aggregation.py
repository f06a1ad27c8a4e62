"""Stages of the U-Net, as far as no stored array of the reference network covers them."""

import jax
import jax.numpy as jnp
import numpy as np

from kgmgt_jax.models.aggregation import ReferenceAggregation
from kgmgt_jax.models.layers import Layers
from kgmgt_jax.models.motion import Alignment


def test_without_alignment_the_reference_is_convolved_and_activated():
    z, v = jax.random.normal(jax.random.key(0), (2, 1, 6, 6, 4))
    reference = Alignment(v, z, jnp.zeros((1, 6, 6, 9, 2)), jnp.zeros((1, 6, 6, 1)))
    module = ReferenceAggregation(4, alignment=False)
    variables = module.init(jax.random.key(1), z, reference)
    linear = Layers().conv(4).apply({"params": variables["params"]["plain"]}, v)
    found = module.apply(variables, z, reference)
    np.testing.assert_allclose(found, jnp.maximum(linear, 0.2 * linear), rtol=1e-6)
