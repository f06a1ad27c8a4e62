"""A run that begins with the weights of another, or of VGG19."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from kgmgt_jax.interop.vgg import load_encoder
from kgmgt_jax.models.enforcement import strength_parameter
from kgmgt_jax.training.comparison import differing_arrays
from kgmgt_jax.training.state import TrainState
from kgmgt_jax.training.weights import CheckpointError, load_fixed_weights, load_weights

__all__ = ["started_from", "with_vgg_encoder"]

_STRENGTHS = {strength_parameter(consistency)[0] for consistency in ("hard", "soft")}


def started_from(
    checkpoint: str | Path, state: TrainState, *, fixed_masks: bool = False
) -> TrainState:
    """The first state of a run, its generator's weights those of a checkpoint.

    Optimisers, critic and step stay as at the beginning of a run, so that a warm-up of the learning
    rate is due. If the denoiser of this run has another number of iterations, the strengths of
    their data consistency are interpolated, the first kept and of two or more the last; the
    denoiser itself is the same in all iterations.

    Args:
        checkpoint: a training workdir (its best checkpoint is taken, else its last), one
            checkpoint, or ``"pretrained"``; averaged parameters, of any floating type.
        state: the state before the first step, on its devices.
        fixed_masks: whether the run trains on masks that are the same in all frames: it begins
            with the checkpoint's weights for those, if it has them.

    Raises:
        CheckpointError: if it cannot be read, or its arrays are not those of the network.
    """
    weights = load_fixed_weights(checkpoint) if fixed_masks else load_weights(checkpoint)[1]
    wanted = state.generator.variables
    weights = _with_as_many_iterations(weights, wanted)
    other = differing_arrays(weights, wanted)
    if other:
        raise CheckpointError(
            f"{checkpoint}: expected the weights of this run's network, got {other}"
        )

    variables = jax.tree.map(_place, wanted, weights)
    averaged = jax.tree.map(_place, state.ema_params, weights["params"])
    params = variables.pop("params")
    generator = state.generator.replace(params=params, model_state=variables)
    return state.replace(generator=generator, ema_params=averaged)


def with_vgg_encoder(path: str | Path, state: TrainState) -> TrainState:
    """The first state of a run, its shared frame encoder that of VGG19 up to relu3_1.

    Args:
        path: the weights, see `load_encoder`.
        state: the state before the first step, on its devices.

    Raises:
        ValueError: if they cannot be read, or the network has no such encoder.
    """
    encoder = load_encoder(path)

    def exchange(params: Mapping[str, Any]) -> dict[str, Any]:
        own = params.get("frame_encoder", {}).get("encoder", {})
        other = differing_arrays(encoder, own)
        if other:
            raise ValueError(f"{path}: expected the weights of a shared frame encoder, got {other}")
        placed = jax.tree.map(_place, own, encoder)
        return {**params, "frame_encoder": {**params["frame_encoder"], "encoder": placed}}

    generator = state.generator.replace(params=exchange(state.generator.params))
    return state.replace(generator=generator, ema_params=exchange(state.ema_params))


def _place(like: jax.Array, value: np.ndarray) -> jax.Array:
    """A copy of an array of its own, where another lies and of its type, in every process."""
    own = np.array(value, like.dtype)
    return jax.make_array_from_callback(own.shape, like.sharding, lambda index: own[index])


def _with_as_many_iterations(weights: Any, wanted: Any) -> Any:
    """``weights`` with a strength for each iteration that the arrays ``wanted`` have."""
    shapes = {path: np.shape(like) for path, like in jax.tree.leaves_with_path(wanted)}

    def fit(path: tuple, value: np.ndarray) -> np.ndarray:
        shape = shapes.get(path, ())
        if path[-1].key not in _STRENGTHS or not len(shape) == value.ndim == 1:
            return value
        places = np.linspace(0, len(value) - 1, *shape)
        return np.interp(places, np.arange(len(value)), value)

    return jax.tree.map_with_path(fit, weights)
