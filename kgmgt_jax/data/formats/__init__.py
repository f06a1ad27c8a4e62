"""Every file our users have, behind one interface: a `CineFile` gives one `CineCase` a slice.

===========  =========================================================================
module       content
===========  =========================================================================
base         the file of slices, and what readers share
arrays       named arrays in HDF5, MATLAB 5 and npy files, read with care
axes, masks  order of axes; masks in files of their own, and k-space that goes with one
maps         coil maps of any scale
roles        what an array is for, by its name
cmrxrecon    CMRxRecon 2023, 2024 and 2025; what the place of a file tells in cmrxrecon_tree
fastmri      fastMRI
ocmr         ISMRMRD, as OCMR has it (package ``ismrmrd``); its headers in ismrmrd_headers
bart         BART's cfl and hdr
npy          k-space, maps and mask in npy files
named        any HDF5, MATLAB or npy array, with key and axes named by the user
images       magnitude cines in HDF5, npy or NIfTI (``nibabel``), made into k-space
dicom        the same in DICOM (``pydicom``); dicom_headers and dicom_images see to single images
compressed   many coils of any of these as few virtual ones
recognise    which of these a path is, by content
opening      the reader for it
===========  =========================================================================

A module imports only from those named before it. ``pip install 'kgmgt-jax[formats]'`` brings the
packages named here.
"""

from kgmgt_jax.data.formats.base import CineFile, DataWarning
from kgmgt_jax.data.formats.opening import (
    ReadOptions,
    find_cines,
    find_files,
    find_full,
    find_measured,
    open_files,
    open_unit,
    read_file,
    undersampled_key,
)
from kgmgt_jax.data.formats.recognise import Unit, find_units

__all__ = [
    "CineFile",
    "DataWarning",
    "ReadOptions",
    "Unit",
    "find_cines",
    "find_files",
    "find_full",
    "find_measured",
    "find_units",
    "open_files",
    "open_unit",
    "read_file",
    "undersampled_key",
]
