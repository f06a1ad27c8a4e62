"""Reader for k-space, sensitivities and mask in three npy files side by side.

Files belong together by name: ``kspace.npy``, ``sens.npy``, ``mask.npy``, with any common prefix
or suffix, e.g. ``P001_kspace.npy`` and ``P001_mask.npy``. See `roles` for other words that serve.

===========  ==========================================  =====================================
array        axes                                        if the file is missing
===========  ==========================================  =====================================
k-space      (t, coil, ky, kx), complex
maps         (t, coil, ky, kx) or (coil, ky, kx)         no maps
mask         (t, ky, kx), (ky, kx) or (ky,)              the samples that are not zero
===========  ==========================================  =====================================

Where the user names another order of the axes of the k-space, maps and mask have that too, or the
one of the table if only that fits. Maps whose squares do not sum to 1 over the coils are divided by
the root of that sum.
"""

from pathlib import Path

from kgmgt_jax.data.case import CineCase, DataError
from kgmgt_jax.data.formats.arrays import list_arrays
from kgmgt_jax.data.formats.axes import AxisOrder
from kgmgt_jax.data.formats.maps import unit_maps
from kgmgt_jax.data.formats.masks import MaskedFile
from kgmgt_jax.data.formats.roles import companion

__all__ = ["NpyFile"]


class NpyFile(MaskedFile):
    """One cine slice in npy files; see `CineFile`.

    Args:
        path: The file with the k-space; its companions lie beside it.
        mask: File with the mask, instead of the companion.
        axes: Order of the axes of the k-space, where it is not (t, coil, ky, kx).

    Raises:
        DataError: If an array has other axes or another dtype than the k-space asks for.
    """

    def __init__(
        self, path: str | Path, *, mask: str | Path | None = None, axes: str | None = None
    ) -> None:
        path = Path(path)
        info = list_arrays(path)[""]
        self._axes = AxisOrder.parse(axes or "t,coil,ky,kx", path)
        self._axes.check(info.shape, path, path.stem)
        if info.kind != "complex":
            raise DataError(path, "complex k-space", f"{info.dtype} {info.shape}")
        t, n_slices, n, h, w = (self._axes.size(letter, info.shape) for letter in "tznhw")
        super().__init__(path, format="npy", slice_shape=(t, n, h, w), n_slices=n_slices)
        self._sens = self._maps_beside(path, info.shape)
        self._use_mask(mask or companion(path, "mask"), self._axes, info.shape)

    def _read(self, z: int) -> CineCase:
        kspace = self._axes.read(self.path, "", z, "tnhw")
        mask = self._mask_of(kspace, z)
        sens, notes = None, self.notes
        if self._sens is not None:
            path, axes = self._sens
            wanted = "tnhw" if "t" in axes.letters else "nhw"
            sens, told = unit_maps(axes.read(path, "", z, wanted))
            notes += told
        meta = self._meta(z, mask_source=self._mask_source, notes=notes)
        return CineCase(kspace, mask, meta, sens=sens)

    def _maps_beside(self, kspace: Path, shape: tuple[int, ...]) -> tuple[Path, AxisOrder] | None:
        """The file of maps and the order of its axes, if it is of the coils of the k-space."""
        path = companion(kspace, "sens")
        if path is None:
            return None
        info = list_arrays(path)[""]
        if info.kind != "complex":
            raise DataError(path, "complex maps", f"{info.dtype} {info.shape}")
        return path, self._axes.of_companion(info.shape, shape, "", path, "complex maps")
