"""Reconstructions as files for other programs: arrays, medical images, and films.

========  ==========================================  ===========================================
format    files                                       content
========  ==========================================  ===========================================
mat       NAME_recon.mat, NAME_magnitude.mat          MATLAB v7.3, axes (t, z, ky, kx) as h5py
                                                      sees them
h5        NAME_recon.h5                               ``reconstruction``, ``magnitude``, and
                                                      attributes
npy       NAME_recon.npy, NAME_magnitude.npy          (t, z, ky, kx)
nii       NAME_recon.nii.gz, NAME_magnitude.nii.gz    NIfTI-1, (x, y, z, t), x along the readout
dicom     NAME_dicom/                                 a derived series, see `dicom_output`
gif, mp4  NAME_slices.gif, NAME_slices.mp4            all slices side by side, see `films`
========  ==========================================  ===========================================

``reconstruction`` is complex, ``magnitude`` real; DICOM and films hold magnitudes only.
"""

import functools
import importlib
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import h5py
import numpy as np
from jaxtyping import Complex64, Float32

from kgmgt_jax.data.atomic import save_array, write_atomically, write_hdf5
from kgmgt_jax.data.case import pixel_aspect
from kgmgt_jax.data.matfile import write_mat
from kgmgt_jax.data.transforms import coil_combine, fft2c, ifft2c, rss
from kgmgt_jax.evaluation.dicom_output import write_dicom
from kgmgt_jax.evaluation.films import find_ffmpeg, write_film
from kgmgt_jax.evaluation.geometry import Geometry

__all__ = ["FORMATS", "ImageVolume", "check_outputs", "consistent_images", "write_outputs"]

_OFF_MM = 0.5  # of a pixel by one of NIfTI's ways from where it lies by the other, at most
_PACKAGES = {  # and the extras that bring them
    "nii": ("nibabel", "formats"),
    "dicom": ("pydicom", "formats"),
}


@dataclass(frozen=True)
class ImageVolume:
    """Everything reconstructed from one file.

    Attributes:
        images: complex images, in the units of the file.
        magnitude: real images, not negative; see `consistent_images`.
        description: what was done, one line; goes into HDF5, NIfTI and DICOM.
        pixel_mm: height and width of a pixel, of the template if there is one, else as the input
            says; ``None`` if unknown.
        frame_seconds: time between frames, likewise.
        attributes: facts for HDF5, such as the true acceleration and how data were simulated.
    """

    images: Complex64[np.ndarray, "t z h w"]
    magnitude: Float32[np.ndarray, "t z h w"]
    description: str
    pixel_mm: tuple[float, float] | None = None
    frame_seconds: float | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        shapes = self.images.shape, self.magnitude.shape
        if shapes[0] != shapes[1] or len(shapes[0]) != 4 or 0 in shapes[0]:
            raise ValueError(
                "expected complex and magnitude images of one shape (t, z, h, w), got "
                f"{self.images.shape=}, {self.magnitude.shape=}"
            )
        if not (np.isfinite(self.images).all() and np.isfinite(self.magnitude).all()):
            raise ValueError("expected finite images to write, got NaN or infinite pixels")


def consistent_images(
    images: Complex64[np.ndarray, "t h w"],
    kspace: Complex64[np.ndarray, "t n h w"],
    mask: Float32[np.ndarray, "t h w"],
    sens: Complex64[np.ndarray, "*t n h w"] | None,
) -> tuple[Complex64[np.ndarray, "t h w"], Float32[np.ndarray, "t h w"]]:
    """Complex and magnitude images of a reconstruction that keeps every measured sample.

    The coils' k-space is predicted, ``k = F S x``, measured samples replace predicted ones, and
    the coil images ``m = F^H (k + M (y - k))`` are combined::

        complex = Σ_i conj(s_i) m_i,        magnitude = (Σ_i |m_i|^2)^½

    The magnitude is what a fully sampled scan is compared by; it needs no coil maps where samples
    were measured. With one coil it is that of the complex image.

    Args:
        images: reconstructed images x of a slice.
        kspace: measured k-space y, in the same units.
        mask: M, 1 where measured.
        sens: coil maps S; ``None`` for a single coil.

    Raises:
        ValueError: if shapes disagree.
    """
    coil_images = images[:, None] if sens is None else sens * images[:, None]
    if coil_images.shape != kspace.shape or mask.shape != images.shape:
        raise ValueError(
            "expected images and mask (t, h, w), k-space (t, n, h, w) and maps of n coils, got "
            f"{images.shape=}, {mask.shape=}, {kspace.shape=}, sens "
            f"{None if sens is None else sens.shape}"
        )
    predicted = fft2c(coil_images)
    coil_images = ifft2c(np.where(mask[:, None] > 0, kspace, predicted))
    magnitude = rss(coil_images)
    combined = coil_combine(coil_images, sens)
    return combined.astype(np.complex64), magnitude.astype(np.float32)


def check_outputs(
    folder: str | Path, formats: Sequence[str], geometry: Geometry | None = None
) -> None:
    """Refuses what `write_outputs` cannot write, before there are images.

    Args:
        folder, formats, geometry: as there.

    Raises:
        ValueError: as there, and if ``folder`` cannot be written to.
    """
    if not str(folder):
        raise ValueError("expected a folder to write to, got an empty path")
    if Path(folder).exists() and not Path(folder).is_dir():
        raise ValueError(f"{folder}: expected a folder to write to, got a file")
    unknown = [name for name in formats if name not in FORMATS]
    if unknown or not formats:
        got = f"{unknown=}" if unknown else "none"
        raise ValueError(f"expected formats among {', '.join(FORMATS)}, got {got}")
    for kind in formats:
        if kind in _PACKAGES:
            _import_for(kind)
        if kind == "mp4":
            find_ffmpeg()
    if geometry and "dicom" in formats and not geometry.datasets:
        raise ValueError(f"{geometry.source}: expected DICOM as template of DICOM, got NIfTI")
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ValueError(f"{folder}: expected a folder to write to, got {error}") from error


def write_outputs(
    folder: str | Path,
    name: str,
    volume: ImageVolume,
    formats: Sequence[str],
    *,
    geometry: Geometry | None = None,
) -> list[Path]:
    """Write a reconstruction in some formats, each file whole or not at all.

    Unknown formats, missing packages and an unfit geometry are refused before the first file.

    Args:
        folder: where files go; made if need be.
        name: how their names begin.
        volume: what is written.
        formats: keys of `FORMATS`.
        geometry: of a template, for ``nii`` and, if that is DICOM, ``dicom``; see
            `geometry`.

    Returns:
        Files written, and folders for DICOM.

    Raises:
        ValueError: if a format is unknown, needs a package that is missing, the geometry is of
            NIfTI for DICOM, or NAME_dicom holds other files.
    """
    check_outputs(folder, formats, geometry)
    written = []
    for kind in dict.fromkeys(formats):
        written += FORMATS[kind](os.path.join(folder, name), volume, geometry)
    return written


def _write_mat(start: str, volume: ImageVolume, _: Geometry | None) -> list[Path]:
    simulation = volume.attributes.get("simulation", "")
    return [
        write_mat(Path(f"{start}_recon.mat"), "reconstruction", volume.images, simulation),
        write_mat(Path(f"{start}_magnitude.mat"), "magnitude", volume.magnitude, simulation),
    ]


def _write_npy(start: str, volume: ImageVolume, _: Geometry | None) -> list[Path]:
    def save(array: np.ndarray, file: Path) -> None:
        with open(file, "wb") as stream:
            save_array(stream, array)

    return [
        write_atomically(f"{start}_{kind}.npy", functools.partial(save, array))
        for kind, array in {"recon": volume.images, "magnitude": volume.magnitude}.items()
    ]


def _write_h5(start: str, volume: ImageVolume, _: Geometry | None) -> list[Path]:
    arrays = {"reconstruction": volume.images, "magnitude": volume.magnitude}
    facts = {
        "axes": "t,z,ky,kx",
        "description": volume.description,
        "pixel_mm": volume.pixel_mm,
        "frame_seconds": volume.frame_seconds,
        **volume.attributes,
    }

    def fill(file: h5py.File) -> None:
        for key, array in arrays.items():
            chunks = (1, 1, *array.shape[2:])
            file.create_dataset(key, data=array, chunks=chunks, compression="gzip")
        file.attrs.update({key: value for key, value in facts.items() if value is not None})

    return [write_hdf5(f"{start}_recon.h5", fill)]


def _write_nii(start: str, volume: ImageVolume, geometry: Geometry | None) -> list[Path]:
    nibabel = _import_for("nii")
    height, width = volume.pixel_mm or (1.0, 1.0)
    # without a template as in DICOM: to the left and back, which are negative in NIfTI
    affine = np.diag([-width, -height, 1, 1]) if geometry is None else geometry.affine
    written = []
    for kind, array in {"recon": volume.images, "magnitude": volume.magnitude}.items():
        image = nibabel.Nifti1Image(array.transpose(3, 2, 1, 0), affine)
        if geometry is not None:  # in both of NIfTI's ways: not all programs know both
            image.set_sform(affine, geometry.space)
            image.set_qform(affine, geometry.space)
            off = np.abs(image.get_qform() - affine) @ [*image.shape[:3], 1]
            if off.max() > _OFF_MM:  # of slices that shift in their plane, which it cannot say
                image.set_qform(affine, 0)
        seconds = (geometry and geometry.frame_seconds) or volume.frame_seconds
        image.header.set_zooms((*image.header.get_zooms()[:3], seconds or 0.0))  # 0: unknown
        image.header.set_xyzt_units("mm", "sec")
        image.header["descrip"] = volume.description.encode("ascii", "replace")[:79]
        save = functools.partial(_save_nii, image)
        written.append(write_atomically(f"{start}_{kind}.nii.gz", save))
    return written


def _save_nii(image: Any, file: Path) -> None:
    """Through a name that ends in .nii.gz, by which nibabel knows the format."""
    named = file.with_name(file.name + ".nii.gz")
    try:
        image.to_filename(named)
        named.replace(file)
    finally:
        named.unlink(missing_ok=True)


def _write_dicom(start: str, volume: ImageVolume, geometry: Geometry | None) -> list[Path]:
    path = write_dicom(
        f"{start}_dicom",
        volume.magnitude,
        geometry,
        description=volume.description,
        pixel_mm=volume.pixel_mm,
        frame_seconds=volume.frame_seconds,
    )
    return [path]


def _write_film(kind: str, start: str, volume: ImageVolume, _: Geometry | None) -> list[Path]:
    aspect = pixel_aspect(volume.pixel_mm)
    return [write_film(f"{start}_slices.{kind}", volume.magnitude, aspect=aspect)]


FORMATS = {
    "mat": _write_mat,
    "h5": _write_h5,
    "npy": _write_npy,
    "nii": _write_nii,
    "dicom": _write_dicom,
    "gif": functools.partial(_write_film, "gif"),
    "mp4": functools.partial(_write_film, "mp4"),
}
"""Writers by the name of their format."""


def _import_for(kind: str) -> ModuleType:
    package, extra = _PACKAGES[kind]
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise ValueError(
            f"expected the package {package!r} to write {kind!r}, got {error}; "
            f"pip install 'kgmgt-jax[{extra}]'"
        ) from error
