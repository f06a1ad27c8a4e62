"""Slices by number, what the pipeline reads, whoever keeps them: fully sampled, or undersampled to
train without references.

A `SliceSource` is a prepared set on disk (``kgmgt_jax.data.prepared.PreparedSet``) or anything
else that can hand out coil images frame by frame.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from jaxtyping import Complex64, Float32

__all__ = ["SliceInfo", "SliceSource", "fingerprint", "spread"]


@dataclass(frozen=True)
class SliceInfo:
    """What is known of a slice before any of its samples is read.

    Attributes:
        name: Short name of the case, e.g. ``"P001/cine_sax/slice0"``, as in ``CaseMeta.name``.
        subject: Who was scanned, e.g. ``"Center001/Siemens_30T_Vida/P001"``; two slices of one
            subject never lie in different splits.
        view: Cardiac view, e.g. ``"sax"``; empty where unknown.
        shape: Frames, coils, rows and columns of the coil images: ``(t, n, h, w)``.
        simulation: How the k-space was simulated; empty for measured k-space.
        source: Path of the file the slice comes from.
        slice_index: Position of the slice in that file, from 0, as in ``CaseMeta.slice_index``.
        scale: What its images are to be multiplied by to have the file's own units again.
        pixel_mm: Height and width of a pixel, as in ``CaseMeta.pixel_mm``.
        undersampled: Whether its images are no reference, but zero-filled.
    """

    name: str
    subject: str
    view: str
    shape: tuple[int, int, int, int]
    simulation: str
    source: str
    slice_index: int
    scale: float = 1.0
    pixel_mm: tuple[float, float] | None = None
    undersampled: bool = False

    @property
    def simulated(self) -> bool:
        """Whether the k-space was computed from images instead of measured."""
        return bool(self.simulation)


class SliceSource(Protocol):
    """Random access to the frames of slices; safe to pickle and to share by threads.

    Attributes:
        slices: What is known of each slice, in order; its number is its place here.
    """

    slices: tuple[SliceInfo, ...]

    def images(self, number: int, frames: Sequence[int]) -> Complex64[np.ndarray, "f n h w"]:
        """Coil images of some frames of a slice, in the order asked for.

        Args:
            number: Which slice, in [0, len(slices)).
            frames: Which frames, each in [0, t); one may come twice.
        """
        ...

    def sens(self, number: int) -> Complex64[np.ndarray, "*t n h w"] | None:
        """Sensitivities of a slice, for each frame if they change; ``None`` for a single coil."""
        ...

    def sens_method(self, number: int) -> str | None:
        """How they were estimated (see `estimate_sens`); ``None`` if they were not."""
        ...

    def acquired(self, number: int) -> Float32[np.ndarray, "t h w"] | None:
        """1 where the scanner took a sample of a slice, 0 where a partial echo or Fourier scan, or
        one that is undersampled, has none; ``None`` for all of them, or if that is not known.
        """
        ...


def fingerprint(slices: Sequence[SliceInfo]) -> str:
    """How many slices there are, and a number that others, or another order, would change."""
    told = [(info.subject, info.name, info.shape) for info in slices]
    return f"{len(slices)} slices, {zlib.crc32(repr(told).encode()):08x}"


def spread(n_items: int, n: int) -> list[int]:
    """Numbers of ``n`` of some items, evenly spaced from the first to the last; all if fewer."""
    chosen = np.linspace(0, n_items - 1, min(n, n_items))
    return chosen.round().astype(int).tolist()
