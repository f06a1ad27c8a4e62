"""Opening what a user names as data: a prepared set, or files that are read as they are."""

from pathlib import Path

from kgmgt_jax.data.file_slices import FileSlices
from kgmgt_jax.data.formats import find_files
from kgmgt_jax.data.prepared import PreparedSet, is_prepared
from kgmgt_jax.data.simulation import Simulation
from kgmgt_jax.data.slices import SliceSource

__all__ = ["open_slices"]


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
) -> SliceSource:
    """Fully sampled slices below a path.

    Args:
        path: A folder that ``python -m kgmgt_jax.data prepare`` made, or files of any known
            format.
        split: Which part of a prepared set. Files are taken as they are.
        acs, crop_rows, sens, sens_cache, cache_gib, simulation: How files are read; see
            `FileSlices`. A prepared set has its sensitivities already.

    Raises:
        DataError: If there is nothing to read, or something is damaged or undersampled.
        ValueError: If ``acs`` is too small to calibrate several coils.
    """
    if is_prepared(path):
        return PreparedSet(path, split=split)
    files = find_files(path, fully_sampled=True)
    return FileSlices(
        files,
        acs=acs,
        crop_rows=crop_rows,
        sens=sens,
        sens_cache=sens_cache,
        cache_gib=cache_gib,
        simulation=simulation,
        root=Path(path),
    )
