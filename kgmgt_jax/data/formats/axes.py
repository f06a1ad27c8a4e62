"""Order of the axes of an array in a file, as a user names it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kgmgt_jax.data.case import DataError
from kgmgt_jax.data.formats.arrays import read_array

__all__ = ["AXES", "PARTS", "AxisOrder"]

AXES = {
    "t": ("t", "time", "frame", "frames"),
    "z": ("z", "slice", "slices"),
    "n": ("n", "c", "coil", "coils", "channel", "channels"),
    "h": ("h", "ky", "y", "row", "rows"),
    "w": ("w", "kx", "x", "column", "columns", "readout"),
}
"""Canonical letter of each axis and the names it goes by."""

PARTS = "its last axis looks like real and imaginary parts: store real + 1j * imag"
"""What to do with an array of real numbers whose last axis has length 2."""

_ALL = "".join(AXES)
_LETTER = {name: letter for letter, names in AXES.items() for name in names}


@dataclass(frozen=True)
class AxisOrder:
    """Axes of an array as NumPy and h5py see them, MATLAB's reversed.

    Attributes:
        letters: One of ``t z n h w`` for each axis; ``h`` and ``w`` are always there.
    """

    letters: str

    @classmethod
    def parse(cls, text: str, source: str | Path) -> "AxisOrder":
        """Reads e.g. ``"kx,ky,coil"``; see `AXES` for the names.

        Raises:
            DataError: If a name is unknown or comes twice, or ky or kx is missing.
        """
        names = text.lower().replace(",", " ").strip("()[] ").split()
        letters = "".join(_LETTER.get(name, "?") for name in names)
        twice = len(set(letters)) < len(letters)
        if "?" in letters or twice or not {"h", "w"} <= set(letters):
            wanted = (
                "--axes with ky and kx and perhaps t, z, coil, each once, e.g. 't,z,coil,ky,kx'"
            )
            raise DataError(source, wanted, repr(text))
        return cls(letters)

    def __str__(self) -> str:
        return ", ".join({"n": "coil", "h": "ky", "w": "kx"}.get(a, a) for a in self.letters)

    def check(self, shape: Sequence[int], source: str | Path, key: str) -> None:
        """Refuses an array with another number of axes, or an empty one."""
        wanted, got = f"{key!r} with non-empty axes ({self})", f"shape {tuple(shape)}"
        if len(shape) != len(self.letters):
            fix = "name its axes with --axes (axes= in Python), e.g. --axes kx,ky,coil"
            raise DataError(source, wanted, got, fix)
        if 0 in shape:
            got += ", of which an axis has length 0"
            raise DataError(source, wanted, got, "save it again, with all its samples")

    def size(self, letter: str, shape: Sequence[int]) -> int:
        """Length of an axis, 1 if the array has none of that name."""
        return shape[self.letters.index(letter)] if letter in self.letters else 1

    def index(self, z: int) -> tuple[int | slice, ...]:
        """What to read for slice ``z``."""
        return tuple(z if letter == "z" else slice(None) for letter in self.letters)

    def arrange(self, array: np.ndarray, wanted: str) -> np.ndarray:
        """What ``index(z)`` selected with its axes in the order ``wanted``, size 1 if missing."""
        present = self.letters.replace("z", "")
        ordered = array.transpose([present.index(letter) for letter in wanted if letter in present])
        added = tuple(i for i, letter in enumerate(wanted) if letter not in present)
        return np.ascontiguousarray(np.expand_dims(ordered, added))

    def read(self, path: Path, key: str, z: int, wanted: str) -> np.ndarray:
        """Slice ``z`` of an array in a file, arranged."""
        return self.arrange(read_array(path, key, self.index(z)), wanted)

    def of_companion(
        self,
        found: Sequence[int],
        shape: Sequence[int],
        without: str,
        source: str | Path,
        what: str,
        others: Mapping[str, tuple[int, ...]] | None = None,
    ) -> "AxisOrder":
        """Order of the axes of an array that goes with one of this order, by its shape.

        It has the same order, or (t, z, coil, ky, kx) where only that fits, and may lack t and z.

        Args:
            found: Its shape.
            shape: That of the array it goes with.
            without: Letters of the axes it never has.
            source: Its file, for error messages.
            what: What it is, for error messages.
            others: Axes that the caller takes too, and their sizes, for error messages.

        Raises:
            DataError: If no order fits, or it may be another for every frame or for every slice.
        """
        found = tuple(found)
        for order in (self.letters, _ALL):
            whole = _without(order, without)
            kept = dict.fromkeys(_without(whole, dropped) for dropped in ("", "z", "tz", "t"))
            fits = [each for each in kept if tuple(self.size(a, shape) for a in each) == found]
            if len(fits) > 1 and self.size("t", shape) > 1:
                got = f"{found}, as many frames as slices"
                both = AxisOrder(whole)
                raise DataError(source, f"{what}, ({both})", got, f"give it the axes ({both})")
            if fits:
                return AxisOrder(fits[0])
        whole = _without(self.letters, without)
        shapes = dict(others or {}) | {
            str(AxisOrder(each)): tuple(self.size(a, shape) for a in each)
            for each in (_without(whole, "tz"), whole)
        }
        wanted = " or ".join(f"({names}) = {sizes}" for names, sizes in shapes.items())
        several = ", which may be either" if found in shapes.values() else ""
        raise DataError(source, f"{what} of shape {wanted}", f"{found}{several}")


def _without(letters: str, dropped: str) -> str:
    return "".join(letter for letter in letters if letter not in dropped)
