"""Reader for BART's pairs of files: ``NAME.hdr`` with the sizes, ``NAME.cfl`` with the numbers.

The numbers are complex64 in Fortran's order, the first axis fastest. Of BART's 16 axes 0 is
readout, 1 phase encoding, 3 coils, 10 time and 13 slices; the others must have length 1. Coil maps
may lie beside the k-space, told by name (``NAME_sens``, see `roles`), for all frames or each, for
all slices or each; of several sets of maps (axis 4) the first is used.

Source: the BART manual, and ``src/misc/mmio.c`` and ``mri.h`` of mrirecon/bart for the axes.
"""

import math
from pathlib import Path

import numpy as np
from jaxtyping import Complex64

from kgmgt_jax.data.case import CineCase, DataError
from kgmgt_jax.data.formats.axes import AxisOrder
from kgmgt_jax.data.formats.maps import unit_maps
from kgmgt_jax.data.formats.masks import MaskedFile
from kgmgt_jax.data.formats.roles import companion

__all__ = ["BartFile", "bart_base", "is_bart_header"]

_READ, _PHASE, _COIL, _MAPS, _TIME, _SLICE = 0, 1, 3, 4, 10, 13
_CINE = (_READ, _PHASE, _COIL, _TIME, _SLICE)
_HEADER = b"# Dimensions"


def bart_base(path: Path) -> Path:
    """Path of a pair without its suffix; BART names its files so."""
    return path.with_suffix("") if path.suffix in (".cfl", ".hdr") else path


def is_bart_header(head: bytes) -> bool:
    """Whether these are the first bytes of a ``.hdr`` of BART's (NIfTI has such files too)."""
    return head.startswith(_HEADER)


class BartFile(MaskedFile):
    """One pair of files; see `CineFile`. Samples that are zero in every coil were not measured.

    Args:
        path: The pair, with either suffix or none.
        mask: File with the sampling mask.

    Raises:
        DataError: If a file is missing, the sizes contradict the numbers, the data has axes that
            a cine has not, or maps beside it have other sizes.
    """

    def __init__(self, path: str | Path, *, mask: str | Path | None = None) -> None:
        base = bart_base(Path(path))
        self._sizes = _read_sizes(base)
        _check_axes(base, self._sizes, _CINE)
        t, n, h, w = (self._sizes[axis] for axis in (_TIME, _COIL, _PHASE, _READ))
        super().__init__(
            Path(f"{base}.cfl"),
            format="bart",
            slice_shape=(t, n, h, w),
            n_slices=self._sizes[_SLICE],
            name=base.name,
        )
        self._maps = self._maps_beside()
        self._use_mask(mask, AxisOrder("tnhw"), self.slice_shape)

    def _read(self, z: int) -> CineCase:
        kspace = _read_slice(self.path, self._sizes, z)
        mask = self._mask_of(kspace, z)
        sens, notes = None, self.notes
        if self._maps is not None:
            path, sizes = self._maps
            sens, told = unit_maps(_read_slice(path, sizes, z if sizes[_SLICE] > 1 else 0))
            sens = sens if sizes[_TIME] > 1 else sens[0]
            notes += told
        meta = self._meta(z, mask_source=self._mask_source, notes=notes)
        return CineCase(kspace, mask, meta, sens=sens)

    def _maps_beside(self) -> tuple[Path, tuple[int, ...]] | None:
        """The numbers of coil maps and their sizes."""
        path = companion(self.path, "sens")
        if path is None:
            return None
        base = bart_base(path)
        sizes = _read_sizes(base)
        _check_axes(base, sizes, (*_CINE, _MAPS))
        for axis in _CINE:
            fits = {self._sizes[axis]} | ({1} if axis in (_TIME, _SLICE) else set())
            if sizes[axis] not in fits:
                wanted = f"coil maps for sizes {self._sizes}"
                raise DataError(
                    path, wanted, f"sizes {sizes}", "rename them if they are of another scan"
                )
        if sizes[_MAPS] > 1:
            self.notes += (f"the first of {sizes[_MAPS]} sets of coil maps is used",)
        return path, sizes


def _read_slice(path: Path, sizes: tuple[int, ...], z: int) -> Complex64[np.ndarray, "t n h w"]:
    """One slice, of the first set where there are several."""
    try:
        numbers = np.memmap(path, "<c8", "r", shape=sizes, order="F")
    except (OSError, ValueError) as error:
        raise DataError(path, "a readable file", str(error)) from error
    kept = (_READ, _PHASE, _COIL, _TIME)
    index = tuple(
        slice(None) if axis in kept else z if axis == _SLICE else 0 for axis in range(len(sizes))
    )
    return np.ascontiguousarray(numbers[index].transpose(3, 2, 1, 0))


def _check_axes(base: Path, sizes: tuple[int, ...], known: tuple[int, ...]) -> None:
    """Refuses sizes over 1 on other axes."""
    odd = [axis for axis, n in enumerate(sizes) if n > 1 and axis not in known]
    if odd:
        wanted = "a cine: sizes over 1 on BART's axes 0, 1, 3 (coils), 10 (time), 13 (slices) only"
        got = f"sizes over 1 on axes {odd}"
        fix = "select one with bart slice, or put frames on axis 10 with bart transpose"
        raise DataError(f"{base}.hdr", wanted, got, fix)


def _read_sizes(base: Path) -> tuple[int, ...]:
    """The sizes in the header, 16 at least, held against the length of the file of numbers."""
    header, numbers = Path(f"{base}.hdr"), Path(f"{base}.cfl")
    for path in (header, numbers):
        if not path.is_file():
            raise DataError(path, "a pair of BART files, .hdr and .cfl", "no file")
    lines = header.read_bytes()[:4096].decode("ascii", errors="replace").splitlines()
    words = lines[1].split() if len(lines) > 1 else []
    if not words or not all(word.isdecimal() and 0 < int(word) < 2**31 for word in words):
        got = repr(lines[1][:60]) if len(lines) > 1 else "none"
        raise DataError(header, "positive sizes in the second line", got)
    sizes = tuple(map(int, words)) + (1,) * (16 - len(words))
    stored = numbers.stat().st_size
    if stored != 8 * math.prod(sizes):
        got = f"{stored} bytes in {numbers.name}"
        raise DataError(header, f"{8 * math.prod(sizes)} bytes for sizes {sizes}", got)
    return sizes
