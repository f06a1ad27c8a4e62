"""VarNet: fastMRI's layers and sizes, k-space that starts from the measurement, what it learns."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import signal

from configs.varnet import get_config
from kgmgt_jax.models.baselines.varnet import VarNet
from kgmgt_jax.mri.consistency import adjoint, forward
from kgmgt_jax.mri.fourier import fft2c, ifft2c
from kgmgt_jax.types import Measurement
from tests.models.baselines.fixtures import (
    influences,
    losses_by_heart,
    n_parameters,
    phantom,
    start,
)

SMALL = VarNet(n_cascades=2, channels=4, n_pools=2, remat=False)
H, W = 22, 17  # multiples of no power of two


def test_parameters_of_fastmri_s_without_its_coil_maps():
    assert n_parameters(get_config()) == 29_936_966 - 484_898 == 29_452_068


@pytest.mark.parametrize("coils", [None, 3])
def test_equals_the_same_layers_in_numpy(coils):
    rng = np.random.default_rng(0)
    measurement = _measurement(rng, coils)
    target = adjoint(*measurement)
    params = _redrawn(start(SMALL)["params"], rng)
    output = jax.jit(SMALL.apply)({"params": params}, target, target, target, measurement)
    kspace, mask, sens = (None if a is None else np.asarray(a) for a in measurement)
    sens = np.ones_like(kspace) if sens is None else sens
    for i in range(len(kspace)):
        expected = _plain_varnet(jax.device_get(params), kspace[i], mask[i], sens[i])
        np.testing.assert_allclose(output.image[i], expected, atol=2e-5 * np.abs(expected).max())


def test_what_filling_added_starts_k_space_off():
    rng = np.random.default_rng(1)
    measurement = _measurement(rng, 3)
    filled = jnp.asarray(_complex(rng, 2, H, W))
    image = SMALL.clone(n_cascades=0).apply(start(SMALL), filled, filled, filled, measurement).image
    added = forward(filled - adjoint(*measurement), 1 - measurement.mask, measurement.sens)
    everything = jnp.ones_like(measurement.mask)
    expected = adjoint(measurement.kspace + added, everything, measurement.sens)
    np.testing.assert_allclose(image, expected, atol=1e-5)


@pytest.mark.parametrize("neighbours", [False, True])
def test_sees_its_neighbours_where_it_shall(neighbours):
    target, preceding, succeeding = influences(SMALL.clone(neighbours=neighbours))
    assert target > 0
    assert (preceding > 0) == (succeeding > 0) == neighbours


def test_recomputing_changes_no_gradient():
    batch = phantom()
    measurement = Measurement(batch["kspace"], batch["mask"])
    model = SMALL.clone(n_cascades=1)
    variables = start(model)

    @functools.partial(jax.jit, static_argnums=0)
    def gradient(model, variables):
        def energy(variables):
            image = model.apply(variables, *[batch["target"]] * 3, measurement).image
            return jnp.sum(jnp.abs(image) ** 2)

        return jax.grad(energy)(variables)

    expected, found = gradient(model, variables), gradient(model.clone(remat=True), variables)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4), found, expected
    )


def test_blank_frame_gives_a_finite_image_and_gradient():
    blank = jnp.zeros((1, 16, 16), jnp.complex64)
    measurement = Measurement(blank[:, None], jnp.ones((1, 16, 16)))

    @jax.jit
    @jax.value_and_grad
    def energy(variables):
        image = SMALL.apply(variables, blank, blank, blank, measurement).image
        return jnp.sum(jnp.abs(image - 1) ** 2)

    value, gradient = energy(start(SMALL))
    assert jnp.isfinite(value)
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


def test_learns_a_triplet_by_heart():
    before, after = losses_by_heart(SMALL, 120, 5e-3)
    assert after < 0.35 * before


def test_samples_outside_the_mask_are_not_looked_at():
    measurement = _measurement(np.random.default_rng(2), 3)
    target, params = adjoint(*measurement), start(SMALL)
    outside = jnp.where(measurement.mask[:, None] > 0, measurement.kspace, jnp.nan)
    images = (
        SMALL.apply(params, target, target, target, measurement._replace(kspace=kspace)).image
        for kspace in (measurement.kspace, outside)
    )
    np.testing.assert_array_equal(*images)


def test_missing_measurement_is_refused():
    frame = phantom()["target"]
    with pytest.raises(ValueError, match="needs the measured k-space"):
        SMALL.apply(start(SMALL), frame, frame, frame)


def _measurement(rng, coils):
    mask = np.zeros((2, H, W), np.float32)
    mask[0, ::3], mask[1, 1::3], mask[:, 9:13] = 1, 1, 1
    kspace = _complex(rng, 2, coils or 1, H, W) * mask[:, None]
    if coils is None:
        return Measurement(jnp.asarray(kspace), jnp.asarray(mask))
    sens = _complex(rng, 2, coils, H, W)
    sens /= np.sqrt(np.sum(np.abs(sens) ** 2, 1, keepdims=True))
    return Measurement(jnp.asarray(kspace), jnp.asarray(mask), jnp.asarray(sens))


def _complex(rng, *shape):
    return (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(np.complex64)


def _redrawn(params, rng):
    """Parameters of which none is zero, or one."""
    return jax.tree.map(lambda x: jnp.asarray(rng.uniform(-0.7, 0.7, x.shape), x.dtype), params)


def _plain_varnet(params, measured, mask, sens):
    """Sriram et al. 2020 for one frame, (n h w), without JAX's layers."""
    kspace = measured
    for i in range(len(params)):
        cascade = params[f"cascade{i}"]
        image = np.sum(np.conj(sens) * np.asarray(ifft2c(kspace)), 0)
        refined = np.asarray(fft2c(sens * _plain_normalised_unet(cascade["unet"], image)))
        kspace = kspace - cascade["step"] * mask * (kspace - measured) - refined
    return np.sum(np.conj(sens) * np.asarray(ifft2c(kspace)), 0)


def _plain_normalised_unet(params, image):
    x = np.stack([image.real, image.imag]).astype(np.float64)
    mean, deviation = x.mean((1, 2), keepdims=True), x.std((1, 2), keepdims=True, ddof=1)
    sides = [(-n % 4 // 2, -n % 4 - -n % 4 // 2) for n in x.shape[1:]]
    y = _plain_unet(params, np.pad((x - mean) / deviation, [(0, 0), *sides]))
    (top, _), (left, _) = sides
    y = y[:, top : top + H, left : left + W] * deviation + mean
    return (y[0] + 1j * y[1]).astype(np.complex64)


def _plain_unet(params, x):
    skipped = []
    for i in range(2):
        x = _plain_block(params[f"down{i}"], x)
        skipped.append(x)
        x = (x[:, ::2, ::2] + x[:, 1::2, ::2] + x[:, ::2, 1::2] + x[:, 1::2, 1::2]) / 4
    x = _plain_block(params["bottom"], x)
    for i in (1, 0):
        kernel = np.asarray(params[f"enlarge{i}"]["kernel"])
        kernel = kernel.reshape(len(x), -1, 2, 2)
        large = np.zeros((kernel.shape[1], 2 * x.shape[1], 2 * x.shape[2]))
        for dy in range(2):
            for dx in range(2):
                large[:, dy::2, dx::2] = np.einsum("chw,co->ohw", x, kernel[:, :, dy, dx])
        x = _plain_block(params[f"up{i}"], np.concatenate([_plain_norm(large), skipped[i]]))
    tail = params["tail"]
    return np.einsum("chw,co->ohw", x, tail["kernel"]) + tail["bias"][:, None, None]


def _plain_block(params, x):
    for i in range(2):
        kernel = np.asarray(params[f"conv{i}"]["kernel"])  # 3 3 c o
        planes = [
            sum(signal.correlate2d(x[c], kernel[:, :, c, o], "same") for c in range(len(x)))
            for o in range(kernel.shape[-1])
        ]
        x = _plain_norm(np.stack(planes))
    return x


def _plain_norm(x):
    """Instance norm and LReLU."""
    x = (x - x.mean((1, 2), keepdims=True)) / np.sqrt(x.var((1, 2), keepdims=True) + 1e-5)
    return np.where(x > 0, x, 0.2 * x)
