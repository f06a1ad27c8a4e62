"""Reconstructions in one step: zero-filled, and filled from the other frames."""

import jax
from jaxtyping import Array, Complex, Float

from kgmgt_jax.classical.measurement import average_filled, with_frames
from kgmgt_jax.mri.cine import check_cine
from kgmgt_jax.mri.consistency import adjoint

__all__ = ["temporal_average", "zero_filled"]


def zero_filled(
    kspace: Complex[Array, "t n h w"],
    mask: Float[Array, "t h w"],
    sens: Complex[Array, "*t n h w"] | None = None,
) -> Complex[Array, "t h w"]:
    """``E^H y``: unmeasured samples are zero.

    Args:
        kspace: measured k-space y; samples outside the mask are ignored.
        mask: 1 where measured.
        sens: sensitivity maps of unit sum of squares, of all frames or of each, or ``None`` for
            one unit coil.

    Raises:
        ValueError: if the arrays are not those of one cine; see `check_cine`.
    """
    check_cine(kspace, mask, sens)
    return _zero_filled(kspace, mask, sens)


@jax.jit
def _zero_filled(kspace: Array, mask: Array, sens: Array | None) -> Array:
    return adjoint(kspace, mask, with_frames(sens))


def temporal_average(
    kspace: Complex[Array, "t n h w"],
    mask: Float[Array, "t h w"],
    sens: Complex[Array, "*t n h w"] | None = None,
) -> Complex[Array, "t h w"]:
    """Unmeasured samples are the mean of the frames that measured them, or zero if none did.

    For one coil each frame's measured samples are kept exactly. Arguments, errors as
    `zero_filled`.
    """
    check_cine(kspace, mask, sens)
    return _average_filled(kspace, mask, sens)


_average_filled = jax.jit(average_filled)
