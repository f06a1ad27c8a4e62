"""Training losses: L1, L2, structural, perceptual, Wasserstein with gradient penalty, and those of
k-space."""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from kgmgt_jax.metrics import ssim
from kgmgt_jax.mri.fourier import to_channels
from kgmgt_jax.numerics import square_root
from kgmgt_jax.types import ComplexImage, KSpace

__all__ = [
    "IMAGE_LOSSES",
    "KSPACE_LOSSES",
    "ImageLoss",
    "KSpaceLoss",
    "adversarial_loss",
    "critic_loss",
    "dssim_loss",
    "gradient_penalty",
    "l1_loss",
    "l2_loss",
    "perceptual_loss",
    "points_between",
    "relative_l1_loss",
    "relative_l2_loss",
]

ImageLoss = Callable[[ComplexImage, ComplexImage], Float[Array, ""]]
KSpaceLoss = Callable[[KSpace, KSpace], Float[Array, ""]]
Score = Callable[[Float[Array, "b h w 2"]], Float[Array, "b"]]


def l1_loss(prediction: ComplexImage, reference: ComplexImage) -> Float[Array, ""]:
    """Mean absolute difference over real and imaginary parts.

    Raises:
        ValueError: if shapes disagree.
    """
    _check_shapes(prediction, reference)
    return jnp.mean(jnp.abs(to_channels(prediction) - to_channels(reference)))


def l2_loss(prediction: ComplexImage, reference: ComplexImage) -> Float[Array, ""]:
    """Mean squared difference over real and imaginary parts.

    Raises:
        ValueError: if shapes disagree.
    """
    _check_shapes(prediction, reference)
    return jnp.mean(jnp.square(to_channels(prediction) - to_channels(reference)))


def dssim_loss(prediction: ComplexImage, reference: ComplexImage) -> Float[Array, ""]:
    """Structural dissimilarity ``(1 - SSIM) / 2`` of the magnitudes.

    The range of SSIM is the maximum of each reference image, 1 for one that is all zero.

    Args:
        prediction: at least 7 x 7 pixels.
        reference: likewise.

    Raises:
        ValueError: if shapes disagree, or images are smaller than SSIM's window.

    Source: Zhao et al., Loss functions for image restoration with neural networks, 2017.
    """
    _check_shapes(prediction, reference)
    magnitude = jnp.abs(reference)
    peak = jnp.max(magnitude, axis=(-2, -1))
    peak = jnp.where(peak > 0, peak, 1.0)
    return (1 - jnp.mean(ssim(magnitude, jnp.abs(prediction), peak))) / 2


IMAGE_LOSSES: dict[str, ImageLoss] = {"l1": l1_loss, "l2": l2_loss, "dssim": dssim_loss}
"""By the names of their weights in ``config.loss.image``; means over images, each by itself."""


def relative_l1_loss(prediction: KSpace, measured: KSpace) -> Float[Array, ""]:
    """Mean over examples of ``||a - b||_1 / ||b||_1``, b what was measured; 0 where b is zero.

    The 1-norm is the sum of the magnitudes of complex samples, over coils, too.

    Raises:
        ValueError: if shapes disagree.

    Source: Yaman et al., Self-supervised learning of physics-guided reconstruction neural networks
    without fully sampled reference data, 2020: the sum of this and `relative_l2_loss`.
    """
    _check_shapes(prediction, measured)
    return _mean_ratio(*(jnp.sum(jnp.abs(x), (1, 2, 3)) for x in (prediction - measured, measured)))


def relative_l2_loss(prediction: KSpace, measured: KSpace) -> Float[Array, ""]:
    """Mean over examples of ``||a - b||_2 / ||b||_2``, b what was measured; 0 where b is zero.

    Raises:
        ValueError: if shapes disagree.

    Source: see `relative_l1_loss`.
    """
    _check_shapes(prediction, measured)
    powers = (x.real**2 + x.imag**2 for x in (prediction - measured, measured))
    return _mean_ratio(*(square_root(jnp.sum(x, (1, 2, 3))) for x in powers))


KSPACE_LOSSES: dict[str, KSpaceLoss] = {"l1": relative_l1_loss, "l2": relative_l2_loss}
"""By the names of their weights in ``config.loss.kspace``; zero where nothing was measured."""


def _mean_ratio(errors: Float[Array, "b"], norms: Float[Array, "b"]) -> Float[Array, ""]:
    """Mean of the ratios, of which one by zero counts as zero."""
    return jnp.mean(jnp.where(norms > 0, errors, 0) / jnp.where(norms > 0, norms, 1))


def _check_shapes(prediction: Array, reference: Array) -> None:
    if prediction.shape != reference.shape:
        raise ValueError(
            f"expected arrays of one shape, got {prediction.shape=} {reference.shape=}"
        )


def _norm(x: Float[Array, "b n"]) -> Float[Array, "b"]:
    """Euclidean norm of each row, with gradient 0 at 0."""
    return square_root(jnp.sum(jnp.square(x), axis=-1))


def perceptual_loss(
    prediction: Mapping[str, Float[Array, "..."]],
    reference: Mapping[str, Float[Array, "..."]],
    *,
    per_image: bool = True,
) -> Float[Array, ""]:
    """Distance of two sets of feature maps: mean over images and layers of ``||a - b||_F``.

    Args:
        prediction: feature maps (b, ...) by layer.
        reference: likewise, the same layers.
        per_image: ``False`` takes one norm over the whole batch, as the released code does.

    Raises:
        ValueError: if layers or shapes disagree, or there are no layers.

    Deviation: the released norm grows with the square root of the batch size.
    """
    if not prediction or prediction.keys() != reference.keys():
        got = f"{sorted(prediction)} and {sorted(reference)}"
        raise ValueError(f"expected feature maps of the same layers, one at least, got {got}")
    losses = []
    for name, a in prediction.items():
        _check_shapes(a, reference[name])
        difference = (a - reference[name]).reshape(a.shape[0] if per_image else 1, -1)
        losses.append(jnp.mean(_norm(difference)))
    return jnp.mean(jnp.stack(losses))


def points_between(
    real: Float[Array, "b h w 2"], fake: Float[Array, "b h w 2"], alpha: Float[Array, "b"]
) -> Float[Array, "b h w 2"]:
    """``alpha real + (1 - alpha) fake``: where `gradient_penalty` looks at the critic."""
    weight = alpha.reshape(-1, 1, 1, 1)
    return weight * real + (1 - weight) * fake


def gradient_penalty(
    score: Score,
    real: Float[Array, "b h w 2"],
    fake: Float[Array, "b h w 2"],
    alpha: Float[Array, "b"],
) -> Float[Array, ""]:
    """``mean (||grad_z D(z)|| - 1)^2`` at ``z = alpha real + (1 - alpha) fake``.

    Args:
        score: the critic D.
        real: reference images.
        fake: reconstructed images.
        alpha: a weight in [0, 1] for each pair.

    Source: Gulrajani et al., Improved training of Wasserstein GANs, 2017.
    """
    gradient = jax.grad(lambda z: jnp.sum(score(z)))(points_between(real, fake, alpha))
    return jnp.mean(jnp.square(_norm(gradient.reshape(gradient.shape[0], -1)) - 1))


def critic_loss(real_score: Float[Array, "b"], fake_score: Float[Array, "b"]) -> Float[Array, ""]:
    """Wasserstein loss of the critic without its penalty: ``mean D(fake) - mean D(real)``."""
    return jnp.mean(fake_score) - jnp.mean(real_score)


def adversarial_loss(fake_score: Float[Array, "b"]) -> Float[Array, ""]:
    """Wasserstein loss of the generator: ``-mean D(fake)``."""
    return -jnp.mean(fake_score)
