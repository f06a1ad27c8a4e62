"""Metrics against scikit-image in float64, and the presets against their definitions."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from skimage.metrics import normalized_root_mse, peak_signal_noise_ratio, structural_similarity

from kgmgt_jax.metrics import PRESETS, evaluate, nmse, psnr, ssim, ssim_map

CASES = [(32, 40, 1.0), (33, 29, 1e-3), (7, 7, 1.0), (33, 29, 3e4), (9, 30, 1e-6)]
RTOL = 1e-6


def _pair(h=24, w=20, scale=1.0, t=None, seed=0):
    """A structured, bright, positive image and a noisy copy, both exactly float32."""
    rng = np.random.default_rng(seed)
    shape = (h, w) if t is None else (t, h, w)
    y, x = np.linspace(0, 3, h)[:, None], np.linspace(0, 2, w)[None]
    reference = 0.6 + 0.4 * np.sin(y * 4) * np.cos(x * 5) + 0.05 * rng.random(shape)
    prediction = np.abs(reference + 0.03 * rng.normal(size=shape))
    return (scale * reference).astype(np.float32), (scale * prediction).astype(np.float32)


def _doubles(*images):
    return [image.astype(np.float64) for image in images]


@pytest.mark.parametrize(("h", "w", "scale"), CASES)
def test_psnr_equals_scikit_image(h, w, scale):
    reference, prediction = _pair(h, w, scale)
    peak = float(reference.max())
    expected = peak_signal_noise_ratio(*_doubles(reference, prediction), data_range=peak)
    np.testing.assert_allclose(psnr(reference, prediction, peak), expected, rtol=RTOL)


@pytest.mark.parametrize(("h", "w", "scale"), CASES)
def test_ssim_equals_scikit_image(h, w, scale):
    reference, prediction = _pair(h, w, scale)
    peak = float(reference.max())
    expected = structural_similarity(*_doubles(reference, prediction), data_range=peak)
    np.testing.assert_allclose(ssim(reference, prediction, peak), expected, rtol=0, atol=1e-6)


def test_ssim_does_not_depend_on_the_units():
    """Squares of such pixels are below what float32 holds."""
    reference, prediction = _pair()
    peak, unit = float(reference.max()), 2.0**-70
    tiny = ssim(unit * reference, unit * prediction, unit * peak)
    np.testing.assert_allclose(tiny, ssim(reference, prediction, peak), rtol=1e-6)


def test_ssim_map_is_scikit_images_and_takes_a_range_a_row():
    reference, prediction = _pair(20, 24)
    rows = np.linspace(1, 2, 14, dtype=np.float32)[:, None]
    found = ssim_map(reference, prediction, rows)
    for row, peak in enumerate(rows[:, 0]):
        _, full = structural_similarity(
            *_doubles(reference, prediction), data_range=float(peak), full=True
        )
        np.testing.assert_allclose(found[row], full[row + 3, 3:-3], rtol=0, atol=1e-6)


def test_ssim_keeps_its_digits_on_a_bright_flat_image():
    rng = np.random.default_rng(1)
    reference = (1.0 - 1e-3 * rng.random((33, 29))).astype(np.float32)
    prediction = (1.0 - 1e-3 * rng.random((33, 29))).astype(np.float32)
    expected = structural_similarity(*_doubles(reference, prediction), data_range=0.01)
    np.testing.assert_allclose(ssim(reference, prediction, 0.01), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("h", "w", "scale"), CASES)
def test_nmse_equals_scikit_image(h, w, scale):
    reference, prediction = _pair(h, w, scale)
    expected = normalized_root_mse(*_doubles(reference, prediction)) ** 2
    np.testing.assert_allclose(nmse(reference, prediction), expected, rtol=RTOL)


@pytest.mark.parametrize("unit", [2.0**-70, 2.0**70])
def test_nmse_does_not_depend_on_the_units(unit):
    """Squares of such pixels are not what float32 holds; nor is the gradient another."""
    reference, prediction = _pair()
    there = nmse(unit * reference, unit * prediction)
    np.testing.assert_allclose(there, nmse(reference, prediction), rtol=1e-6)
    slope = unit * jax.grad(nmse)(unit * reference, unit * prediction)
    np.testing.assert_allclose(slope, jax.grad(nmse)(reference, prediction), rtol=1e-4, atol=1e-6)


def test_psnr_of_a_tenth_is_twenty_decibel():
    reference = jnp.ones((4, 4))
    np.testing.assert_allclose(psnr(reference, reference - 0.1, 1.0), 20.0, rtol=1e-6)


def test_equal_images():
    reference, _ = _pair()
    assert psnr(reference, reference, 1.0) == np.inf
    assert nmse(reference, reference) == 0.0
    np.testing.assert_allclose(ssim(reference, reference, 1.0), 1.0, atol=1e-6)


@pytest.mark.parametrize("metric", [psnr, ssim])
def test_metrics_treat_each_image_of_a_batch_by_itself(metric):
    reference, prediction = _pair(t=3)
    ranges = np.array([1.0, 2.0, 0.5], np.float32)
    together = metric(reference, prediction, ranges)
    single = [metric(r, p, d) for r, p, d in zip(reference, prediction, ranges, strict=True)]
    np.testing.assert_allclose(together, np.array(single), rtol=1e-6)


def test_psnr_runs_under_jit_with_a_gradient():
    reference, prediction = _pair()
    gradient = jax.jit(jax.grad(lambda p: psnr(reference, p, 1.0)))(prediction)
    error = prediction - reference
    expected = -20.0 / np.log(10.0) * error / np.sum(error**2)
    np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-6)


def test_ssim_of_half_precision_images_is_computed_in_float32():
    reference, prediction = (jnp.asarray(x, jnp.bfloat16) for x in _pair())
    assert ssim(reference, prediction, 1.0).dtype == jnp.float32


def _normalised(preset, image):
    """The presets' definitions in float64."""
    if preset == "cmrxrecon2023":
        return image / image.max()
    if preset == "cmrxrecon2024":
        return (image - image.mean()) / image.std()
    if preset == "cmrxrecon2025":
        return image / np.percentile(image, 99.5)
    return image


@pytest.mark.parametrize("preset", ["frame", "cmrxrecon2023", "cmrxrecon2024", "cmrxrecon2025"])
@pytest.mark.parametrize("scale", [1.0, 1e-3])
def test_frame_presets_equal_scikit_image(preset, scale):
    reference, prediction = _pair(scale=scale, t=3)
    prediction *= 1.1  # a wrong scale, which some presets forgive
    scores = evaluate(reference, prediction, preset)
    for t, pair in enumerate(zip(*_doubles(reference, prediction), strict=True)):
        r, p = (_normalised(preset, image) for image in pair)
        peak = r.max()
        psnr_t = peak_signal_noise_ratio(r, p, data_range=peak)
        ssim_t = structural_similarity(r, p, data_range=peak)
        np.testing.assert_allclose(scores["psnr"][t], psnr_t, rtol=2e-6)
        np.testing.assert_allclose(scores["ssim"][t], ssim_t, rtol=0, atol=1e-6)
        np.testing.assert_allclose(scores["nmse"][t], normalized_root_mse(r, p) ** 2, rtol=5e-6)


def test_fastmri_preset_scores_the_volume():
    reference, prediction = _pair(t=3)
    reference[2] *= 3.0
    scores = evaluate(reference, prediction, "fastmri")
    r, p = _doubles(reference, prediction)
    peak = r.max()
    ssim_frames = [structural_similarity(a, b, data_range=peak) for a, b in zip(r, p, strict=True)]
    np.testing.assert_allclose(
        scores["psnr"], [peak_signal_noise_ratio(r, p, data_range=peak)], rtol=RTOL
    )
    np.testing.assert_allclose(scores["ssim"], [np.mean(ssim_frames)], rtol=0, atol=1e-6)
    np.testing.assert_allclose(scores["nmse"], [normalized_root_mse(r, p) ** 2], rtol=RTOL)


def test_frame_is_the_default_preset():
    reference, prediction = _pair(t=3)
    np.testing.assert_array_equal(
        evaluate(reference, prediction)["psnr"], evaluate(reference, prediction, "frame")["psnr"]
    )


def test_a_hot_pixel_ruins_the_own_max_preset_alone():
    """One pixel at 3x the max scales the rest of the prediction to a third: about 7 dB."""
    rng = np.random.default_rng(0)
    reference = rng.uniform(0.3, 1.0, (1, 96, 96)).astype(np.float32)
    prediction = reference.copy()
    prediction[:, 10, 10] = 3.0 * reference.max(axis=(1, 2))
    own_max = float(evaluate(reference, prediction, "cmrxrecon2023")["psnr"][0])
    expected = -10 * np.log10(np.mean((2 / 3 * reference) ** 2))
    assert own_max == pytest.approx(expected, abs=0.01)
    assert 6.5 < own_max < 7.5
    assert float(evaluate(reference, prediction, "frame")["psnr"][0]) > 30.0


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_a_prediction_of_zeros_scores_finite(preset):
    reference, _ = _pair(t=3)
    scores = evaluate(reference, np.zeros_like(reference), preset)
    assert all(np.isfinite(values).all() for values in scores.values())


@pytest.mark.parametrize("preset", sorted(set(PRESETS) - {"fastmri"}))
def test_an_empty_reference_frame_is_refused(preset):
    reference, prediction = _pair(t=3)
    reference[1] = 0.0
    with pytest.raises(ValueError, match=r"frames \[1\]"):
        evaluate(reference, prediction, preset)


def test_an_empty_reference_volume_is_refused():
    _, prediction = _pair(t=3)
    with pytest.raises(ValueError, match="some signal"):
        evaluate(np.zeros_like(prediction), prediction, "fastmri")


def test_unknown_preset():
    with pytest.raises(ValueError, match=r"frame, cmrxrecon2023, .*got preset='own'"):
        evaluate(*_pair(t=3), "own")


@pytest.mark.parametrize("metric", [nmse, lambda r, p: psnr(r, p, 1.0), lambda r, p: ssim(r, p, 1)])
def test_different_shapes_are_refused(metric):
    with pytest.raises(ValueError, match=r"reference\.shape=\(8, 8\), prediction\.shape=\(8, 9\)"):
        metric(jnp.ones((8, 8)), jnp.ones((8, 9)))


def test_images_smaller_than_the_window_are_refused():
    with pytest.raises(ValueError, match="at least 7x7"):
        ssim(jnp.ones((6, 12)), jnp.ones((6, 12)), 1.0)


def test_evaluate_needs_a_cine():
    with pytest.raises(ValueError, match=r"shape \(t, h, w\)"):
        evaluate(*_pair())
    with pytest.raises(ValueError, match=r"shape \(t, h, w\), got reference.shape=\(1, 2, 8, 8\)"):
        evaluate(jnp.ones((1, 2, 8, 8)), jnp.ones((1, 2, 8, 8)))


@pytest.mark.parametrize("dtypes", [("complex64", "float32"), ("float32", "complex64")])
def test_complex_images_are_refused(dtypes):
    with pytest.raises(TypeError, match="absolute values"):
        psnr(*(jnp.ones((8, 8), dtype) for dtype in dtypes), 1.0)


@pytest.mark.parametrize(
    "metric", [nmse, evaluate, *(partial(f, data_range=1.0) for f in (psnr, ssim, ssim_map))]
)
@pytest.mark.parametrize("types", [("<f4", ">f4"), (">f4", "<f4")])
def test_another_byte_order_is_refused_of_compiled_metrics_too(metric, types):
    images = _pair(t=2)
    metric(*images)
    metric(*images)  # from now on JAX takes the bytes for other numbers
    with pytest.raises(ValueError, match=r"byte order of this machine, got >f4"):
        metric(*(np.asarray(image, dtype) for image, dtype in zip(images, types, strict=True)))
