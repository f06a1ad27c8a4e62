"""The unrolled end of mentor and learner: a small denoiser in turn with data consistency."""

import jax
from flax import linen as nn
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float

from kgmgt_jax.models.enforcement import check_consistency, enforce, strength_parameter
from kgmgt_jax.models.layers import STATISTICS, BatchNorm, Layers, leaky_relu
from kgmgt_jax.mri.fourier import to_channels, to_complex
from kgmgt_jax.types import ComplexImage, Measurement

__all__ = ["Denoiser", "UnrolledDenoiser"]

_CONVOLVED = "convolved"


class Denoiser(nn.Module):
    """Five 3 x 3 convolutions that predict a correction of the image.

    ``norm="none"``: LReLU(0.2) between the convolutions, the last one linear and, by He's
    distribution, started small.
    ``norm="batch"``: each of the five followed by batch norm and LReLU, as released.

    Attributes:
        channels: width of the hidden maps.
        norm: ``"none"`` or ``"batch"``.
        layers: precision and initialisation.
    """

    channels: int = 64
    norm: str = "none"
    layers: Layers = Layers()

    @nn.compact
    def __call__(self, x: Float[Array, "b h w 2"], *, train: bool) -> Float[Array, "b h w 2"]:
        if self.norm not in ("none", "batch"):
            raise ValueError(f"norm must be 'none' or 'batch', got {self.norm!r}")
        y = x
        for i in range(5):
            last = i == 4
            scale = 0.1 if last and self.norm == "none" else 1.0
            conv = self.layers.conv(2 if last else self.channels, scale=scale, name=f"conv{i}")
            y = checkpoint_name(conv(y), _CONVOLVED)
            if self.norm == "batch":
                y = BatchNorm(name=f"norm{i}")(y, train=train)
            if not last or self.norm == "batch":
                y = leaky_relu(y)
        return y.astype(x.dtype)


class UnrolledDenoiser(nn.Module):
    """``x <- DC(x + denoise(x))``, repeated with one denoiser.

    DC is ``models.enforcement.enforce``, with a learned strength for each iteration.

    Deviation: the released code calls no consistency here, and its own would have used the fully
    sampled image; ours sees the measured samples alone.

    Attributes:
        n_iterations: how often.
        consistency: ``"hard"``, ``"soft"`` or ``"none"``.
        solver: ``"gradient"`` or ``"cg"``, for several coils.
        channels: width of the denoiser.
        norm: ``"none"`` or ``"batch"``.
        remat: keep what convolutions give for the backward pass, and recompute all else.
        layers: precision and initialisation.
    """

    n_iterations: int = 5
    consistency: str = "hard"
    solver: str = "gradient"
    channels: int = 64
    norm: str = "none"
    remat: bool = True
    layers: Layers = Layers()

    def setup(self):
        check_consistency(self.consistency, self.solver)
        self.denoiser = Denoiser(self.channels, self.norm, self.layers)
        self.strength = None
        if self.consistency != "none":
            name, init = strength_parameter(self.consistency)
            self.strength = self.param(name, init, (self.n_iterations,))

    def __call__(
        self, image: ComplexImage, measurement: Measurement | None, *, train: bool
    ) -> ComplexImage:
        """Refines an image of any size.

        Args:
            image: estimate of the target frame.
            measurement: the target's own; may be ``None`` for ``consistency="none"``.
            train: whether batch norm uses the batch's statistics.

        Raises:
            ValueError: if the consistency needs a measurement and there is none.
        """

        def iterate(
            denoiser: Denoiser, image: ComplexImage, strength: Array | None
        ) -> tuple[ComplexImage, None]:
            image = image + to_complex(denoiser(to_channels(image), train=train))
            how = {"consistency": self.consistency, "solver": self.solver}
            return enforce(image, measurement, strength, **how), None

        if self.is_initializing():  # a loop cannot begin without its variables
            first = None if self.strength is None else self.strength[0]
            return iterate(self.denoiser, image, first)[0]
        if self.remat:
            policy = jax.checkpoint_policies.save_only_these_names(_CONVOLVED, STATISTICS)
            iterate = nn.remat(iterate, prevent_cse=False, policy=policy)
        iterations = nn.scan(
            iterate,
            variable_broadcast=["params"] if train else ["params", "batch_stats"],
            variable_carry="batch_stats" if train else False,  # batch norm changes them every turn
            split_rngs={"params": False},
            length=self.n_iterations,
            check_constancy_invariants=False,  # else the body is traced once more
        )
        return iterations(self.denoiser, image, self.strength)[0]
