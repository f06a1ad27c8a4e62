"""Opening what a user names as data: a prepared set, or files that are read as they are."""

import logging
from pathlib import Path

from kgmgt_jax.data.case import DataError
from kgmgt_jax.data.file_slices import FileSlices
from kgmgt_jax.data.folders import named_paths
from kgmgt_jax.data.formats import ReadOptions, find_full, find_measured
from kgmgt_jax.data.prepared import PreparedSet, is_prepared
from kgmgt_jax.data.simulation import Simulation
from kgmgt_jax.data.slices import SliceSource

__all__ = ["open_prepared", "open_slices"]

_log = logging.getLogger(__name__)


def open_slices(
    path: str | Path,
    *,
    split: str,
    acs: int,
    crop_rows: int | None = None,
    sens: str = "espirit",
    sens_cache: str | Path | None = None,
    cache_gib: float = 4.0,
    simulation: Simulation | None = None,
    virtual_coils: int = 0,
    undersampled: bool = False,
) -> SliceSource:
    """Slices below a path, or below several, fully sampled unless asked for others.

    Args:
        path: A folder that ``python -m kgmgt_jax.data prepare`` made, or files of any known
            format. Files and folders separated by commas are taken together, images and k-space
            too.
        split: Which part of a prepared set. Files are taken as they are.
        acs, crop_rows, sens, sens_cache, cache_gib, simulation: How files are read; see
            `FileSlices`. A prepared set has its sensitivities already.
        virtual_coils: Most coils of files, 0 for all; see `ReadOptions`.
        undersampled: Whether undersampled files are taken where there are any, with the masks they
            have; see `find_measured`.

    Raises:
        DataError: If there is nothing to read, something is damaged or undersampled unasked, or a
            prepared set is one of several.
        ValueError: If ``acs`` is too small to calibrate several coils, or for one virtual coil.
    """
    parts = named_paths(path)
    if not all(parts):
        raise DataError(path, "paths separated by commas", "an empty path among them")
    paths = list(map(Path, parts))
    prepared = [each for each in paths if is_prepared(each)]
    if prepared and len(paths) > 1:
        raise DataError(prepared[0], "files to take together", "a prepared set")
    if prepared:
        return open_prepared(prepared[0], split=split, undersampled=undersampled)
    options = ReadOptions(simulation=simulation or Simulation(), virtual_coils=virtual_coils)
    find = find_measured if undersampled else find_full
    files = [file for each in paths for file in find(each, options)]
    return FileSlices(
        files,
        acs=acs,
        crop_rows=crop_rows,
        sens=sens,
        sens_cache=sens_cache,
        cache_gib=cache_gib,
        undersampled=undersampled,
        root=paths[0] if len(paths) == 1 else None,
    )


def open_prepared(path: Path, *, split: str, undersampled: bool = False) -> PreparedSet:
    """A split of a prepared set; says that it is read once, and that options for files do nothing.

    Args:
        path: Folder of the set.
        split: Which part of it.
        undersampled: Whether it may be one of undersampled slices.

    Raises:
        DataError: If it is one unasked; and see `PreparedSet`.
    """
    _log.info("%s (%s): reading it once, to hold it against its checksums", path, split)
    found = PreparedSet(path, split=split)
    if found.slices[0].undersampled and not undersampled:
        fix = "train on it with configs/self_supervised.py, or prepare fully sampled files"
        raise DataError(path, "a prepared set of fully sampled slices", "undersampled ones", fix)
    _log.info(
        "%s (%s): coils, their maps and simulated k-space as prepared, whatever is set for files",
        path,
        split,
    )
    return found
