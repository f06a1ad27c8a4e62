"""The unrolled denoiser keeps little for its backward pass, and its gradient is the same."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kgmgt_jax.models.denoiser import Denoiser, UnrolledDenoiser
from kgmgt_jax.models.initialisation import initialise
from kgmgt_jax.mri.fourier import ifft2c
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


def test_every_iteration_has_a_strength_of_its_own():
    """A denoiser that adds 1 + i, and a step that takes the measurement in one iteration alone."""
    frame = jnp.zeros((1, 4, 4), jnp.complex64)
    full = Measurement(jnp.ones((1, 1, 4, 4), frame.dtype), jnp.ones((1, 4, 4)))
    full = full._replace(sens=jnp.ones((1, 1, 4, 4), frame.dtype))
    module = UnrolledDenoiser(n_iterations=2, channels=2)
    params = module.init(jax.random.key(0), frame, full, train=False)["params"]
    last = params["denoiser"]["conv4"]
    last.update(kernel=0 * last["kernel"], bias=1 + last["bias"])
    for step, added in (([0.0, 1.0], 0.0), ([1.0, 0.0], 1 + 1j)):
        variables = {"params": params | {"step": jnp.array(step)}}
        image = module.apply(variables, frame, full, train=False)
        np.testing.assert_allclose(image, ifft2c(full.kspace[:, 0]) + added, atol=1e-6)


@pytest.mark.parametrize("coils", [False, True])
def test_a_measurement_in_double_precision_leaves_the_image_in_its_own(coils):
    frame = jnp.zeros((1, 4, 4), jnp.complex64)
    kspace, mask = np.ones((1, 1, 4, 4), np.complex128), np.ones((1, 4, 4))
    measurement = Measurement(kspace, mask, kspace if coils else None)
    module = UnrolledDenoiser(n_iterations=2, channels=2)
    with jax.enable_x64(True):
        variables = module.init(jax.random.key(0), frame, measurement, train=False)
        assert module.apply(variables, frame, measurement, train=False).dtype == frame.dtype


def test_denoiser_without_norm_is_not_linear_within():
    x = jax.random.normal(jax.random.key(0), (1, 8, 8, 2))
    module = Denoiser(4)
    variables = initialise(module, 0, x, train=False)
    one, negated = (module.apply(variables, a, train=False) for a in (x, -x))
    assert float(jnp.max(jnp.abs(one + negated))) > 0.1 * float(jnp.max(jnp.abs(one)))
