"""Frames of any size for networks that need multiples of their windows."""

import jax.numpy as jnp
from jaxtyping import Array, Complex, Float

from kgmgt_jax.types import ComplexImage

__all__ = ["crop_frame", "pad_frame"]


def pad_frame(frame: ComplexImage, multiple: int) -> Complex[Array, "b hp wp"]:
    """Grows a frame to multiples of ``multiple``, evenly on both sides.

    Rows (phase encoding) wrap around, as aliasing does; columns (readout) are reflected.
    """
    h, w = frame.shape[-2:]
    pad_h, pad_w = -h % multiple, -w % multiple
    if not pad_h and not pad_w:
        return frame
    rows = (pad_h // 2, pad_h - pad_h // 2)
    columns = (pad_w // 2, pad_w - pad_w // 2)
    frame = jnp.pad(frame, ((0, 0), rows, (0, 0)), mode="wrap")
    return jnp.pad(frame, ((0, 0), (0, 0), columns), mode="reflect" if w > 1 else "edge")


def crop_frame(padded: Float[Array, "b hp wp c"], h: int, w: int) -> Float[Array, "b h w c"]:
    """The middle of a padded map: inverse of ``pad_frame``."""
    top, left = (padded.shape[1] - h) // 2, (padded.shape[2] - w) // 2
    return padded[:, top : top + h, left : left + w]
