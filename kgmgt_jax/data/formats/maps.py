"""Coil maps that lie beside the k-space of a file."""

import numpy as np
from jaxtyping import Complex64

__all__ = ["unit_maps"]

_ROUNDING = 1e-3
_SCALED = "coil maps brought to a sum of squares of 1"


def unit_maps(
    sens: Complex64[np.ndarray, "*t n h w"],
) -> tuple[Complex64[np.ndarray, "*t n h w"], tuple[str, ...]]:
    """Maps divided by the root of the sum of their squares over the coils, zeros kept.

    Args:
        sens: Maps of any scale. NaN are kept, for `CineCase` to refuse.

    Returns:
        The maps, and a note if that root was another than 1 (to 1e-3) anywhere; those where it was
        1 are left as they are.
    """
    with np.errstate(over="ignore", invalid="ignore"):  # NaN and infinities are refused later
        norm = np.linalg.norm(sens.astype(np.complex128), axis=-3, keepdims=True)
        if np.abs(norm[norm > 0] - 1).max(initial=0) <= _ROUNDING:
            return sens, ()
        return np.divide(sens, norm, out=np.zeros_like(sens), where=norm != 0), (_SCALED,)
