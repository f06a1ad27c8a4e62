"""From coil images or k-space to what the network is given; pure functions on NumPy arrays.

All of it runs on the host, inside the data loader, so the Fourier transforms here are the SciPy
twins of ``kgmgt_jax.mri.fourier``: centred, orthonormal, single precision kept.
"""

from collections.abc import Sequence

import numpy as np
import scipy.fft
from jaxtyping import Complex64, Float32, Shaped

from kgmgt_jax.data.filling import are_lines, fill_measured

__all__ = [
    "INTENSITY_PERCENTILE",
    "central",
    "coil_combine",
    "fft2c",
    "ifft2c",
    "intensity_scale",
    "neighbours",
    "of_frames",
    "rss",
    "scaled_inputs",
    "triplet_of_images",
    "triplets",
]

OptionalSens = Complex64[np.ndarray, "*t n h w"] | None

_AXES = (-2, -1)
INTENSITY_PERCENTILE = 99.0


def fft2c(images: Complex64[np.ndarray, "*b h w"]) -> Complex64[np.ndarray, "*b h w"]:
    """Centred orthonormal 2-D FFT over the last two axes, image to k-space, any size."""
    spectrum = scipy.fft.fft2(scipy.fft.ifftshift(images, _AXES), norm="ortho", overwrite_x=True)
    return scipy.fft.fftshift(spectrum, _AXES)


def ifft2c(kspace: Complex64[np.ndarray, "*b h w"]) -> Complex64[np.ndarray, "*b h w"]:
    """Inverse of `fft2c`, k-space to image."""
    images = scipy.fft.ifft2(scipy.fft.ifftshift(kspace, _AXES), norm="ortho", overwrite_x=True)
    return scipy.fft.fftshift(images, _AXES)


def central(size: int, kept: int) -> slice:
    """The ``kept`` of ``size`` indices whose centre ``kept // 2`` is that of all, ``size // 2``."""
    start = size // 2 - kept // 2
    return slice(start, start + kept)


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


def rss(coil_images: Complex64[np.ndarray, "*b n h w"]) -> Float32[np.ndarray, "*b h w"]:
    """Root sum of squares over coils."""
    return np.sqrt(np.sum(np.abs(coil_images) ** 2, axis=-3))


def intensity_scale(images: Shaped[np.ndarray, "*b h w"]) -> float:
    """99th percentile of the magnitude over all frames: dividing by it brings a case to order 1.

    Args:
        images: Images of one case as the network is given them, complex or magnitude, in any unit.

    Returns:
        A positive number. Where more than 99 % of the pixels are zero the maximum takes the
        percentile's place, and 1 where all are.
    """
    magnitude = np.abs(images)
    return float(np.percentile(magnitude, INTENSITY_PERCENTILE)) or float(magnitude.max()) or 1.0


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


def scaled_inputs(
    kspace: Complex64[np.ndarray, "t n h w"],
    mask: Float32[np.ndarray, "t h w"],
    sens: OptionalSens,
    *,
    circular: bool = True,
    input_fill: str = "zero",
) -> tuple[Complex64[np.ndarray, "t h w"], Complex64[np.ndarray, "t n h w"], np.float32]:
    """Input images and measured k-space of a cine, both divided by a scale, and that scale.

    Arguments and errors as for `triplets`.
    """
    measured = kspace * mask[:, None]
    filled = fill_measured(measured, mask, input_fill, sens=sens, circular=circular)
    inputs = coil_combine(ifft2c(filled), sens)
    scale = np.float32(intensity_scale(inputs))
    return inputs / scale, measured / scale, scale


def triplets(
    kspace: Complex64[np.ndarray, "t n h w"],
    mask: Float32[np.ndarray, "t h w"],
    sens: OptionalSens,
    frames: Sequence[int],
    *,
    circular: bool = True,
    input_fill: str = "zero",
) -> dict[str, np.ndarray]:
    """Undersamples a cine retrospectively and gathers target frames with their neighbours.

    With coil images x, sensitivities S and the mask M of each frame, the measured k-space is
    ``y = M F x``, an input image ``sum_n conj(S_n) F^H fill(y, S)_n`` and the reference
    ``sum_n conj(S_n) x_n``. All are divided by one scale, `intensity_scale` of the inputs of the
    whole cine.

    Args:
        kspace: Fully sampled k-space of the whole cine, or as much of it as was measured.
        mask: Sampling mask of every frame.
        sens: Sensitivities, one set for all frames or ``(t, n, h, w)``; ``None`` for a single
            coil.
        frames: Target frames, which become the batch axis b.
        circular: See `neighbours`.
        input_fill: What the inputs have in the place of unmeasured samples; see `fill_gaps`.

    Returns:
        ``target``, ``preceding``, ``succeeding``: input images, complex64 (b, h, w);
        ``kspace``: measured k-space of the targets, complex64 (b, n, h, w), zero elsewhere;
        ``mask``: masks of the targets, float32 (b, h, w);
        ``reference``: fully sampled images of the targets, complex64 (b, h, w);
        ``scale``: what all of these were divided by, float32 (b,), equal for all frames;
        ``sens``: complex64 (b, n, h, w), only where ``sens`` was given.

    Raises:
        ValueError: If a frame does not exist, several coils come without sensitivities, or
            ``input_fill`` is unknown.
    """
    frames = list(frames)
    around = [neighbours(t, kspace.shape[0], circular=circular) for t in frames]
    inputs, measured, scale = scaled_inputs(
        kspace, mask, sens, circular=circular, input_fill=input_fill
    )
    batch = {
        "target": inputs[frames],
        "preceding": inputs[[before for before, _ in around]],
        "succeeding": inputs[[after for _, after in around]],
        "kspace": measured[frames],
        "mask": mask[frames],
        "reference": coil_combine(ifft2c(kspace[frames]), of_frames(sens, frames)) / scale,
        "scale": np.full(len(frames), scale),
    }
    if sens is not None:
        fixed = sens.ndim == 3
        batch["sens"] = np.repeat(sens[None], len(frames), axis=0) if fixed else sens[frames]
    return batch


def of_frames(sens: OptionalSens, frames: list[int] | int) -> OptionalSens:
    """Maps of the given frames, where they differ between frames."""
    return sens if sens is None or sens.ndim == 3 else sens[frames]


def triplet_of_images(
    images: Complex64[np.ndarray, "f n h w"],
    mask: Float32[np.ndarray, "f h w"],
    sens: Complex64[np.ndarray, "*#f n h w"] | None,
    places: tuple[int, int, int],
    *,
    held: Float32[np.ndarray, "f h w"] | None = None,
    circular: bool = True,
    input_fill: str = "zero",
    intensity: float = 1.0,
) -> dict[str, np.ndarray]:
    """One training example from coil images of the frames it needs: as `triplets`, but faster.

    Masks of whole lines commute with the transform along the readout, so lines are left out by
    transforms along the phase-encoding axis alone. The scale is that of the frames at hand.

    Args:
        images: Fully sampled coil images, of the three frames or of the whole cine; or the
            zero-filled ones of an undersampled scan, of which ``reference`` is no reference.
        mask: Sampling masks of these frames: what the network is given.
        sens: Sensitivities, one set or one for each of ``images``; ``None`` for a single coil.
        places: Where the preceding, the target and the succeeding frame lie among ``images``.
        held: Masks of samples that are held out of what the network is given.
        circular: For ``input_fill``: whether the last frame precedes the first.
        input_fill: See `fill_gaps`; other than ``"zero"`` it is meant for whole cines.
        intensity: Further factor on the intensity of the example.

    Returns:
        What `triplets` returns, without the batch axis. With ``held`` also the target's
        ``held_mask``, float32 (h, w), and ``held_kspace``, complex64 (n, h, w), zero elsewhere.
    """
    before, target, after = places
    lines = are_lines(mask) and (held is None or are_lines(held))
    axes = (-2,) if lines else _AXES
    spectrum = np.asarray(scipy.fft.fftn(images, axes=axes, norm="ortho"))
    sampled = _uncentred(mask, axes)
    unseen = None if held is None else spectrum[target] * _uncentred(held[target], axes)
    measured = np.multiply(spectrum, sampled[:, None], out=spectrum)
    filled = fill_measured(
        measured, sampled, input_fill, sens=sens, centred=False, circular=circular, axes=axes
    )
    inputs = coil_combine(np.asarray(scipy.fft.ifftn(filled, axes=axes, norm="ortho")), sens)
    scale = np.float32(intensity_scale(inputs) / intensity)
    example = {
        "target": inputs[target] / scale,
        "preceding": inputs[before] / scale,
        "succeeding": inputs[after] / scale,
        "kspace": _centred_kspace(measured[target] / scale, axes),
        "mask": mask[target],
        "reference": coil_combine(images[target], of_frames(sens, target)) / scale,
        "scale": scale,
    }
    if sens is not None:
        example["sens"] = sens if sens.ndim == 3 else sens[target]
    if held is not None and unseen is not None:
        example["held_kspace"] = _centred_kspace(unseen / scale, axes)
        example["held_mask"] = held[target]
    return example


def _uncentred(
    mask: Float32[np.ndarray, "*f h w"], axes: tuple[int, ...]
) -> Float32[np.ndarray, "*f h #w"]:
    """A centred mask in the places of the plain transform; of lines, one column stands for all."""
    return scipy.fft.ifftshift(mask if -1 in axes else mask[..., :1], axes)


def _centred_kspace(
    spectrum: Complex64[np.ndarray, "n h w"], axes: tuple[int, ...]
) -> Complex64[np.ndarray, "n h w"]:
    """`fft2c` of images of which ``spectrum`` is the plain transform along ``axes``."""
    for axis in axes:
        size = spectrum.shape[axis]
        ramp = np.exp(2j * np.pi * np.fft.fftfreq(size) * (size // 2)).astype(np.complex64)
        spectrum = spectrum * (ramp if axis == -1 else ramp[:, None])
    if -1 not in axes:
        rows = scipy.fft.ifftshift(spectrum, -1)
        spectrum = np.asarray(scipy.fft.fft(rows, axis=-1, norm="ortho"))
    return scipy.fft.fftshift(spectrum, _AXES)
