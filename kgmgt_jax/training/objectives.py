"""What generator and critic are trained for, as functions of images."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array

from kgmgt_jax.losses import (
    IMAGE_LOSSES,
    KSPACE_LOSSES,
    adversarial_loss,
    critic_loss,
    gradient_penalty,
    perceptual_loss,
    points_between,
)
from kgmgt_jax.metrics import psnr
from kgmgt_jax.models.critic import Critic
from kgmgt_jax.mri.consistency import forward
from kgmgt_jax.mri.fourier import to_channels
from kgmgt_jax.types import ComplexImage, Reconstruction

__all__ = [
    "Batch",
    "CriticLoss",
    "GeneratorLoss",
    "HeldOutLoss",
    "Metrics",
    "PerceptualFeatures",
]

Batch = Mapping[str, Array]
Metrics = dict[str, Array]
PerceptualFeatures = Callable[[ComplexImage], dict[str, Array]]


@dataclasses.dataclass(frozen=True)
class GeneratorLoss:
    """``image + a perceptual + b adversarial + c image of the mentor``.

    Attributes:
        critic: D; ``None`` leaves the adversarial term out.
        perceptual: a.
        adversarial: b.
        mentor: c, weight of the same image loss on the mentor's image.
        image: weights of the losses of images by their names in ``losses.IMAGE_LOSSES``.
    """

    critic: Critic | None = None
    perceptual: float = 0.0
    adversarial: float = 0.0
    mentor: float = 0.0
    image: Mapping[str, float] = dataclasses.field(default_factory=lambda: {"l1": 1.0})

    def __call__(
        self,
        output: Reconstruction,
        batch: Batch,
        judge: tuple[Any, Any],
        features: PerceptualFeatures | None,
    ) -> tuple[Array, tuple[Metrics, Any]]:
        """The loss of a batch's reconstruction; its terms and PSNR, and the critic's new state.

        The PSNR is the mean over frames with a signal, as in a validation.

        Args:
            output: the reconstruction.
            batch: ``reference``, the fully sampled frames (b h w).
            judge: the critic's parameters and model state, if there is one.
            features: perceptual features of a complex image by layer; ``None`` leaves that term
                out.

        Raises:
            ValueError: if there is no critic's state where one is needed.
        """
        params, model_state = judge
        reference = batch["reference"]
        terms, total = _weighted(self.image, IMAGE_LOSSES, output.image, reference)
        if self.mentor:
            _, terms["mentor"] = _weighted(self.image, IMAGE_LOSSES, output.mentor, reference)
            total += self.mentor * terms["mentor"]
        if features is not None:
            terms["perceptual"] = _perceptual(features, output.image, reference)
            total += self.perceptual * terms["perceptual"]
        if self.critic is not None:
            if params is None:
                raise ValueError("the state has no critic; create it with one")
            image = to_channels(output.image)
            score, model_state = _score(self.critic, params, model_state, image)
            terms["adversarial"] = adversarial_loss(score)
            total += self.adversarial * terms["adversarial"]
        metrics = {"loss": total, "psnr": _mean_psnr(output.image, reference), **terms}
        return total, (metrics, model_state)


@dataclasses.dataclass(frozen=True)
class HeldOutLoss:
    """What an image says of measured samples that the network was not given; no reference.

    With the samples held out as a mask M and measured as y, losses of ``M F S x`` and ``M y``.

    Attributes:
        kspace: weights of the losses of k-space by their names in ``losses.KSPACE_LOSSES``.
        mentor: weight of the same loss of the mentor's image.

    Source: Yaman et al., Self-supervised learning of physics-guided reconstruction neural networks
    without fully sampled reference data, 2020.
    """

    kspace: Mapping[str, float]
    mentor: float = 0.0

    def __call__(
        self,
        output: Reconstruction,
        batch: Batch,
        judge: tuple[Any, Any],
        features: PerceptualFeatures | None,
    ) -> tuple[Array, tuple[Metrics, Any]]:
        """The loss of a batch's reconstruction and its terms, with the PSNR if it is known.

        Args:
            output: the reconstruction.
            batch: ``held_mask`` (b h w) and ``held_kspace`` (b n h w), with ``sens`` (b n h w) of
                several coils; and where there is one, ``reference`` (b h w), which the loss does
                not depend on.
            judge: a critic's parameters and model state, of which the latter is handed back.
            features: not used.
        """
        terms, total = self._of_kspace(output.image, batch)
        metrics = {f"kspace_{name}": term for name, term in terms.items()}
        if self.mentor:
            _, metrics["mentor"] = self._of_kspace(output.mentor, batch)
            total += self.mentor * metrics["mentor"]
        if "reference" in batch:
            metrics["psnr"] = _mean_psnr(output.image, batch["reference"])
        return total, ({"loss": total, **metrics}, judge[1])

    def _of_kspace(self, image: ComplexImage, batch: Batch) -> tuple[Metrics, Array]:
        predicted = forward(image, batch["held_mask"], batch.get("sens"))
        return _weighted(self.kspace, KSPACE_LOSSES, predicted, batch["held_kspace"])


@dataclasses.dataclass(frozen=True)
class CriticLoss:
    """``mean D(fake) - mean D(real) + c gradient penalty``.

    Attributes:
        critic: D.
        penalty: c.
    """

    critic: Critic
    penalty: float

    def __call__(
        self, params: Any, model_state: Any, _: Array, batch: Batch
    ) -> tuple[Array, tuple[Metrics, Any]]:
        """The loss of pairs of images; its terms, and the critic's new state.

        Args:
            params, model_state: the critic's.
            batch: images ``real`` and ``fake`` (b h w 2), and ``alpha`` (b) of the points between
                them where the penalty is taken.
        """
        score = functools.partial(_score, self.critic, params)
        pair = batch["real"], batch["fake"]
        real_score, model_state = score(model_state, pair[0])
        fake_score, model_state = score(model_state, pair[1])
        penalty = gradient_penalty(lambda z: score(model_state, z)[0], *pair, batch["alpha"])
        if model_state:  # which the penalty's pass changes, too
            _, model_state = score(model_state, points_between(*pair, batch["alpha"]))
        wasserstein = critic_loss(real_score, fake_score)
        total = wasserstein + self.penalty * penalty
        metrics = {"critic": total, "wasserstein": -wasserstein, "penalty": penalty}
        return total, (metrics, model_state)


def _weighted(
    weights: Mapping[str, float],
    losses: Mapping[str, Callable[[Array, Array], Array]],
    prediction: Array,
    truth: Array,
) -> tuple[Metrics, Array]:
    """The losses that have a weight, and their sum by these weights."""
    terms = {name: losses[name](prediction, truth) for name, weight in weights.items() if weight}
    weighted = (weights[name] * term for name, term in terms.items())
    return terms, sum(weighted, jnp.zeros((), jnp.float32))


def _mean_psnr(image: ComplexImage, reference: ComplexImage) -> Array:
    """Mean over the frames that have a signal."""
    magnitude = jnp.abs(reference)
    peak = jnp.max(magnitude, axis=(1, 2))
    return jnp.mean(psnr(magnitude, jnp.abs(image), peak), where=peak > 0)


def _score(critic: Critic, params: Any, model_state: Any, image: Array) -> tuple[Array, Any]:
    """Scores of the critic as in training, and its new model state."""
    variables = {"params": params, **model_state}
    scored: Any = critic.apply(variables, image, train=True, mutable=list(model_state))
    return scored


def _perceptual(features: PerceptualFeatures, image: ComplexImage, reference: ComplexImage):
    """The perceptual loss, features of both images in one pass."""
    n = reference.shape[0]
    maps = features(jnp.concatenate([image, reference]))
    first, second = ({k: v[part] for k, v in maps.items()} for part in (slice(n), slice(n, None)))
    return perceptual_loss(first, second)
