"""The forward operator of Cartesian MRI, its exact adjoint, and data consistency built on the two.

With sensitivities S, the centred orthonormal transform F and the sampling mask M::

    forward   E x   = M F S x                y = E x is what the scanner measures
    adjoint   E^H y = S^H F^H M y            the coil-combined zero-filled image
    normal    E^H E x

The four consistency functions take ``(image, kspace, mask)`` and return an image that agrees better
with the measurement ``y = kspace``; all are compositions of ``forward`` and ``adjoint``. K-space
always has a coil axis, of length 1 for a single coil. Leading axes ``*b`` are independent samples:
nothing is shared between them, and no inner product runs over them. Masks and sensitivities may
have length 1 where samples share them. Samples of ``kspace`` outside the mask are ignored,
NaN too.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Complex, Float

from kgmgt_jax.mri.coils import sens_expand, sens_reduce
from kgmgt_jax.mri.fourier import fft2c, ifft2c
from kgmgt_jax.types import Scalar

__all__ = [
    "adjoint",
    "cg_consistency",
    "forward",
    "gradient_consistency",
    "hard_consistency",
    "normal",
    "soft_consistency",
]


def forward(
    image: Complex[Array, "*b h w"],
    mask: Float[Array, "*#b h w"],
    sens: Complex[Array, "*#b n h w"] | None = None,
) -> Complex[Array, "*b n h w"]:
    """Measured k-space of an image, ``E x = M F S x``.

    Args:
        image: complex images x.
        mask: 1 where a sample is measured, 0 elsewhere.
        sens: sensitivity maps; ``None`` is one coil of unit sensitivity (n = 1).
    """
    coil_images = jnp.expand_dims(image, -3) if sens is None else sens_expand(image, sens)
    return jnp.expand_dims(mask, -3) * fft2c(coil_images)


def adjoint(
    kspace: Complex[Array, "*b n h w"],
    mask: Float[Array, "*#b h w"],
    sens: Complex[Array, "*#b n h w"] | None = None,
) -> Complex[Array, "*b h w"]:
    """Coil-combined zero-filled image, ``E^H y = S^H F^H M y``: ``<E x, y> = <x, E^H y>``.

    Args:
        kspace: k-space y of n coils.
        mask: 1 where a sample is measured, 0 elsewhere.
        sens: sensitivity maps; ``None`` is one coil of unit sensitivity (n = 1).

    Raises:
        ValueError: if ``kspace`` and ``sens`` have different numbers of coils.
    """
    _check_coils(kspace, sens)
    mask = jnp.expand_dims(mask, -3)
    coil_images = ifft2c(jnp.where(mask > 0, mask * kspace, 0))  # 0 times NaN is NaN
    return jnp.squeeze(coil_images, -3) if sens is None else sens_reduce(coil_images, sens)


def normal(
    image: Complex[Array, "*b h w"],
    mask: Float[Array, "*#b h w"],
    sens: Complex[Array, "*#b n h w"] | None = None,
) -> Complex[Array, "*b h w"]:
    """``E^H E x``, Hermitian and positive semi-definite. Arguments as `forward`."""
    return adjoint(forward(image, mask, sens), mask, sens)


def gradient_consistency(
    image: Complex[Array, "*b h w"],
    kspace: Complex[Array, "*b n h w"],
    mask: Float[Array, "*#b h w"],
    sens: Complex[Array, "*#b n h w"] | None,
    step: Scalar,
) -> Complex[Array, "*b h w"]:
    """One gradient step on ``1/2 ||E x - y||^2``: ``x - w E^H (E x - y)``; our ``step`` is w.

    Args:
        image: current images x.
        kspace: measured k-space y.
        mask: 1 where measured.
        sens: sensitivity maps of unit sum of squares, or ``None`` for one unit coil.
        step: w, stable in (0, 2); 1 for one unit coil is `hard_consistency`.

    Raises:
        ValueError: if ``kspace`` and ``sens`` have different numbers of coils.
    """
    return image + _as_real(step, image) * _misfit(image, kspace, mask, sens)


def hard_consistency(
    image: Complex[Array, "*b h w"],
    kspace: Complex[Array, "*b 1 h w"],
    mask: Float[Array, "*#b h w"],
) -> Complex[Array, "*b h w"]:
    """Measured samples replace predicted ones: ``F^H (k + M (k0 - k))``, ``k = F x``, ``k0 = y``.

    The gradient step w = 1 for one coil of unit sensitivity.

    Args:
        image: predicted images x.
        kspace: measured k-space k0 of a single coil.
        mask: 1 where measured.

    Raises:
        ValueError: if ``kspace`` has more than one coil.

    Source: Schlemper et al., IEEE TMI 37:491 (2018).
    """
    return gradient_consistency(image, kspace, mask, None, 1.0)


def soft_consistency(
    image: Complex[Array, "*b h w"],
    kspace: Complex[Array, "*b 1 h w"],
    mask: Float[Array, "*#b h w"],
    noise_weight: Scalar,
) -> Complex[Array, "*b h w"]:
    """Noise-weighted mean of prediction and measurement: ``(k + v k0) / (1 + v)`` on the mask.

    Our ``noise_weight`` is v: 0 keeps the prediction, and v -> infinity is
    `hard_consistency`. The gradient step ``w = v / (1 + v)`` for one unit coil.

    Deviation: the paper writes ``K_Rec / (1 + eta K_Rec) + eta K``, whose units do not match; we
    read it as this form, with v in the place of eta.

    Args:
        image: predicted images x, ``k = F x``.
        kspace: measured k-space k0 of a single coil.
        mask: 1 where measured.
        noise_weight: v >= 0, finite.

    Raises:
        ValueError: if ``kspace`` has more than one coil.

    Source: Schlemper et al., IEEE TMI 37:491 (2018), eq. 8.
    """
    weight = _as_real(noise_weight, image)
    return gradient_consistency(image, kspace, mask, None, weight / (1.0 + weight))


def cg_consistency(
    image: Complex[Array, "*b h w"],
    kspace: Complex[Array, "*b n h w"],
    mask: Float[Array, "*#b h w"],
    sens: Complex[Array, "*#b n h w"] | None,
    weight: Scalar,
    n_iterations: int = 10,
) -> Complex[Array, "*b h w"]:
    """Proximal step ``argmin_x ||E x - y||^2 + lambda ||x - z||^2`` by conjugate gradients.

    Solves ``(E^H E + lambda) x = E^H y + lambda z`` from ``x = z``, that is
    ``(E^H E + lambda) d = E^H (y - E z)`` for ``x = z + d`` from ``d = 0``. The number of
    iterations is fixed, so the gradient is that of exactly what was computed. A sample whose
    residual has fallen to rounding error stays as it is.

    Args:
        image: prediction z.
        kspace: measured k-space y.
        mask: 1 where measured.
        sens: sensitivity maps of unit sum of squares, or ``None`` for one unit coil.
        weight: lambda >= 0; small trusts the measurement. One unit coil: v = 1 / lambda.
        n_iterations: conjugate gradient iterations, >= 1.

    Raises:
        ValueError: if ``kspace`` and ``sens`` have different numbers of coils, or
            ``n_iterations`` is below 1.

    Source: Aggarwal et al., IEEE TMI 38:394 (2019).
    """
    if n_iterations < 1:
        raise ValueError(f"expected n_iterations >= 1, got {n_iterations=}")
    weight = _as_real(weight, image)
    residual = _misfit(image, kspace, mask, sens)
    rounding = jnp.finfo(residual.dtype).eps ** 2 * _energy(residual)

    def iterate(carry: tuple[Array, ...], _: None) -> tuple[tuple[Array, ...], None]:
        solution, residual, direction, energy = carry
        product = normal(direction, mask, sens) + weight * direction
        active = energy > rounding
        length = _ratio(energy, _inner(direction, product), active)
        solution = solution + length * direction
        residual = residual - length * product
        energy_next = _energy(residual)
        direction = residual + _ratio(energy_next, energy, active) * direction
        return (solution, residual, direction, energy_next), None

    start = (jnp.zeros_like(residual), residual, residual, _energy(residual))
    (solution, *_), _ = jax.lax.scan(iterate, start, length=n_iterations)
    return image + solution


def _misfit(image: Array, kspace: Array, mask: Array, sens: Array | None) -> Array:
    """``E^H (y - E x)``: minus the gradient of the data term."""
    _check_coils(kspace, sens)
    return adjoint(kspace - forward(image, mask, sens), mask, sens)


def _inner(a: Array, b: Array) -> Array:
    """``Re <a, b>`` of each sample, as ``(..., 1, 1)``."""
    return jnp.sum(a.real * b.real + a.imag * b.imag, axis=(-2, -1), keepdims=True)


def _energy(a: Array) -> Array:
    return _inner(a, a)


def _ratio(numerator: Array, denominator: Array, active: Array) -> Array:
    """Quotient of the active samples, 0 (with gradient 0) of the others."""
    return jnp.where(active, numerator / jnp.where(active, denominator, 1.0), 0.0)


def _as_real(value: Scalar, image: Array) -> Array:
    """A scalar in the real dtype of the image, so that half precision does not spread."""
    return jnp.asarray(value, jax.dtypes.canonicalize_dtype(image.real.dtype))


def _check_coils(kspace: Array, sens: Array | None) -> None:
    n_coils = 1 if sens is None else sens.shape[-3]
    if kspace.ndim < 3 or kspace.shape[-3] != n_coils:
        maps = "without sens" if sens is None else f"with {sens.shape=}"
        raise ValueError(
            f"expected kspace of shape (..., n, h, w) with n = {n_coils} coils {maps}, got "
            f"{kspace.shape=}; add a coil axis, pass sens, or use gradient_consistency or "
            "cg_consistency, which take several coils"
        )
