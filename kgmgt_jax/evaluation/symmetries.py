"""Symmetries of the measurement: other cines that a scanner could as well have measured.

A cine mirrored about a centre line, conjugated, or of another phase has k-space that follows from
its own, under a mask that follows from its mask. A network does not know that: what it makes of
such a cine, brought back, is another estimate of the same images, with errors of its own.

Source: Timofte, Rothe and Van Gool, CVPR 2016, and Lim et al., CVPR Workshops 2017, who average the
eight turned and mirrored copies of photographs ("self-ensemble").
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Complex, Shaped

from kgmgt_jax.evaluation.cine import CineInput
from kgmgt_jax.mri.fourier import opposite_frequencies

__all__ = ["SYMMETRIES", "Symmetry", "ensemble_mean"]

Images = Complex[Array, "t h w"]


class Symmetry(NamedTuple):
    """Mirroring, then perhaps conjugation, then a phase.

    Attributes:
        axes: image axes that are mirrored, of (-2, -1).
        conjugate: whether images are conjugated, which mirrors k-space about both axes.
        phase: factor of magnitude 1 on images and k-space.
    """

    axes: tuple[int, ...] = ()
    conjugate: bool = False
    phase: complex = 1.0

    def of_cine(self, cine: CineInput) -> CineInput:
        """The other cine; no sample changes its magnitude. Without any change, the cine itself."""
        if self == Symmetry():
            return cine  # k-space of many coils is large
        images = jnp.flip(cine.images, self.axes)
        sens = None if cine.sens is None else jnp.flip(cine.sens, self.axes)
        kspace, mask = jnp.asarray(cine.kspace), jnp.asarray(cine.mask)
        for axis in self.axes:
            kspace, mask = _of_mirrored_images(kspace, axis), _reversed(mask, axis)
        if self.conjugate:
            images, sens = jnp.conj(images), None if sens is None else jnp.conj(sens)
            for axis in (-2, -1):
                kspace, mask = _reversed(kspace, axis), _reversed(mask, axis)
            kspace = jnp.conj(kspace)
        return CineInput(images * self.phase, kspace * self.phase, mask, sens)

    def undone(self, images: Images) -> Images:
        """Images of the other cine as images of the cine."""
        images = images * self.phase.conjugate()
        return jnp.flip(jnp.conj(images) if self.conjugate else images, self.axes)


SYMMETRIES = (
    Symmetry(),
    Symmetry((-2,), phase=-1),
    Symmetry((-1,), True, 1j),
    Symmetry((-2, -1), True, -1j),
    Symmetry(phase=-1j),
    Symmetry((-2,), phase=1j),
    Symmetry((-1,), True, -1),
    Symmetry((-2, -1), True, 1),
)
"""In the order in which they are averaged: the first few differ most from each other."""


def ensemble_mean(
    reconstruct: Callable[[CineInput], Images], cine: CineInput, n_copies: int
) -> Images:
    """The mean of what is made of a cine and of its copies by the first of ``SYMMETRIES``.

    Args:
        reconstruct: makes images of a cine.
        cine: what was measured.
        n_copies: how many images are averaged; 1 is the cine alone.
    """
    copies = SYMMETRIES[:n_copies]
    total: Any = sum(copy.undone(reconstruct(copy.of_cine(cine))) for copy in copies)
    return total / len(copies)


def _reversed(a: Shaped[Array, "..."], axis: int) -> Shaped[Array, "..."]:
    """Every frequency f at the place of -f."""
    return jnp.take(a, opposite_frequencies(a.shape[axis]), axis)


def _of_mirrored_images(kspace: Complex[Array, "..."], axis: int) -> Complex[Array, "..."]:
    """K-space of images that are mirrored along an axis.

    Turning frequencies round mirrors an image about the pixel at ``size // 2``, which an even
    number of pixels have no middle at: they are one pixel off.
    """
    size = kspace.shape[axis]
    frequency = (jnp.arange(size) - size // 2) / size
    shift = jnp.exp(2j * jnp.pi * frequency * (1 - size % 2)).astype(kspace.dtype)
    shape = [1] * kspace.ndim
    shape[axis] = size
    return _reversed(kspace, axis) * shift.reshape(shape)
