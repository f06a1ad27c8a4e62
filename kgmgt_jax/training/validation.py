"""Scores of the averaged parameters while training, and the pictures that go with them."""

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Complex64

from kgmgt_jax.metrics import psnr
from kgmgt_jax.models.registry import Network
from kgmgt_jax.training.state import TrainState
from kgmgt_jax.training.steps import apply_model
from kgmgt_jax.training.watch import split_ids

__all__ = ["Validation", "make_validator"]

_log = logging.getLogger(__name__)


class Validation(NamedTuple):
    """What a validation gives.

    Attributes:
        psnr: mean over all frames with a signal, in dB.
        reconstruction: images of the first batch, as the next two.
        zero_filled: what they were reconstructed from.
        reference: what they should be.
    """

    psnr: float
    reconstruction: Complex64[np.ndarray, "t h w"]
    zero_filled: Complex64[np.ndarray, "t h w"]
    reference: Complex64[np.ndarray, "t h w"]


def make_validator(
    model: Network, batches: Sequence[Mapping[str, np.ndarray]]
) -> Callable[[TrainState], Validation | None]:
    """A function that reconstructs validation batches with a state's averaged parameters.

    Args:
        model: the network.
        batches: frames of slices, as ``triplets`` makes them; without any the function gives
            ``None``. Frames without any signal are not scored.

    Raises:
        ValueError: if no frame has a signal.
    """
    signal = [np.abs(batch["reference"]).max(axis=(1, 2)) > 0 for batch in batches]
    lit = np.concatenate(signal) if signal else np.ones(0, bool)
    if batches and not lit.any():
        raise ValueError("config.data.validation: expected frames with a signal, got zeros alone")
    if not lit.all():
        _log.warning("%d of %d validation frames are blank: not scored", (~lit).sum(), lit.size)

    @jax.jit
    def reconstruct(variables: Any, batch: dict) -> tuple[jax.Array, jax.Array]:
        image = apply_model(model, variables, batch)[0].image
        reference = jnp.abs(batch["reference"])
        return psnr(reference, jnp.abs(image), jnp.max(reference, axis=(1, 2))), image

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
            psnr=float(np.mean(scores[lit])),
            reconstruction=np.asarray(results[0][1]),
            zero_filled=np.asarray(first["target"]),
            reference=np.asarray(first["reference"]),
        )

    return validate
