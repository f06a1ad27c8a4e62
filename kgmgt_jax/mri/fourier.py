"""Centred orthonormal Fourier transforms, and the one seam between complex and two-channel images.

With ``h, w`` the sizes of the last two axes and every index counted from the centre ``size // 2``::

    fft2c:   k(u, v) = (h w)^-1/2  sum_{y,x} m(y, x) exp(-2πi (u y / h + v x / w))
    ifft2c:  m(y, x) = (h w)^-1/2  sum_{u,v} k(u, v) exp(+2πi (u y / h + v x / w))

Both are unitary (Parseval holds, ``ifft2c`` is inverse and adjoint at once). The input is shifted
by ``ifftshift`` and the output by ``fftshift``: only this order is right for odd sizes, where the
two shifts differ.
"""

import contextlib
import contextvars
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float, Int

__all__ = [
    "applying_transforms_by",
    "fft2c",
    "ifft2c",
    "opposite_frequencies",
    "to_channels",
    "to_complex",
]

_AXES = (-2, -1)

Transform = Callable[[Array], Array]
_apply: contextvars.ContextVar[Callable[[Transform, Array], Array] | None] = contextvars.ContextVar(
    "apply", default=None
)


@contextlib.contextmanager
def applying_transforms_by(apply: Callable[[Transform, Array], Array]) -> Iterator[None]:
    """Within it, every transform that is traced or computed is ``apply(transform, x)``.

    For whoever knows how the arrays lie in memory: the compilers of several devices would collect
    a batch before its Fourier transform, though each sample has one of its own.

    Args:
        apply: carries out a transform of the last two axes; must return ``transform(x)``.
    """
    token = _apply.set(apply)
    try:
        yield
    finally:
        _apply.reset(token)


def fft2c(image: Complex[Array, "*b h w"]) -> Complex[Array, "*b h w"]:
    """Image to k-space, centred and orthonormal, over the last two axes.

    Args:
        image: complex images, any size (odd sizes too), complex64; with JAX's ``jax_enable_x64``
            complex128 stays complex128.

    Returns:
        K-space with the zero frequency at ``(h // 2, w // 2)``.
    """
    return _transformed(jnp.fft.fft2, image)


def ifft2c(kspace: Complex[Array, "*b h w"]) -> Complex[Array, "*b h w"]:
    """K-space to image: the inverse, and the adjoint, of `fft2c`.

    Args:
        kspace: centred k-space, any size; complex64, or complex128 as for `fft2c`.
    """
    return _transformed(jnp.fft.ifft2, kspace)


def _transformed(fft: Callable[..., Array], x: Array) -> Array:
    def centred(x: Array) -> Array:
        shifted = jnp.fft.ifftshift(x, axes=_AXES)
        return jnp.fft.fftshift(fft(shifted, axes=_AXES, norm="ortho"), axes=_AXES)

    apply = _apply.get()
    return centred(x) if apply is None else apply(centred, x)


def opposite_frequencies(size: int) -> Int[np.ndarray, " size"]:
    """Where -f lies for every frequency f of a centred axis; the lowest of an even one stays.

    Taken along an axis of k-space or of a mask, it mirrors the image about its pixel at
    ``size // 2``.
    """
    return (2 * (size // 2) - np.arange(size)) % size


def to_channels(image: Complex[Array, "*b h w"]) -> Float[Array, "*b h w 2"]:
    """Views a complex image as two channels, real then imaginary: what a network sees.

    Args:
        image: complex images.

    Returns:
        Real array with a new last axis; float32 for complex64.
    """
    return jnp.stack([image.real, image.imag], axis=-1)


def to_complex(channels: Float[Array, "*b h w 2"]) -> Complex[Array, "*b h w"]:
    """Views two channels, real then imaginary, as a complex image: inverse of `to_channels`.

    Half precision is raised to float32 first, so that whatever follows (FFT, data consistency)
    runs in complex64.

    Args:
        channels: real array whose last axis holds the real and the imaginary part.

    Returns:
        complex64, or complex128 for float64 channels (with ``jax_enable_x64``).

    Raises:
        ValueError: if the last axis does not have length 2.
    """
    if channels.shape[-1] != 2:
        raise ValueError(
            "expected channels of shape (..., h, w, 2) with real and imaginary part last, got "
            f"{channels.shape=}; move the channel axis to the end"
        )
    parts = channels.astype(jnp.promote_types(channels.dtype, jnp.float32))
    return jax.lax.complex(parts[..., 0], parts[..., 1])
