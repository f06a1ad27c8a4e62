"""K-space in any HDF5, MATLAB or npy file, once its key and the order of its axes are named."""

from pathlib import Path

from kgmgt_jax.data.case import CineCase, DataError
from kgmgt_jax.data.formats.arrays import ArrayInfo, check_array, describe, list_arrays
from kgmgt_jax.data.formats.axes import PARTS, AxisOrder
from kgmgt_jax.data.formats.masks import MaskedFile, has_mask
from kgmgt_jax.data.formats.roles import role_of
from kgmgt_jax.data.sizes import check_size

__all__ = ["NamedFile", "kspace_candidates", "unnamed"]

_EXAMPLES = {2: "ky,kx", 3: "kx,ky,coil", 4: "t,coil,ky,kx"}


class NamedFile(MaskedFile):
    """K-space whose key and axes the user names; see `CineFile`.

    Without a mask file an array ``mask`` beside the k-space, or at the top of the file, says what
    was measured, else the samples that are zero in every coil were not.

    Args:
        path: An HDF5, MATLAB or npy file.
        key: The array; an npy file has one, without a name.
        axes: Order of its axes, as `AxisOrder.parse` reads it.
        mask: File with the sampling mask.

    Raises:
        DataError: If there is no such array, or it is not complex or has other axes.
    """

    def __init__(
        self, path: str | Path, *, key: str | None, axes: str, mask: str | Path | None = None
    ) -> None:
        path = Path(path)
        arrays = list_arrays(path)
        key = next(iter(arrays)) if key is None and len(arrays) == 1 else key
        if key is None or key not in arrays:
            wanted = "--key with the name of an array" if key is None else f"an array named {key!r}"
            raise DataError(path, wanted, describe(arrays))
        self._axes = AxisOrder.parse(axes, path)
        shape = arrays[key].shape
        self._axes.check(shape, path, key)
        if arrays[key].kind != "complex":
            raise DataError(path, f"complex k-space in {key!r}", f"{arrays[key].dtype}")
        t, n_slices, n, h, w = (self._axes.size(letter, shape) for letter in "tznhw")
        check_array(path, key)
        check_size(path, 8 * t * n * h * w, path.stat().st_size)
        super().__init__(
            path,
            format="named axes",
            key=key,
            slice_shape=(t, n, h, w),
            n_slices=n_slices,
        )
        group = key[: key.rfind("/") + 1]
        if mask or not has_mask(arrays, group):
            group = ""
        beside = path if has_mask(arrays, group) else None
        self._use_mask(mask or beside, self._axes, shape, group)

    def _read(self, z: int) -> CineCase:
        kspace = self._axes.read(self.path, self.key, z, "tnhw")
        mask = self._mask_of(kspace, z)
        return CineCase(kspace, mask, self._meta(z, mask_source=self._mask_source))


def kspace_candidates(arrays: dict[str, ArrayInfo]) -> list[str]:
    """Complex arrays whose names say that they are k-space or nothing, those of k-space first."""
    roles = {key: role_of(key.rsplit("/", 1)[-1])[0] for key in arrays}
    complex_ones = [key for key, info in arrays.items() if info.kind == "complex"]
    return [key for role in ("kspace", "") for key in complex_ones if roles[key] == role]


def unnamed(path: Path, arrays: dict[str, ArrayInfo]) -> DataError:
    """Why a file of arrays cannot be read by itself, and what to pass."""
    candidates = kspace_candidates(arrays)
    candidates += [key for key, info in arrays.items() if info.kind == "complex"]
    real = [info.shape for info in arrays.values() if info.kind == "real"]
    fix = "no array is complex; store k-space as one that is (numpy: real + 1j * imag)"
    if any(len(shape) > 3 and shape[-1] == 2 for shape in real):
        fix = f"no array is complex; {PARTS}"
    elif any(len(shape) == 4 for shape in real):
        fix += ", or read images with --axes, such as --axes t,z,y,x"
    if candidates:
        key = candidates[0]
        naming = f"--key {key} and " if key else ""
        n_axes = len(arrays[key].shape)
        example = _EXAMPLES.get(n_axes, "t,z,coil,ky,kx")
        fix = f"pass {naming}--axes with its {n_axes} axes in order, such as --axes {example}"
    wanted = "k-space or images under the keys of a known format"
    return DataError(path, wanted, describe(arrays), fix)
