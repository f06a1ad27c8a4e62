"""The Wasserstein critic that scores reconstructed frames."""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from kgmgt_jax.models.layers import BatchNorm, Layers, leaky_relu

__all__ = ["Critic"]


class Critic(nn.Module):
    """Five blocks of two convolutions (the second with stride 2), pooling, two 1 x 1 layers.

    Deviation: the released critic has batch norm after each block convolution and a final sigmoid.
    A gradient penalty is a condition on single samples, which batch norm couples, and a Wasserstein
    critic is linear at its end; here both are off (``norm="none"``, ``sigmoid=False``).

    Attributes:
        width: channels of the first block; each further block doubles them.
        hidden: channels between the two last layers.
        norm: ``"none"`` or ``"batch"``.
        sigmoid: whether the score passes a sigmoid.
        layers: precision and initialisation.
    """

    width: int = 32
    hidden: int = 1024
    norm: str = "none"
    sigmoid: bool = False
    layers: Layers = Layers()

    @nn.compact
    def __call__(self, image: Float[Array, "b h w 2"], *, train: bool = False) -> Float[Array, "b"]:
        """Scores images of at least 32 x 32 pixels (real and imaginary channels)."""
        if self.norm not in ("none", "batch"):
            raise ValueError(f"norm must be 'none' or 'batch', got {self.norm!r}")
        x = image
        for block in range(5):
            for stride in (1, 2):
                x = self.layers.conv(
                    self.width * 2**block, stride=stride, name=f"block{block + 1}_conv{stride}"
                )(x)
                if self.norm == "batch":
                    x = BatchNorm(name=f"block{block + 1}_norm{stride}")(x, train=train)
                x = leaky_relu(x)
        x = jnp.mean(x, axis=(1, 2))
        x = leaky_relu(self.layers.pointwise(self.hidden, name="hidden")(x))
        score = self.layers.pointwise(1, name="score")(x)[:, 0].astype(image.dtype)
        return jax.nn.sigmoid(score) if self.sigmoid else score
