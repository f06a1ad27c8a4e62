"""One slice of a beating-heart phantom: known image, coils, labels and k-space, from a seed."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Complex, Float, UInt8

from kgmgt_jax.data.phantom.canvas import Plane
from kgmgt_jax.data.phantom.coils import (
    coil_sensitivities,
    complex_noise,
    pixel_grid,
    smooth_phase,
)
from kgmgt_jax.data.phantom.field import field_map
from kgmgt_jax.data.phantom.heart import Heart
from kgmgt_jax.data.phantom.long_axis import paint_four_chamber
from kgmgt_jax.data.phantom.motion import Motion
from kgmgt_jax.data.phantom.short_axis import paint_short_axis
from kgmgt_jax.data.phantom.signal import TISSUES, Protocol, Tissue, bssfp_signal
from kgmgt_jax.data.phantom.texture import noise_field
from kgmgt_jax.data.phantom.torso import paint_torso_axial, paint_torso_oblique

__all__ = ["VIEWS", "PhantomCine", "is_count", "make_cine"]

VIEWS = ("sax", "lax")
Signals = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class PhantomCine:
    """One slice of a synthetic cine; arrays indexed (frame, coil, row = ky, column = kx).

    Attributes:
        kspace: fully sampled, centred orthonormal DFT of ``sens * image`` plus noise.
        image: noise-free, about 1e-3 in magnitude.
        sens: coil maps with ``Σ_n |s_n|² = 1``.
        labels: 0 elsewhere, 1 cavity of the left ventricle (papillary muscles included), 2 its
            muscle, 3 cavity of the right ventricle.
        lv_volume: volume of the left cavity relative to the first frame (end diastole); its
            minimum over a finely sampled beat is ``1 - ejection_fraction``.
        lv_length: length of the left cavity relative to the first frame.
        ejection_fraction: of the left ventricle, in [0, 1].
        view: ``"sax"`` or ``"lax"``.
        level: position of the slice, from 0 (apex) to 1 (base).
        seed: the seed of the anatomy.
        field_of_view_mm: rows, columns.
    """

    kspace: Complex[np.ndarray, "t n h w"]
    image: Complex[np.ndarray, "t h w"]
    sens: Complex[np.ndarray, "n h w"]
    labels: UInt8[np.ndarray, "t h w"]
    lv_volume: Float[np.ndarray, "t"]
    lv_length: Float[np.ndarray, "t"]
    ejection_fraction: float
    view: str
    level: float
    seed: int
    field_of_view_mm: tuple[float, float]


def _stream(seed: int, *purpose: int) -> np.random.Generator:
    """Independent random numbers for each purpose, so that one does not shift another's."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=purpose))


def _heart(seed: int) -> Heart:
    """The heart of a patient, the same in every view and slice."""
    return Heart.draw(_stream(seed, 0))


def _centred_fft2(image: np.ndarray) -> np.ndarray:
    """Centred orthonormal DFT; NumPy's, since SciPy's in ``transforms`` differs in the last bit."""
    axes = (-2, -1)
    shifted = np.fft.ifftshift(image, axes=axes)
    return np.fft.fftshift(np.fft.fft2(shifted, norm="ortho"), axes=axes).astype(np.complex64)


def _draw(seed: int, view: str, level: float, grid, n_frames: int, signals: Signals) -> Plane:
    """Paint the patient with the given signal of each tissue, over ``n_frames`` of the beat."""
    x, y = grid
    heart = _heart(seed)
    rng = _stream(seed, 1, VIEWS.index(view))
    breathing, taper = rng.uniform(1.0, 3.5), 0.3
    if view == "lax":  # the slice lies nearly across the direction of breathing
        breathing, taper = 0.4 * breathing, 0.05
    beat = heart.beat(n_frames)
    motion = Motion.draw(rng, x, y, heart, beat, breathing=breathing, taper=taper)
    shape = (n_frames, *x.shape)
    pixel = float(x[0, 1] - x[0, 0] + y[1, 0] - y[0, 0]) / 2
    image, labels = np.zeros(shape, signals["blood"].dtype), np.zeros(shape, np.uint8)
    plane = Plane(x=x, y=y, pixel=pixel, signals=signals, image=image, labels=labels)
    if view == "sax":
        inside = paint_torso_oblique(plane, rng, motion, level)
        paint_short_axis(plane, _stream(seed, 2), heart, motion, level, inside)
    else:
        inside = paint_torso_axial(plane, rng, motion, level)
        paint_four_chamber(plane, _stream(seed, 3), heart, motion, level, inside)
    return plane


def _contrasts(seed: int, view: str, level: float, grid, fov, tilt: float) -> Signals:
    """Signal of every tissue at every pixel, for a random protocol, patient and field map."""
    rng = _stream(seed, 4)
    protocol = Protocol(
        repetition_time=rng.uniform(2.9, 3.4), flip_angle=np.deg2rad(rng.uniform(42, 62))
    )
    matter = {
        name: np.full(grid[0].shape, float(name not in ("air", "lung")), np.float32)
        for name in TISSUES
    }
    filled = np.clip(_draw(seed, view, level, grid, 1, matter).image[0], 0, 1)
    spacing = (fov[0] / grid[0].shape[0], fov[1] / grid[0].shape[1])
    off_resonance = field_map(rng, filled, spacing, tilt, peak=rng.uniform(55, 115))
    signals = {}
    for name, tissue in TISSUES.items():
        t1, t2, density = rng.normal(1, 0.04, 3)
        varied = Tissue(tissue.t1 * t1, tissue.t2 * t2, tissue.density * density, tissue.shift)
        signals[name] = bssfp_signal(varied, protocol, off_resonance).astype(np.complex64)
    return signals


def _receive(rng, image, grid, fov) -> Complex[np.ndarray, "t h w"]:
    """Image with the scanner's shading and phase (a random quadratic), scaled to about 1e-3."""
    u, v = 2 * grid[0] / fov[1], 2 * grid[1] / fov[0]
    phase = smooth_phase(rng, u, v)
    shading = 1 + 0.08 * noise_field(rng, 120.0)(*grid)
    factor = shading * np.exp(1j * phase)
    shown = image * factor.astype(np.complex64)
    return shown * np.float32(rng.uniform(0.8e-3, 1.2e-3) / np.percentile(np.abs(shown), 99))


def make_cine(
    seed: int,
    *,
    shape: tuple[int, int] = (128, 128),
    n_frames: int = 12,
    n_coils: int = 1,
    view: str = "sax",
    level: float = 0.55,
    noise: float = 0.005,
    field_of_view_mm: float | tuple[float, float] = 340.0,
) -> PhantomCine:
    """One slice of a synthetic cine over one heart beat, from end diastole on.

    ``y = F(s x) + n`` with image x, coil maps s, the centred orthonormal DFT F and circular complex
    Gaussian noise n of standard deviation ``noise`` times the 99th percentile of ``|x|``. Calls
    that differ only in ``level`` show the same heart; equal calls give equal arrays.

    Args:
        seed: of patient, protocol and noise, >= 0.
        shape: rows (ky) and columns (kx), each >= 16, odd or even.
        n_frames: equidistant phases of the beat, >= 1.
        n_coils: receive coils; 1 stands for a uniform one.
        view: ``"sax"``, a short axis, or ``"lax"``, the four-chamber view.
        level: from the apex (0.15) to the base (0.9); in the four-chamber view it moves the slice
            off the axis of the heart, which lies at 0.5.
        noise: standard deviation of the complex noise, relative; 0 for none.
        field_of_view_mm: one number for both axes, or (rows, columns). The body measures about
            310 x 220 mm; a smaller field of view cuts it off rather than folding it over.

    Raises:
        ValueError: an argument is out of range; the message names it.
    """
    fov = _check(seed, shape, n_frames, n_coils, view, level, noise, field_of_view_mm)
    # NumPy's own numbers would turn single precision into double
    shape, n_frames, level = (int(shape[0]), int(shape[1])), int(n_frames), float(level)
    grid = pixel_grid(shape, fov)
    rng = _stream(seed, 5)
    tilt = rng.uniform(0.25, 0.6) if view == "sax" else rng.uniform(1.15, 1.4)
    plane = _draw(seed, view, level, grid, n_frames, _contrasts(seed, view, level, grid, fov, tilt))
    image = _receive(rng, plane.image, grid, fov)
    sens = coil_sensitivities(rng, *grid, n_coils, tilt=tilt, half_widths=(110.0, 155.0))
    kspace = _centred_fft2(image[:, None] * sens)
    std = noise * float(np.percentile(np.abs(image), 99))
    kspace += complex_noise(_stream(seed, 6, round(1e6 * level)), kspace.shape, std)
    heart = _heart(seed)
    beat = heart.beat(n_frames)
    return PhantomCine(
        kspace=kspace,
        image=image,
        sens=sens,
        labels=plane.labels,
        lv_volume=beat.volume.ravel(),
        lv_length=beat.length.ravel() / heart.length,
        ejection_fraction=heart.ejection_fraction,
        view=view,
        level=level,
        seed=seed,
        field_of_view_mm=fov,
    )


def _check(
    seed, shape, n_frames, n_coils, view, level, noise, field_of_view_mm
) -> tuple[float, float]:
    """Reject arguments out of range, naming them; returns the field of view as a pair."""
    fov = field_of_view_mm
    fov = (fov, fov) if np.ndim(fov) == 0 else fov
    sides = np.shape(shape) == (2,) and all(is_count(n, 16) for n in shape)
    extents = np.shape(fov) == (2,) and all(100 <= v <= 1000 for v in fov)
    expected = {
        f"{seed=}: expected an integer >= 0": is_count(seed, 0),
        f"{shape=}: expected two integers >= 16, rows (ky) and columns (kx)": sides,
        f"{n_frames=}: expected an integer >= 1": is_count(n_frames, 1),
        f"{n_coils=}: expected an integer >= 1": is_count(n_coils, 1),
        f"{view=}: expected one of {VIEWS}": view in VIEWS,
        f"{level=}: expected 0.15 (apex) to 0.9 (base)": 0.15 <= level <= 0.9,
        f"{noise=}: expected a finite number >= 0": 0 <= noise < np.inf,
        f"{field_of_view_mm=}: expected 100 to 1000 mm, one or (rows, columns)": extents,
    }
    for message, met in expected.items():
        if not met:
            raise ValueError(message)
    return float(fov[0]), float(fov[1])


def is_count(value, least: int) -> bool:
    """Whether ``value`` is an integer of at least ``least``."""
    return isinstance(value, int | np.integer) and bool(value >= least)
