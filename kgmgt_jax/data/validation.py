"""Fixed retrospective undersampling, to validate and evaluate on."""

import itertools
import zlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Complex64, Float32

from kgmgt_jax.data.mask_sampler import MaskSampler
from kgmgt_jax.data.sens_cache import cached_sens
from kgmgt_jax.data.slices import SliceSource
from kgmgt_jax.data.transforms import coil_combine, fft2c, ifft2c, triplets

__all__ = [
    "RetrospectiveCase",
    "case_mask",
    "retrospective_cases",
    "validation_batches",
    "validation_cases",
]


class RetrospectiveCase(NamedTuple):
    """A fully sampled slice and how it is undersampled.

    Attributes:
        kspace: All samples, ``(t, n, h, w)``.
        mask: Those that count as measured, ``(t, h, w)``.
        sens: Sensitivities ``(n, h, w)`` or ``(t, n, h, w)``; ``None`` for a single coil.
        name: Name of the case.
        simulated: Whether the k-space was computed from images instead of measured.
    """

    kspace: Complex64[np.ndarray, "t n h w"]
    mask: Float32[np.ndarray, "t h w"]
    sens: Complex64[np.ndarray, "*t n h w"] | None
    name: str
    simulated: bool = False

    @property
    def reference(self) -> Float32[np.ndarray, "t h w"]:
        """Magnitude images of all samples."""
        return np.abs(coil_combine(ifft2c(self.kspace), self.sens))

    def frames(self, *, circular: bool = True, input_fill: str = "zero") -> dict[str, np.ndarray]:
        """All frames as one batch; see `triplets`."""
        targets = range(len(self.kspace))
        arrays = (self.kspace, self.mask, self.sens)
        return triplets(*arrays, targets, circular=circular, input_fill=input_fill)


def case_mask(
    masks: MaskSampler, name: str, shape: tuple[int, int, int], seed: int = 0
) -> Float32[np.ndarray, "t h w"]:
    """The mask of a case: it depends on the seed, the name and the shape (t, h, w) only."""
    return masks.draw(np.random.default_rng([seed, zlib.crc32(name.encode())]), shape)


def retrospective_cases(
    source: SliceSource, number: int, masks: Sequence[MaskSampler], seed: int = 0
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

    Raises:
        ValueError: If a mask measures too few lines around the centre to estimate sensitivities
            from; see `calibration_block`.
    """
    info = source.slices[number]
    t, _, h, w = info.shape
    kspace = fft2c(source.images(number, range(t)))
    method = source.sens_method(number)
    for sampler in masks:
        mask = case_mask(sampler, info.name, (t, h, w), seed)
        sens = cached_sens(kspace, mask, method=method) if method else source.sens(number)
        yield RetrospectiveCase(kspace, mask, sens, info.name, info.simulated)


def validation_cases(
    source: SliceSource, *, mask_kind: str, acceleration: float, acs: int, seed: int = 0
) -> Iterator[RetrospectiveCase]:
    """Every slice of a source, in order, with a fixed mask for each.

    A slice's mask depends on ``seed``, its name and its shape only, so adding or removing others
    changes nothing. See `retrospective_cases`.

    Args:
        source: Fully sampled slices.
        mask_kind: See `MaskSampler`.
        acceleration: See `MaskSampler`.
        acs: Calibration lines of the masks.
        seed: Seed of the masks.

    Raises:
        ValueError: If the mask kind or the acceleration is impossible.
    """
    masks = MaskSampler((mask_kind,), (acceleration,), acs)
    for t, _, h, w in {info.shape for info in source.slices}:
        masks.check((t, h, w))

    numbers = range(len(source.slices))
    return itertools.chain.from_iterable(
        retrospective_cases(source, number, (masks,), seed) for number in numbers
    )


def validation_batches(
    source: SliceSource,
    *,
    mask_kind: str = "variable_density",
    acceleration: float = 8.0,
    acs: int = 8,
    batch_size: int | None = None,
    seed: int = 0,
    circular: bool = True,
    input_fill: str = "zero",
) -> Iterator[dict[str, np.ndarray]]:
    """The frames of `validation_cases`, whole and in order, as batches that `triplets` describes.

    Args:
        source, mask_kind, acceleration, acs, seed: See `validation_cases`.
        batch_size: Frames in a batch, all of one slice; the last of a slice may be smaller.
            ``None`` takes all frames of a slice at once.
        circular: Whether the last frame precedes the first (retrospective gating).
        input_fill: See `fill_gaps`.

    Raises:
        ValueError: If a size, the mask kind or the acceleration is impossible.
    """
    if batch_size is not None and batch_size < 1:
        raise ValueError(f"expected batch_size >= 1, or None, got {batch_size=}")
    cases = validation_cases(
        source, mask_kind=mask_kind, acceleration=acceleration, acs=acs, seed=seed
    )

    def batches() -> Iterator[dict[str, np.ndarray]]:
        for case in cases:
            frames = case.frames(circular=circular, input_fill=input_fill)
            n_frames = len(case.kspace)
            step = batch_size or n_frames
            for start in range(0, n_frames, step):
                yield {name: array[start : start + step] for name, array in frames.items()}

    return batches()
