"""Frames of any size for networks that need multiples of their windows."""

import jax.numpy as jnp
from jaxtyping import Array, Complex, Float

from kgmgt_jax.types import ComplexImage

__all__ = ["crop_frame", "pad_frame", "pad_zeros"]


def pad_frame(frame: ComplexImage, multiple: int) -> Complex[Array, "b hp wp"]:
    """Grows a frame to multiples of ``multiple``, evenly on both sides.

    Rows (phase encoding) wrap around, as aliasing does; columns (readout) are reflected.
    """
    h, w = frame.shape[-2:]
    rows, columns = _sides(h, multiple), _sides(w, multiple)
    if not any(rows + columns):
        return frame
    frame = jnp.pad(frame, ((0, 0), rows, (0, 0)), mode="wrap")
    return jnp.pad(frame, ((0, 0), (0, 0), columns), mode="reflect" if w > 1 else "edge")


def pad_zeros(x: Float[Array, "b h w c"], multiple: int) -> Float[Array, "b hp wp c"]:
    """Grows a map to multiples of ``multiple`` by zeros, evenly on both sides."""
    h, w = x.shape[1:3]
    return jnp.pad(x, ((0, 0), _sides(h, multiple), _sides(w, multiple), (0, 0)))


def crop_frame(padded: Float[Array, "b hp wp c"], h: int, w: int) -> Float[Array, "b h w c"]:
    """The middle of a padded map: inverse of ``pad_frame`` and ``pad_zeros``."""
    top, left = (padded.shape[1] - h) // 2, (padded.shape[2] - w) // 2
    return padded[:, top : top + h, left : left + w]


def _sides(size: int, multiple: int) -> tuple[int, int]:
    """What is added before and behind."""
    added = -size % multiple
    return added // 2, added - added // 2
