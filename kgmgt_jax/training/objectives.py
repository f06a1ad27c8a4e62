"""What generator and critic are trained for, as functions of images."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array

from kgmgt_jax.losses import (
    adversarial_loss,
    critic_loss,
    gradient_penalty,
    l1_loss,
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
    """``L1 + a perceptual + b adversarial + c mentor L1``.

    Attributes:
        critic: D; ``None`` leaves the adversarial term out.
        perceptual: a.
        adversarial: b.
        mentor: c, weight of an L1 loss on the mentor's image.
    """

    critic: Critic | None = None
    perceptual: float = 0.0
    adversarial: float = 0.0
    mentor: float = 0.0

    def __call__(
        self,
        output: Reconstruction,
        reference: ComplexImage,
        judge: tuple[Any, Any],
        features: PerceptualFeatures | None,
    ) -> tuple[Array, tuple[Metrics, Any]]:
        """The loss of a batch's reconstruction; its terms and PSNR, and the critic's new state.

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
        terms = {"l1": l1_loss(output.image, reference)}
        total = terms["l1"]
        if self.mentor:
            terms["mentor"] = l1_loss(output.mentor, reference)
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
        quality = psnr(magnitude, jnp.abs(output.image), jnp.max(magnitude, axis=(1, 2)))
        metrics = {"loss": total, "psnr": jnp.mean(quality), **terms}
        return total, (metrics, model_state)


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
