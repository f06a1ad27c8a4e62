"""ESPIRiT: maps known in closed form, hand-checked cases, phantoms, and BART's ecalib."""

import shutil
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.coil_maps import bart_maps, overlap
from kgmgt_jax.data.formats import read_file
from kgmgt_jax.data.phantom import make_cine
from kgmgt_jax.mri import espirit
from kgmgt_jax.mri.coils import adaptive_maps, calibration_block, rss
from kgmgt_jax.mri.espirit import (
    espirit_eigenmaps,
    espirit_maps,
    power_iterations,
    reference_phase,
    zero_fill,
)
from kgmgt_jax.mri.fourier import fft2c, ifft2c

SIZE = (40, 36)
SMALL = ((80, 64), 4)  # size and coils of a phantom


def _random(*shape, seed=0):
    rng = np.random.default_rng(seed)
    return jnp.asarray((rng.normal(size=shape) + 1j * rng.normal(size=shape)).astype(np.complex64))


def _centre(kspace, n_rows, n_columns):
    h, w = kspace.shape[-2:]
    top, left = h // 2 - n_rows // 2, w // 2 - n_columns // 2
    return kspace[..., top : top + n_rows, left : left + n_columns]


def _harmonic_sens(h, w):
    """Three coils of degree 1 in both axes, unit sum of squares: a kernel holds them exactly."""
    y, x = (2 * np.pi * (np.arange(n) - n // 2) / n for n in (h, w))
    y, x = np.meshgrid(y, x, indexing="ij")
    return np.stack([np.cos(x), 1j * np.sin(x) * np.cos(y), np.sin(x) * np.sin(y)])


def _harmonic_block(h, w):
    """The centre of the k-space of a random image seen by those coils."""
    sens = jnp.asarray(_harmonic_sens(h, w).astype(np.complex64))
    return _centre(fft2c(_random(h, w)[None] * sens), 20, 21)


def _phantom(shape, n_coils, n_lines):
    """Calibration block, true maps and body of a phantom."""
    field_of_view = (5.5 * shape[0], 5.5 * shape[1]) if shape == SMALL[0] else 340.0
    cine = make_cine(1, shape=shape, n_frames=2, n_coils=n_coils, field_of_view_mm=field_of_view)
    block = calibration_block(jnp.asarray(cine.kspace), jnp.ones((2, *shape)), n_lines)
    return block, cine.sens, _body(np.abs(cine.image[0]))


def _body(image):
    return image > 0.1 * np.percentile(image, 99)


# Known maps


@pytest.mark.parametrize("size", [SIZE, (41, 37)])
def test_maps_that_a_kernel_can_hold_are_exact(size):
    maps, eigenvalue = espirit_eigenmaps(_harmonic_block(*size), size)
    assert overlap(maps, _harmonic_sens(*size)).min() > 0.99999
    np.testing.assert_allclose(eigenvalue, 1, atol=1e-5)


def test_one_coil_has_the_map_one():
    maps, eigenvalue = espirit_eigenmaps(_random(1, 8, 8), (12, 10))
    np.testing.assert_allclose(maps, np.ones((1, 12, 10)), atol=1e-6)
    assert eigenvalue.shape == (12, 10)


def test_uniform_coils_by_hand():
    """2 : 3 : 6i has the unit vector (2, 3, 6i) / 7; the strongest coil is made real."""
    coils = jnp.array([2.0, 3.0, 6.0j], jnp.complex64)[:, None, None]
    maps = espirit_maps(_random(20, 21)[None] * coils, SIZE)
    for coil, expected in enumerate((-2j / 7, -3j / 7, 6 / 7)):
        np.testing.assert_allclose(maps[coil], np.full(SIZE, expected), atol=1e-5)


def test_operator_is_that_of_the_formula():
    """Against a matrix of all patches, and sums over all pairs of places at every pixel."""
    n, k, (h, w), block = 2, 3, (9, 8), np.asarray(_random(2, 6, 5), np.complex128)
    corners = [(y, x) for y in range(6 - k + 1) for x in range(5 - k + 1)]
    a = np.stack([block[:, y : y + k, x : x + k].ravel() for y, x in corners], axis=1)
    values, vectors = np.linalg.eigh(a @ a.conj().T)
    signal = vectors[:, values > 0.3 * values[-1]]
    p = (signal @ signal.conj().T).reshape(n, k, k, n, k, k)
    u = np.exp(2j * np.pi * np.outer(np.arange(h) - h // 2, np.arange(k)) / h)
    v = np.exp(2j * np.pi * np.outer(np.arange(w) - w // 2, np.arange(k)) / w)
    g = np.einsum("ya,xb,iabjcd,yc,xd->yxij", u, v, p, u.conj(), v.conj()) / k**2
    values, vectors = np.linalg.eigh(g)
    maps, eigenvalue = espirit_eigenmaps(
        jnp.asarray(block, jnp.complex64), (h, w), kernel_size=k, threshold=0.3, n_iterations=500
    )
    np.testing.assert_allclose(eigenvalue, values[..., -1], atol=1e-4)
    along = np.abs(np.einsum("yxn,nyx->yx", vectors[..., -1].conj(), maps))
    gap = values[..., -1] - values[..., -2]
    np.testing.assert_allclose(along[gap > 0.05], 1, atol=1e-3)


def test_data_without_structure_keep_their_own_coil_images():
    """Patches of noise fill the whole space: G is the identity, every vector an eigenvector."""
    block = _random(3, 20, 21)
    maps, eigenvalue = espirit_eigenmaps(block, SIZE, threshold=0.0)
    images = ifft2c(zero_fill(block, SIZE))
    np.testing.assert_allclose(overlap(maps, images / rss(images)[None]), 1, atol=1e-5)
    np.testing.assert_allclose(eigenvalue, 1, atol=1e-5)


@pytest.mark.parametrize("n_lines, least", [(4, 0.985), (8, 0.995)])
def test_few_lines_give_better_maps_than_the_adaptive_ones(n_lines, least):
    """Measured mean |<s, truth>|: 0.990 and 0.997, adaptive 0.892 and 0.970."""
    block, sens, body = _phantom(*SMALL, n_lines)
    maps = espirit_maps(block, SMALL[0], crop=0.0)
    assert overlap(maps, sens)[body].mean() > least
    assert overlap(adaptive_maps(zero_fill(block, SMALL[0])), sens)[body].mean() < least - 0.01


# Properties


def test_maps_have_unit_sum_of_squares_everywhere():
    maps = espirit_maps(_random(3, 20, 21), SIZE, threshold=0.3, crop=0.0)
    np.testing.assert_allclose(rss(maps), np.ones(SIZE), atol=1e-6)


def test_maps_without_any_signal_are_unit_vectors_too():
    maps = espirit_maps(jnp.zeros((3, 20, 21), jnp.complex64), SIZE, crop=0.0)
    np.testing.assert_allclose(rss(maps), np.ones(SIZE), atol=1e-6)


def test_crop_removes_the_pixels_of_small_eigenvalues():
    maps, eigenvalue = espirit_eigenmaps(_random(3, 20, 21), SIZE, threshold=0.3)
    level = float(np.sort(eigenvalue.ravel())[720])  # of one pixel, which goes too
    kept = np.asarray(eigenvalue > level)
    cropped = espirit_maps(_random(3, 20, 21), SIZE, threshold=0.3, crop=level)
    assert 0.4 < kept.mean() < 0.6
    np.testing.assert_array_equal(cropped, np.where(kept, maps, 0))


def test_crop_is_barts_by_default():
    block = _random(3, 20, 21)
    eigenvalue = np.asarray(espirit_eigenmaps(block, SIZE, threshold=0.35)[1])
    kept = np.abs(espirit_maps(block, SIZE, threshold=0.35)).any(axis=0)
    np.testing.assert_array_equal(kept, eigenvalue > 0.8)
    assert 0.1 < kept.mean() < 0.9


def test_eigenvalues_tell_the_body_from_the_air():
    block, _, body = _phantom(*SMALL, 8)
    eigenvalue = np.asarray(espirit_eigenmaps(block, SMALL[0])[1])
    assert eigenvalue.max() <= 1
    assert np.mean(eigenvalue[body] > 0.8) > 0.97
    assert np.mean(eigenvalue[~body] > 0.8) < 0.8


def test_a_small_block_takes_a_smaller_kernel():
    block, _, _ = _phantom(*SMALL, 4)
    maps = espirit_maps(block, SMALL[0])
    np.testing.assert_array_equal(maps, espirit_maps(block, SMALL[0], kernel_size=3))


def test_a_block_of_few_columns_takes_a_smaller_kernel_too():
    block = _random(2, 9, 4)
    maps = espirit_maps(block, (9, 5))
    np.testing.assert_array_equal(maps, espirit_maps(block, (9, 5), kernel_size=3))


def test_maps_do_not_depend_on_the_scale_of_the_data():
    block = _harmonic_block(*SIZE)
    np.testing.assert_array_equal(espirit_maps(block * 2.0**-40, SIZE), espirit_maps(block, SIZE))


def test_rows_at_a_time_change_nothing(monkeypatch):
    block, shape = _random(1, 8, 8), (12, 10)
    expected = espirit_eigenmaps(block, shape, threshold=0.3)[1]
    monkeypatch.setattr(espirit, "_CHUNK_BYTES", 5 * 10 * 8)  # five rows, five and two
    espirit._eigenmaps.clear_cache()
    eigenvalue = espirit_eigenmaps(block, shape, threshold=0.3)[1]
    espirit._eigenmaps.clear_cache()
    np.testing.assert_allclose(eigenvalue, expected, atol=1e-6)
    assert np.ptp(expected) > 0.1


def test_works_under_jit():
    block = _harmonic_block(*SIZE)
    maps = jax.jit(partial(espirit_maps, shape=SIZE))(block)
    np.testing.assert_allclose(maps, espirit_maps(block, SIZE), atol=1e-5)


def test_maps_keep_single_precision():
    maps, eigenvalue = jax.eval_shape(partial(espirit_eigenmaps, shape=SIZE), _random(2, 8, 9))
    assert (maps.shape, maps.dtype) == ((2, *SIZE), jnp.complex64)
    assert (eigenvalue.shape, eigenvalue.dtype) == (SIZE, jnp.float32)


# Parts


def test_power_iterations_by_hand():
    operator = jnp.array([[2.0, 0.0], [0.0, 1.0]], jnp.complex64)[..., None, None]
    vector, eigenvalue = power_iterations(operator, jnp.ones((2, 1, 1), jnp.complex64), 1)
    np.testing.assert_allclose(vector.ravel(), np.array([2, 1]) / np.sqrt(5), rtol=1e-6)
    np.testing.assert_allclose(eigenvalue, [[np.sqrt(5 / 2)]], rtol=1e-6)
    vector, eigenvalue = power_iterations(operator, jnp.ones((2, 1, 1), jnp.complex64), 40)
    np.testing.assert_allclose(vector.ravel(), [1, 0], atol=1e-6)
    np.testing.assert_allclose(eigenvalue, [[2]], rtol=1e-6)


def test_reference_phase_by_hand():
    maps = jnp.array([1j, 2.0], jnp.complex64)[:, None, None]
    turned = reference_phase(maps, jnp.array([1.0, 0.0], jnp.complex64))
    np.testing.assert_allclose(turned.ravel(), [1, -2j], atol=1e-6)


@pytest.mark.parametrize("part, full, at", [(3, 8, 3), (4, 8, 2), (3, 7, 2), (4, 7, 1), (4, 4, 0)])
def test_zero_fill_keeps_the_centre_at_the_centre(part, full, at):
    filled = np.asarray(zero_fill(jnp.ones((part, part)), (full, full)))
    assert np.flatnonzero(filled.any(axis=0)).tolist() == list(range(at, at + part))
    assert part // 2 + at == full // 2


# Errors


@pytest.mark.parametrize(
    "size, shape, options, message",
    [
        ((2, 3, 8), (9, 9), {}, "at least 4 lines and columns, got shape"),
        ((2, 8, 3), (9, 9), {}, "at least 4 lines and columns"),
        ((8, 8), (9, 9), {}, r"expected a calibration block \(n, y, x\)"),
        ((2, 8, 8), (9, 7), {}, "no smaller than the block"),
        ((2, 8, 8), (9,), {}, "no smaller than the block"),
        ((2, 8, 8), (9, 9), {"kernel_size": 1}, "got kernel_size=1"),
        ((2, 8, 8), (9, 9), {"n_iterations": 0}, "n_iterations=0"),
        ((2, 8, 8), (9, 9), {"threshold": 1.0}, "threshold=1.0"),
        ((2, 8, 8), (9, 9), {"crop": 1.0}, "got crop=1.0"),
        ((2, 8, 8), (9, 9), {"crop": -0.1}, "0 keeps all pixels"),
    ],
)
def test_bad_blocks_and_options(size, shape, options, message):
    with pytest.raises(ValueError, match=message):
        espirit_maps(jnp.ones(size, jnp.complex64), shape, **options)


# BART

needs_bart = pytest.mark.skipif(
    shutil.which("bart") is None, reason="needs BART on the PATH (Debian package `bart`)"
)


def _compare_with_bart(block, shape, body, *options):
    """Mean |<s, s_bart>| where BART keeps the body, and the share of pixels both keep or drop."""
    maps, expected = espirit_maps(block, shape), bart_maps(block, shape, *options)
    kept = rss(maps) > 0, rss(expected) > 0
    return overlap(maps, expected)[body & kept[1]].mean(), np.mean(kept[0] == kept[1])


@pytest.mark.slow
@needs_bart
@pytest.mark.parametrize("n_lines", [24, 8])
def test_maps_of_a_phantom_equal_barts(n_lines):
    """Measured: 1.000000, and the same pixels but for 1 and 4 of 53,248."""
    block, _, body = _phantom((208, 256), 10, n_lines)
    kernel = min(6, n_lines // 2 + 1)  # BART takes its kernel whole
    options = ("-k", f"{kernel}:{kernel}:1")
    agreement, same = _compare_with_bart(block, (208, 256), body, *options)
    assert agreement >= 0.99
    assert same > 0.999


@pytest.mark.slow
@needs_bart
def test_maps_of_a_sample_file_equal_barts(data_dir):
    """Measured: 0.996; the rest lies where the body leaves the field of view."""
    root = data_dir / "cmrxrecon/2023/MultiCoil/Cine/TrainingSet"
    case = read_file(root / "AccFactor04/P001/cine_sax.mat")[0]
    block = calibration_block(jnp.asarray(case.kspace), jnp.asarray(case.mask))
    image = np.asarray(rss(ifft2c(jnp.asarray(case.kspace)))).mean(axis=0)
    agreement, same = _compare_with_bart(block, image.shape, _body(image))
    assert agreement >= 0.99
    assert same > 0.99
