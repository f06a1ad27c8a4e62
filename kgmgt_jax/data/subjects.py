"""Who was scanned, and in which view."""

import re
from pathlib import Path

import h5py

from kgmgt_jax.data.case import DataError
from kgmgt_jax.data.formats import CineFile
from kgmgt_jax.data.formats.arrays import attribute_text, open_hdf5
from kgmgt_jax.data.formats.base import import_optional
from kgmgt_jax.data.formats.cmrxrecon_tree import subject_of

__all__ = ["identify"]

_SUBJECT = re.compile(
    r"(?:sub|subj|subject|pat|patient|pt|case|vol|volunteer|p)[-_ ]?\d+", re.IGNORECASE
)
_NAMES = ("subject", "patient_id")


def identify(file: CineFile, root: Path, pattern: str | None = None) -> tuple[str, str]:
    """Subject and view of a file, without reading its slices.

    The subject is the first of: what ``pattern`` finds; the attribute ``subject`` or
    ``patient_id`` of an HDF5 dataset or its file; the patient's identifier in DICOM; centre,
    scanner and patient in a tree of CMRxRecon; the nearest folder below ``root`` that is named like
    ``sub-01`` or ``patient7``, or the file if it begins so; folder and name of the file. The view
    is the HDF5 attribute ``view`` or, in CMRxRecon, the name of the file, without ``cine_``.

    Args:
        file: A cine file below ``root``.
        root: Where the search for files began.
        pattern: Regular expression for the path below ``root``, and behind it the key of the array
            where there is one (``P001/cine_sax.mat/kspace_full``); its first group, if it has one.

    Raises:
        DataError: If the pattern finds nothing, or the file is damaged.
    """
    attributes = _attributes(file)
    view = attributes.get("view", "")
    if not view and file.format.startswith("cmrxrecon"):
        view = file.path.stem.split("_kus_")[0]
    view = view.removeprefix("cine_")
    below = root in file.path.parents
    inside = file.path.relative_to(root) if below else Path(file.path.name)
    if pattern is not None:
        return _found(pattern, inside, file), view
    told = next((attributes[name] for name in _NAMES if attributes.get(name)), "")
    if told or (told := _dicom_patient(file)):
        return told, view
    if file.format.startswith("cmrxrecon"):
        return subject_of(file.path), view
    folders = [*inside.parent.parts[::-1], root.name if below else ""]
    named = [name for name in folders if _SUBJECT.fullmatch(name)]
    if named:
        return named[0], view
    begins = _SUBJECT.match(file.path.stem)
    return begins[0] if begins else f"{file.path.parent.name}/{file.path.stem}", view


def _found(pattern: str, inside: Path, file: CineFile) -> str:
    text = f"{inside.as_posix()}/{file.key}" if file.key else inside.as_posix()
    match = re.search(pattern, text)
    name = (match[1] if match.re.groups else match[0]) if match else None
    if not name:
        fix = "give another --subject, or leave it out"
        raise DataError(file.path, f"a subject that {pattern!r} finds", repr(text), fix)
    return name


def _attributes(file: CineFile) -> dict[str, str]:
    """Attributes of an HDF5 file, and of the dataset in it, which come first."""
    if not file.path.is_file() or not h5py.is_hdf5(file.path):
        return {}
    with open_hdf5(file.path) as opened:
        inside = opened.get(file.key) if file.key else None
        items = [opened] if inside is None else [opened, inside]
        return {
            name: attribute_text(item, name)
            for item in items
            for name in (*_NAMES, "view")
            if name in item.attrs
        }


def _dicom_patient(file: CineFile) -> str:
    """The patient's identifier in a DICOM file, or the first of a folder; empty if it is not told.

    A folder with several patients so counts as one of them, which never tears anyone apart.
    """
    if file.format != "dicom":
        return ""
    package = import_optional("pydicom", file.path)
    paths = [file.path] if file.path.is_file() else sorted(file.path.iterdir())
    for path in paths:
        try:
            data = package.dcmread(path, stop_before_pixels=True, specific_tags=["PatientID"])
            return str(data.get("PatientID", "")).strip()
        except Exception:  # no DICOM file; the reader has passed over it too
            continue
    return ""
