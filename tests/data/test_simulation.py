"""Simulated k-space is what its equation says, and depends on seed and name only."""

import zlib

import numpy as np
import pytest

from kgmgt_jax.data.phantom.coils import smooth_phase
from kgmgt_jax.data.simulation import Simulation
from kgmgt_jax.data.transforms import ifft2c

IMAGES = np.random.default_rng(0).uniform(1, 2, (3, 15, 12)).astype(np.float32)


def test_coil_images_have_the_magnitude_of_the_image():
    kspace, image = Simulation(n_coils=4, noise=0.0).run(IMAGES, "a")
    combined = np.sqrt(np.sum(np.abs(ifft2c(kspace)) ** 2, axis=1))
    np.testing.assert_allclose(combined, IMAGES, rtol=1e-4)
    np.testing.assert_allclose(np.abs(image), IMAGES, rtol=1e-5)


@pytest.mark.parametrize("size", [(32, 16), (16, 32)])
def test_coils_lie_around_the_longer_side(size):
    """Those of an oblong image are those of the square around it."""
    cut = tuple(slice((32 - n) // 2, (32 + n) // 2) for n in size)
    square, oblong = np.ones((1, 32, 32), np.float32), np.ones((1, *size), np.float32)
    run = Simulation(n_coils=3, noise=0.0).run
    whole, part = (np.abs(ifft2c(run(images, "a")[0])) for images in (square, oblong))
    np.testing.assert_allclose(part, whole[:, :, *cut], atol=1e-4)


def test_noise_has_the_size_asked_for():
    images = np.ones((4, 64, 64), np.float32)
    images[:, :2] = 3  # 3 % of the pixels
    images[:, 0, 0] = 300  # beyond the 99th percentile
    noisy, _ = Simulation(n_coils=2, noise=0.1).run(images, "a")
    clean, _ = Simulation(n_coils=2, noise=0.0).run(images, "a")
    assert np.std(noisy - clean) == pytest.approx(0.3, rel=0.02)


def test_equal_seed_and_name_give_equal_bits_and_others_do_not():
    def run(seed, name):
        return Simulation(n_coils=2, seed=seed).run(IMAGES, name)[0]

    np.testing.assert_array_equal(run(1, "a"), run(1, "a"))
    assert not np.allclose(run(1, "a"), run(2, "a"))
    assert not np.allclose(run(1, "a"), run(1, "b"))


def test_phase_varies_smoothly_and_is_the_same_in_all_frames():
    _, image = Simulation(n_coils=1).run(IMAGES, "a")
    phase = np.angle(image * np.conj(image[:1]))
    np.testing.assert_allclose(phase, 0, atol=1e-5)
    assert np.ptp(np.angle(image[0])) > 0.1
    assert np.abs(np.angle(image[0, 1:] * np.conj(image[0, :-1]))).max() < 1.0


def test_phase_is_a_quadratic_of_positions_from_minus_one_to_one():
    image = Simulation(n_coils=1).run(IMAGES, "a")[1]
    v, u = (2 * (np.arange(n) - n // 2) / n for n in IMAGES.shape[1:])
    rng = np.random.default_rng([0, zlib.crc32(b"a")])
    phase = smooth_phase(rng, *np.meshgrid(u, v))
    np.testing.assert_allclose(image, IMAGES * np.exp(1j * phase), rtol=1e-4)


def test_complex_images_keep_their_phase():
    images = (IMAGES * np.exp(0.3j)).astype(np.complex64)
    np.testing.assert_allclose(Simulation(n_coils=1).run(images, "a")[1], images, rtol=1e-6)


def test_coils_may_be_one_number_in_a_tuple():
    for n_coils in ((3,), [3], np.int64(3)):
        assert Simulation(n_coils=n_coils).draw_coils("P001") == 3
    with pytest.raises(ValueError, match="the least and the most"):
        Simulation(n_coils=(1, 2, 3))


def test_a_choice_of_coils_is_drawn_by_seed_and_name():
    def draw(seed):
        simulation = Simulation(n_coils=(1, 10), seed=seed)
        return [simulation.draw_coils(f"P{i:03d}") for i in range(100)]

    assert set(draw(0)) == set(range(1, 11))
    assert draw(0) == draw(0) != draw(1)


def test_a_share_of_files_has_a_single_coil_and_the_others_keep_theirs():
    def draw(share):
        simulation = Simulation(n_coils=(2, 10), single_coil_share=share)
        return np.array([simulation.draw_coils(f"P{i:03d}") for i in range(400)])

    single = draw(0.6) == 1
    assert 0.5 < single.mean() < 0.7
    np.testing.assert_array_equal(draw(0.6)[~single], draw(0.0)[~single])
    assert set(draw(1.0)) == {1}


@pytest.mark.parametrize("share", [-0.1, 1.1, np.nan])
def test_a_share_out_of_range_is_refused(share):
    with pytest.raises(ValueError, match="expected single_coil_share of 0 to 1"):
        Simulation(single_coil_share=share)


def test_a_choice_of_coils_must_be_drawn_before_it_runs():
    with pytest.raises(ValueError, match="expected one number of coils"):
        Simulation(n_coils=(1, 2)).run(IMAGES, "a")


@pytest.mark.parametrize(
    "options", [{"n_coils": 0}, {"n_coils": (3, 2)}, {"noise": -0.1}, {"seed": -1}]
)
def test_values_out_of_range_are_refused(options):
    with pytest.raises(ValueError, match="expected n_coils >= 1"):
        Simulation(**options)
