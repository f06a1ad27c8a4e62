"""Forward operator, adjoint and data consistency, against dense algebra and stored results."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kgmgt_jax.mri.consistency import (
    adjoint,
    cg_consistency,
    forward,
    gradient_consistency,
    hard_consistency,
    normal,
    soft_consistency,
)
from kgmgt_jax.mri.fourier import fft2c, to_channels, to_complex

SIZES = [(8, 6), (7, 5)]
N_COILS = [None, 3]


def _complex(rng, *shape):
    return jnp.asarray((rng.normal(size=shape) + 1j * rng.normal(size=shape)).astype(np.complex64))


def _problem(size=(7, 5), n_coils=None, batch=2, seed=0):
    """Images, measured k-space of other images, masks that differ by sample, unit-norm maps."""
    rng = np.random.default_rng(seed)
    image, truth = _complex(rng, batch, *size), _complex(rng, batch, *size)
    mask = jnp.asarray((rng.random((batch, *size)) < 0.5).astype(np.float32))
    sens = None
    if n_coils is not None:
        sens = _complex(rng, batch, n_coils, *size)
        sens = jnp.asarray(sens / np.linalg.norm(sens, axis=1, keepdims=True))
    return image, forward(truth, mask, sens), mask, sens


def _dense(mask, sens, size):
    """The forward operator of one sample as a matrix in float64."""
    n = size[0] * size[1]
    basis = jnp.eye(n, dtype=jnp.complex64).reshape(n, *size)
    many = None if sens is None else jnp.broadcast_to(sens[None], (n, *sens.shape))
    columns = forward(basis, jnp.broadcast_to(mask[None], (n, *size)), many)
    return np.asarray(columns, np.complex128).reshape(n, -1).T


def _relative(actual, expected):
    return np.linalg.norm(actual - expected) / np.linalg.norm(expected)


def test_a_sample_without_a_batch_is_one_of_a_batch():
    image, kspace, mask, _ = _problem()
    for function in (hard_consistency, lambda *args: cg_consistency(*args, None, 0.1)):
        alone, together = function(image[0], kspace[0], mask[0]), function(image, kspace, mask)
        np.testing.assert_allclose(alone, together[0], atol=1e-5)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("n_coils", N_COILS)
def test_adjoint_by_inner_products(size, n_coils):
    image, kspace, mask, sens = _problem(size, n_coils)
    kspace = _complex(np.random.default_rng(9), *kspace.shape)
    left = jnp.vdot(kspace, forward(image, mask, sens))
    right = jnp.vdot(adjoint(kspace, mask, sens), image)
    np.testing.assert_allclose(left, right, rtol=1e-5)


@pytest.mark.parametrize("n_coils", N_COILS)
def test_adjoint_is_the_conjugate_of_the_linear_transpose(n_coils):
    image, kspace, mask, sens = _problem((7, 5), n_coils)
    (transposed,) = jax.linear_transpose(lambda x: forward(x, mask, sens), image)(jnp.conj(kspace))
    np.testing.assert_allclose(adjoint(kspace, mask, sens), jnp.conj(transposed), atol=1e-5)


def test_normal_of_unit_maps_and_full_sampling_is_the_identity():
    image, _, mask, sens = _problem((7, 5), 4)
    np.testing.assert_allclose(normal(image, jnp.ones_like(mask), sens), image, atol=2e-6)


def test_forward_measures_only_on_the_mask():
    image, _, mask, sens = _problem(n_coils=3)
    kspace = forward(image, mask, sens)
    assert (kspace[jnp.broadcast_to(mask[:, None], kspace.shape) == 0] == 0).all()


@pytest.mark.parametrize("size", SIZES)
def test_hard_consistency_replaces_measured_samples_and_keeps_the_others(size):
    image, kspace, mask, _ = _problem(size)
    result = fft2c(hard_consistency(image, kspace, mask))
    expected = jnp.where(mask > 0, kspace[:, 0], fft2c(image))
    np.testing.assert_allclose(result, expected, atol=3e-6)


@pytest.mark.parametrize("value", [77.0, np.nan])
def test_samples_outside_the_mask_are_ignored(value):
    image, kspace, mask, _ = _problem()
    polluted = jnp.where(mask[:, None] > 0, kspace, value)
    np.testing.assert_array_equal(
        hard_consistency(image, polluted, mask), hard_consistency(image, kspace, mask)
    )


def test_soft_consistency_is_the_weighted_mean_on_the_mask():
    image, kspace, mask, _ = _problem()
    v = 0.3
    result = fft2c(soft_consistency(image, kspace, mask, v))
    predicted = fft2c(image)
    expected = jnp.where(mask > 0, (predicted + v * kspace[:, 0]) / (1 + v), predicted)
    np.testing.assert_allclose(result, expected, atol=3e-6)


def test_soft_consistency_tends_to_hard():
    image, kspace, mask, _ = _problem()
    soft = soft_consistency(image, kspace, mask, 1e8)
    np.testing.assert_allclose(soft, hard_consistency(image, kspace, mask), atol=2e-6)


def test_soft_consistency_without_weight_keeps_the_prediction():
    image, kspace, mask, _ = _problem()
    np.testing.assert_array_equal(soft_consistency(image, kspace, mask, 0.0), image)


def test_gradient_step_one_with_a_unit_coil_is_hard_consistency():
    image, kspace, mask, _ = _problem()
    unit = jnp.ones((2, 1, 7, 5), jnp.complex64)
    result = gradient_consistency(image, kspace, mask, unit, 1.0)
    np.testing.assert_allclose(result, hard_consistency(image, kspace, mask), atol=2e-6)


def test_gradient_consistency_is_a_descent_step_of_the_data_term():
    image, kspace, mask, sens = _problem(n_coils=3)

    def data_term(x):
        return 0.5 * jnp.sum(jnp.abs(forward(x, mask, sens) - kspace) ** 2)

    descent = jnp.conj(jax.grad(data_term)(image))  # JAX's gradient is conjugated
    result = gradient_consistency(image, kspace, mask, sens, 0.7)
    np.testing.assert_allclose(result, image - 0.7 * descent, atol=5e-6)


@pytest.mark.parametrize("n_coils", N_COILS)
def test_cg_solves_the_normal_equations(n_coils):
    size, weight = (7, 5), 0.1
    image, kspace, mask, sens = _problem(size, n_coils)
    result = cg_consistency(image, kspace, mask, sens, weight, n_iterations=40)
    for b in range(2):
        dense = _dense(mask[b], None if sens is None else sens[b], size)
        left = dense.conj().T @ dense + weight * np.eye(dense.shape[1])
        right = dense.conj().T @ np.ravel(kspace[b]) + weight * np.ravel(image[b])
        assert _relative(np.ravel(result[b]), np.linalg.solve(left, right)) < 3e-6


def test_cg_with_a_unit_coil_is_soft_consistency():
    image, kspace, mask, _ = _problem()
    result = cg_consistency(image, kspace, mask, None, 0.25)
    np.testing.assert_allclose(result, soft_consistency(image, kspace, mask, 4.0), atol=3e-6)


def test_one_cg_iteration_is_the_steepest_descent_step():
    image, kspace, mask, sens = _problem(n_coils=3, batch=1)
    residual = adjoint(kspace - forward(image, mask, sens), mask, sens)
    curvature = normal(residual, mask, sens) + 0.1 * residual
    length = jnp.vdot(residual, residual).real / jnp.vdot(residual, curvature).real
    result = cg_consistency(image, kspace, mask, sens, 0.1, n_iterations=1)
    np.testing.assert_allclose(result, image + length * residual, atol=2e-6)


CONSISTENCIES = {
    "hard": lambda image, kspace, mask: hard_consistency(image, kspace, mask),
    "soft": lambda image, kspace, mask: soft_consistency(image, kspace, mask, 0.5),
    "gradient": lambda image, kspace, mask: gradient_consistency(image, kspace, mask, None, 0.5),
    "cg": lambda image, kspace, mask: cg_consistency(
        image, kspace, mask, None, 0.5, n_iterations=3
    ),
}


@pytest.mark.filterwarnings("error")
def test_conjugate_gradients_stop_at_rounding_for_doubles_of_numpy_too():
    image, kspace, mask, _ = _problem((16, 16), batch=1)
    single = cg_consistency(image, kspace, mask, None, 0.0, n_iterations=30)
    doubles = (np.asarray(a, np.complex128) for a in (image, kspace))
    double = cg_consistency(*doubles, np.asarray(mask), None, 0.0, n_iterations=30)
    np.testing.assert_allclose(double, single, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", CONSISTENCIES)
def test_samples_of_a_batch_are_independent(name):
    """Also when another sample is a million times larger, or NaN."""
    image, kspace, mask, _ = _problem(batch=3)
    image = image.at[1].multiply(1e6).at[2].set(jnp.nan)
    together = CONSISTENCIES[name](image, kspace, mask)
    alone = CONSISTENCIES[name](image[:1], kspace[:1], mask[:1])
    np.testing.assert_allclose(together[:1], alone, atol=1e-6)


@pytest.mark.parametrize("name", CONSISTENCIES)
def test_consistent_images_stay_as_they_are(name):
    image, _, mask, _ = _problem()
    result = CONSISTENCIES[name](image, forward(image, mask), mask)
    np.testing.assert_allclose(result, image, atol=2e-6)


@pytest.mark.parametrize("n_iterations", [2, 30])
def test_cg_gradient_is_that_of_the_exact_solution(n_iterations):
    """One unit coil has two eigenvalues: CG is exact after two iterations and must stay so."""
    image, kspace, mask, _ = _problem()
    target = _complex(np.random.default_rng(5), *image.shape)

    def loss(solve):
        return lambda z, w: jnp.sum(jnp.abs(solve(z, w) - target) ** 2)

    by_cg = loss(lambda z, w: cg_consistency(z, kspace, mask, None, w, n_iterations=n_iterations))
    exact = loss(lambda z, w: soft_consistency(z, kspace, mask, 1.0 / w))
    computed = jax.jit(jax.grad(by_cg, argnums=(0, 1)))(image, 0.2)
    expected = jax.jit(jax.grad(exact, argnums=(0, 1)))(image, 0.2)
    np.testing.assert_allclose(computed[0], expected[0], atol=2e-4)
    np.testing.assert_allclose(computed[1], expected[1], rtol=1e-4)


def test_cg_gradient_is_finite_without_a_residual():
    image, _, mask, _ = _problem()
    measured = jnp.zeros((2, 1, 7, 5), jnp.complex64)

    def loss(z):
        return jnp.sum(jnp.abs(cg_consistency(z, measured, mask, None, 0.1)) ** 2)

    assert jnp.isfinite(jax.jit(jax.grad(loss))(jnp.zeros_like(image))).all()


def test_soft_consistency_gradient_of_the_noise_weight():
    image, kspace, mask, _ = _problem()

    def loss(v):
        return jnp.sum(jnp.abs(soft_consistency(image, kspace, mask, v)) ** 2)

    step = 1e-2
    numerical = (loss(0.5 + step) - loss(0.5 - step)) / (2 * step)
    np.testing.assert_allclose(jax.grad(loss)(0.5), numerical, rtol=2e-3)


def test_half_precision_weights_do_not_lower_the_precision():
    image, kspace, mask, _ = _problem()
    result = soft_consistency(image, kspace, mask, jnp.asarray(0.5, jnp.bfloat16))
    assert result.dtype == jnp.complex64
    np.testing.assert_array_equal(result, soft_consistency(image, kspace, mask, 0.5))


def test_samples_may_share_mask_and_maps():
    image, _, mask, sens = _problem(n_coils=3)
    shared = forward(image, mask[:1], sens[:1])
    repeated = forward(image, jnp.tile(mask[:1], (2, 1, 1)), jnp.tile(sens[:1], (2, 1, 1, 1)))
    np.testing.assert_array_equal(shared, repeated)


@pytest.mark.parametrize("name", CONSISTENCIES)
def test_several_coils_need_maps(name):
    image, kspace, mask, _ = _problem(n_coils=3)
    with pytest.raises(ValueError, match=r"n = 1 coils without sens.*kspace\.shape=\(2, 3, 7, 5\)"):
        CONSISTENCIES[name](image, kspace, mask)


def test_kspace_and_maps_need_the_same_coils():
    image, kspace, mask, sens = _problem(n_coils=3)
    with pytest.raises(ValueError, match="n = 3 coils"):
        gradient_consistency(image, kspace[:, :1], mask, sens, 1.0)


def test_cg_needs_an_iteration():
    with pytest.raises(ValueError, match="n_iterations=0"):
        cg_consistency(*_problem(), 0.1, n_iterations=0)


@pytest.mark.parametrize("case", ["1x16x24", "3x16x16", "1x15x17"])
@pytest.mark.parametrize("noise", [None, 0.05])
def test_stored_results_of_the_reference(fixtures_dir, case, noise):
    stored = np.load(fixtures_dir / "g_data_consistency.npz")
    image = to_complex(jnp.asarray(stored[f"in/{case}/x"]).transpose(0, 2, 3, 1))
    mask = jnp.asarray(stored[f"in/{case}/mask"])[..., 0]
    kspace = forward(to_complex(jnp.asarray(stored[f"in/{case}/k0_img"])), mask)
    if noise is None:
        result = hard_consistency(image, kspace, mask)
    else:
        result = soft_consistency(image, kspace, mask, noise)
    expected = stored[f"out/{case}_noise{noise}"].transpose(0, 2, 3, 1)
    error = np.abs(to_channels(result) - expected).max()
    assert error <= 2e-6 * np.abs(expected).max()
