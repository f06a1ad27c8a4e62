"""Fixed retrospective undersampling, to validate and evaluate on."""

import itertools
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Complex64, Float32

from kgmgt_jax.data.mask_sampler import MaskSampler
from kgmgt_jax.data.sens_cache import cached_sens, maps_of
from kgmgt_jax.data.slices import SliceSource, spread
from kgmgt_jax.data.transforms import coil_combine, fft2c, ifft2c, triplets

__all__ = [
    "RetrospectiveCase",
    "case_mask",
    "retrospective_cases",
    "validation_cases",
]


class RetrospectiveCase(NamedTuple):
    """A fully sampled slice and how it is undersampled.

    Attributes:
        kspace: All samples, ``(t, n, h, w)``.
        mask: Those that count as measured, ``(t, h, w)``; none that the scanner left out.
        sens: Sensitivities ``(n, h, w)`` or ``(t, n, h, w)``; ``None`` for a single coil.
        name: Name of the case.
    """

    kspace: Complex64[np.ndarray, "t n h w"]
    mask: Float32[np.ndarray, "t h w"]
    sens: Complex64[np.ndarray, "*t n h w"] | None
    name: str

    @property
    def reference(self) -> Float32[np.ndarray, "t h w"]:
        """Magnitude images of all samples."""
        return np.abs(coil_combine(ifft2c(self.kspace), self.sens))

    def frames(
        self, n_frames: int | None = None, *, circular: bool = True, input_fill: str = "zero"
    ) -> dict[str, np.ndarray]:
        """The first ``n_frames`` frames as one batch, or all; see `transforms.triplets`."""
        targets = range(len(self.kspace))[:n_frames]
        arrays = (self.kspace, self.mask, self.sens)
        return triplets(*arrays, targets, circular=circular, input_fill=input_fill)


def case_mask(
    masks: MaskSampler, name: str, shape: tuple[int, int, int], seed: int = 0
) -> Float32[np.ndarray, "t h w"]:
    """The mask of a case: it depends on the seed, the name and the shape (t, h, w) only."""
    return masks.draw(np.random.default_rng([seed, zlib.crc32(name.encode())]), shape)


def retrospective_cases(
    source: SliceSource,
    number: int,
    masks: Sequence[MaskSampler],
    seed: int = 0,
    *,
    sens_cache: str | Path | None = None,
) -> Iterator[RetrospectiveCase]:
    """A slice, read once and undersampled in each of some ways; see `case_mask`.

    Its sensitivities are those that a scan with the mask would have: of the file, if it has its
    own, else estimated from what the mask measures in any frame. That is many more lines than the
    central ones where masks vary in time.

    Args:
        source: Fully sampled slices.
        number: Which of them.
        masks: How it is undersampled.
        seed: Seed of the masks.
        sens_cache: Folder that keeps sensitivities for the next time; ``None`` keeps none.

    Raises:
        DataError: If a mask measures too few lines around the centre to estimate sensitivities
            from; see `calibration_block`.
    """
    info = source.slices[number]
    t, _, h, w = info.shape
    kspace = fft2c(source.images(number, range(t)))
    method, acquired = source.sens_method(number), source.acquired(number)
    for sampler in masks:
        mask = case_mask(sampler, info.name, (t, h, w), seed)
        mask = mask if acquired is None else mask * acquired
        if method is None:
            sens = source.sens(number)
        else:
            with maps_of(f"{info.source} [{info.name}]"):
                sens = cached_sens(kspace, mask, method=method, cache_dir=sens_cache)
        yield RetrospectiveCase(kspace, mask, sens, info.name)


def validation_cases(
    source: SliceSource,
    *,
    mask_kind: str,
    acceleration: float,
    acs: int,
    seed: int = 0,
    n_slices: int | None = None,
    sens_cache: str | Path | None = None,
) -> Iterator[RetrospectiveCase]:
    """Slices of a source, in order, with a fixed mask for each.

    A slice's mask depends on ``seed``, its name and its shape only, so adding or removing others
    changes nothing. See `retrospective_cases`.

    Args:
        source: Fully sampled slices.
        mask_kind: See `MaskSampler`.
        acceleration: See `MaskSampler`.
        acs: Calibration lines of the masks.
        seed: Seed of the masks.
        n_slices: How many, spread evenly over the source; ``None`` for all.
        sens_cache: See `retrospective_cases`.

    Raises:
        ValueError: If the mask kind or the acceleration is impossible, or ``n_slices`` below 1.
    """
    if n_slices is not None and n_slices < 1:
        raise ValueError(f"expected n_slices >= 1, or None, got {n_slices=}")
    masks = MaskSampler((mask_kind,), (acceleration,), acs)
    for t, _, h, w in {info.shape for info in source.slices}:
        masks.check((t, h, w))

    numbers = spread(len(source.slices), n_slices or len(source.slices))
    return itertools.chain.from_iterable(
        retrospective_cases(source, number, (masks,), seed, sens_cache=sens_cache)
        for number in numbers
    )
