"""What the arrays of a whole cine must be, whoever reconstructs it."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

__all__ = ["check_byte_order", "check_cine"]


def check_cine(
    kspace: Array | np.ndarray, mask: Array | np.ndarray, sens: Array | np.ndarray | None
) -> None:
    """Refuses arrays that are not one cine.

    Raises:
        ValueError: unless ``kspace`` is complex (t, n, h, w), ``mask`` real (t, h, w) and ``sens``
            (n, h, w) or (t, n, h, w), or ``None`` with n = 1; or if a mask in NumPy, whose values
            are at hand, has others than 0 and 1; or as `check_byte_order`.
    """
    check_byte_order(kspace=kspace, mask=mask, sens=sens)
    if kspace.ndim != 4 or 0 in kspace.shape or not jnp.iscomplexobj(kspace):
        raise ValueError(
            "expected complex kspace without empty axes of shape (t, n, h, w), got "
            f"{kspace.shape=} {kspace.dtype=}"
        )
    n_frames, n_coils, *size = kspace.shape
    if mask.shape != (n_frames, *size) or jnp.iscomplexobj(mask):
        raise ValueError(
            f"expected a real mask of shape (t, h, w) = {(n_frames, *size)} for {kspace.shape=}, "
            f"got {mask.shape=} {mask.dtype=}; repeat a mask that frames share"
        )
    if isinstance(mask, np.ndarray) and not ((mask == 0) | (mask == 1)).all():
        raise ValueError(
            f"expected a mask of zeros and ones, got values from {float(mask.min()):g} to "
            f"{float(mask.max()):g}; pass mask > 0 if that is what was measured"
        )
    if sens is None and n_coils != 1:
        raise ValueError(
            f"expected n = 1 coils without sens, got {kspace.shape=}; pass sens of shape (n, h, w)"
        )
    if sens is not None and sens.shape not in ((n_coils, *size), kspace.shape):
        raise ValueError(
            f"expected sens of shape (n, h, w) = {(n_coils, *size)}, or with a frame axis before "
            f"it, for {kspace.shape=}, got {sens.shape=}"
        )


def check_byte_order(**arrays: Array | np.ndarray | None) -> None:
    """Refuses arrays in another byte order than the machine's.

    JAX refuses them the first time only: a function that is compiled already takes their bytes for
    other numbers.

    Raises:
        ValueError: if there is one.
    """
    for name, array in arrays.items():
        if isinstance(array, np.ndarray) and not array.dtype.isnative:
            native = array.dtype.newbyteorder("=")
            raise ValueError(
                f"expected {name} in the byte order of this machine, got {array.dtype}; pass "
                f"{name}.astype({native.name!r})"
            )
