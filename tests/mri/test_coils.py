"""Coil combination, calibration block and adaptive sensitivity maps."""

import inspect

import h5py
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kgmgt_jax.data.formats import read_file
from kgmgt_jax.mri.coils import (
    SENS_OPTIONS,
    adaptive_maps,
    calibration_block,
    calibration_kspace,
    estimate_sens,
    rss,
    sens_expand,
    sens_reduce,
)
from kgmgt_jax.mri.espirit import espirit_maps
from kgmgt_jax.mri.fourier import fft2c, ifft2c
from kgmgt_jax.mri.sampling import make_mask

SIZE = (48, 40)


def _random(*shape, seed=0):
    rng = np.random.default_rng(seed)
    return jnp.asarray((rng.normal(size=shape) + 1j * rng.normal(size=shape)).astype(np.complex64))


def _smooth_sens(n, h, w):
    """Coils around the object: Gaussian magnitude, linear phase, unit sum of squares."""
    y, x = np.meshgrid(np.linspace(-1, 1, h), np.linspace(-1, 1, w), indexing="ij")
    angles = 2 * np.pi * np.arange(n) / n
    maps = [
        np.exp(-((y - np.sin(a)) ** 2 + (x - np.cos(a)) ** 2) / 2 + 1j * (a + x * np.sin(a)))
        for a in angles
    ]
    maps = np.stack(maps)
    return jnp.asarray((maps / np.sqrt((np.abs(maps) ** 2).sum(0))).astype(np.complex64))


def _object(h, w):
    """A positive disc with structure, so the coils' phases are the only ones."""
    y, x = np.meshgrid(np.linspace(-1, 1, h), np.linspace(-1, 1, w), indexing="ij")
    image = (np.hypot(y, x) < 0.8) * (1 + 0.3 * np.sin(6 * y) * np.cos(5 * x))
    return jnp.asarray(image.astype(np.complex64))


def _calibration(image):
    """K-space of the object seen by four smooth coils."""
    return fft2c(sens_expand(image, _smooth_sens(4, *image.shape)))


def test_sens_expand_by_hand():
    image, sens = jnp.array([[2.0 + 1j]]), jnp.array([[[1j]], [[3.0 + 0j]]])
    np.testing.assert_array_equal(sens_expand(image, sens), [[[-1 + 2j]], [[6 + 3j]]])


def test_sens_reduce_is_the_adjoint_of_sens_expand():
    image, sens, coils = _random(2, 5, 4), _random(2, 3, 5, 4, seed=1), _random(2, 3, 5, 4, seed=2)
    left = jnp.vdot(coils, sens_expand(image, sens))
    right = jnp.vdot(sens_reduce(coils, sens), image)
    np.testing.assert_allclose(left, right, rtol=1e-5)


def test_sens_reduce_undoes_sens_expand_for_unit_maps():
    image, sens = _random(6, 8, 9), _smooth_sens(4, 8, 9)[None]
    np.testing.assert_allclose(sens_reduce(sens_expand(image, sens), sens), image, atol=1e-6)


def test_rss_by_hand():
    coil_images = jnp.array([3.0 + 0j, 4j])[:, None, None]
    np.testing.assert_allclose(rss(coil_images), [[5.0]], rtol=1e-7)


def test_rss_over_another_axis():
    coil_images = _random(2, 5, 6, 3)
    np.testing.assert_allclose(
        rss(coil_images, axis=-1), np.linalg.norm(coil_images, axis=-1), rtol=1e-6
    )


def test_rss_gradient_is_zero_without_signal():
    gradient = jax.grad(lambda x: rss(x).sum())(jnp.zeros((2, 3, 3), jnp.complex64))
    np.testing.assert_array_equal(gradient, jnp.zeros((2, 3, 3)))


def test_calibration_is_the_mean_over_measured_samples():
    kspace = _random(2, 1, 8, 4)
    mask = jnp.ones((2, 8, 4)).at[1, 3].set(0.0)
    average = calibration_kspace(kspace, mask)
    np.testing.assert_allclose(average[0, 3], kspace[0, 0, 3], rtol=1e-6)
    np.testing.assert_allclose(average[0, 4], kspace[:, 0, 4].mean(axis=0), rtol=1e-5)


def test_calibration_ignores_samples_outside_the_mask():
    kspace, mask = _random(2, 1, 8, 4), jnp.ones((2, 8, 4)).at[1, 3].set(0.0)
    for value in (99.0, np.nan):
        polluted = kspace.at[1, :, 3].set(value)
        np.testing.assert_array_equal(
            calibration_kspace(polluted, mask), calibration_kspace(kspace, mask)
        )


def _calibrated_lines(mask, acs=None):
    kspace = jnp.ones((mask.shape[0], 1, *mask.shape[1:]), jnp.complex64)
    return np.flatnonzero(np.abs(calibration_kspace(kspace, mask, acs))[0].any(axis=1)).tolist()


def test_calibration_block_is_the_acs_of_a_uniform_mask():
    mask = make_mask("uniform", jax.random.key(0), (2, 32, 6), 8, acs=6, offset=0).mask
    assert _calibrated_lines(mask) == [13, 14, 15, 16, 17, 18]


def test_calibration_block_grows_over_time_for_a_shifted_comb():
    mask = make_mask("kt_uniform", jax.random.key(0), (4, 32, 6), 4, acs=6).mask
    assert _calibrated_lines(mask) == list(range(32))


def test_acs_limits_the_calibration_block():
    assert _calibrated_lines(jnp.ones((1, 33, 6)), acs=5) == [14, 15, 16, 17, 18]


@pytest.mark.parametrize(("h", "w"), [(12, 13), (13, 12)])
@pytest.mark.parametrize("acs", [5, 6])
def test_calibration_block_lies_around_the_centre(h, w, acs):
    """Rows from ``h // 2 - acs // 2`` on, of even and odd number, in even and odd sizes."""
    kspace = _random(1, 2, h, w)
    first = h // 2 - acs // 2
    block = calibration_block(kspace, jnp.ones((1, h, w)), acs)
    np.testing.assert_allclose(block, kspace[0, :, first : first + acs], rtol=1e-6)


def test_arguments_that_do_not_fit_are_refused():
    kspace = jnp.ones((2, 3, 16, 12), jnp.complex64)
    for mask in (jnp.ones((2, 12, 12)), jnp.ones((3, 16, 12)), jnp.ones((16, 12))):
        with pytest.raises(ValueError, match=r"a mask \(t, h, w\), got kspace.shape="):
            calibration_block(kspace, mask)
    with pytest.raises(ValueError, match="calibration lines, or None, got acs=-3"):
        estimate_sens(kspace, jnp.ones((2, 16, 12)), acs=-3)


def test_calibration_block_of_a_square_is_the_square():
    mask = jnp.zeros((1, 20, 20)).at[0, 7:13, 7:13].set(1.0).at[0, 10].set(1.0)
    kspace = jnp.ones((1, 1, 20, 20), jnp.complex64)
    expected = np.zeros((20, 20))
    expected[7:13, 7:13] = 1.0
    np.testing.assert_array_equal(calibration_kspace(kspace, mask)[0], expected)


def test_calibration_block_is_not_a_single_spoke():
    mask = jnp.zeros((1, 64, 20)).at[0, 29:35, 7:13].set(1.0).at[0, :, 10].set(1.0)
    kspace = jnp.ones((1, 1, 64, 20), jnp.complex64)
    assert calibration_block(kspace, mask).shape == (1, 6, 6)


def test_calibration_block_is_cut_from_the_calibration_kspace():
    mask = make_mask("uniform", jax.random.key(0), (2, 33, 6), 8, acs=6, offset=0).mask
    kspace = _random(2, 3, 33, 6)
    block = calibration_block(kspace, mask)
    np.testing.assert_array_equal(block, calibration_kspace(kspace, mask)[:, 13:19])


@pytest.mark.parametrize("measured", [[], [2, 3, 4, 5], [15, 16, 17]])
def test_too_few_calibration_lines(measured):
    mask = jnp.zeros((1, 32, 4)).at[:, jnp.array(measured, int)].set(1.0)
    with pytest.raises(ValueError, match="complete lines around the centre"):
        calibration_kspace(jnp.ones((1, 2, 32, 4), jnp.complex64), mask)


def test_kspace_in_another_byte_order_is_refused_by_compiled_functions_too():
    kspace, mask = np.asarray(_random(2, 3, 33, 6)), np.ones((2, 33, 6), np.float32)
    estimate_sens(kspace, mask)
    with pytest.raises(ValueError, match="expected kspace in the byte order of this machine"):
        estimate_sens(kspace.astype(kspace.dtype.newbyteorder()), mask)


@pytest.mark.parametrize("size", [SIZE, (47, 41)])
def test_maps_of_known_coils_are_recovered_up_to_a_common_phase(size):
    image = _object(*size)
    maps = adaptive_maps(_calibration(image))
    overlap = jnp.abs(sens_reduce(maps, _smooth_sens(4, *size)))  # |cos| between unit vectors
    assert float(overlap[np.abs(image) > 0].min()) > 0.99


def test_maps_have_unit_sum_of_squares_everywhere():
    maps = adaptive_maps(_calibration(_object(*SIZE)))
    np.testing.assert_allclose(rss(maps), np.ones(SIZE), atol=1e-6)


def test_maps_without_any_signal_are_finite():
    assert np.isfinite(adaptive_maps(jnp.zeros((4, *SIZE), jnp.complex64))).all()


def test_maps_of_single_pixels_are_those_of_hann_weighted_images():
    """The window falls to zero one sample beyond the block, on either side of the centre."""
    block = _random(3, 9, 8)
    kspace = jnp.pad(block, ((0, 0), (8, 7), (6, 6)))  # around (12, 10)
    hann = np.hanning(11)[1:-1]
    images = ifft2c(jnp.pad(block * np.outer(hann, hann[:8])[None], ((0, 0), (8, 7), (6, 6))))
    maps = adaptive_maps(kspace.astype(jnp.complex64), patch=1)
    overlap = jnp.abs(sens_reduce(images / rss(images)[None], maps))
    np.testing.assert_allclose(overlap, np.ones((24, 20)), atol=1e-5)


def test_phase_of_the_object_stays_out_of_the_maps():
    image = _object(*SIZE)
    y, x = np.meshgrid(*(np.linspace(-1, 1, n) for n in SIZE), indexing="ij")
    phase = np.exp(3j * (y**2 - x + x * y)).astype(np.complex64)
    maps, expected = adaptive_maps(_calibration(image * phase)), adaptive_maps(_calibration(image))
    difference = np.abs(maps - expected).max(axis=0)
    assert float(difference[np.abs(image) > 0].max()) < 0.03


def test_phase_is_referenced_to_one_virtual_coil():
    """One fixed combination of the maps is real and positive at every pixel."""
    image = _object(*SIZE)
    maps = np.asarray(adaptive_maps(_calibration(image)))
    weighted = maps.reshape(4, -1) * np.abs(np.ravel(image))
    virtual = np.linalg.svd(weighted, full_matrices=False)[0][:, 0]
    reference = np.einsum("n,nhw->hw", virtual.conj(), maps)[np.abs(image) > 0]
    assert np.abs(np.angle(reference * np.conj(reference.sum()))).max() < 0.05


def test_maps_do_not_depend_on_the_scale_of_the_data():
    kspace = _calibration(_object(*SIZE))
    np.testing.assert_array_equal(adaptive_maps(kspace * 2.0**-40), adaptive_maps(kspace))


@pytest.mark.parametrize("options", [{"patch": 4}, {"patch": 0}, {"n_iterations": 0}])
def test_bad_map_options(options):
    with pytest.raises(ValueError, match="expected an odd patch"):
        adaptive_maps(jnp.ones((2, 8, 8), jnp.complex64), **options)


def _read_2023(path):
    with h5py.File(path) as file:
        array = next(iter(file.values()))[...]
    if array.dtype.names:
        array = (array["real"] + 1j * array["imag"]).astype(np.complex64)
    return array


def _measured():
    mask = make_mask("uniform", jax.random.key(0), (2, 36, 30), 4, acs=12, offset=0).mask
    return _random(2, 3, 36, 30) * mask[:, None], mask


def test_maps_are_espirit_without_a_crop_by_default():
    kspace, mask = _measured()
    expected = espirit_maps(calibration_block(kspace, mask, 10), (36, 30), crop=0.0)
    np.testing.assert_array_equal(estimate_sens(kspace, mask, acs=10), expected)


def test_adaptive_maps_by_name():
    kspace, mask = _measured()
    maps = estimate_sens(kspace, mask, acs=10, method="adaptive", patch=3)
    expected = adaptive_maps(calibration_kspace(kspace, mask, 10), patch=3)
    np.testing.assert_array_equal(maps, expected)


def test_options_reach_espirit():
    kspace, mask = _measured()
    options = {"crop": 0.99, "threshold": 0.5}
    maps = estimate_sens(kspace, mask, acs=10, **options)
    expected = espirit_maps(calibration_block(kspace, mask, 10), (36, 30), **options)
    np.testing.assert_array_equal(maps, expected)
    assert (rss(maps) == 0).any()


def test_defaults_are_those_of_the_functions_but_for_the_crop():
    for method, function in (("espirit", espirit_maps), ("adaptive", adaptive_maps)):
        parameters = inspect.signature(function).parameters.values()
        own = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
        assert SENS_OPTIONS[method] == ({**own, "crop": 0.0} if "crop" in own else own)


@pytest.mark.parametrize(
    "method, options, message",
    [
        ("walsh", {}, "expected a method of espirit, adaptive, got method='walsh'"),
        ("espirit", {"patch": 5}, "options of 'espirit': kernel_size, .*; got patch"),
        ("adaptive", {"crop": 0.5}, "options of 'adaptive': patch, n_iterations; got crop"),
    ],
)
def test_unknown_methods_and_options(method, options, message):
    with pytest.raises(ValueError, match=message):
        estimate_sens(*_measured(), method=method, **options)


def _deviation_from_rss(kspace, sens):
    """Relative L2 between coil images combined with the maps and their root sum of squares."""
    coil_images = ifft2c(kspace)
    expected = rss(coil_images)
    combined = jnp.abs(sens_reduce(coil_images, sens[None]))
    return float(jnp.linalg.norm(combined - expected) / jnp.linalg.norm(expected))


@pytest.mark.parametrize("method, most", [("espirit", 0.02), ("adaptive", 0.03)])
@pytest.mark.parametrize("z", [0, 1])
def test_maps_from_24_lines_combine_full_coil_images_to_their_rss(data_dir, z, method, most):
    """Measured relative L2, slices 0 and 1: ESPIRiT 1.75, 1.93 %; adaptive 2.25, 2.64 %."""
    root = data_dir / "cmrxrecon/2023/MultiCoil/Cine/TrainingSet"
    if not root.exists():
        pytest.skip(f"needs {root}")
    full = jnp.asarray(_read_2023(root / "FullSample/P001/cine_sax.mat")[:, z])
    undersampled = jnp.asarray(_read_2023(root / "AccFactor04/P001/cine_sax.mat")[:, z])
    mask = _read_2023(root / "AccFactor04/P001/cine_sax_mask.mat").astype(np.float32)
    mask = jnp.broadcast_to(mask[None], (full.shape[0], *mask.shape))
    assert _deviation_from_rss(full, estimate_sens(undersampled, mask, method=method)) < most


SAMPLES = {
    "2023/MultiCoil/Cine/TrainingSet/FullSample/P001/cine_sax.mat": 2,
    "2024/MultiCoil/Cine/TrainingSet/FullSample/P001/cine_lax.mat": 2,
    "2025/MultiCoil/Cine/TrainingSet/FullSample/Center001/GE_15T_Signa/P001/cine_sax.mat": 1,
    "2025/MultiCoil/Cine/TrainingSet/FullSample/Center001/GE_15T_Signa/P002/cine_sax.mat": 1,
}


@pytest.mark.parametrize("method, options", [("espirit", {}), ("adaptive", {"patch": 1})])
@pytest.mark.parametrize("path, z", [(path, z) for path, n in SAMPLES.items() for z in range(n)])
def test_maps_from_all_lines_combine_coil_images_to_their_rss(data_dir, path, z, method, options):
    """Measured relative L2: ESPIRiT 0.49 to 1.07 %, adaptive (single pixels) 0.64 to 1.30 %."""
    case = read_file(data_dir / "cmrxrecon" / path)[z]
    kspace = jnp.asarray(case.kspace)
    sens = estimate_sens(kspace, jnp.asarray(case.mask), method=method, **options)
    assert _deviation_from_rss(kspace, sens) < 0.02
