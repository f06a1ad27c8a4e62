"""Training without a reference: measured samples that the network is not given, and masks of scans
that are undersampled as they are.

Source: Yaman et al., Self-supervised learning of physics-guided reconstruction neural networks
without fully sampled reference data, 2020, whose samples are drawn one by one. Cartesian cines are
measured in lines, so lines are drawn here: what is left is a mask of the same kind.
"""

import zlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Complex64, Float32

from kgmgt_jax.data.augmentation import Augmentation, Moves
from kgmgt_jax.data.filling import are_lines
from kgmgt_jax.data.slices import SliceInfo, SliceSource, spread
from kgmgt_jax.data.transforms import central, fft2c, triplets

__all__ = ["HeldOutCase", "check_undersampled", "draw_held_out", "held_out_cases", "moved_mask"]


def draw_held_out(
    mask: Float32[np.ndarray, "t h w"], share: float, acs: int, rng: np.random.Generator
) -> Float32[np.ndarray, "t h w"]:
    """A random part of what each frame measured, as a mask.

    Lines are held out whole if they were measured whole (but for columns that none has, as of a
    partial echo), else single samples. If all frames measured the same, or nearly so, the same is
    held out of all of them: another frame would tell what is missing, which it cannot of the whole
    scan.

    Args:
        mask: 1 where measured.
        share: How much of what a frame measured outside the centre, in (0, 1), rounded to whole
            lines or samples, at least one.
        acs: Central lines that are always kept; of single samples, the central ``acs`` x ``acs``.
        rng: Decides everything.

    Raises:
        ValueError: If there is nothing to hold out, in any frame.
    """
    t, h, w = mask.shape
    taken = np.asarray(mask > 0)
    lines = np.asarray(taken.any(axis=2, keepdims=True))
    whole = np.array_equal(taken, lines & taken.any(axis=(0, 1)))
    candidates = np.array(lines if whole else taken)  # t h 1 or t h w
    candidates[:, central(h, min(acs, h)), slice(None) if whole else central(w, min(acs, w))] = 0
    if not candidates.any():
        raise ValueError(
            f"expected measured samples outside the {acs=} central lines, got {int(mask.sum())} "
            f"samples in {t} frames; let config.data.acs be smaller, or leave the scan out"
        )
    if not _others_tell(candidates):
        candidates = np.asarray(candidates.any(axis=0, keepdims=True))
    held = _drawn(candidates, share, rng)
    return (held & taken).astype(np.float32)


def _others_tell(measured: Bool[np.ndarray, "t h w"]) -> bool:
    """Whether frames lack more than a tenth as much of what others measured as they measured."""
    told = ~measured & measured.any(axis=0)
    return bool(told.sum() > 0.1 * measured.sum())


def _drawn(
    candidates: Bool[np.ndarray, "t h w"], share: float, rng: np.random.Generator
) -> Bool[np.ndarray, "t h w"]:
    """A share of each frame's candidates, all being as likely."""
    flat = candidates.reshape(len(candidates), -1)
    counts = np.maximum(np.round(share * flat.sum(axis=1)), 1)
    order = np.argsort(np.where(flat, rng.random(flat.shape), np.inf), axis=1)
    rank = np.argsort(order, axis=1)
    return (flat & (rank < counts[:, None])).reshape(candidates.shape)


def moved_mask(
    mask: Float32[np.ndarray, "t h w"], moves: Moves, width: int
) -> Float32[np.ndarray, "t h w_new"]:
    """The mask of an undersampled scan whose images were mirrored, and cut or padded by columns.

    Args:
        mask: As the scan was measured.
        moves: Of its images.
        width: Columns that they have then.

    Raises:
        ValueError: If columns were cut or padded where lines were not measured whole.
    """
    if are_lines(mask):
        return np.broadcast_to(moves.of_mask(mask[..., :1]), (*mask.shape[:2], width))
    if mask.shape[2] != width:
        raise ValueError(
            f"expected {mask.shape[2]} columns, all that a scan has which did not measure whole "
            f"lines, got {width}; let config.data.crop keep all columns, and n_buckets be larger"
        )
    return moves.of_mask(mask)


def check_undersampled(
    slices: Sequence[SliceInfo], augmentation: Augmentation, held_out: float
) -> None:
    """Refuses what undersampled slices cannot be used for.

    Raises:
        ValueError: If nothing is held out, so that they would be references, or if they would be
            cut along the phase encoding or turned, after which they are no such measurement.
    """
    tallest = max((info for info in slices if info.undersampled), key=lambda info: info.shape[2])
    source, rows = tallest.source, tallest.shape[2]
    if not held_out:
        raise ValueError(f"{source}: expected fully sampled slices unless held_out > 0")
    crop, turns, angle = augmentation.crop, augmentation.quarter_turns, augmentation.max_angle
    if augmentation.cropped((rows, 1))[0] < rows or turns or angle:
        wanted = f"crop=(None, {crop[1]}), quarter_turns=False and max_angle=0"
        got = f"{crop=}, quarter_turns={turns} and max_angle={angle:g}"
        raise ValueError(f"{source}: expected {wanted} for undersampled {rows} rows, got {got}")


class HeldOutCase(NamedTuple):
    """An undersampled slice, and what is held out of it.

    Attributes:
        kspace: Measured samples, ``(t, n, h, w)``, zero elsewhere.
        mask: Those that the network is given, ``(t, h, w)``.
        held: Those that it is to predict.
        sens: Sensitivities ``(n, h, w)`` or ``(t, n, h, w)``; ``None`` for a single coil.
    """

    kspace: Complex64[np.ndarray, "t n h w"]
    mask: Float32[np.ndarray, "t h w"]
    held: Float32[np.ndarray, "t h w"]
    sens: Complex64[np.ndarray, "*t n h w"] | None

    def frames(
        self, n_frames: int | None = None, *, circular: bool = True, input_fill: str = "zero"
    ) -> dict[str, np.ndarray]:
        """The first ``n_frames`` frames as one batch, or all: as `transforms.triplets` has them,
        with ``held_mask`` and ``held_kspace`` in the place of ``reference``.
        """
        targets = range(len(self.kspace))[:n_frames]
        arrays = (self.kspace, self.mask, self.sens)
        batch = triplets(*arrays, targets, circular=circular, input_fill=input_fill)
        del batch["reference"]
        held = self.held[targets]
        measured = self.kspace[targets] * held[:, None] / batch["scale"][:, None, None, None]
        return batch | {"held_mask": held, "held_kspace": measured}


def held_out_cases(
    source: SliceSource, share: float, *, acs: int, seed: int = 0, n_slices: int | None = None
) -> Iterator[HeldOutCase]:
    """Undersampled slices to validate on, in order; what is held out of each depends on ``seed``
    and its name.

    Args:
        source: The slices.
        share, acs: See `draw_held_out`.
        seed: Of what is held out.
        n_slices: How many, spread evenly over the source; ``None`` for all.

    Raises:
        ValueError: If some slices are fully sampled, or as `draw_held_out` does, with the slice.
    """
    full = [info for info in source.slices if not info.undersampled]
    if full:
        raise ValueError(f"expected undersampled slices alone, got {full[0].source}, too")
    for number in spread(len(source.slices), n_slices or len(source.slices)):
        info, mask = source.slices[number], source.acquired(number)
        if mask is None:
            raise ValueError(f"{info.source} [{info.name}]: expected a mask, got none")
        kspace = fft2c(source.images(number, range(info.shape[0]))) * mask[:, None]
        rng = np.random.default_rng([seed, zlib.crc32(info.name.encode())])
        try:
            held = draw_held_out(mask, share, acs, rng)
        except ValueError as error:
            raise ValueError(f"{info.source} [{info.name}]: {error}") from error
        yield HeldOutCase(kspace, mask - held, held, source.sens(number))
