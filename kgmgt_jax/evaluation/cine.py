"""A cine as networks are given it."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float, Int

from kgmgt_jax.data.transforms import INTENSITY_PERCENTILE
from kgmgt_jax.mri.cine import check_cine
from kgmgt_jax.mri.coils import sens_reduce
from kgmgt_jax.mri.fourier import ifft2c
from kgmgt_jax.types import Measurement

__all__ = ["CineInput", "scaled_cine"]


class CineInput(NamedTuple):
    """Consecutive frames as the network is given them, at about unit intensity.

    Attributes:
        images: input images, coil-combined.
        kspace: measured k-space, zero where not measured.
        mask: 1 where measured.
        sens: sensitivities of unit sum of squares, one set for all frames or one each; ``None``
            for a single coil.
    """

    images: Complex[Array | np.ndarray, "t h w"]
    kspace: Complex[Array | np.ndarray, "t n h w"]
    mask: Float[Array | np.ndarray, "t h w"]
    sens: Complex[Array | np.ndarray, "*t n h w"] | None = None

    def check(self) -> None:
        """Refuses arrays that are not those of one cine.

        Raises:
            ValueError: if shapes disagree, or a type is wrong.
        """
        check_cine(self.kspace, self.mask, self.sens)
        if self.images.shape != self.mask.shape or not jnp.iscomplexobj(self.images):
            raise ValueError(
                f"expected complex images of shape (t, h, w) = {self.mask.shape}, got "
                f"{self.images.shape=} {self.images.dtype=}"
            )

    def on_device(self) -> "CineInput":
        """The same, where the network runs."""
        return jax.device_put(self)

    def measurement(self, targets: Int[Array, "group"] | Int[np.ndarray, "group"]) -> Measurement:
        """The measurement of some of the frames, by their indices."""
        sens = self.sens
        if sens is not None:
            one = sens.ndim == 3 or sens.shape[0] == 1
            shape = (targets.shape[0], *sens.shape[-3:])
            sens = jnp.broadcast_to(sens, shape) if one else sens[targets]
        kspace: Any = self.kspace[targets]
        mask: Any = self.mask[targets]
        return Measurement(kspace, mask, sens)


@jax.jit
def scaled_cine(
    kspace: Complex[Array, "t n h w"],
    mask: Float[Array, "t h w"],
    sens: Complex[Array, "*t n h w"] | None,
    filled: Complex[Array, "t n h w"],
) -> tuple[CineInput, Float[Array, ""]]:
    """A cine as networks are given it, and what it was divided by.

    ``data.transforms.scaled_inputs`` where the network runs.

    Args:
        kspace: measured k-space, 0 elsewhere.
        mask: 1 where measured.
        sens: sensitivities of unit sum of squares; ``None`` for a single coil.
        filled: k-space of the inputs.
    """
    coil_images = ifft2c(filled)
    maps = sens if sens is None or sens.ndim == 4 else sens[None]
    images = coil_images[:, 0] if maps is None else sens_reduce(coil_images, maps)
    magnitude = jnp.abs(images)
    percentile, largest = jnp.percentile(magnitude, INTENSITY_PERCENTILE), jnp.max(magnitude)
    scale = jnp.where(percentile > 0, percentile, largest)
    scale = jnp.where(scale > 0, scale, 1.0)
    return CineInput(images / scale, kspace / scale, mask, sens), scale
