"""Random geometry, phase and intensity: what changes, and what images and maps keep in common."""

import numpy as np
import pytest

from kgmgt_jax.data.augmentation import Augmentation, Moves, pad_case, rotate_case
from kgmgt_jax.data.transforms import coil_combine, fft2c, ifft2c
from tests.data.draws import random_complex, random_maps


def _only(**options) -> Augmentation:
    return Augmentation(**{"flips": False, "phase": False} | options)


def test_a_crop_is_one_window_of_all_frames_coils_and_sensitivities():
    images = np.broadcast_to(np.arange(8 * 9).reshape(8, 9), (2, 3, 8, 9)).astype(np.complex64)
    cut, sens = _only(crop=(4, 5)).apply(images, images[0], np.random.default_rng(0))
    top, left = divmod(int(cut[0, 0, 0, 0].real), 9)
    np.testing.assert_array_equal(cut, images[..., top : top + 4, left : left + 5])
    np.testing.assert_array_equal(sens, cut[0])


def test_every_window_that_fits_occurs():
    image = np.arange(3, dtype=np.complex64).reshape(1, 1, 3, 1)
    rng = np.random.default_rng(0)
    cut = _only(crop=(2, None))
    assert {cut.apply(image, None, rng)[0][0, 0, 0, 0].real for _ in range(40)} == {0, 1}


@pytest.mark.parametrize("size", [(None, None), (9, 9), (6, 5)])
def test_a_crop_that_does_not_fit_keeps_the_axis(size):
    images = random_complex(2, 1, 6, 5)
    cut, _ = _only(crop=size).apply(images, None, np.random.default_rng(0))
    np.testing.assert_array_equal(cut, images)


def _augmented(n: int = 16) -> list[tuple[np.ndarray, np.ndarray]]:
    images, sens = random_complex(2, 3, 4, 5), random_maps(3, 4, 5)
    rng = np.random.default_rng(0)
    return [Augmentation().apply(images, sens, rng) for _ in range(n)]


def test_augmentation_is_one_of_four_mirrorings():
    magnitude = np.abs(random_complex(2, 3, 4, 5))
    mirrored = [np.flip(magnitude, axes) for axes in ((), (-2,), (-1,), (-2, -1))]
    matches = [[np.allclose(np.abs(a), m, rtol=1e-5) for m in mirrored] for a, _ in _augmented()]
    np.testing.assert_array_equal(np.sum(matches, axis=1), 1)
    assert np.all(np.any(matches, axis=0))


def test_augmentation_turns_all_pixels_by_one_phase():
    images, _ = Augmentation().apply(
        np.ones((2, 3, 4, 5), np.complex64), None, np.random.default_rng(5)
    )
    np.testing.assert_allclose(images, images[0, 0, 0, 0] * np.ones_like(images))
    assert abs(np.angle(images[0, 0, 0, 0])) > 1e-3


def test_the_phase_is_any_of_the_whole_circle():
    rng = np.random.default_rng(0)
    one = np.ones((1, 1, 1, 1), np.complex64)
    phases = [np.angle(Augmentation().apply(one, None, rng)[0].item()) for _ in range(64)]
    quarters = np.bincount(((np.array(phases) + np.pi) // (np.pi / 2)).astype(int), minlength=4)
    assert quarters.min() >= 6


def test_sensitivities_are_mirrored_with_the_images():
    image, sens = random_complex(1, 1, 4, 5), random_maps(3, 4, 5)
    rng = np.random.default_rng(0)
    for _ in range(8):
        coil_images, mirrored = Augmentation().apply(sens * image, sens, rng)
        combined = coil_combine(coil_images, mirrored)
        np.testing.assert_allclose(coil_images, mirrored * combined[:, None], atol=1e-5)


@pytest.mark.parametrize("flips", [(), (-2,), (-1,), (-2, -1)])
@pytest.mark.parametrize("size", [(6, 8), (7, 5), (1, 4)])
def test_a_mask_lies_where_the_samples_of_mirrored_images_do(size, flips):
    mask = (np.random.default_rng(0).random((2, *size)) < 0.4).astype(np.float32)
    images = ifft2c(random_complex(2, 1, *size) * mask[:, None])
    moves = Moves(0.0, (slice(None), slice(None)), 0, flips, 1j)
    kspace = fft2c(moves.of_case(images, None)[0])[:, 0]
    np.testing.assert_array_equal(np.abs(kspace) > 1e-5, moves.of_mask(mask) > 0)


def test_augmentation_keeps_single_precision():
    images, sens = _augmented(1)[0]
    assert images.dtype == sens.dtype == np.complex64


def test_quarter_turns_are_the_four_rotations_of_square_images():
    images, sens = random_complex(2, 3, 5, 5), random_maps(3, 5, 5)
    rng = np.random.default_rng(0)
    seen = set()
    for _ in range(16):
        turned, maps = _only(quarter_turns=True).apply(images, sens, rng)
        fits = [np.array_equal(turned, np.rot90(images, k, (-2, -1))) for k in range(4)]
        assert sum(fits) == 1
        np.testing.assert_array_equal(maps, np.rot90(sens, fits.index(True), (-2, -1)))
        seen.add(fits.index(True))
    assert seen == {0, 1, 2, 3}


def test_quarter_turns_leave_other_shapes():
    images = random_complex(2, 1, 4, 5)
    for seed in range(6):
        rng = np.random.default_rng(seed)
        np.testing.assert_array_equal(_only(quarter_turns=True).apply(images, None, rng)[0], images)


def test_a_quarter_of_a_turn_by_interpolation_is_a_quarter_turn():
    images, sens = random_complex(2, 3, 5, 5), random_maps(3, 5, 5)
    turned, maps = rotate_case(images, sens, 90.0)
    np.testing.assert_allclose(turned, np.rot90(images, 1, (-2, -1)), atol=1e-5)
    np.testing.assert_allclose(maps, np.rot90(sens, 1, (-2, -1)), atol=1e-5)


def test_rotation_interpolates_linearly_about_the_middle():
    y, x = np.mgrid[-8:9, -8:9].astype(np.complex64)
    turned, _ = rotate_case((y + 2j * x)[None, None], None, 20.0)
    c, s = np.cos(np.radians(20)), np.sin(np.radians(20))
    inside = np.hypot(y.real, x.real) < 7
    expected = (c * y + s * x) + 2j * (c * x - s * y)
    np.testing.assert_allclose(turned[0, 0][inside], expected[inside], atol=1e-5)


def test_rotated_maps_have_unit_norm_where_there_are_any():
    _, maps = rotate_case(random_complex(1, 3, 8, 8), random_maps(3, 8, 8), 30.0)
    norm = np.sqrt(np.sum(np.abs(maps) ** 2, axis=0))
    assert maps.dtype == np.complex64 and norm[4, 4] == pytest.approx(1, abs=1e-5)
    assert np.all((np.abs(norm - 1) < 1e-5) | (norm == 0)) and (norm == 0).any()


def test_a_random_rotation_stays_within_its_angle():
    images = np.zeros((1, 1, 33, 33), np.complex64)
    images[..., 16, 28] = 1  # to the right of the middle
    rows = []
    for seed in range(8):
        turned = _only(max_angle=10.0).apply(images, None, np.random.default_rng(seed))[0]
        row, column = np.unravel_index(np.abs(turned[0, 0]).argmax(), (33, 33))
        assert abs(row - 16) <= 12 * np.sin(np.radians(10)) + 1 and column >= 27
        rows.append(row)
    assert min(rows) < 16 < max(rows)


def test_intensity_lies_within_its_range_on_both_sides():
    drawn = [_only(intensity=0.25).draw_intensity(np.random.default_rng(i)) for i in range(64)]
    assert 0.8 <= min(drawn) < 0.85 and 1.2 < max(drawn) <= 1.25
    assert _only().draw_intensity(np.random.default_rng(0)) == 1


@pytest.mark.parametrize("new", [(9, 10), (8, 9), (13, 7)])
def test_padding_keeps_the_image_at_the_centre_of_the_transform(new):
    """The padded image's k-space at the old frequencies is the old k-space, up to the norm."""
    images = np.ones((1, 1, 6, 5), np.complex64)
    padded, _ = pad_case(images, None, (1, *new))
    dc = fft2c(padded)[0, 0, new[0] // 2, new[1] // 2]
    assert dc * np.sqrt(new[0] * new[1]) == pytest.approx(30, rel=1e-5)
    assert padded[0, 0, new[0] // 2, new[1] // 2] == 1
    impulse = np.zeros_like(images)
    impulse[0, 0, 3, 2] = 1  # the centre stays the centre
    moved, _ = pad_case(impulse, None, (1, *new))
    assert moved[0, 0, new[0] // 2, new[1] // 2] == 1


def test_added_coils_receive_nothing():
    images, sens = random_complex(2, 3, 4, 5), random_maps(3, 4, 5)
    padded, maps = pad_case(images, sens, (5, 4, 5))
    assert padded.shape == (2, 5, 4, 5) and not padded[:, 3:].any() and not maps[3:].any()
    np.testing.assert_allclose(coil_combine(padded, maps), coil_combine(images, sens), atol=1e-6)


def test_a_single_coil_among_several_has_sensitivity_one():
    images = random_complex(2, 1, 4, 5)
    padded, maps = pad_case(images, None, (3, 4, 5))
    np.testing.assert_array_equal(coil_combine(padded, maps), images[:, 0])


def test_a_case_larger_than_its_bucket_is_refused():
    with pytest.raises(ValueError, match=r"at least .*\(1, 4, 5\), got shape=\(1, 4, 4\)"):
        pad_case(random_complex(2, 1, 4, 5), None, (1, 4, 4))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"crop": (0, None)}, r"crop=\(0, None\)"),
        ({"crop": (8,)}, r"crop=\(8,\)"),
        ({"max_angle": -1.0}, "max_angle=-1.0"),
        ({"intensity": -0.1}, "intensity=-0.1"),
    ],
)
def test_impossible_augmentation_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Augmentation(**options)
