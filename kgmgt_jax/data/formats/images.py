"""Magnitude cines, made into k-space: HDF5 and npy stacks, NIfTI. For DICOM see `dicom`.

==========  ==========================================  ==========================================
file        axes                                        cases
==========  ==========================================  ==========================================
HDF5        datasets (t, y, x) of real numbers at any   one a dataset
            depth; complex ones if called ``image``
npy         (t, y, x) of real numbers                   one
NIfTI       (x, y, z, t)                                one a slice
==========  ==========================================  ==========================================

Rows (y) become ky and columns (x) kx. `Simulation` says how; every case is labelled simulated. Its
reference is the image without noise.
"""

import dataclasses
import math
from abc import abstractmethod
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Num

from kgmgt_jax.data.case import CineCase, DataError
from kgmgt_jax.data.formats.arrays import ArrayInfo
from kgmgt_jax.data.formats.axes import PARTS, AxisOrder
from kgmgt_jax.data.formats.base import (
    ALL_SAMPLES,
    CineFile,
    import_optional,
    orientation,
    refusing,
)
from kgmgt_jax.data.formats.masks import MASK_KEY
from kgmgt_jax.data.formats.roles import role_of
from kgmgt_jax.data.simulation import Simulation
from kgmgt_jax.data.sizes import check_size

__all__ = ["ArrayImages", "ImageFile", "NiftiImages", "image_keys", "nifti_units"]


_COMPLEX = ("image", "images")  # keys of complex images
_MM = {"meter": 1000.0, "micron": 0.001}  # of NIfTI's units, others are mm
_SECONDS = {"msec": 1e-3, "usec": 1e-6}


class ImageFile(CineFile):
    """Slices of magnitude images of which k-space is simulated when asked for; see `CineFile`."""

    def __init__(
        self, path: Path, *, simulation: Simulation, shape, has_phase: bool = False, **common
    ) -> None:
        t, h, w = shape
        n_coils = simulation.draw_coils(common.get("name") or path.stem)
        self._simulation = dataclasses.replace(simulation, n_coils=n_coils)
        super().__init__(
            path,
            slice_shape=(t, n_coils, h, w),
            fully_sampled=True,
            simulation=self._simulation.told(complex_images=has_phase),
            **common,
        )
        self._orientation = "rows y, columns x"

    @abstractmethod
    def _read_images(self, z: int) -> Num[np.ndarray, "t h w"]:
        """Images of a slice, real or complex."""

    def _place(self, z: int) -> dict[str, Any]:
        """How a slice lies in the patient, for `CaseMeta`."""
        return {"orientation": self._orientation}

    def _read(self, z: int) -> CineCase:
        images = self._read_images(z)
        name = self.slice_name(z)
        _check_images(self.path, name, images)
        kind = np.complex64 if np.iscomplexobj(images) else np.float32
        kspace, reference = self._simulation.run(images.astype(kind), name)
        place = self._place(z)
        meta = self._meta(z, nominal_acceleration=1.0, mask_source=ALL_SAMPLES, **place)
        t, _, h, w = kspace.shape
        return CineCase(kspace, np.ones((t, h, w), np.float32), meta, reference=reference)


class ArrayImages(ImageFile):
    """One stack of images in an HDF5, MATLAB or npy file; see `ImageFile`.

    Args:
        path: The file.
        key: The array; empty for npy.
        info: Its shape and dtype, as `list_arrays` tells them.
        axes: Order of the axes.
        simulation: How k-space is made of it.

    Raises:
        DataError: If the array has other axes.
    """

    def __init__(
        self,
        path: Path,
        key: str,
        info: ArrayInfo,
        *,
        simulation: Simulation,
        axes: str = "t,y,x",
    ) -> None:
        self._axes = AxisOrder.parse(axes, path)
        if info.kind == "real" and info.shape[len(self._axes.letters) :] == (2,):
            raise DataError(path, "complex k-space, or images", f"{info.dtype} {info.shape}", PARTS)
        self._axes.check(info.shape, path, key or path.stem)
        if "n" in self._axes.letters or info.kind not in ("real", "complex"):
            got = f"{info.kind} {info.shape} as ({self._axes})"
            if info.kind == "real":
                fix = "store real + 1j * imag; images have no axis of coils"
                raise DataError(path, "complex k-space, where coils are named", got, fix)
            raise DataError(path, "images of numbers, without a coil axis", got)
        t, n_slices, h, w = (self._axes.size(letter, info.shape) for letter in "tzhw")
        super().__init__(
            path,
            simulation=simulation,
            shape=(t, h, w),
            has_phase=info.kind == "complex",
            format="images",
            key=key,
            n_slices=n_slices,
            name=f"{path.stem}/{key}" if key else path.stem,
        )

    def _read_images(self, z: int) -> Num[np.ndarray, "t h w"]:
        return self._axes.read(self.path, self.key, z, "thw")


class NiftiImages(ImageFile):
    """One NIfTI file; see `ImageFile`.

    Args:
        path: A ``.nii`` or ``.nii.gz`` file.
        axes: Order of the axes, where it is not (x, y, z, t).
        simulation: How k-space is made of it.

    Raises:
        DataError: If the package ``nibabel`` is missing, or the file is damaged or has other axes.
    """

    def __init__(self, path: Path, *, simulation: Simulation, axes: str | None = None) -> None:
        image = _load_nifti(path)
        shape = image.shape
        if axes is None and len(shape) != 4:
            fix = "say what they are with --axes, such as --axes x,y,t"
            raise DataError(path, "four axes (x, y, z, t)", f"shape {shape}", fix)
        self._axes = AxisOrder.parse(axes or "x,y,z,t", path)
        self._axes.check(shape, path, path.name)
        dtype = image.get_data_dtype()
        if dtype.kind not in "fiu" or "n" in self._axes.letters:
            raise DataError(path, "real numbers without a coil axis", f"{dtype} {shape}")
        check_size(path, math.prod(shape) * dtype.itemsize, path.stat().st_size)
        t, n_slices, h, w = (self._axes.size(letter, shape) for letter in "tzhw")
        super().__init__(
            path,
            simulation=simulation,
            shape=(t, h, w),
            format="nifti",
            n_slices=n_slices,
            name=path.name.split(".nii")[0],
            **self._spacing(image),
        )
        frame = np.diag([-1.0, -1.0, 1.0]) @ np.asarray(image.affine, float)[:3, :3]
        if {self._axes.letters.index(letter) for letter in "hw"} <= {0, 1, 2}:
            rows, columns = (frame[:, self._axes.letters.index(letter)] for letter in "hw")
            self._orientation = orientation(rows, columns)

    def _spacing(self, image: Any) -> dict[str, Any]:
        """Size of pixels and time between frames, where the axes are those that NIfTI means."""
        place = self._axes.letters.find
        length, time = nifti_units(image.header)
        spacing = {}
        if max(place("h"), place("w")) < 3:
            sides = np.linalg.norm(np.asarray(image.affine, float)[:3, :3], axis=0) * length
            height, width = float(sides[place("h")]), float(sides[place("w")])
            if 0 < height < math.inf and 0 < width < math.inf:
                spacing["pixel_mm"] = (height, width)
        if place("t") == 3 and image.header.get_zooms()[3] > 0:
            spacing["frame_seconds"] = float(image.header.get_zooms()[3]) * time
        return spacing

    def _read_images(self, z: int) -> Num[np.ndarray, "t h w"]:
        image = _load_nifti(self.path)
        with refusing(self.path, "a complete NIfTI file"):
            raw = np.asarray(image.dataobj[self._axes.index(z)], np.float32)
        return self._axes.arrange(raw, "thw")


def image_keys(arrays: dict[str, ArrayInfo]) -> list[str]:
    """Arrays in a file that hold cines of images: (t, y, x), real, or complex and named so."""
    keys = []
    for key, info in arrays.items():
        name = key.rsplit("/", 1)[-1].lower()
        images = info.kind == "real" or (info.kind == "complex" and name in _COMPLEX)
        is_mask = MASK_KEY.match(name) or role_of(name)[0] == "mask"
        if len(info.shape) == 3 and images and not is_mask:
            keys.append(key)
    return keys


def nifti_units(header: Any) -> tuple[float, float]:
    """Millimetres and seconds in a header's units of length and time, which may be unknown."""
    length, time = header.get_xyzt_units()
    return _MM.get(length, 1.0), _SECONDS.get(time, 1.0)


def _load_nifti(path: Path):
    package = import_optional("nibabel", path)
    with refusing(path, "a complete NIfTI file", "copy it again"):
        return package.load(path)


def _check_images(path: Path, name: str, images: np.ndarray) -> None:
    """Refuses what is no magnitude image."""
    source = f"{path} [{name}]"
    if not np.isfinite(images).all():
        raise DataError(source, "finite images", "NaN or infinite pixels")
    if not np.iscomplexobj(images) and images.min() < 0:
        fix = "give magnitudes; signed phase images are none"
        raise DataError(source, "images of at least 0", f"pixels down to {images.min():g}", fix)
    if not images.any():
        raise DataError(source, "images with signal", "zeros only")
    if not images.all() and np.isin(images, (0, 1)).all():
        fix = "give the k-space that it is the mask of, or images of more than two greys"
        raise DataError(source, "images", "zeros and ones, as of a mask", fix)
    peak = max(float(np.abs(part).max()) for part in (np.real(images), np.imag(images)))
    if peak > 1e12:
        raise DataError(source, "pixels up to 1e12", f"{peak:.3g}")
