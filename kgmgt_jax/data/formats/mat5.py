"""What a MATLAB 5 file says that it holds, before SciPy reads any of it.

A file is a header of 128 bytes and one element a variable: a tag of its kind and length, and, often
deflated with a tag of its own, the variable's flags, sizes, name and numbers, a tag before each.
The class is the lowest byte of the flags. A cell or a struct has elements of its own inside, as
deep and as large as it likes, by which SciPy may end the process or take any memory.

Source: MathWorks, MAT-File Format, version 5; ``scipy.io.whosmat`` for names and sizes.
"""

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import scipy.io

__all__ = ["is_mat5", "readable_variables"]

_HEADER, _TAG = 128, 8
_MATRIX, _DEFLATED = 14, 15  # kinds of elements
_FLAGS = 12  # bytes up to the end of a variable's flags
_STRUCT = 2  # classes
_NUMERIC = range(6, 16)  # double, single, and integers of 8 to 64 bits
_LARGEST, _DEEPEST = 1 << 31, 32  # of structs; the format has no larger variables

_OF_OBJECTS = "__function_workspace__"  # SciPy's name of what MATLAB saves beside objects
_HDF5 = b"\x89HDF\r\n\x1a\n"


def is_mat5(head: bytes) -> bool:
    """Whether these are the first 520 bytes of a MATLAB 5 file, not of HDF5, which v7.3 is."""
    signed = head[126:128] in (b"IM", b"MI") and head[:1] != b"\0"
    return signed and not head[512:].startswith(_HDF5)


def readable_variables(path: Path) -> dict[str, tuple[int, ...]]:
    """Sizes of the variables that are arrays of numbers or structs of few levels, by name.

    Left out is what is a cell, a deeper struct or of another class, or shares its name with such,
    and what MATLAB saves beside objects and functions.

    Raises:
        Exception: of many kinds, where the file is damaged.
    """
    told = scipy.io.whosmat(path)
    readable = list(zip(told, _readable(path), strict=True))
    others = {_OF_OBJECTS} | {name for (name, *_), is_one in readable if not is_one}
    return {name: shape for name, shape, _ in told if name not in others}


def _readable(path: Path) -> Iterator[bool]:
    """Whether each variable may be read, in the order of the file."""
    with open(path, "rb") as file:
        order = "<" if file.read(_HEADER).endswith(b"IM") else ">"
        while len(tag := file.read(_TAG)) == _TAG:
            start, (kind, length) = file.tell(), struct.unpack(f"{order}II", tag)
            head = _inflated(tag, kind, file.read(min(length, 1 << 10)), _TAG + _FLAGS)
            number = struct.unpack(f"{order}I", head[-4:])[0] & 0xFF
            if number == _STRUCT:
                file.seek(start)
                whole = _inflated(tag, kind, file.read(min(length, _LARGEST)), _LARGEST)
                yield _is_shallow(whole, order)
            else:
                yield number in _NUMERIC
            file.seek(start + length)


def _inflated(tag: bytes, kind: int, content: bytes, n_bytes: int) -> bytes:
    """The first bytes of a variable, its own tag first."""
    if kind != _DEFLATED:
        return (tag + content)[:n_bytes]
    return zlib.decompressobj().decompress(content, n_bytes)


def _is_shallow(element: bytes, order: str) -> bool:
    """Whether a variable is no larger than they can be, and has few levels inside each other."""
    place, ends = 0, [len(element)]
    while ends:
        if place + _TAG > ends[-1]:
            place = ends.pop()
            continue
        kind, length = struct.unpack_from(f"{order}II", element, place)
        place += _TAG
        if kind == _MATRIX:
            ends.append(min(place + length, ends[-1]))
        elif kind < 1 << 16:  # else it is a short one, within its tag
            place += length + -length % _TAG
        if len(ends) > _DEEPEST:
            return False
    return len(element) < _LARGEST
