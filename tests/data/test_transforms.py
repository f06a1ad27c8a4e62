"""Transforms and triplets on the host, against NumPy and the JAX operators."""

import jax.numpy as jnp
import numpy as np
import pytest

from kgmgt_jax.data import transforms
from kgmgt_jax.data.filling import INPUT_FILLS
from kgmgt_jax.data.mask_sampler import MaskSampler
from kgmgt_jax.data.transforms import fft2c, ifft2c, neighbours, triplet_of_images, triplets
from kgmgt_jax.mri import coils, fourier
from tests.data.draws import random_complex, random_maps


def _cine(t: int = 4, n: int = 1, h: int = 6, w: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """Fully sampled k-space and a mask of lines that differs from frame to frame."""
    rng = np.random.default_rng(2)
    rows = rng.random((t, h)) < 0.5
    rows[:, h // 2] = True
    mask = np.broadcast_to(rows[..., None], (t, h, w)).astype(np.float32)
    return random_complex(t, n, h, w), mask


# Fourier transforms


@pytest.mark.parametrize("size", [(6, 8), (5, 7), (6, 5), (1, 1)])
def test_the_host_transform_is_the_device_transform(size):
    images = random_complex(2, *size)
    expected = fourier.fft2c(jnp.asarray(images))
    np.testing.assert_allclose(fft2c(images), expected, atol=2e-6)


@pytest.mark.parametrize("size", [(6, 8), (5, 7), (6, 5), (1, 1)])
def test_the_inverse_undoes_the_transform(size):
    images = random_complex(2, *size)
    np.testing.assert_allclose(ifft2c(fft2c(images)), images, atol=2e-6)


def test_single_precision_is_kept():
    assert fft2c(random_complex(3, 4)).dtype == ifft2c(random_complex(3, 4)).dtype == np.complex64


def test_the_input_is_left_as_it_is():
    images = random_complex(4, 4)
    before = images.copy()
    ifft2c(fft2c(images))
    np.testing.assert_array_equal(images, before)


# Coil combination and scale


def test_coils_combine_as_on_the_device():
    images, sens = random_complex(2, 3, 4, 5), random_maps(3, 4, 5)
    expected = coils.sens_reduce(jnp.asarray(images), jnp.asarray(sens)[None])
    np.testing.assert_allclose(transforms.coil_combine(images, sens), expected, atol=1e-6)


def test_several_coils_without_sensitivities_are_refused():
    with pytest.raises(ValueError, match="n_coils=3 and sens=None"):
        transforms.coil_combine(random_complex(3, 4, 5), None)


def test_the_scale_is_the_99th_percentile_over_the_case():
    ramp = np.arange(101, dtype=np.float32).reshape(1, 1, 101)
    assert transforms.intensity_scale(-ramp) == 99


def test_the_scale_falls_back_to_the_maximum():
    image = np.zeros((20, 20), np.float32)
    image[0, 0] = 7
    assert transforms.intensity_scale(image) == 7


def test_the_scale_of_nothing_is_one():
    assert transforms.intensity_scale(np.zeros((4, 4), np.complex64)) == 1


# Neighbours


@pytest.mark.parametrize(
    ("t", "n_frames", "circular", "expected"),
    [
        (2, 5, True, (1, 3)),
        (0, 5, True, (4, 1)),
        (4, 5, True, (3, 0)),
        (0, 5, False, (0, 1)),
        (4, 5, False, (3, 4)),
        (0, 1, True, (0, 0)),
        (0, 1, False, (0, 0)),
    ],
)
def test_neighbours(t, n_frames, circular, expected):
    assert neighbours(t, n_frames, circular=circular) == expected


@pytest.mark.parametrize("t", [-1, 5])
def test_a_frame_outside_the_cine_is_refused(t):
    with pytest.raises(ValueError, match=rf"t={t} with n_frames=5"):
        neighbours(t, 5)


# Triplets


def triplet(kspace, mask, sens, t, **options):
    """One example without the batch axis."""
    return {k: v[0] for k, v in triplets(kspace, mask, sens, [t], **options).items()}


@pytest.mark.parametrize("n", [1, 3])
def test_shapes_and_dtypes(n):
    kspace, mask = _cine(n=n)
    example = triplet(kspace, mask, None if n == 1 else random_maps(n, 6, 5), 1)
    found = {name: (array.shape, array.dtype.name) for name, array in example.items()}
    expected = dict.fromkeys(
        ("target", "preceding", "succeeding", "reference"), ((6, 5), "complex64")
    )
    expected |= {"kspace": ((n, 6, 5), "complex64"), "mask": ((6, 5), "float32")}
    expected |= {"scale": ((), "float32")}
    assert found == expected | ({"sens": ((n, 6, 5), "complex64")} if n > 1 else {})


def test_inputs_are_the_zero_filled_frames_each_under_its_own_mask():
    kspace, mask = _cine()
    example = triplet(kspace, mask, None, 0)
    zero_filled = ifft2c(kspace * mask[:, None])[:, 0] / example["scale"]
    for name, frame in (("preceding", 3), ("target", 0), ("succeeding", 1)):
        np.testing.assert_allclose(example[name], zero_filled[frame], atol=1e-6)


def test_the_measurement_is_the_transform_of_the_target():
    kspace, mask = _cine()
    example = triplet(kspace, mask, None, 2)
    np.testing.assert_allclose(example["kspace"][0], fft2c(example["target"]), atol=2e-6)


def test_unmeasured_kspace_is_zero():
    example = triplet(*_cine(), None, 2)
    assert not example["kspace"][0][example["mask"] == 0].any()


def test_the_reference_keeps_the_file_units_up_to_the_scale():
    kspace, mask = _cine(n=3)
    sens = random_maps(3, 6, 5)
    example = triplet(kspace, mask, sens, 1)
    expected = transforms.coil_combine(ifft2c(kspace[1]), sens)
    np.testing.assert_allclose(example["reference"] * example["scale"], expected, atol=1e-5)


def test_with_everything_measured_the_target_is_the_reference():
    kspace, mask = _cine()
    example = triplet(kspace, np.ones_like(mask), None, 1)
    np.testing.assert_allclose(example["target"], example["reference"], atol=1e-6)


def test_the_scaled_cine_has_percentile_one():
    kspace, mask = _cine()
    batch = triplets(kspace * np.float32(1e-3), mask, None, range(4))
    assert np.percentile(np.abs(batch["target"]), 99) == pytest.approx(1, rel=1e-5)


def test_a_change_of_units_changes_the_scale_only():
    kspace, mask = _cine()
    one, other = triplet(kspace, mask, None, 1), triplet(kspace * np.float32(1024), mask, None, 1)
    assert other["scale"] == 1024 * one["scale"]
    np.testing.assert_array_equal(other["target"], one["target"])


def test_a_single_frame_is_its_own_neighbour():
    example = triplet(*_cine(t=1), None, 0)
    np.testing.assert_array_equal(example["preceding"], example["target"])
    np.testing.assert_array_equal(example["succeeding"], example["target"])


def test_without_gating_the_first_frame_precedes_itself():
    example = triplet(*_cine(), None, 0, circular=False)
    np.testing.assert_array_equal(example["preceding"], example["target"])


def test_a_batch_is_its_triplets_stacked():
    kspace, mask = _cine(n=3)
    sens = random_maps(3, 6, 5)
    batch = triplets(kspace, mask, sens, [3, 0])
    for row, t in enumerate((3, 0)):
        for name, array in triplet(kspace, mask, sens, t).items():
            np.testing.assert_allclose(batch[name][row], array, atol=1e-6)


@pytest.mark.parametrize("input_fill", INPUT_FILLS[1:])
def test_filled_inputs_leave_the_measurement_alone(input_fill):
    kspace, mask = _cine()
    mask[:, 0], mask[1, 0] = 1, 0  # a line that only the target lacks
    plain = triplet(kspace, mask, None, 1)
    filled = triplet(kspace, mask, None, 1, input_fill=input_fill)
    np.testing.assert_array_equal(filled["mask"], plain["mask"])
    unscaled = (plain["kspace"] * plain["scale"], filled["kspace"] * filled["scale"])
    np.testing.assert_allclose(*unscaled, rtol=1e-5)
    spectrum = fft2c(filled["target"])
    np.testing.assert_allclose(spectrum * mask[1], filled["kspace"][0], atol=2e-6)
    assert np.abs(spectrum[0]).min() > 0.01


@pytest.mark.parametrize("input_fill", INPUT_FILLS)
@pytest.mark.parametrize("kind", ["kt_gaussian", "kt_radial"])
@pytest.mark.parametrize(("n", "h", "w"), [(1, 12, 11), (3, 11, 12)])
def test_examples_of_images_are_those_of_kspace(input_fill, kind, n, h, w):
    images, sens = random_complex(4, n, h, w), None if n == 1 else random_maps(n, h, w)
    mask = MaskSampler((kind,), (3.0,), 2).draw(np.random.default_rng(0), (4, h, w))
    fast = triplet_of_images(images, mask, sens, (3, 0, 1), input_fill=input_fill)
    slow = triplet(fft2c(images), mask, sens, 0, input_fill=input_fill)
    assert fast.keys() == slow.keys()
    for name, array in slow.items():
        assert fast[name].dtype == array.dtype and fast[name].shape == array.shape
        np.testing.assert_allclose(fast[name], array, atol=1e-5)


@pytest.mark.parametrize("input_fill", ["neighbours", "blended"])
def test_examples_of_images_of_a_cine_with_ends_are_those_of_kspace(input_fill):
    images, mask = random_complex(4, 1, 6, 5), _cine()[1]
    ends = {"circular": False, "input_fill": input_fill}
    fast = triplet_of_images(images, mask, None, (0, 0, 1), **ends)
    slow = triplet(fft2c(images), mask, None, 0, **ends)
    for name, array in slow.items():
        np.testing.assert_allclose(fast[name], array, atol=1e-5)


@pytest.mark.parametrize("input_fill", ["zero", "low_rank", "blended"])
def test_maps_of_each_frame_follow_their_frames(input_fill):
    images, mask = random_complex(4, 3, 6, 5), _cine()[1]
    sens = np.stack([np.roll(random_maps(3, 6, 5), i, axis=-1) for i in range(4)])
    fast = triplet_of_images(images, mask, sens, (3, 0, 1), input_fill=input_fill)
    slow = triplet(fft2c(images), mask, sens, 0, input_fill=input_fill)
    for name, array in slow.items():
        np.testing.assert_allclose(fast[name], array, atol=1e-5)


def test_intensity_multiplies_what_the_network_sees():
    images, mask = random_complex(4, 1, 6, 5), _cine()[1]
    plain = triplet_of_images(images, mask, None, (3, 0, 1))
    bright = triplet_of_images(images, mask, None, (3, 0, 1), intensity=1.5)
    for name in ("target", "preceding", "succeeding", "reference", "kspace"):
        np.testing.assert_allclose(bright[name], 1.5 * plain[name], rtol=1e-5)
    np.testing.assert_array_equal(bright["mask"], plain["mask"])
