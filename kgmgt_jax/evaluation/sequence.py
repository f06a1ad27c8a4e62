"""Reconstructing whole cines, a batch of frames at a time."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jaxtyping import Complex64

from kgmgt_jax.models.kgmgt import KGMgT
from kgmgt_jax.training.steps import apply_model

__all__ = ["make_reconstructor"]

Reconstruct = Callable[[Mapping[str, np.ndarray]], Complex64[np.ndarray, "t h w"]]
_INPUTS = ("target", "preceding", "succeeding", "kspace", "mask", "sens")


@functools.partial(jax.jit, static_argnums=0)
def _apply(model: KGMgT, variables: Any, batch: dict[str, jax.Array]) -> jax.Array:
    return apply_model(model, variables, batch)[0].image


def make_reconstructor(
    model: KGMgT,
    variables: Any,
    *,
    frames_at_once: int = 4,
    progress: Callable[[int], None] | None = None,
) -> Reconstruct:
    """A function from the frames of a cine, as `triplets` gives them, to their reconstructions.

    Frames go through in groups of one size, the last one filled up by repetition, so that a cine
    of any length compiles once and memory does not grow with it.

    Args:
        model: the network.
        variables: its variables.
        frames_at_once: size of a group.
        progress: called with the number of frames done after each group.
    """
    variables = jax.device_put(variables)

    def reconstruct(cine: Mapping[str, np.ndarray]) -> Complex64[np.ndarray, "t h w"]:
        n_frames = len(cine["target"])
        group = min(frames_at_once, n_frames)
        images = []
        for start in range(0, n_frames, group):
            frames = np.minimum(np.arange(start, start + group), n_frames - 1)
            batch = {name: cine[name][frames] for name in _INPUTS if name in cine}
            done = min(group, n_frames - start)
            images.append(np.asarray(_apply(model, variables, batch))[:done])
            if progress is not None:
                progress(done)
        return np.concatenate(images)

    return reconstruct
