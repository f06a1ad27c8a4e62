"""Centred orthonormal FFT against NumPy, and the complex/two-channel seam."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kgmgt_jax.mri.fourier import fft2c, ifft2c, to_channels, to_complex

SIZES = [(8, 6), (7, 5), (8, 5), (7, 6), (16, 24)]
AXES = (-2, -1)


def _image(shape, seed=0):
    rng = np.random.default_rng(seed)
    return (rng.normal(size=shape) + 1j * rng.normal(size=shape)).astype(np.complex64)


def _explicit_dft(image):
    """The defining sum, with indices counted from the centre."""
    h, w = image.shape
    y, x = np.arange(h) - h // 2, np.arange(w) - w // 2
    rows = np.exp(-2j * np.pi * np.outer(y, y) / h) / np.sqrt(h)
    columns = np.exp(-2j * np.pi * np.outer(x, x) / w) / np.sqrt(w)
    return rows @ image @ columns.T


@pytest.mark.parametrize("size", SIZES)
def test_fft2c_is_the_centred_orthonormal_dft(size):
    image = _image(size)
    np.testing.assert_allclose(fft2c(jnp.asarray(image)), _explicit_dft(image), atol=2e-6)


@pytest.mark.parametrize("size", SIZES)
def test_ifft2c_agrees_with_numpy(size):
    kspace = _image((2, *size))
    shifted = np.fft.ifft2(np.fft.ifftshift(kspace, axes=AXES), norm="ortho")
    expected = np.fft.fftshift(shifted, axes=AXES)
    np.testing.assert_allclose(ifft2c(jnp.asarray(kspace)), expected, atol=2e-6)


@pytest.mark.parametrize("size", SIZES)
def test_ifft2c_inverts_fft2c(size):
    image = jnp.asarray(_image((3, *size)))
    np.testing.assert_allclose(ifft2c(fft2c(image)), image, atol=2e-6)


@pytest.mark.parametrize("size", SIZES)
def test_parseval(size):
    image = _image(size)
    energy = np.linalg.norm(fft2c(jnp.asarray(image)))
    np.testing.assert_allclose(energy, np.linalg.norm(image), rtol=1e-6)


@pytest.mark.parametrize("size", SIZES)
def test_ifft2c_is_the_adjoint(size):
    image, kspace = jnp.asarray(_image(size, 1)), jnp.asarray(_image(size, 2))
    left = jnp.vdot(kspace, fft2c(image))
    right = jnp.vdot(ifft2c(kspace), image)
    np.testing.assert_allclose(left, right, rtol=1e-5)


@pytest.mark.parametrize("size", SIZES)
def test_delta_at_the_centre_has_a_flat_real_spectrum(size):
    h, w = size
    delta = jnp.zeros(size, jnp.complex64).at[h // 2, w // 2].set(1.0)
    np.testing.assert_allclose(fft2c(delta), np.full(size, 1 / np.sqrt(h * w)), atol=1e-7)


def test_complex64_stays_complex64():
    assert fft2c(jnp.asarray(_image((4, 5)))).dtype == jnp.complex64


def test_complex128_is_kept():
    with jax.enable_x64(True):
        image = jnp.asarray(_image((5, 4)).astype(np.complex128))
        transformed = fft2c(image)
        assert transformed.dtype == jnp.complex128
        np.testing.assert_allclose(ifft2c(transformed), image, atol=1e-14)
        np.testing.assert_array_equal(to_complex(to_channels(image / 3)), image / 3)


def test_channels_are_real_then_imaginary():
    channels = to_channels(jnp.array([[1.0 + 2.0j]], jnp.complex64))
    np.testing.assert_array_equal(channels, [[[1.0, 2.0]]])


def test_to_complex_inverts_to_channels():
    image = jnp.asarray(_image((2, 3, 4)))
    np.testing.assert_array_equal(to_complex(to_channels(image)), image)


def test_half_precision_channels_become_complex64():
    assert to_complex(jnp.ones((4, 4, 2), jnp.bfloat16)).dtype == jnp.complex64


def test_to_complex_refuses_channels_first():
    with pytest.raises(ValueError, match=r"channels\.shape=\(2, 4, 5\)"):
        to_complex(jnp.ones((2, 4, 5)))
