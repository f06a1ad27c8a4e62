"""Inhomogeneity of the main field, from the susceptibility of the air in and around the body."""

import numpy as np
from jaxtyping import Float
from scipy import ndimage

__all__ = ["field_map"]


def field_map(
    rng: np.random.Generator,
    matter: Float[np.ndarray, "h w"],
    spacing: tuple[float, float],
    tilt: float,
    peak: float,
) -> Float[np.ndarray, "h w"]:
    """Off-resonance in Hz caused by the air around and inside the body, after shimming.

    The susceptibility's dipole field is ``ΔB(k) = (1/3 - (k·b)² / k²) χ(k)`` with the main field
    along ``b``; the part of it that is linear in space is shimmed away, and a slow random field
    stands for what lies outside the slice.

    Args:
        rng: random generator.
        matter: share of each pixel filled by tissue rather than air, in [0, 1].
        spacing: pixel size (y, x) in mm.
        tilt: angle between main field and slice plane in rad; the in-plane part points along y.
        peak: 98th percentile of the magnitude inside tissue, in Hz.
    """
    ky, kx = np.meshgrid(*map(np.fft.fftfreq, matter.shape, spacing), indexing="ij")
    k2 = ky**2 + kx**2
    k2[0, 0] = np.inf
    kernel = (1 / 3 - np.cos(tilt) ** 2 * ky**2 / k2) * np.exp(-2 * (np.pi * 5.0) ** 2 * k2)
    kernel[0, 0] = 0.0
    dipole = np.fft.ifft2(np.fft.fft2(matter) * kernel).real
    slow = ndimage.gaussian_filter(
        rng.standard_normal(matter.shape), [45.0 / s for s in spacing], mode="wrap"
    )
    total = dipole / dipole.std() + 0.7 * slow / slow.std()
    rows, columns = np.meshgrid(*(np.linspace(-1, 1, n) for n in matter.shape), indexing="ij")
    basis = np.stack([np.ones_like(rows), rows, columns], axis=-1)
    weight = np.sqrt(matter)[..., None]
    fit = np.linalg.lstsq(
        (weight * basis).reshape(-1, 3), (weight[..., 0] * total).ravel(), rcond=None
    )
    shimmed = total - basis @ fit[0]
    return shimmed * (peak / np.percentile(np.abs(shimmed[matter > 0.5]), 98))
