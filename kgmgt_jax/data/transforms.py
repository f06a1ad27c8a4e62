"""From fully sampled coil images to what the network is trained on; pure functions on NumPy arrays.

All of it runs on the host, inside the data loader, so the Fourier transforms here are the SciPy
twins of ``kgmgt_jax.mri.fourier``: centred, orthonormal, single precision kept.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import jax
import numpy as np
import scipy.fft
from jaxtyping import Complex64, Float32, Shaped

from kgmgt_jax.mri.sampling import MASKS, make_mask

__all__ = [
    "MASK_KINDS",
    "MaskSampler",
    "augment",
    "coil_combine",
    "crop_case",
    "fft2c",
    "ifft2c",
    "intensity_scale",
    "neighbours",
    "triplet",
    "triplets",
]

Images = Complex64[np.ndarray, "t n h w"]
OptionalSens = Complex64[np.ndarray, "*t n h w"] | None
Cropped = Complex64[np.ndarray, "t n h_cut w_cut"]
OptionalCropped = Complex64[np.ndarray, "*t n h_cut w_cut"] | None

_AXES = (-2, -1)
_PERCENTILE = 99.0
MASK_KINDS = {kind: (kind, {}) for kind in MASKS} | {
    "variable_density_fixed": ("variable_density", {"fixed": True}),
    "uniform_aligned": ("uniform", {"offset": 0}),
}


def fft2c(images: Complex64[np.ndarray, "*b h w"]) -> Complex64[np.ndarray, "*b h w"]:
    """Centred orthonormal 2-D FFT over the last two axes, image to k-space, any size."""
    spectrum = scipy.fft.fft2(scipy.fft.ifftshift(images, _AXES), norm="ortho", overwrite_x=True)
    return scipy.fft.fftshift(spectrum, _AXES)


def ifft2c(kspace: Complex64[np.ndarray, "*b h w"]) -> Complex64[np.ndarray, "*b h w"]:
    """Inverse of `fft2c`, k-space to image."""
    images = scipy.fft.ifft2(scipy.fft.ifftshift(kspace, _AXES), norm="ortho", overwrite_x=True)
    return scipy.fft.fftshift(images, _AXES)


def coil_combine(
    coil_images: Complex64[np.ndarray, "*b n h w"],
    sens: Complex64[np.ndarray, "*#b n h w"] | None,
) -> Complex64[np.ndarray, "*b h w"]:
    """Sensitivity-weighted sum ``sum_n conj(S_n) x_n``; with one coil and no maps, that coil.

    Raises:
        ValueError: If there are several coils and ``sens`` is ``None``.
    """
    if sens is not None:
        return np.sum(np.conj(sens) * coil_images, axis=-3)
    n_coils = coil_images.shape[-3]
    if n_coils != 1:
        raise ValueError(f"sens is needed to combine several coils, got {n_coils=} and sens=None")
    return coil_images[..., 0, :, :]


def intensity_scale(images: Shaped[np.ndarray, "*b h w"]) -> float:
    """99th percentile of the magnitude over all frames: dividing by it brings a case to order 1.

    Args:
        images: Zero-filled images of one case, complex or magnitude, in any unit.

    Returns:
        A positive number. Where more than 99 % of the pixels are zero the maximum takes the
        percentile's place, and 1 where all are.

    Source: docs/ARCHITECTURE, part II, item 11.
    """
    magnitude = np.abs(images)
    return float(np.percentile(magnitude, _PERCENTILE)) or float(magnitude.max()) or 1.0


def neighbours(t: int, n_frames: int, *, circular: bool = True) -> tuple[int, int]:
    """Indices of the preceding and the succeeding frame.

    Args:
        t: Target frame, in [0, n_frames).
        n_frames: Frames of the cine. In a cine of one frame that frame is its own neighbour.
        circular: Whether the last frame precedes the first, as in a retrospectively gated cine
            that covers the whole cycle. Otherwise an end frame stands in for its missing
            neighbour.

    Raises:
        ValueError: If ``t`` is not a frame of the cine.
    """
    if not 0 <= t < n_frames:
        raise ValueError(f"t must lie in [0, n_frames), got {t=} with {n_frames=}")
    if circular:
        return (t - 1) % n_frames, (t + 1) % n_frames
    return max(t - 1, 0), min(t + 1, n_frames - 1)


def crop_case(
    images: Images,
    sens: OptionalSens,
    size: Sequence[int | None],
    rng: np.random.Generator,
) -> tuple[Cropped, OptionalCropped]:
    """Cuts one random window out of all frames, coils and sensitivities alike.

    The Fourier transform of the cut coil images is exactly the k-space of an object that fills the
    smaller field of view, so measurements simulated from it are as valid as the full frame's.

    Args:
        images: Fully sampled coil images.
        sens: Sensitivities, or ``None``.
        size: Rows and columns to keep; ``None``, or more than there are, keeps the whole axis.
        rng: Source of the window's position, uniform over all that fit.
    """
    window: list[slice] = []
    for wanted, available in zip(size, images.shape[-2:], strict=True):
        kept = available if wanted is None else min(wanted, available)
        start = int(rng.integers(available - kept + 1))
        window.append(slice(start, start + kept))
    cut = (..., *window)
    return images[cut], None if sens is None else sens[cut]


def augment(
    images: Images, sens: OptionalSens, rng: np.random.Generator
) -> tuple[Images, OptionalSens]:
    """Mirrors each image axis with probability 1/2 and turns the global phase at random.

    Sensitivities are mirrored along and keep their phase. There is no random intensity: the
    scaling to `intensity_scale` would undo it.
    """
    flips = tuple(axis for axis, flip in zip(_AXES, rng.random(2) < 0.5, strict=True) if flip)
    phase = np.exp(2j * np.pi * rng.random()).astype(np.complex64)
    return np.flip(images, flips) * phase, None if sens is None else np.flip(sens, flips)


def triplets(
    kspace: Complex64[np.ndarray, "t n h w"],
    mask: Float32[np.ndarray, "t h w"],
    sens: OptionalSens,
    frames: Sequence[int],
    *,
    circular: bool = True,
) -> dict[str, np.ndarray]:
    """Undersamples a cine retrospectively and gathers target frames with their neighbours.

    With coil images x, sensitivities S and the mask M of each frame, the measured k-space is
    ``y = M F x``, the zero-filled image ``sum_n conj(S_n) F^H y_n`` and the reference
    ``sum_n conj(S_n) x_n``. All are divided by one scale, `intensity_scale` of the zero-filled
    cine.

    Args:
        kspace: Fully sampled k-space of the whole cine (or of a crop of it).
        mask: Sampling mask of every frame.
        sens: Sensitivities, one set for all frames or ``(t, n, h, w)``; ``None`` for a single
            coil.
        frames: Target frames, which become the batch axis b.
        circular: See `neighbours`.

    Returns:
        ``target``, ``preceding``, ``succeeding``: zero-filled images, complex64 (b, h, w);
        ``kspace``: measured k-space of the targets, complex64 (b, n, h, w), zero elsewhere;
        ``mask``: masks of the targets, float32 (b, h, w);
        ``reference``: fully sampled images of the targets, complex64 (b, h, w);
        ``scale``: what all of these were divided by, float32 (b,), equal for all frames;
        ``sens``: complex64 (b, n, h, w), only where ``sens`` was given.

    Raises:
        ValueError: If a frame does not exist or several coils come without sensitivities.
    """
    frames = list(frames)
    around = [neighbours(t, kspace.shape[0], circular=circular) for t in frames]
    measured = kspace * mask[:, None]
    zero_filled = coil_combine(ifft2c(measured), sens)
    scale = np.float32(intensity_scale(zero_filled))
    batch = {
        "target": zero_filled[frames] / scale,
        "preceding": zero_filled[[before for before, _ in around]] / scale,
        "succeeding": zero_filled[[after for _, after in around]] / scale,
        "kspace": measured[frames] / scale,
        "mask": mask[frames],
        "reference": coil_combine(ifft2c(kspace[frames]), _of_frames(sens, frames)) / scale,
        "scale": np.full(len(frames), scale),
    }
    if sens is not None:
        fixed = sens.ndim == 3
        batch["sens"] = np.repeat(sens[None], len(frames), axis=0) if fixed else sens[frames]
    return batch


def _of_frames(sens: OptionalSens, frames: list[int]) -> OptionalSens:
    """Maps of the given frames, where they differ between frames."""
    return sens if sens is None or sens.ndim == 3 else sens[frames]


def triplet(
    kspace: Complex64[np.ndarray, "t n h w"],
    mask: Float32[np.ndarray, "t h w"],
    sens: OptionalSens,
    t: int,
    *,
    circular: bool = True,
) -> dict[str, np.ndarray]:
    """One example of `triplets` without the batch axis: target frame ``t`` and its neighbours."""
    return {
        name: array[0]
        for name, array in triplets(kspace, mask, sens, [t], circular=circular).items()
    }


@dataclass(frozen=True)
class MaskSampler:
    """Draws sampling masks of mixed kinds and accelerations.

    Attributes:
        kinds: Names from ``kgmgt_jax.mri.sampling.MASKS``, or ``"variable_density_fixed"`` for
            the same random lines in all frames, or ``"uniform_aligned"`` for a comb that begins
            at the first line, as the files of CMRxRecon have it. Each is as likely as the others.
        accelerations: Accelerations to choose from, with equal chances; whole numbers for the
            comb patterns.
        acs: Lines at the centre of k-space that every mask contains.
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
                draw = functools.partial(_draw_mask, kind, shape, acceleration, self.acs)
                jax.eval_shape(draw, np.uint32(0))

    def draw(
        self, rng: np.random.Generator, shape: tuple[int, int, int]
    ) -> Float32[np.ndarray, "t h w"]:
        """A mask of random kind and acceleration; ``rng`` decides everything."""
        kind = self.kinds[rng.integers(len(self.kinds))]
        acceleration = self.accelerations[rng.integers(len(self.accelerations))]
        seed = rng.integers(2**32, dtype=np.uint32)
        with jax.default_device(jax.local_devices(backend="cpu")[0]):
            return np.asarray(_draw_mask(kind, shape, float(acceleration), self.acs, seed))


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _draw_mask(
    kind: str, shape: tuple[int, int, int], acceleration: float, acs: int, seed: jax.Array
) -> jax.Array:
    """One mask, compiled once for each kind, shape and acceleration: 100 times the speed."""
    name, options = MASK_KINDS[kind]
    return make_mask(name, jax.random.key(seed), shape, acceleration, acs=acs, **options).mask
