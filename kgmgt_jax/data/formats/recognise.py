"""Which format a file or a tree of files is in, told by content rather than by name."""

import gzip
import re
import struct
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from kgmgt_jax.commands import one_line, watched
from kgmgt_jax.data.case import DataError
from kgmgt_jax.data.folders import files_below
from kgmgt_jax.data.formats import cmrxrecon
from kgmgt_jax.data.formats.arrays import ArrayInfo, list_arrays
from kgmgt_jax.data.formats.bart import bart_base, is_bart_header
from kgmgt_jax.data.formats.dicom_images import is_dicom
from kgmgt_jax.data.formats.fastmri import is_fastmri
from kgmgt_jax.data.formats.images import image_keys
from kgmgt_jax.data.formats.masks import MASK_KEY
from kgmgt_jax.data.formats.named import kspace_candidates, unnamed
from kgmgt_jax.data.formats.ocmr import is_ismrmrd
from kgmgt_jax.data.formats.roles import no_kspace, role_of

__all__ = ["IMAGES", "Unit", "find_units", "recognise"]

IMAGES = ("nifti", "dicom", "images")
_UNLISTED = ("mask", "maps", "results", "bart companion", "unknown")
_RESULTS = re.compile(r".+_(recon|magnitude)")  # files that reconstruct.py writes, of these arrays
_IN_RESULTS = {"reconstruction", "magnitude", ""}
_ARRAYS = (".mat", ".h5", ".hdf5", ".npy")
_SUFFIXES = (*_ARRAYS, ".cfl", ".hdr", ".nii", ".gz", ".dcm", ".ima", "")
# the organisers' pictures of their own k-space, and what the top folder of a disk has
_NO_DATA = ("ImgSnapshot", "ImageShow", "lost+found")
_LABELS = re.compile(r".+_(gt|seg|segmentation|labels?|mask)")
_NO_CINE = re.compile(
    r"(?:(?<![A-Za-z])[tT]|(?<=[a-z])T)[12](?!\d)|(?i:tagging|aorta|(?<!work)flow|black|lge|perfusion|mapping)"
)  # t1 at the end of a word is no contrast, as in patient1


class Unit(NamedTuple):
    """What is read together: a file, or a folder of DICOM files, and its format.

    ``error`` says why it cannot be read, ``None`` where nothing is known to be wrong.
    """

    path: Path
    format: str
    error: DataError | None = None


def find_units(root: str | Path) -> list[Unit]:
    """Lists what there is to read below a directory, sorted by path, then folders it cannot list.

    Masks, coil maps and reconstructions are not listed. A complex npy file counts as k-space if its
    name says so; another is listed with an error.

    Args:
        root: A directory, searched to any depth, or one file.

    Raises:
        DataError: If ``root`` does not exist.
    """
    root = Path(root)
    if not root.exists():
        raise DataError(root, "a file or a directory", "nothing at that path")
    if root.is_file():
        return [recognise(root)]
    units: dict[Path, Unit] = {}
    closed: list[OSError] = []
    for path in watched(files_below(root, closed.append), "look through"):
        if not _is_candidate(path.relative_to(root)):
            continue
        unit = recognise(path)
        if unit.format == "dicom":
            unit = unit._replace(path=path.parent)
        if unit.format == "cmrxrecon" and _NO_CINE.search(path.stem):
            error = DataError(path, "a cine", "another kind of scan, by its name")
            unit = Unit(path, "no cine", error)
        if unit.format == "nifti" and _LABELS.fullmatch(path.name.lower().split(".nii")[0]):
            error = DataError(path, "a cine", "a segmentation, by its name")
            unit = Unit(path, "no cine", error)
        if unit.format == "npy" and role_of(path.stem)[0] != "kspace":
            unit = unit._replace(error=no_kspace(path, ""))
        if unit.format not in _UNLISTED:
            units[unit.path] = unit
    return [*units.values(), *_unlistable(root, closed)]


def _unlistable(root: Path, errors: Sequence[OSError]) -> Iterator[Unit]:
    """Folders whose files are not known."""
    for error in errors:
        path = Path(error.filename)
        if not _is_passed_over(path.relative_to(root)):
            expected = "a folder whose files can be listed"
            yield Unit(path, "damaged", DataError(path, expected, str(error.strerror)))


def recognise(path: Path) -> Unit:
    """Format of one file; never raises for what is in it, or for its name."""
    name = one_line(str(path).encode(errors="surrogateescape").decode(errors="backslashreplace"))
    if name != str(path):  # no record, table or page could hold it
        expected = "a path whose names are UTF-8 without control characters"
        error = DataError(name, expected, "other bytes", "rename it")
        return Unit(Path(name), "damaged", error)
    try:
        return _recognise(path)
    except DataError as error:
        return Unit(path, "damaged", error)
    except OSError as error:
        return Unit(path, "damaged", DataError(path, "a readable file", str(error)))


def _recognise(path: Path) -> Unit:
    if not path.is_file():
        what = f"a {path.suffix} file" if path.suffix else "a file"
        raise DataError(path, what, "no file")
    with open(path, "rb") as file:
        head = file.read(600)
    if path.suffix == ".cfl" or is_bart_header(head):
        return _recognise_bart(Path(f"{bart_base(path)}.cfl"))
    if is_dicom(head):
        return Unit(path, "dicom")
    if head[:2] == b"\x1f\x8b":
        head = _unzipped(path)
    named_nifti = path.name.lower().endswith((".nii", ".nii.gz"))
    if named_nifti or head[344:347] in (b"n+1", b"ni1") or head[4:7] in (b"n+2", b"ni2"):
        return Unit(path, "nifti", _no_nifti_cine(path, head))
    arrays_inside = head.startswith(b"\x93NUMPY") or b"\x89HDF\r\n" in head or b"MATLAB" in head
    if arrays_inside or path.suffix in _ARRAYS:
        return _recognise_arrays(path)
    known = "CMRxRecon, fastMRI, ISMRMRD, BART, npy, NIfTI, DICOM, HDF5 or MATLAB"
    bytes_there = f"bytes that begin with {head[:8]!r}"
    got = "a DICOMDIR, which lists files" if head[128:132] == b"DICM" else bytes_there
    error = DataError(path, f"a file of {known}", got)
    return Unit(path, "unknown", error)


def _no_nifti_cine(path: Path, head: bytes) -> DataError | None:
    """Why images are no cine, by the number of axes in their header; ``None`` if they may be."""
    kind, start = ("8q", 16) if head[4:7] in (b"n+2", b"ni2") else ("8h", 40)
    for order in "<>" if len(head) > 348 else "":
        n_axes, *sizes = struct.unpack_from(order + kind, head, start)
        if 0 < n_axes < 4:  # in the other order it is not
            fix = "say what they are with --axes, such as --axes x,y,t"
            return DataError(path, "four axes (x, y, z, t)", f"shape {tuple(sizes[:n_axes])}", fix)
    return None


def _recognise_bart(path: Path) -> Unit:
    """K-space in BART's files, or what goes with it, by its name."""
    role, _ = role_of(path.stem)
    if role in ("kspace", ""):
        return Unit(path, "bart")
    return Unit(path, "bart companion", no_kspace(path, role))


def _recognise_npy(path: Path, info: ArrayInfo) -> Unit:
    """Format of an npy file, by the kind of its array and its name."""
    role, _ = role_of(path.stem)
    if role == "sens" or (role == "mask" and info.kind != "complex"):
        return Unit(path, "maps" if role == "sens" else "mask", no_kspace(path, role))
    if info.kind == "complex" and role == "images":
        return Unit(path, "arrays", no_kspace(path, role))
    if info.kind == "complex":
        return Unit(path, "npy")
    if len(info.shape) == 3 and info.kind == "real" and role != "kspace":
        return Unit(path, "images")
    return Unit(path, "arrays", unnamed(path, {"": info}))


def _is_result(path: Path, arrays: dict[str, ArrayInfo]) -> bool:
    """Whether a file is one of those that reconstruct.py writes: (t, z, ky, kx), and named so."""
    axes = {len(info.shape) for info in arrays.values()}
    return bool(_RESULTS.fullmatch(path.stem)) and axes == {4} and set(arrays) <= _IN_RESULTS


def _recognise_arrays(path: Path) -> Unit:
    """Format of an HDF5, MATLAB or npy file."""
    arrays = list_arrays(path)
    if _is_result(path, arrays):
        return Unit(path, "results", no_kspace(path, "images"))
    if set(arrays) == {""}:
        return _recognise_npy(path, arrays[""])
    if is_ismrmrd(arrays):
        return Unit(path, "ismrmrd")
    if is_fastmri(path, arrays):
        return Unit(path, "fastmri")
    if cmrxrecon.kspace_key(arrays):
        return Unit(path, "cmrxrecon")
    if arrays and all(MASK_KEY.fullmatch(key) for key in arrays):
        return Unit(path, "mask", unnamed(path, arrays))
    unknown = any(len(arrays[key].shape) > 2 for key in kspace_candidates(arrays))
    if image_keys(arrays) and not unknown:
        return Unit(path, "images")
    return Unit(path, "arrays", unnamed(path, arrays))


def _is_candidate(path: Path) -> bool:
    """Whether a file of a tree, by its path below the root, may hold a cine."""
    suffix = path.suffix.lower()
    named_by_identifier = suffix[1:].isdecimal()  # as DICOM files often are: MR.1.2.840.113619.7
    return not _is_passed_over(path) and (suffix in _SUFFIXES or named_by_identifier)


def _is_passed_over(path: Path) -> bool:
    """Whether a path below the root is hidden, or in a folder that never holds data."""
    hidden = any(part.startswith(".") for part in path.parts)
    return hidden or bool(set(path.parts) & set(_NO_DATA))


def _unzipped(path: Path) -> bytes:
    """First bytes of a gzip file; none if it is damaged."""
    try:
        with gzip.open(path) as file:
            return file.read(600)
    except (OSError, EOFError, ValueError, zlib.error):
        return b""
