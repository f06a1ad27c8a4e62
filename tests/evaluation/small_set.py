"""Phantom files, and methods that cost nothing, to evaluate."""

from dataclasses import dataclass
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from kgmgt_jax.data.phantom import write_cmrxrecon2023
from kgmgt_jax.evaluation.methods import Program

SHAPE = (4, 40, 32)  # t, h, w
FULL = "SingleCoil/Cine/TrainingSet/FullSample"


def write_phantoms(
    root: Path, n_subjects: int = 2, n_coils: int = 1, seeds_from: int = 0, **options
) -> Path:
    """Phantoms of one slice below a folder."""
    t, *shape = SHAPE
    options = {"n_slices": 1, "accelerations": (), "acs": 8} | options
    seeds = range(seeds_from, seeds_from + n_subjects)
    write_cmrxrecon2023(root, seeds, shape=shape, n_frames=t, n_coils=n_coils, **options)
    return root


@dataclass(frozen=True)
class Scaled:
    """A method that returns its zero-filled images times a factor, or fails."""

    name: str
    factor: float = 1.0
    fails_on: str = ""
    source: str = "made up"
    n_parameters: int | None = 3

    def reconstruct(self, kspace, mask, sens, progress=None):
        if self.fails_on and len(kspace) == SHAPE[0]:
            raise RuntimeError(self.fails_on)
        if progress is not None:
            progress(len(kspace))
        axes = (-2, -1)
        shifted = np.fft.ifftshift(kspace[:, 0], axes)
        return self.factor * np.fft.fftshift(np.fft.ifft2(shifted, norm="ortho"), axes)

    def program(self, kspace, mask, sens):
        return Program(lambda x: self.factor * jnp.abs(x), (jnp.asarray(kspace),), len(kspace))
