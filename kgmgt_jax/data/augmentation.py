"""Random geometry, phase and intensity of training examples; on the host, in image space.

Coil images and sensitivities go through the same geometry, so what is measured of them afterwards
is as consistent as before, but for rotations: these interpolate (about 1 % of a sharp image is then
not explained by the turned sensitivities).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import scipy.ndimage
from jaxtyping import Complex64, Shaped

from kgmgt_jax.mri.fourier import opposite_frequencies

__all__ = ["Augmentation", "Moves", "pad_case", "rotate_case"]

Images = Complex64[np.ndarray, "f n h w"]
OptionalSens = Complex64[np.ndarray, "*f n h w"] | None
NewImages = Complex64[np.ndarray, "f n h_new w_new"]
OptionalNewSens = Complex64[np.ndarray, "*f n h_new w_new"] | None
Size = Sequence[int | None]

_AXES = (-2, -1)


class Moves(NamedTuple):
    """What was drawn for one example.

    Attributes:
        angle: Of the rotation, in degrees; 0 leaves it out.
        window: Rows and columns that are kept.
        turns: Quarter turns of a square window.
        flips: Axes that are mirrored, of (-2, -1).
        phase: Factor of magnitude 1.
    """

    angle: float
    window: tuple[slice, slice]
    turns: int
    flips: tuple[int, ...]
    phase: complex

    def of_case(self, images: Images, sens: OptionalSens) -> tuple[NewImages, OptionalNewSens]:
        """Rotation, crop, quarter turn, flips and phase, in this order; maps keep their phase."""
        if self.angle:
            images, sens = rotate_case(images, sens, self.angle)
        images = self._placed(images)
        turned = self.phase != 1
        images = images * np.complex64(self.phase) if turned else np.ascontiguousarray(images)
        return images, None if sens is None else np.ascontiguousarray(self._placed(sens))

    def of_mask(self, mask: Shaped[np.ndarray, "f h w"]) -> Shaped[np.ndarray, "f h w"]:
        """Where the samples of a mask lie in the k-space of mirrored images; no other move."""
        for axis in self.flips:
            mask = np.take(mask, opposite_frequencies(mask.shape[axis]), axis)
        return mask

    def _placed(self, a: np.ndarray) -> np.ndarray:
        a = a[(..., *self.window)]
        square = a.shape[-2] == a.shape[-1]
        return np.flip(np.rot90(a, self.turns, _AXES) if square else a, self.flips)


@dataclass(frozen=True)
class Augmentation:
    """What is drawn anew for every training example.

    Attributes:
        crop: Rows and columns of a random window; ``None``, or more than there are, keeps an axis.
            The transform of coil images so cut is the k-space of an object that fills the smaller
            field of view, so measurements simulated of it are as valid as the whole frame's.
        flips: Whether to mirror each image axis with probability 1/2.
        quarter_turns: Whether to turn square examples by a random multiple of 90 degrees, which
            trades the phase-encoding and readout axes; others are left as they are.
        max_angle: Largest angle in degrees of a random rotation with bilinear interpolation before
            the crop. It costs far more time than the rest together.
        phase: Whether to turn the global phase at random.
        intensity: Largest relative change of the intensity that the network sees, such as 0.2: a
            factor between 1 / 1.2 and 1.2, uniform in its logarithm. It stands for the error of
            the 99th percentile that examples are scaled by.

    Raises:
        ValueError: If a size or range is impossible.
    """

    crop: tuple[int | None, int | None] = (None, None)
    flips: bool = True
    quarter_turns: bool = False
    max_angle: float = 0.0
    phase: bool = True
    intensity: float = 0.0

    def __post_init__(self) -> None:
        if len(self.crop) != 2 or any(size is not None and size < 1 for size in self.crop):
            raise ValueError(f"crop must be two sizes, each positive or None, got {self.crop=}")
        if not (0 <= self.max_angle <= 180 and 0 <= self.intensity < np.inf):
            raise ValueError(
                "expected max_angle in [0, 180] and intensity >= 0, got "
                f"{self.max_angle=}, {self.intensity=}"
            )

    def cropped(self, size: tuple[int, int]) -> tuple[int, int]:
        """Rows and columns that are left of a size."""
        h, w = (
            kept if cut is None else min(cut, kept)
            for cut, kept in zip(self.crop, size, strict=True)
        )
        return h, w

    def draw(self, size: tuple[int, int], rng: np.random.Generator) -> Moves:
        """What is done to a case of some rows and columns; ``rng`` decides everything."""
        angle = float(rng.uniform(-self.max_angle, self.max_angle)) if self.max_angle else 0.0
        window = _draw_window(self.crop, size, rng)
        turns = int(rng.integers(4)) if self.quarter_turns else 0
        flips = rng.random(2) < (0.5 if self.flips else 0.0)
        phase = np.exp(2j * np.pi * rng.random())
        axes = tuple(axis for axis, flip in zip(_AXES, flips, strict=True) if flip)
        return Moves(angle, window, turns, axes, complex(phase) if self.phase else 1.0)

    def apply(
        self, images: Images, sens: OptionalSens, rng: np.random.Generator
    ) -> tuple[NewImages, OptionalNewSens]:
        """Draws moves and makes them; see `Moves`.

        Args:
            images: Coil images of some frames.
            sens: Sensitivities, or ``None``; they keep their phase.
            rng: Decides everything.
        """
        return self.draw((images.shape[-2], images.shape[-1]), rng).of_case(images, sens)

    def draw_intensity(self, rng: np.random.Generator) -> float:
        """The factor on the intensity of an example."""
        return float(np.exp(rng.uniform(-1, 1) * np.log1p(self.intensity)))


def _draw_window(
    size: Size, available: tuple[int, int], rng: np.random.Generator
) -> tuple[slice, slice]:
    """Rows and columns of a window, uniform over all that fit."""
    kept = [there if n is None else min(n, there) for n, there in zip(size, available, strict=True)]
    starts = [int(rng.integers(n - k + 1)) for n, k in zip(available, kept, strict=True)]
    rows, columns = (slice(start, start + k) for start, k in zip(starts, kept, strict=True))
    return rows, columns


def pad_case(
    images: Images, sens: OptionalSens, shape: tuple[int, int, int]
) -> tuple[NewImages, OptionalNewSens]:
    """Puts a case into a larger field of view, and adds coils that receive nothing.

    The new pixels are empty and their sensitivities zero; the centre of k-space stays where
    centred transforms have it. Measurements simulated of it are those of a scan with that field of
    view, but for the noise that the new pixels would have.

    Args:
        images: Coil images of some frames.
        sens: Sensitivities; ``None`` for a single coil, which counts as one of sensitivity 1 if
            coils are added.
        shape: Coils, rows and columns wanted, none smaller than there are.

    Raises:
        ValueError: If the case is larger.
    """
    before = images.shape[1:]
    if before == tuple(shape):
        return images, sens
    if any(new < old for new, old in zip(shape, before, strict=True)):
        raise ValueError(f"expected a shape of at least (n, h, w) = {before}, got {shape=}")
    if sens is None and shape[0] > 1:
        sens = np.ones(before, np.complex64)
    low = [0, *(new // 2 - old // 2 for new, old in zip(shape[1:], before[1:], strict=True))]
    widths = [
        (start, new - old - start) for start, new, old in zip(low, shape, before, strict=True)
    ]

    def pad(a: np.ndarray) -> np.ndarray:
        return np.pad(a, [*[(0, 0)] * (a.ndim - 3), *widths])

    return pad(images), None if sens is None else pad(sens)


def rotate_case(images: Images, sens: OptionalSens, angle: float) -> tuple[Images, OptionalSens]:
    """Turns a case about the middle of the image; what comes in from outside is empty.

    Args:
        images: Coil images of some frames.
        sens: Sensitivities of unit sum of squares, or ``None``; they have it again afterwards,
            except where nothing is left of them.
        angle: In degrees, from rows to columns.
    """

    def turn(a: np.ndarray) -> np.ndarray:
        return scipy.ndimage.rotate(a, angle, axes=_AXES, reshape=False, order=1)

    if sens is None:
        return turn(images), None
    turned = turn(sens)
    norm = np.sqrt(np.sum(np.abs(turned) ** 2, axis=-3, keepdims=True))
    return turn(images), np.where(norm > 0, turned / np.where(norm > 0, norm, 1), 0)
