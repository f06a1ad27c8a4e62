"""Scores of the averaged parameters while training, and the pictures that go with them."""

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex64, Float

from kgmgt_jax.metrics import psnr
from kgmgt_jax.models.registry import Network
from kgmgt_jax.mri.consistency import forward
from kgmgt_jax.training.state import TrainState
from kgmgt_jax.training.steps import apply_model
from kgmgt_jax.training.watch import split_ids
from kgmgt_jax.types import ComplexImage

__all__ = ["Validation", "make_validator"]

_log = logging.getLogger(__name__)


class Validation(NamedTuple):
    """What a validation gives.

    Attributes:
        metric: ``"psnr"``; of undersampled scans ``"held_out"``: the power of the samples that were
            held out over that of their error.
        score: mean over all frames with a signal, in dB.
        reconstruction: images of the first batch, as the next two.
        zero_filled: what they were reconstructed from.
        reference: what they should be; ``None`` of undersampled scans.
    """

    metric: str
    score: float
    reconstruction: Complex64[np.ndarray, "t h w"]
    zero_filled: Complex64[np.ndarray, "t h w"]
    reference: Complex64[np.ndarray, "t h w"] | None


def make_validator(
    model: Network, batches: Sequence[Mapping[str, np.ndarray]]
) -> Callable[[TrainState], Validation | None]:
    """A function that reconstructs validation batches with a state's averaged parameters.

    Args:
        model: the network.
        batches: frames of slices, as ``triplets`` makes them, or all as ``HeldOutCase.frames``
            does; without any the function gives ``None``. Frames without any signal are not scored.

    Raises:
        ValueError: if no frame has a signal.
    """
    truth = "held_kspace" if any("held_kspace" in batch for batch in batches) else "reference"
    signal = [batch[truth].any(axis=tuple(range(1, batch[truth].ndim))) for batch in batches]
    lit = np.concatenate(signal) if signal else np.ones(0, bool)
    if batches and not lit.any():
        raise ValueError("config.data.validation: expected frames with a signal, got zeros alone")
    if not lit.all():
        _log.warning("%d of %d validation frames are blank: not scored", (~lit).sum(), lit.size)

    @jax.jit
    def reconstruct(variables: Any, batch: dict) -> tuple[jax.Array, jax.Array]:
        image = apply_model(model, variables, batch)[0].image
        return _scores(image, batch), image

    def validate(state: TrainState) -> Validation | None:
        if not batches:
            return None
        results = [
            # one after the other: simulated devices that share a network would wait for ever
            jax.block_until_ready(reconstruct(state.eval_variables, split_ids(batch)[1]))
            for batch in batches
        ]
        scores = np.concatenate([np.asarray(score) for score, _ in results])
        first = batches[0]
        return Validation(
            metric="psnr" if truth == "reference" else "held_out",
            score=float(np.mean(scores[lit])),
            reconstruction=np.asarray(results[0][1]),
            zero_filled=np.asarray(first["target"]),
            reference=np.asarray(first["reference"]) if truth == "reference" else None,
        )

    return validate


def _scores(image: ComplexImage, batch: Mapping[str, Array]) -> Float[Array, "b"]:
    """Of each frame, in dB; see `Validation`."""
    if "held_kspace" not in batch:
        reference = jnp.abs(batch["reference"])
        return psnr(reference, jnp.abs(image), jnp.max(reference, axis=(1, 2)))
    measured = batch["held_kspace"]
    error = forward(image, batch["held_mask"], batch.get("sens")) - measured
    power, lost = (jnp.sum(jnp.square(jnp.abs(x)), axis=(1, 2, 3)) for x in (measured, error))
    return 10 * jnp.log10(power / lost)
