"""The unrolled denoiser keeps little for its backward pass, and its gradient is the same."""

import jax
import numpy as np
import pytest

from kgmgt_jax.models.denoiser import UnrolledDenoiser
from kgmgt_jax.types import Measurement
from tests.training.small import random_batch

CHANNELS, SIZE = 8, 24


@pytest.mark.parametrize("norm", ["none", "batch"])
def test_recomputing_keeps_less_and_the_same_gradient(norm):
    batch = jax.device_put(random_batch(2, SIZE))
    measurement = Measurement(batch["kspace"], batch["mask"])
    gradients, kept, statistics = [], [], []
    for remat in (True, False):
        denoiser = UnrolledDenoiser(channels=CHANNELS, norm=norm, remat=remat)
        variables = denoiser.init(jax.random.key(0), batch["target"], measurement, train=True)

        def refine(params, denoiser=denoiser, variables=variables):
            return denoiser.apply(
                variables | {"params": params},
                batch["target"],
                measurement,
                train=True,
                mutable="batch_stats",
            )

        image, pullback, changed = jax.vjp(refine, variables["params"], has_aux=True)
        kept.append(sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(pullback)))
        gradients.append(jax.jit(pullback)(image.conj())[0])
        statistics.append(changed)
    hidden = 5 * 4 * 2 * SIZE**2 * CHANNELS * 4  # bytes: iterations, layers, images, float32
    assert hidden < kept[0] < 1.15 * hidden
    assert kept[0] < (0.85 if norm == "none" else 0.5) * kept[1]
    largest = max(np.abs(leaf).max() for leaf in jax.tree.leaves(gradients[1]))
    assert largest > 0
    for a, b in zip(*map(jax.tree.leaves, gradients), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6 * largest)
    for a, b in zip(*map(jax.tree.leaves, statistics), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)
