"""Reader for BART's pairs of files: ``NAME.hdr`` with the sizes, ``NAME.cfl`` with the numbers.

The numbers are complex64 in Fortran's order, the first axis fastest. Of BART's 16 axes 0 is
readout, 1 phase encoding, 3 coils, 10 time and 13 slices; the others must have length 1.

Source: the BART manual, and ``src/misc/mmio.c`` and ``mri.h`` of mrirecon/bart for the axes.
"""

import math
from pathlib import Path

import numpy as np

from kgmgt_jax.data.case import CineCase, DataError
from kgmgt_jax.data.formats.axes import AxisOrder
from kgmgt_jax.data.formats.masks import MaskedFile

__all__ = ["BartFile", "bart_base", "is_bart_header"]

_READ, _PHASE, _COIL, _TIME, _SLICE = 0, 1, 3, 10, 13
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
        DataError: If a file is missing, the sizes contradict the numbers, or the data has axes
            that a cine has not.
    """

    def __init__(self, path: str | Path, *, mask: str | Path | None = None) -> None:
        base = bart_base(Path(path))
        self._sizes = _read_sizes(base)
        t, n, h, w = (self._sizes[axis] for axis in (_TIME, _COIL, _PHASE, _READ))
        super().__init__(
            Path(f"{base}.cfl"),
            format="bart",
            key="",
            slice_shape=(t, n, h, w),
            n_slices=self._sizes[_SLICE],
            fully_sampled=False,
            name=base.name,
        )
        self._use_mask(mask, AxisOrder("tnhw"), self.slice_shape)

    def _read(self, z: int) -> CineCase:
        try:
            numbers = np.memmap(self.path, "<c8", "r", shape=self._sizes, order="F")
        except (OSError, ValueError) as error:
            raise DataError(self.path, "a readable file", str(error)) from error
        kept = (_READ, _PHASE, _COIL, _TIME)
        index = tuple(
            slice(None) if axis in kept else z if axis == _SLICE else 0
            for axis in range(len(self._sizes))
        )
        kspace = np.ascontiguousarray(numbers[index].transpose(3, 2, 1, 0))  # t n h w
        mask = self._mask_of(kspace, z)
        return CineCase(kspace, mask, self._meta(z, mask_source=self._mask_source))


def _read_sizes(base: Path) -> tuple[int, ...]:
    """The 16 sizes in the header, held against the length of the file of numbers."""
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
    odd = [i for i, n in enumerate(sizes) if n > 1 and i not in (0, 1, _COIL, _TIME, _SLICE)]
    if odd:
        wanted = "a cine: sizes over 1 on BART's axes 0, 1, 3 (coils), 10 (time), 13 (slices) only"
        raise DataError(header, wanted, f"sizes over 1 on axes {odd}", "select one with bart slice")
    return sizes[:16]
