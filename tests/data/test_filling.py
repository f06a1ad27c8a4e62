"""Filling gaps from other frames, against cases worked out by hand."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.fft

from kgmgt_jax.classical import locally_low_rank, low_rank_plus_sparse, temporal_tv
from kgmgt_jax.classical.measurement import average_filled, data_scale
from kgmgt_jax.data.filling import (
    INPUT_FILLS,
    fill_gaps,
    fill_on_device,
    local_low_rank,
    low_rank,
    variation,
    ways,
)
from kgmgt_jax.data.filling.encoding import Encoding
from kgmgt_jax.data.mask_sampler import MaskSampler
from kgmgt_jax.data.phantom import make_cine
from kgmgt_jax.data.transforms import fft2c
from tests.classical.reference import complex_array

_WEIGHTS = {"low_rank_weight": 0.02, "sparse_weight": 0.02}


def _cine(*frames: str) -> tuple[np.ndarray, np.ndarray]:
    """One sample a letter: frame t measured 10^t there (upper case) or nothing (dot)."""
    mask = np.array([[letter != "." for letter in frame] for frame in frames], np.float32)
    values = 10.0 ** np.arange(len(frames))[:, None] * mask
    return values.astype(np.complex64)[:, None, :, None], mask[..., None]


def _filled(input_fill: str, *frames: str, **options) -> np.ndarray:
    kspace, mask = _cine(*frames)
    return fill_gaps(kspace, mask, input_fill, **options)[:, 0, :, 0].real


def test_zero_changes_nothing():
    np.testing.assert_array_equal(_filled("zero", "X.", ".X"), [[1, 0], [0, 10]])


@pytest.mark.parametrize("input_fill", INPUT_FILLS)
def test_samples_outside_the_mask_are_not_looked_at(input_fill):
    kspace, mask = _cine("X.X", ".XX", "XX.")
    polluted = np.where(mask[:, None] > 0, kspace, np.complex64(np.nan))
    np.testing.assert_array_equal(*(fill_gaps(k, mask, input_fill) for k in (kspace, polluted)))


_LEFT = {  # as found; networks are trained on inputs of just these thresholds and steps
    ("zero", 1): 0.2582,
    ("neighbours", 1): 0.0866,
    ("average", 1): 0.0872,
    ("sparse", 1): 0.0782,
    ("low_rank", 1): 0.0676,
    ("low_rank", 3): 0.0350,
    ("blended", 1): 0.0611,
    ("blended", 3): 0.0300,
    ("locally_low_rank", 1): 0.0581,
    ("locally_low_rank", 3): 0.0229,
}


@pytest.mark.parametrize(("input_fill", "n_coils"), _LEFT)
def test_each_way_leaves_the_error_it_had(input_fill, n_coils):
    """Of all samples of a phantom, as a share of their energy."""
    cine = make_cine(0, shape=(48, 40), n_frames=8, n_coils=n_coils, noise=0.0)
    sampler = MaskSampler(("kt_gaussian",), (4.0,), 8)
    mask = sampler.draw(np.random.default_rng(0), (8, 48, 40))
    sens = cine.sens if n_coils > 1 else None
    filled = fill_gaps(cine.kspace * mask[:, None], mask, input_fill, sens=sens)
    left = np.sum(np.abs(filled - cine.kspace) ** 2) / np.sum(np.abs(cine.kspace) ** 2)
    assert left == pytest.approx(_LEFT[input_fill, n_coils], rel=0.01)


def test_kspace_without_coils_is_refused():
    kspace, mask = _cine("X.X", ".XX")
    with pytest.raises(ValueError, match=r"expected kspace \(t, n, h, w\)"):
        fill_gaps(kspace[:, 0], mask, "average")


@pytest.mark.parametrize("shape", [(2, 4, 3), (3, 2, 3), (3, 4, 2)])
def test_a_mask_of_another_size_is_refused(shape):
    kspace = np.ones((3, 1, 4, 3), np.complex64)
    with pytest.raises(ValueError, match=r"a mask \(t, h, w\), got .* mask\.shape="):
        fill_gaps(kspace, np.ones(shape, np.float32), "average")


def test_the_nearest_frame_lends_its_sample():
    filled = _filled("neighbours", "X", ".", ".", "X", ".", circular=False)
    np.testing.assert_array_equal(filled[:, 0], [1, 1, 1000, 1000, 1000])


def test_in_a_circle_the_last_frame_is_next_to_the_first():
    filled = _filled("neighbours", ".", ".", ".", "X", "X")
    np.testing.assert_array_equal(filled[:, 0], [10000, 5500, 1000, 1000, 10000])


def test_two_frames_equally_near_lend_their_mean():
    filled = _filled("neighbours", "X", ".", "X", circular=False)
    np.testing.assert_array_equal(filled[:, 0], [1, 50.5, 100])


def test_the_average_is_over_the_frames_that_measured():
    filled = _filled("average", "X..", "X.X", "..X")
    np.testing.assert_array_equal(filled, [[1, 0, 55], [10, 0, 10], [5.5, 0, 100]])


@pytest.mark.parametrize("input_fill", ["neighbours", "average"])
def test_each_coil_and_sample_is_filled_by_itself(input_fill):
    rng = np.random.default_rng(0)
    mask = (rng.random((5, 4, 3)) < 0.5).astype(np.float32)
    kspace = (rng.normal(size=(5, 2, 4, 3)) * mask[:, None]).astype(np.complex64)
    filled = fill_gaps(kspace, mask, input_fill)
    assert filled.dtype == np.complex64
    for n, y, x in np.ndindex(2, 4, 3):
        alone = fill_gaps(
            kspace[:, n, y, x].reshape(5, 1, 1, 1), mask[:, y, x].reshape(5, 1, 1), input_fill
        )
        np.testing.assert_allclose(filled[:, n, y, x], alone.ravel(), rtol=1e-6)


def _cine_of_few_frequencies() -> tuple[np.ndarray, np.ndarray]:
    """A still image with a beating spot, and lines that change from frame to frame."""
    rng = np.random.default_rng(0)
    images = np.repeat(rng.uniform(0.5, 1, (1, 1, 32, 8)), 12, axis=0).astype(np.complex64)
    images[:, :, 12:18, 2:5] *= (
        1 + 0.5 * np.cos(2 * np.pi * np.arange(12) / 12)[:, None, None, None]
    )
    mask = (rng.random((12, 32, 1)) < 0.4).astype(np.float32)
    return images, mask


def test_a_cine_of_few_temporal_frequencies_is_found_from_its_lines():
    images, mask = _cine_of_few_frequencies()
    kspace = np.fft.fft(images, axis=-2, norm="ortho").astype(np.complex64)

    def error(input_fill: str) -> float:
        filled = fill_gaps(kspace * mask[:, None], mask, input_fill, axes=(-2,))
        return float(np.linalg.norm(filled - kspace) / np.linalg.norm(kspace))

    assert error("sparse") < 0.3 * error("average") < 0.3 * error("zero")


@pytest.mark.parametrize("fixed", [True, False])
def test_low_rank_is_the_classical_method_with_the_measured_samples_put_back(fixed):
    images, mask = _cine_of_few_frequencies()
    mask = np.repeat(np.repeat(mask[:1] if fixed else mask, 12 if fixed else 1, 0), 8, 2)
    coils = np.concatenate([images, 30j * images[:, :, ::-1]], axis=1)
    kspace = fft2c(coils) * mask[:, None]
    filled = fill_gaps(kspace, mask, "low_rank")
    assert filled.dtype == np.complex64
    for n in range(2):
        classical = low_rank_plus_sparse(
            kspace[:, n : n + 1], mask, **_WEIGHTS, tolerance=0.0, max_iterations=25
        )
        want = np.where(mask > 0, kspace[:, n], fft2c(np.asarray(classical)))
        np.testing.assert_allclose(filled[:, n], want, rtol=0, atol=1e-4 * np.abs(want).max())


def _measured_by_four_coils() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Fully sampled k-space, one mask for all frames, and maps."""
    images, mask = _cine_of_few_frequencies()
    y, x = np.mgrid[:32, :8]
    maps = np.stack([np.exp(1j * n - ((y - 10 * n) / 12) ** 2 - n * x / 40) for n in range(4)])
    maps = (maps / np.linalg.norm(maps, axis=0)).astype(np.complex64)
    return fft2c(images * maps), np.repeat(np.repeat(mask[:1], 12, 0), 8, 2), maps


@pytest.mark.parametrize("low_rank_weight", [0.02, 0.002])
def test_low_rank_with_maps_tends_to_the_classical_minimum(monkeypatch, low_rank_weight):
    kspace, mask, sens = _measured_by_four_coils()
    monkeypatch.setattr(low_rank, "N_DIRECTIONS", 400)
    monkeypatch.setattr(low_rank, "LOW_RANK_WEIGHT", low_rank_weight)
    filled = fill_gaps(kspace * mask[:, None], mask, "low_rank", sens=sens)
    weights = _WEIGHTS | {"low_rank_weight": low_rank_weight}
    classical = low_rank_plus_sparse(
        kspace, mask, sens, **weights, tolerance=0.0, max_iterations=400
    )
    want = np.where(mask[:, None] > 0, kspace, fft2c(sens * np.asarray(classical)[:, None]))
    np.testing.assert_allclose(filled, want, rtol=0, atol=1e-3 * np.abs(want).max())


def test_maps_tell_of_lines_that_no_frame_measured():
    kspace, mask, sens = _measured_by_four_coils()

    def error(sens: np.ndarray | None) -> float:
        filled = fill_gaps(kspace * mask[:, None], mask, "low_rank", sens=sens)
        np.testing.assert_array_equal(filled * mask[:, None], kspace * mask[:, None])
        return float(np.linalg.norm(filled - kspace))

    assert error(sens) < 0.5 * error(None)


@pytest.mark.parametrize("with_maps, circular", [(False, True), (False, False), (True, False)])
@pytest.mark.parametrize("mask_of", ["lines", "samples"])
def test_blended_lies_between_two_classical_methods(monkeypatch, with_maps, circular, mask_of):
    """The nearer to temporal TV the more frames measured: 1 / 2, 2 / 3, ... of the way."""
    kspace, _, sens = _measured_by_four_coils()
    width = 1 if mask_of == "lines" else 8
    mask = (np.random.default_rng(1).random((12, 32, width)) < 0.4).astype(np.float32)
    mask = np.repeat(mask, 8 // width, axis=2)
    if not with_maps:
        kspace, sens = kspace[:, :1], None
    measured = kspace * mask[:, None]
    for module in (low_rank, variation):
        monkeypatch.setattr(module, "N_DIRECTIONS", 400)
    filled = fill_gaps(measured, mask, "blended", sens=sens, circular=circular)
    settled = {"tolerance": 0.0, "max_iterations": 400}
    near = low_rank_plus_sparse(measured, mask, sens, **_WEIGHTS, **settled)
    mean = average_filled(jnp.asarray(measured), jnp.asarray(mask), sens)
    unit = np.percentile(np.abs(mean.mean(axis=0)), 99.0) / data_scale(measured, mask)
    far = temporal_tv(measured, mask, sens, weight=0.005 * unit, circular=circular, **settled)
    coils = 1 if sens is None else sens
    near, far = (fft2c(coils * np.asarray(image)[:, None]) for image in (near, far))
    count = mask.sum(axis=0)
    want = np.where(mask[:, None] > 0, kspace, (near + count * far) / (1 + count))
    np.testing.assert_allclose(filled, want, rtol=0, atol=1e-3 * np.abs(want).max())
    assert np.abs(near - far).max() > 0.015 * np.abs(want).max()


@pytest.mark.parametrize("with_maps", [False, True])
def test_steps_towards_local_low_rank_lead_to_its_minimum(monkeypatch, with_maps):
    """In one block of all, of which no grid changes the minimum."""
    kspace, _, sens = _measured_by_four_coils()
    mask = (np.random.default_rng(1).random((12, 32, 8)) < 0.4).astype(np.float32)
    if not with_maps:
        kspace, sens = kspace[:, :1], None
    measured = kspace * mask[:, None]
    monkeypatch.setattr(local_low_rank, "BLOCK", 32)
    monkeypatch.setattr(local_low_rank, "N_STEPS", 400)
    monkeypatch.setattr(local_low_rank, "WEIGHT", 0.03)
    filled = fill_gaps(measured, mask, "locally_low_rank", sens=sens)
    mean = average_filled(jnp.asarray(measured), jnp.asarray(mask), sens)
    unit = np.percentile(np.abs(mean.mean(axis=0)), 99.0) / data_scale(measured, mask)
    settled = {"tolerance": 0.0, "max_iterations": 400}
    image = locally_low_rank(measured, mask, sens, weight=0.03 * unit, block=32, **settled)
    want = fft2c((1 if sens is None else sens) * np.asarray(image)[:, None])
    want = np.where(mask[:, None] > 0, kspace, want)
    start = fill_gaps(measured, mask, "blended", sens=sens)
    assert np.abs(start - want).max() > 0.01 * np.abs(want).max()
    np.testing.assert_allclose(filled, want, rtol=0, atol=1e-3 * np.abs(want).max())


def test_blended_knows_a_mask_of_lines():
    images, mask = _cine_of_few_frequencies()
    kspace = fft2c(images) * mask[:, None]
    by_line, by_sample = (fill_gaps(kspace, m, "blended") for m in (mask, np.repeat(mask, 8, 2)))
    np.testing.assert_allclose(by_line, by_sample, rtol=0, atol=1e-6 * np.abs(kspace).max())


@pytest.mark.parametrize("input_fill", ["blended", "locally_low_rank"])
def test_all_are_low_rank_where_all_frames_measured_the_same(input_fill):
    kspace, mask, sens = _measured_by_four_coils()
    measured = kspace * mask[:, None]
    one, other = (fill_gaps(measured, mask, way, sens=sens) for way in ("low_rank", input_fill))
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("maps", ["none", "one set", "each frame"])
@pytest.mark.parametrize("centred", [True, False])
@pytest.mark.parametrize("input_fill", ["low_rank", "blended", "locally_low_rank"])
def test_whole_lines_are_filled_as_samples_are(input_fill, centred, maps, monkeypatch):
    kspace, _, sens = _measured_by_four_coils()
    kspace, sens = kspace[..., :7], sens[..., :7]  # an odd size, too
    lines = np.random.default_rng(0).random((12, 32, 1)) < 0.4
    mask = np.repeat(lines, 7, axis=2).astype(np.float32)
    each = np.stack([sens * np.exp(1j * t) for t in range(12)]).astype(np.complex64)
    options = {"sens": {"none": None, "one set": sens, "each frame": each}[maps]}
    arguments = (kspace * mask[:, None], mask, input_fill)
    fast = fill_gaps(*arguments, **options, centred=centred)
    monkeypatch.setattr(ways, "are_lines", lambda mask: False)
    slow = fill_gaps(*arguments, **options, centred=centred)
    np.testing.assert_allclose(fast, slow, atol=1e-4 * np.abs(kspace).max())


def test_lines_that_are_images_along_the_readout_are_filled_as_kspace_is():
    images, mask = _cine_of_few_frequencies()
    kspace = scipy.fft.fftn(images, axes=(-2, -1), norm="ortho").astype(np.complex64)
    lines = scipy.fft.fft(images, axis=-2, norm="ortho").astype(np.complex64)
    filled = fill_gaps(kspace * mask[:, None], mask, "low_rank", centred=False)
    found = fill_gaps(lines * mask[:, None], mask, "low_rank", centred=False, axes=(-2,))
    np.testing.assert_allclose(found, scipy.fft.ifft(filled, axis=-1, norm="ortho"), atol=1e-5)


def test_maps_of_each_frame_are_those_of_its_coils():
    kspace, mask, sens = _measured_by_four_coils()
    measured = kspace * mask[:, None]

    def turned(arrays: np.ndarray) -> np.ndarray:
        return np.stack([np.roll(array, t, axis=0) for t, array in enumerate(arrays)])

    one = fill_gaps(measured, mask, "low_rank", sens=sens)
    each = fill_gaps(turned(measured), mask, "low_rank", sens=turned(np.stack([sens] * 12)))
    np.testing.assert_allclose(each, turned(one), rtol=0, atol=1e-5 * np.abs(one).max())


@pytest.mark.parametrize("axes", [(-2, -1), (-2,)])
@pytest.mark.parametrize("n_threads", [1, 3])
@pytest.mark.parametrize("maps", [None, (3,), (5, 3)])
def test_there_and_back_at_once_is_there_and_back(maps, n_threads, axes):
    rng = np.random.default_rng(0)
    image = np.asarray(complex_array(rng, 5, 12, 9))
    sens = None if maps is None else np.asarray(complex_array(rng, *maps, 12, 9))
    mask = rng.integers(0, 2, (5, 12, 9 if axes == (-2, -1) else 1)).astype(np.float32)
    encoding = Encoding(axes, sens)
    expected = encoding.to_image(mask[:, None] * encoding.to_kspace(image))
    with scipy.fft.set_workers(n_threads):
        got = encoding.normal(image, mask)
    assert got.dtype == np.complex64
    np.testing.assert_allclose(got, expected, atol=1e-6 * np.abs(expected).max())


def _on_device_and_host(input_fill, fixed, maps, circular=True):
    cine = make_cine(0, shape=(40, 36), n_frames=5, n_coils=3)
    kind = "variable_density" + "_fixed" * fixed
    mask = MaskSampler((kind,), (4,), 8).draw(np.random.default_rng(0), cine.image.shape)
    sens = None if maps == "none" else cine.sens
    if maps == "of each frame":
        sens = np.stack([sens * np.exp(0.3j * t) for t in range(5)]).astype(np.complex64)
    options = {"sens": sens, "circular": circular}
    return (fill(cine.kspace, mask, input_fill, **options) for fill in (fill_on_device, fill_gaps))


@pytest.mark.parametrize("input_fill", INPUT_FILLS)
@pytest.mark.parametrize("fixed", [True, False])
@pytest.mark.parametrize("maps", ["none", "one", "of each frame"])
def test_on_the_device_gaps_are_filled_as_on_the_host(input_fill, fixed, maps):
    for circular in (True, False):
        got, expected = _on_device_and_host(input_fill, fixed, maps, circular)
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("input_fill", INPUT_FILLS)
def test_on_the_device_gaps_are_filled_where_float64_is_enabled(input_fill):
    with jax.enable_x64(True):
        got, expected = _on_device_and_host(input_fill, False, "none")
        assert got.dtype == np.complex64
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.mark.gpu
@pytest.mark.parametrize("input_fill", INPUT_FILLS)
@pytest.mark.parametrize("maps", ["none", "one"])
def test_on_a_gpu_gaps_are_filled_as_on_the_host(input_fill, maps):
    if jax.default_backend() != "gpu":
        pytest.skip("no GPU")
    got, expected = _on_device_and_host(input_fill, False, maps)
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-4 * np.abs(expected).max())


def test_maps_of_other_coils_are_refused():
    kspace, mask, sens = _measured_by_four_coils()
    for others in (sens[:1], sens[:, :1], sens[..., :1]):
        shapes = f"kspace.shape=(12, 4, 32, 8) sens.shape={others.shape}"
        with pytest.raises(ValueError, match=re.escape(shapes)):
            fill_gaps(kspace, mask, "low_rank", sens=others)


@pytest.mark.parametrize("input_fill", ["sparse", "low_rank", "blended", "locally_low_rank"])
def test_what_was_measured_stays_when_gaps_are_estimated(input_fill):
    images, mask = _cine_of_few_frequencies()
    kspace = images * mask[:, None]
    kspace[tuple(np.argwhere(kspace)[0])] = 0  # a measured sample may be zero
    filled = fill_gaps(kspace, mask, input_fill)
    assert filled.dtype == np.complex64
    np.testing.assert_array_equal(filled * mask[:, None], kspace)


def test_time_says_nothing_of_lines_that_no_frame_measured():
    images, mask = _cine_of_few_frequencies()
    kspace = images * mask[:1, None]
    np.testing.assert_array_equal(fill_gaps(kspace, np.repeat(mask[:1], 12, 0), "sparse"), kspace)


@pytest.mark.parametrize("input_fill", ["sparse", "low_rank", "blended", "locally_low_rank"])
def test_nothing_stays_nothing(input_fill):
    kspace = np.zeros((3, 1, 8, 4), np.complex64)
    mask = np.eye(3, 8, dtype=np.float32)[:, :, None]
    np.testing.assert_array_equal(fill_gaps(kspace, mask, input_fill), kspace)


def test_nothing_stays_nothing_on_the_device():
    kspace = np.zeros((3, 1, 8, 4), np.complex64)
    mask = np.eye(3, 8, dtype=np.float32)[:, :, None] * np.ones(4, np.float32)
    filled = fill_on_device(kspace, mask, "blended")
    np.testing.assert_array_equal(filled, kspace)


def test_an_unknown_way_is_refused():
    with pytest.raises(
        ValueError, match="sparse, low_rank, blended, locally_low_rank, got 'nearest'"
    ):
        _filled("nearest", "X")
