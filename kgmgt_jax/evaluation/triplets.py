"""Whole cines by networks that see three frames at a time and keep nothing in between."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Int

from kgmgt_jax.evaluation.cine import CineInput
from kgmgt_jax.models.registry import Network
from kgmgt_jax.types import Measurement

__all__ = ["reconstruct_triplets"]


def reconstruct_triplets(
    model: Network,
    variables: Any,
    cine: CineInput,
    circular: bool,
    group: int,
    progress: Callable[[int], None] | None = None,
) -> Complex[Array, "t h w"]:
    """Reconstructs every frame from itself and its neighbours; memory is that of one group.

    With ``progress`` each group is a compiled call, of a program that serves cines of any length.

    Args:
        model: a network of KGMgT's call signature.
        variables: its variables.
        cine: what was measured, on the device.
        circular: whether the last frame precedes the first; otherwise an end frame stands in for
            its missing neighbour.
        group: targets at once, no more than there are frames.
        progress: called with the number of frames done after each group.
    """
    if progress is None:
        return _all_groups(model, variables, cine, circular, group)
    n_frames, images = cine.images.shape[0], []
    for start in range(0, n_frames, group):
        targets = np.minimum(np.arange(start, start + group), n_frames - 1)
        frames = [cine.images[index] for index in _neighbours(targets, n_frames, circular)]
        image = _refine(model, variables, frames, cine.measurement(targets))
        done = min(group, n_frames - start)
        images.append(jax.block_until_ready(image)[:done])
        progress(done)
    return jnp.concatenate(images)


@functools.partial(jax.jit, static_argnames=("model", "circular", "group"))
def _all_groups(
    model: Network,
    variables: Any,
    cine: CineInput,
    circular: bool,
    group: int,
) -> Complex[Array, "t h w"]:
    n_frames, h, w = cine.images.shape

    def one(start: Int[Array, ""]) -> Complex[Array, "group h w"]:
        targets = jnp.minimum(start + jnp.arange(group), n_frames - 1)
        frames = [cine.images[index] for index in _neighbours(targets, n_frames, circular)]
        return _refine(model, variables, frames, cine.measurement(targets))

    images = jax.lax.map(one, jnp.arange(0, n_frames, group))
    return images.reshape(-1, h, w)[:n_frames]


@functools.partial(jax.jit, static_argnames="model")
def _refine(
    model: Network,
    variables: Any,
    frames: Sequence[Complex[Array, "group h w"]],
    measurement: Measurement,
) -> Complex[Array, "group h w"]:
    """Images of the first of ``frames``, which are targets, preceding and succeeding ones."""
    output: Any = model.apply(variables, *frames, measurement)
    return output.image


def _neighbours(targets: Any, n_frames: int, circular: bool) -> tuple[Any, Any, Any]:
    """Targets, and the frames before and after them."""
    before, after = targets - 1, targets + 1
    if circular:
        return targets, before % n_frames, after % n_frames
    return targets, before.clip(0), after.clip(None, n_frames - 1)
