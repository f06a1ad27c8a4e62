"""Reader for the HDF5 files of fastMRI; a slice is a cine of one frame.

==========================  =======================================  ===========================
dataset                     axes                                     content
==========================  =======================================  ===========================
``kspace``                  (slices, coils, H, W), (slices, H, W)    H readout, W phase encoding
``mask``                    (W,)                                     in undersampled files only
``reconstruction_rss``      (slices, H', W')                         centre of the RSS image
``reconstruction_esc``      (slices, H', W')                         that of the image of one coil
==========================  =======================================  ===========================

This package has ky in rows, so images and k-space are transposed: rows are W, columns H. Files of
one coil, emulated from many, hold both images; theirs is the second, the first is of all coils.

Source: the format text of facebookresearch/fastMRI.
"""

from pathlib import Path

import h5py
import numpy as np
from jaxtyping import Float32

from kgmgt_jax.data.case import CineCase, DataError
from kgmgt_jax.data.formats.arrays import (
    ArrayInfo,
    attribute_text,
    check_array,
    list_arrays,
    open_hdf5,
    read_array,
)
from kgmgt_jax.data.formats.axes import AxisOrder
from kgmgt_jax.data.formats.base import ALL_SAMPLES, CineFile
from kgmgt_jax.data.formats.masks import read_mask

__all__ = ["FastmriFile", "is_fastmri"]

_REFERENCES = ("reconstruction_rss", "reconstruction_esc")
_SIGNS = {"ismrmrd_header", *_REFERENCES}


def is_fastmri(path: Path, arrays: dict[str, ArrayInfo]) -> bool:
    """Whether a file is an HDF5 file of fastMRI: ``kspace`` of 3 or 4 axes, and its companions."""
    info = arrays.get("kspace")
    if info is None or info.kind != "complex" or len(info.shape) not in (3, 4):
        return False
    if not h5py.is_hdf5(path):
        return False
    if _SIGNS & set(arrays):
        return True
    with open_hdf5(path) as file:
        return bool({"acquisition", "patient_id"} & set(file.attrs))


class FastmriFile(CineFile):
    """One fastMRI file; see `CineFile`.

    Args:
        path: The file.
        mask: File with a mask, (W,), (W, H) or (1, W, H), instead of the one inside.

    Raises:
        DataError: If a dataset is missing or of another shape.
    """

    def __init__(self, path: str | Path, *, mask: str | Path | None = None) -> None:
        path = Path(path)
        arrays = list_arrays(path)
        shape = arrays["kspace"].shape
        self._axes = AxisOrder.parse("z,coil,kx,ky" if len(shape) == 4 else "z,kx,ky", path)
        self._axes.check(shape, path, "kspace")
        check_array(path, "kspace")
        n_slices, n, h, w = (self._axes.size(letter, shape) for letter in "znhw")
        references = _REFERENCES if len(shape) == 4 else _REFERENCES[::-1]
        self._reference = next((key for key in references if key in arrays), None)
        self._check_reference(path, arrays, n_slices)
        with open_hdf5(path) as file:
            acquisition = attribute_text(file, "acquisition")[:60]
        acquisition = "".join(filter(str.isprintable, acquisition))
        super().__init__(
            path,
            format="fastmri",
            key="kspace",
            slice_shape=(1, n, h, w),
            n_slices=n_slices,
            fully_sampled=mask is None and "mask" not in arrays,
            notes=[f"acquisition {acquisition}"] if acquisition else [],
        )
        self._mask_source = ALL_SAMPLES if self.fully_sampled else str(mask or f"{path}:mask")
        self._mask = self._find_mask(mask, arrays)

    def _read(self, z: int) -> CineCase:
        kspace = self._axes.read(self.path, "kspace", z, "tnhw")
        reference = None
        if self._reference:
            image = read_array(self.path, self._reference, z).astype(np.float32)
            reference = np.ascontiguousarray(image.T[None])
        meta = self._meta(
            z,
            orientation="rows W, columns H: transposed against the file",
            nominal_acceleration=1.0 if self.fully_sampled else None,
            mask_source=self._mask_source,
        )
        if self._mask is None:
            mask = np.ones_like(kspace[:, 0], np.float32)
            return CineCase(kspace, mask, meta, reference=reference)
        measured = np.where(self._mask[:, None] == 0, np.complex64(0), kspace)
        return CineCase(measured, self._mask.copy(), meta, reference=reference)

    def _check_reference(self, path: Path, arrays: dict[str, ArrayInfo], n_slices: int) -> None:
        if self._reference is None:
            return
        info = arrays[self._reference]
        if info.kind != "real" or len(info.shape) != 3 or info.shape[0] != n_slices:
            wanted = f"{self._reference!r} of real numbers, ({n_slices}, H, W)"
            raise DataError(path, wanted, f"{info.kind} {info.shape}")

    def _find_mask(
        self, mask: str | Path | None, arrays: dict[str, ArrayInfo]
    ) -> Float32[np.ndarray, "t h w"] | None:
        """The mask of every slice, read-only; ``None`` for all samples."""
        t, _, h, w = self.slice_shape
        if mask is not None:
            return read_mask(mask, (t, h, w), self.path.name)
        if "mask" not in arrays:
            return None
        lines = read_array(self.path, "mask")
        if lines.shape != (h,) or lines.dtype.kind not in "fiub":
            got = f"{lines.dtype} {lines.shape}"
            raise DataError(self.path, f"'mask' of real numbers, one for each of W = {h}", got)
        return np.broadcast_to(lines[:, None].astype(np.float32), (t, h, w))
