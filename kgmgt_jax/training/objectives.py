"""What generator and critic are trained for, as functions of images."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array

from kgmgt_jax.losses import (
    IMAGE_LOSSES,
    adversarial_loss,
    critic_loss,
    gradient_penalty,
    perceptual_loss,
    points_between,
)
from kgmgt_jax.metrics import psnr
from kgmgt_jax.models.critic import Critic
from kgmgt_jax.mri.fourier import to_channels
from kgmgt_jax.types import ComplexImage, Reconstruction

__all__ = ["CriticLoss", "GeneratorLoss", "Metrics", "PerceptualFeatures"]

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
        reference: ComplexImage,
        judge: tuple[Any, Any],
        features: PerceptualFeatures | None,
    ) -> tuple[Array, tuple[Metrics, Any]]:
        """The loss of a batch's reconstruction; its terms and PSNR, and the critic's new state.

        The PSNR is the mean over frames with a signal, as in a validation.

        Args:
            output: the reconstruction.
            reference: the fully sampled frames.
            judge: the critic's parameters and model state, if there is one.
            features: perceptual features of a complex image by layer; ``None`` leaves that term
                out.

        Raises:
            ValueError: if there is no critic's state where one is needed.
        """
        params, model_state = judge
        terms = self._of_images(output.image, reference)
        total = self._weighted(terms)
        if self.mentor:
            terms["mentor"] = self._weighted(self._of_images(output.mentor, reference))
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
        magnitude = jnp.abs(reference)
        peak = jnp.max(magnitude, axis=(1, 2))
        quality = psnr(magnitude, jnp.abs(output.image), peak)
        metrics = {"loss": total, "psnr": jnp.mean(quality, where=peak > 0), **terms}
        return total, (metrics, model_state)

    def _of_images(self, image: ComplexImage, reference: ComplexImage) -> dict[str, Array]:
        weighted = [name for name, weight in self.image.items() if weight]
        return {name: IMAGE_LOSSES[name](image, reference) for name in weighted}

    def _weighted(self, terms: Metrics) -> Array:
        """The sum of losses of images."""
        weighted = (self.image[name] * term for name, term in terms.items())
        return sum(weighted, jnp.zeros((), jnp.float32))


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
        self, params: Any, model_state: Any, _: Array, batch: Mapping[str, Array]
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
