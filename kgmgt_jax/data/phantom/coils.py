"""Receive coils by Biot and Savart, the noise they pick up, and the phase of their images.

Positions are in mm in the frame of the image: ``x`` along columns, ``y`` along rows (downwards),
``z`` through the slice, the origin at the centre.
"""

import numpy as np
from jaxtyping import Complex, Float
from scipy import special

__all__ = ["coil_sensitivities", "complex_noise", "loop_field", "pixel_grid", "smooth_phase"]


def loop_field(
    points: Float[np.ndarray, "*grid 3"],
    centre: Float[np.ndarray, "3"],
    normal: Float[np.ndarray, "3"],
    radius: float,
) -> Float[np.ndarray, "*grid 3"]:
    """Magnetic field of a circular current loop, the Biot-Savart integral in closed form.

    In units of ``μ0 I / mm``, at height ``z`` above the loop of radius ``a`` and distance ``ρ``
    from its axis, with ``α² = (a - ρ)² + z²``, ``β² = (a + ρ)² + z²``, ``k² = 1 - α²/β²``::

        B_z = [(a² - ρ² - z²) E(k²) + α² K(k²)] / (2π α² β)
        B_ρ = [(a² + ρ² + z²) E(k²) - α² K(k²)] z / (2π α² β ρ)

    Args:
        points: positions in mm; none may lie on the wire.
        centre: of the loop in mm.
        normal: unit vector along its axis, right-handed with the current.
        radius: a, in mm.

    Source: Jackson, "Classical Electrodynamics", section 5.5.
    """
    offset = points - centre
    z = offset @ normal
    radial = offset - z[..., None] * normal
    rho = np.linalg.norm(radial, axis=-1)
    squares = rho**2 + z**2
    alpha2 = (radius - rho) ** 2 + z**2
    beta = np.sqrt((radius + rho) ** 2 + z**2)
    m = 1 - alpha2 / beta**2
    elliptic_k, elliptic_e = special.ellipk(m), special.ellipe(m)
    common = 2 * np.pi * alpha2 * beta
    axial = ((radius**2 - squares) * elliptic_e + alpha2 * elliptic_k) / common
    near = rho < 1e-4 * radius  # the formula is 0/0 on the axis; its limit is linear in rho
    safe = np.where(near, 1.0, rho)
    outward = ((radius**2 + squares) * elliptic_e - alpha2 * elliptic_k) * z / (common * safe**2)
    outward = np.where(near, 0.75 * radius**2 * z / (radius**2 + z**2) ** 2.5, outward)
    return axial[..., None] * normal + outward[..., None] * radial


def coil_sensitivities(
    rng: np.random.Generator,
    x: Float[np.ndarray, "h w"],
    y: Float[np.ndarray, "h w"],
    n_coils: int,
    *,
    tilt: float,
    half_widths: tuple[float, float],
) -> Complex[np.ndarray, "n h w"]:
    """Receive maps of loops wrapped around the chest, normalised so that ``Σ_n |s_n|² = 1``.

    The loops sit in one or two rings on an elliptic cylinder whose axis is the main field ``b``,
    facing outwards. By reciprocity a coil receives with ``s = B·e1 - i B·e2``: ``(e1, e2, b)`` is a
    right-handed frame and ``B`` the field of a unit current in its loop.

    Args:
        rng: random generator, for the fit of the array on the chest.
        x: column positions in mm.
        y: row positions in mm.
        n_coils: number of loops; one stands for a coil of uniform sensitivity.
        tilt: angle between main field and slice plane in rad; the in-plane part points along y.
        half_widths: semi-axes of the chest along x and across it, in mm.
    """
    if n_coils == 1:
        return np.ones((1, *x.shape), np.complex64)
    points = np.stack([x, y, np.zeros_like(x)], axis=-1).astype(np.float64)
    e1 = np.array([1.0, 0.0, 0.0])
    field = np.array([0.0, np.cos(tilt), np.sin(tilt)])
    e2 = np.cross(field, e1)
    a, b = (w + rng.uniform(22, 32) for w in half_widths)
    aside = rng.uniform(-35, -15)  # the heart lies left of the middle of the chest
    n_rows = 1 if n_coils < 4 else 2
    maps = []
    for index in range(n_coils):
        angle = 2 * np.pi * (index + 0.5 + rng.uniform(-0.15, 0.15)) / n_coils
        angle -= 0.4 * np.sin(2 * angle)  # more of them on breast and back than at the flanks
        row = 100 * ((index % n_rows) - (n_rows - 1) / 2) + rng.uniform(-10, 10)
        centre = a * np.cos(angle) * e1 + (b * np.sin(angle) + aside) * e2 + row * field
        normal = np.cos(angle) / a * e1 + np.sin(angle) / b * e2
        normal /= np.linalg.norm(normal)
        received = loop_field(points, centre, normal, rng.uniform(55, 75))
        maps.append(received @ e1 - 1j * (received @ e2))
    sens = np.stack(maps)
    return (sens / np.sqrt((np.abs(sens) ** 2).sum(0))).astype(np.complex64)


def pixel_grid(
    shape: tuple[int, int], field_of_view_mm: tuple[float, float]
) -> tuple[Float[np.ndarray, "h w"], Float[np.ndarray, "h w"]]:
    """Positions x, y of the pixels in mm; the origin is the pixel at index ``size // 2``.

    Args:
        shape: rows and columns.
        field_of_view_mm: extents of rows and columns.
    """
    y, x = (
        (np.arange(n, dtype=np.float32) - n // 2) * np.float32(fov / n)
        for n, fov in zip(shape, field_of_view_mm, strict=True)
    )
    x, y = np.meshgrid(x, y)
    return x, y


def smooth_phase(
    rng: np.random.Generator, u: Float[np.ndarray, "h w"], v: Float[np.ndarray, "h w"]
) -> Float[np.ndarray, "h w"]:
    """A random quadratic, in rad: what shim, receiver and flow leave in the phase of an image.

    Args:
        rng: random generator.
        u: column positions, from -1 to 1.
        v: row positions, from -1 to 1.
    """
    basis = np.stack([np.ones_like(u), u, v, u * v, u**2, v**2])
    weights = rng.uniform(-1, 1, 6) * [np.pi, 1.2, 1.2, 0.6, 0.8, 0.8]
    return np.tensordot(weights, basis, 1)


def complex_noise(
    rng: np.random.Generator, shape: tuple[int, ...], std: float
) -> Complex[np.ndarray, "..."]:
    """Circular complex Gaussian noise with ``E|n|² = std²``, complex64."""
    parts = rng.standard_normal((*shape, 2), dtype=np.float32)
    return (np.float32(std / np.sqrt(2)) * parts).view(np.complex64)[..., 0]
