"""Data consistency as every network here enforces it, with a learned strength."""

import math

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from kgmgt_jax.models.initialisation import Initialiser, constant
from kgmgt_jax.mri.consistency import (
    cg_consistency,
    gradient_consistency,
    hard_consistency,
    soft_consistency,
)
from kgmgt_jax.types import ComplexImage, Measurement

__all__ = [
    "DataConsistency",
    "as_precise_as",
    "check_consistency",
    "enforce",
    "strength_parameter",
]

_INITIAL_NOISE_WEIGHT = 10.0
_CG_ITERATIONS = 8


def check_consistency(consistency: str, solver: str) -> None:
    """Raises ``ValueError`` for a kind of consistency, or a solver for it, that there is not."""
    if consistency not in ("hard", "soft", "none"):
        raise ValueError(f"consistency must be 'hard', 'soft' or 'none', got {consistency!r}")
    if solver not in ("gradient", "cg"):
        raise ValueError(f"solver must be 'gradient' or 'cg', got {solver!r}")
    if solver == "cg" and consistency != "soft":
        raise ValueError(
            f"solver='cg' weighs the measurement, so it needs consistency='soft', "
            f"got {consistency!r}"
        )


def strength_parameter(consistency: str) -> tuple[str, Initialiser]:
    """Name and initial value of what is learned: ``log v`` (soft) or the step (hard)."""
    if consistency == "soft":
        return "log_noise_weight", constant(math.log(_INITIAL_NOISE_WEIGHT))
    return "step", constant(1.0)


def enforce(
    image: ComplexImage,
    measurement: Measurement | None,
    strength: Float[Array, ""] | None,
    *,
    consistency: str,
    solver: str,
) -> ComplexImage:
    """An image that agrees better with the measurement.

    Without maps ``"hard"`` puts the measured samples in place of the predicted ones; ``"soft"``
    averages the two with the noise weight v, ``(k + v k0) / (1 + v)``; ``"none"`` leaves the image.
    With maps, of one coil too, ``solver="gradient"`` steps along the gradient of
    ``||E x - y||^2 / 2`` by the ``step`` (hard; 1 is the replacement if there is one coil of unit
    sensitivity) or by ``v / (1 + v)`` (soft); ``solver="cg"`` solves ``(E^H E + 1/v) x = E^H y +
    z/v`` (soft only).

    Args:
        image: prediction z.
        measurement: the target's own; may be ``None`` for ``consistency="none"``.
        strength: log v (soft) or the step (hard); may be ``None`` for ``consistency="none"``.
        consistency: ``"hard"``, ``"soft"`` or ``"none"``.
        solver: ``"gradient"`` or ``"cg"``, for several coils.

    Raises:
        ValueError: if the consistency needs a measurement and there is none.
    """
    if consistency == "none":
        return image
    if measurement is None or strength is None:
        raise ValueError(f"consistency={consistency!r} needs the measured k-space")
    kspace, mask, sens = as_precise_as(image, measurement)
    if consistency == "hard":
        if sens is None:
            return hard_consistency(image, kspace, mask)
        return gradient_consistency(image, kspace, mask, sens, strength)
    noise_weight = jnp.exp(strength)
    if sens is None:
        return soft_consistency(image, kspace, mask, noise_weight)
    if solver == "cg":
        return cg_consistency(
            image, kspace, mask, sens, 1 / noise_weight, n_iterations=_CG_ITERATIONS
        )
    return gradient_consistency(image, kspace, mask, sens, jax.nn.sigmoid(strength))  # v / (1 + v)


def as_precise_as(image: ComplexImage, measurement: Measurement) -> Measurement:
    """The measurement in the image's precision; with x64 NumPy's arrays may come in double."""
    dtype = jnp.result_type(image)
    real = jnp.finfo(dtype).dtype
    return jax.tree.map(lambda a: a.astype(dtype if jnp.iscomplexobj(a) else real), measurement)


class DataConsistency(nn.Module):
    """``enforce`` with a strength of its own.

    Attributes:
        consistency: ``"hard"``, ``"soft"`` or ``"none"``.
        solver: ``"gradient"`` or ``"cg"``, for several coils.
    """

    consistency: str = "hard"
    solver: str = "gradient"

    @nn.compact
    def __call__(self, image: ComplexImage, measurement: Measurement | None) -> ComplexImage:
        """An image that agrees better with the measurement; see ``enforce``."""
        check_consistency(self.consistency, self.solver)
        strength = None
        if self.consistency != "none":
            name, init = strength_parameter(self.consistency)
            strength = self.param(name, init, ())
        return enforce(
            image, measurement, strength, consistency=self.consistency, solver=self.solver
        )
