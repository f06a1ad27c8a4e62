"""One slice: what the images show, the k-space that belongs to them, and bad arguments."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from kgmgt_jax.data.phantom import make_cine
from kgmgt_jax.data.phantom.heart import CAVITY, MYOCARDIUM, RIGHT_CAVITY
from kgmgt_jax.data.transforms import ifft2c

SMALL = {"shape": (48, 40), "n_frames": 3}


@pytest.mark.parametrize("label", [CAVITY, MYOCARDIUM, RIGHT_CAVITY])
def test_both_views_show_every_chamber(sax, lax, label):
    assert min((c.labels == label).sum((1, 2)).min() for c in (sax, lax)) > 60


def test_blood_is_brighter_than_muscle(sax, lax):
    for cine in (sax, lax):
        magnitude = np.abs(cine.image)
        blood = np.median(magnitude[cine.labels == CAVITY])
        muscle = np.median(magnitude[cine.labels == MYOCARDIUM])
        assert 1.6 < blood / muscle < 4.5


def test_most_of_the_motion_is_at_the_heart(sax):
    moving = np.abs(sax.image - sax.image[:1]).mean(0)
    heart = (sax.labels > 0).any(0)
    assert moving[heart].mean() > 5 * moving[~heart].mean()


def test_last_frame_leads_back_to_the_first():
    cine = make_cine(2, shape=(64, 64), n_frames=40, noise=0.0)
    step = np.linalg.norm(np.diff(cine.image, axis=0), axis=(1, 2))
    assert np.linalg.norm(cine.image[0] - cine.image[-1]) < 2.5 * step.max()


def test_anatomy_does_not_depend_on_the_matrix():
    coarse, fine = (make_cine(6, shape=(n, n), n_frames=1, noise=0.0) for n in (64, 192))
    area = [(c.labels > 0).mean() for c in (coarse, fine)]
    assert_allclose(area[0], area[1], rtol=0.06)


def test_equal_calls_give_equal_arrays():
    first, second = (make_cine(3, n_coils=2, **SMALL) for _ in range(2))
    for name in ("kspace", "image", "sens", "labels"):
        assert_array_equal(getattr(first, name), getattr(second, name))


def test_numbers_of_numpy_give_the_same_arrays():
    one = make_cine(1, level=0.55, **SMALL)
    sides, n_frames = np.array(SMALL["shape"]), np.int64(SMALL["n_frames"])
    other = make_cine(np.int64(1), level=np.float64(0.55), shape=sides, n_frames=n_frames)
    assert other.lv_volume.dtype == np.float32
    for name in ("kspace", "image", "lv_volume", "lv_length"):
        assert_array_equal(getattr(one, name), getattr(other, name))


def test_seeds_differ():
    first, second = (np.abs(make_cine(seed, **SMALL).image) for seed in (0, 1))
    assert np.linalg.norm(first - second) > 0.3 * np.linalg.norm(first)


@pytest.mark.parametrize("view", ["sax", "lax"])
@pytest.mark.parametrize(("shape", "n_coils"), [((51, 64), 3), ((32, 33), 1), ((16, 17), 4)])
def test_shapes_and_types(view, shape, n_coils):
    cine = make_cine(0, shape=shape, n_frames=2, n_coils=n_coils, view=view)
    assert cine.kspace.shape == (2, n_coils, *shape)
    assert cine.image.shape == cine.labels.shape == (2, *shape)
    assert cine.sens.shape == (n_coils, *shape)
    assert {cine.kspace.dtype, cine.image.dtype, cine.sens.dtype} == {np.dtype(np.complex64)}
    assert np.isfinite(cine.kspace).all()


@pytest.mark.parametrize("n_coils", [1, 3])
def test_noise_free_kspace_combines_to_the_image(n_coils):
    cine = make_cine(1, shape=(45, 36), n_frames=2, n_coils=n_coils, noise=0.0)
    combined = (cine.sens.conj() * ifft2c(cine.kspace)).sum(1)
    assert_allclose(combined, cine.image, atol=1e-6 * np.abs(cine.image).max())


def test_noise_has_the_std_asked_for():
    noisy, clean = (make_cine(1, n_coils=4, noise=noise, **SMALL) for noise in (0.02, 0.0))
    std = np.sqrt(np.mean(np.abs(noisy.kspace - clean.kspace) ** 2))
    assert_allclose(std, 0.02 * np.percentile(np.abs(clean.image), 99), rtol=0.03)


def test_noise_differs_between_slices():
    first, second = (
        make_cine(1, level=v, noise=0.02, **SMALL).kspace
        - make_cine(1, level=v, noise=0.0, **SMALL).kspace
        for v in (0.4, 0.6)
    )
    correlation = np.abs(np.vdot(first, second)) / np.linalg.norm(first) / np.linalg.norm(second)
    assert correlation < 0.1


def test_magnitudes_are_those_of_the_challenge(sax, lax):
    for cine in (sax, lax):
        assert 0.7e-3 < np.percentile(np.abs(cine.image), 99) < 1.3e-3


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("seed", -1),
        ("seed", 1.5),
        ("shape", 128),
        ("shape", (128,)),
        ("shape", (8, 128)),
        ("n_frames", 0),
        ("n_coils", 0),
        ("view", "2ch"),
        ("level", 1.0),
        ("noise", -0.1),
        ("noise", float("nan")),
        ("field_of_view_mm", 20.0),
        ("field_of_view_mm", (300.0, 300.0, 300.0)),
    ],
)
def test_bad_arguments_are_named(name, value):
    arguments = {"seed": 0, name: value}
    with pytest.raises(ValueError, match=rf"^{name}=.*expected"):
        make_cine(arguments.pop("seed"), **arguments)
