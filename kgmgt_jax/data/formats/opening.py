"""Opening a path of any format, and finding what to open below a directory."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from kgmgt_jax.commands import watched
from kgmgt_jax.data.case import DataError
from kgmgt_jax.data.formats import cmrxrecon
from kgmgt_jax.data.formats.arrays import list_arrays
from kgmgt_jax.data.formats.bart import BartFile
from kgmgt_jax.data.formats.base import CineFile, DataWarning
from kgmgt_jax.data.formats.cmrxrecon import CmrxreconFile
from kgmgt_jax.data.formats.compressed import check_virtual_coils, with_virtual_coils
from kgmgt_jax.data.formats.dicom import read_series
from kgmgt_jax.data.formats.fastmri import FastmriFile
from kgmgt_jax.data.formats.images import ArrayImages, ImageFile, NiftiImages, image_keys
from kgmgt_jax.data.formats.named import NamedFile
from kgmgt_jax.data.formats.npy import NpyFile
from kgmgt_jax.data.formats.ocmr import IsmrmrdFile
from kgmgt_jax.data.formats.recognise import IMAGES, Unit, find_units, recognise
from kgmgt_jax.data.simulation import Simulation

__all__ = [
    "ReadOptions",
    "find_cines",
    "find_files",
    "find_full",
    "find_measured",
    "open_files",
    "open_unit",
    "read_file",
    "undersampled_key",
]

_NAMED = ("arrays", "mask", "maps", "results", "nifti", "npy")
"""Formats of files that can be read once key or axes are named, whatever speaks against it."""


@dataclass(frozen=True)
class ReadOptions:
    """What a user may say about a file.

    Attributes:
        mask: File with the sampling mask, where it does not lie with the k-space.
        key: Array that holds the data, where its name is not one a format knows.
        axes: Order of that array's axes as h5py and NumPy see them, e.g. ``"kx,ky,coil"``.
        simulation: How k-space is made of magnitude images.
        virtual_coils: Most coils a slice shall have, 2 or more; those that have more are
            compressed to it (see `compress_case`). 0 leaves all.

    Raises:
        ValueError: If ``virtual_coils`` is another number.
    """

    mask: str | Path | None = None
    key: str | None = None
    axes: str | None = None
    simulation: Simulation = Simulation()
    virtual_coils: int = 0

    def __post_init__(self) -> None:
        check_virtual_coils(self.virtual_coils)


def find_files(root: str | Path) -> list[Path]:
    """Lists the cines below a directory, sorted by path, to be opened by `open_files`.

    Magnitude images count only where there is no k-space beside them, so that measured and
    simulated data never mix unasked. They and files that hold no cine are left out with a warning;
    a damaged one is an error.

    Args:
        root: A directory, searched to any depth, or one file, returned as it is.

    Raises:
        DataError: If ``root`` does not exist or holds no cine, or a file is damaged.
    """
    root = Path(root)
    return [root] if root.is_file() else [unit.path for unit in _intact_cines(root)]


def find_full(root: str | Path, options: ReadOptions | None = None) -> list[CineFile]:
    """Opens the fully sampled cines that `find_files` lists, or one file, whatever it is.

    Args:
        root: A directory, searched to any depth, or one file.
        options: What the user says about them.

    Raises:
        DataError: As `find_files`, and if none is fully sampled.
    """
    root = Path(root)
    if root.is_file():
        return open_files(root, options)
    likely = [unit for unit in _intact_cines(root) if undersampled_key(unit) is None]
    opened = (open_unit(unit, options) for unit in watched(likely, "open"))
    files = [file for each in opened if all(f.fully_sampled for f in each) for file in each]
    if not files:
        raise DataError(root, "fully sampled cines", "none of that kind")
    return files


def find_measured(root: str | Path, options: ReadOptions | None = None) -> list[CineFile]:
    """Opens the undersampled cines that `find_files` lists; all, if none is; one file as it is.

    Fully sampled ones beside them are left out with a warning: they may be of the same scans.

    Args:
        root: A directory, searched to any depth, or one file.
        options: What the user says about them.

    Raises:
        DataError: As `find_files`.
    """
    root = Path(root)
    if root.is_file():
        return open_files(root, options)
    opened = (open_unit(unit, options) for unit in watched(_intact_cines(root), "open"))
    files = [file for each in opened for file in each]
    undersampled = [file for file in files if not file.fully_sampled]
    if undersampled and len(undersampled) < len(files):
        n_full = len(files) - len(undersampled)
        note = f"{root}: left out {n_full} fully sampled files, since others are undersampled"
        warnings.warn(note, DataWarning, stacklevel=2)
    return undersampled or files


def find_cines(root: Path) -> list[Unit]:
    """Cines below a path, and damaged files.

    Files that hold no cine, and images beside k-space, are left out with a warning.

    Args:
        root: A directory, searched to any depth, or one file.

    Raises:
        DataError: If ``root`` does not exist, or all that is there holds no cine.
    """
    units = find_units(root)
    cines = [unit for unit in units if unit.error is None or unit.format == "damaged"]
    others = [unit for unit in units if unit.error is not None and unit.format != "damaged"]
    if others and not cines and others[0].error:
        raise others[0].error
    if others:
        note = f"{root}: left out {len(others)} files that hold no cine, such as {others[0].path}"
        warnings.warn(note, DataWarning, stacklevel=3)
    images = [unit for unit in cines if unit.format in IMAGES]
    if not images or not any(unit.error is None and unit.format not in IMAGES for unit in cines):
        return cines
    note = f"{root}: left out {len(images)} files of images, since others hold k-space"
    warnings.warn(f"{note}, such as {images[0].path}", DataWarning, stacklevel=3)
    return [unit for unit in cines if unit.format not in IMAGES]


def _intact_cines(root: Path) -> list[Unit]:
    """Those of a directory, of which none may be damaged."""
    cines = find_cines(root)
    for unit in cines:
        if unit.error is not None:
            raise unit.error
    if not cines:
        raise DataError(root, "cines in files of a known format", "none")
    return cines


def open_files(path: str | Path, options: ReadOptions | None = None) -> list[CineFile]:
    """Opens what a path holds: one or more files of slices of equal shape.

    A file of several image stacks, a folder of several DICOM series or a tree give more than one.

    Args:
        path: A file or a directory.
        options: What the user says about it.

    Raises:
        DataError: If it does not exist, is damaged or of no known format.
    """
    path, options = Path(path), options or ReadOptions()
    if path.is_dir():
        units = find_units(path)
        if not units:
            raise DataError(path, "cines in files of a known format", "none")
        return [file for unit in units for file in open_unit(unit, options)]
    return open_unit(recognise(path), options)


def read_file(
    path: str | Path,
    *,
    mask: str | Path | None = None,
    key: str | None = None,
    axes: str | None = None,
    virtual_coils: int = 0,
) -> CineFile:
    """Opens one file of slices that are read when asked for; see `ReadOptions`.

    Returns:
        The slices of the file; ``len()``, indexing and iteration give one ``CineCase`` each.

    Raises:
        DataError: If the file is missing, damaged, of no known format, or holds several cines.
        ValueError: For ``virtual_coils`` of 1 or below 0.
    """
    for what, name in {"file": path, "mask": mask}.items():
        if name is not None and not str(name):  # a path of it would be the current folder
            raise DataError(what, "a path", "an empty one")
    files = open_files(path, ReadOptions(mask, key, axes, virtual_coils=virtual_coils))
    if len(files) != 1:
        got = f"{len(files)}: {', '.join(repr(file.key or file.name) for file in files[:4])}, ..."
        one = "one of its files" if Path(path).is_dir() else "one with --key (key= in Python)"
        raise DataError(path, "one cine", got, f"name {one}")
    return files[0]


def open_unit(unit: Unit, options: ReadOptions | None = None) -> list[CineFile]:
    """Opens one of `find_units`; see `open_files`."""
    options = options or ReadOptions()
    path, mask = unit.path, options.mask
    named = options.key is not None or options.axes is not None
    if unit.error is not None and not (named and unit.format in _NAMED):
        raise unit.error
    simulation = options.simulation
    openers: dict[str, Callable[[], Sequence[CineFile]]] = {
        "cmrxrecon": lambda: [CmrxreconFile(path, mask=mask)],
        "fastmri": lambda: [FastmriFile(path, mask=mask)],
        "ismrmrd": lambda: [IsmrmrdFile(path)],
        "bart": lambda: [BartFile(path, mask=mask)],
        "npy": lambda: [NpyFile(path, mask=mask)],
        "nifti": lambda: [NiftiImages(path, simulation=simulation)],
        "dicom": lambda: read_series(_dicom_files(path), path, simulation),
        "images": lambda: _open_stacks(path, simulation),
    }
    try:
        files = [_open_named(unit, options)] if named else list(openers[unit.format]())
    except OSError as error:  # gone since it was found, or not for everyone
        raise DataError(path, "a file that can be read", str(error)) from error
    if mask is not None:
        _check_takes_mask(files, mask)
    return [with_virtual_coils(file, options.virtual_coils) for file in files]


def _open_stacks(path: Path, simulation: Simulation) -> list[ArrayImages]:
    arrays = list_arrays(path)
    keys = image_keys(arrays)
    return [ArrayImages(path, key, arrays[key], simulation=simulation) for key in keys]


def _check_takes_mask(files: Sequence[CineFile], mask: str | Path) -> None:
    """Refuses a mask for images, and for readouts, each of which says where it was measured."""
    for file in files:
        if isinstance(file, ImageFile | IsmrmrdFile):
            what = "images" if isinstance(file, ImageFile) else "ISMRMRD's readouts"
            got = f"{what} together with mask={str(mask)!r}"
            fix = "leave out --mask (mask= in Python)"
            raise DataError(file.path, "undersampled k-space to go with a mask", got, fix)


def _open_named(unit: Unit, options: ReadOptions) -> CineFile:
    """Opens a file whose key or axes the user names."""
    path, mask, key, axes = unit.path, options.mask, options.key, options.axes
    simulation = options.simulation
    if unit.format in ("nifti", "npy") and key is not None:
        raise DataError(path, "no --key, for the file holds one array", f"{key=}")
    if unit.format == "nifti":
        return NiftiImages(path, axes=axes, simulation=simulation)
    if unit.format == "npy":
        return NpyFile(path, mask=mask, axes=axes)
    if unit.format not in ("cmrxrecon", "fastmri", "images", *_NAMED):
        raise DataError(path, f"no --key and --axes for {unit.format}", f"{key=}, {axes=}")
    arrays = list_arrays(path)
    only = next(iter(arrays)) if len(arrays) == 1 else None
    official = cmrxrecon.kspace_key(arrays) if unit.format == "cmrxrecon" else None
    name = key or official or only
    if name in arrays and (arrays[name].kind == "real" or name in image_keys(arrays)):
        return ArrayImages(path, name, arrays[name], axes=axes or "t,y,x", simulation=simulation)
    if axes is None or (name is not None and name == official):
        return CmrxreconFile(path, mask=mask, key=key, axes=axes)
    return NamedFile(path, key=name, axes=axes, mask=mask)


def undersampled_key(unit: Unit) -> str | None:
    """The key by which a file of CMRxRecon is undersampled; ``None`` where no key says so.

    It is told without opening the file, which would want its mask.

    Raises:
        DataError: If the file is damaged.
    """
    key = cmrxrecon.kspace_key(list_arrays(unit.path)) if unit.format == "cmrxrecon" else None
    return key if key and not cmrxrecon.is_full_key(key) else None


def _dicom_files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    return [p for p in sorted(path.iterdir()) if p.is_file() and recognise(p).format == "dicom"]
