"""Random sampling masks for training and fixed ones for evaluation, drawn on the host."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jaxtyping import Float32

from kgmgt_jax.mri.sampling import MASKS, SamplingMask

__all__ = ["FIXED_KINDS", "MASK_KINDS", "MaskSampler"]

MASK_KINDS = {kind: (kind, {}) for kind in MASKS} | {
    "variable_density_fixed": ("variable_density", {"fixed": True}),
    "uniform_aligned": ("uniform", {"offset": 0}),
}
"""By the names of ``config.data.mask_kinds``: which of `MASKS`, and with what options."""
FIXED_KINDS = frozenset({"uniform", "uniform_aligned", "variable_density_fixed"})
"""Those with the same lines in all frames."""


@dataclass(frozen=True)
class MaskSampler:
    """Draws sampling masks of mixed kinds and accelerations.

    Attributes:
        kinds: Names from ``kgmgt_jax.mri.sampling.MASKS``, or ``"variable_density_fixed"`` for
            the same random lines in all frames, or ``"uniform_aligned"`` for a comb that begins
            at the first line, as the files of CMRxRecon have it. Each is as likely as the others.
        accelerations: Accelerations to choose from, with equal chances; whole numbers for the
            comb patterns.
        acs: Lines at the centre of k-space that every mask contains; of ``kt_radial``, the side of
            a square.
    """

    kinds: tuple[str, ...]
    accelerations: tuple[float, ...]
    acs: int

    def check(self, shape: tuple[int, int, int]) -> None:
        """Refuses what cannot be drawn at shape ``(t, h, w)``, before any is drawn.

        Raises:
            ValueError: If a kind is unknown, or an acceleration or ``acs`` is impossible for it.
        """
        if not self.kinds or not self.accelerations:
            raise ValueError(f"at least one mask kind and acceleration are needed, got {self}")
        for kind in self.kinds:
            if kind not in MASK_KINDS:
                raise ValueError(f"mask kinds must be among {sorted(MASK_KINDS)}, got {kind=}")
            for acceleration in self.accelerations:
                draw = functools.partial(_draw, kind, shape, acceleration, self.acs)
                jax.eval_shape(draw, np.uint32(0))

    def draw(
        self, rng: np.random.Generator, shape: tuple[int, int, int]
    ) -> Float32[np.ndarray, "t h w"]:
        """A mask of random kind and acceleration; ``rng`` decides everything."""
        kind = self.kinds[rng.integers(len(self.kinds))]
        acceleration = self.accelerations[rng.integers(len(self.accelerations))]
        seed = rng.integers(2**32, dtype=np.uint32)
        here = jax.local_devices(backend="cpu")[0]
        with jax.default_device(here), jax.threefry_partitionable(True):
            return np.asarray(_draw(kind, shape, float(acceleration), self.acs, seed))


def _draw(
    kind: str, shape: tuple[int, int, int], acceleration: float, acs: int, seed: Any
) -> jax.Array:
    name, options = MASK_KINDS[kind]
    options = tuple(options.items())
    return _compiled(MASKS[name], options, shape, acceleration, acs, seed)


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3, 4))
def _compiled(
    pattern: Callable[..., SamplingMask],
    options: tuple[tuple[str, Any], ...],
    shape: tuple[int, int, int],
    acceleration: float,
    acs: int,
    seed: jax.Array,
) -> jax.Array:
    """One mask, compiled once for each kind, shape and acceleration: 100 times the speed."""
    key = jax.random.key(seed, impl="threefry2x32")  # whatever generator the process prefers
    return pattern(key, shape, acceleration, acs=acs, **dict(options)).mask
