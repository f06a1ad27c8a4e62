"""Sensitivity maps kept on disk, so that each slice is calibrated once.

A file is named by the SHA-256 of what made the maps: the calibration data, the size of the maps,
the method and all its options. ``<name>.npy`` holds the maps, followed by a SHA-256 of the bytes
before it (NumPy ignores what follows an array), ``<name>.json`` what made them.
"""

import hashlib
import io
import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Complex, Complex64, Float, Float32

from kgmgt_jax.data.atomic import write_atomically
from kgmgt_jax.data.case import CineCase, DataError
from kgmgt_jax.data.formats.base import DataWarning
from kgmgt_jax.mri.coils import calibration_block, sens_from_block, sens_options

__all__ = ["cached_sens", "central_sens", "maps_of", "measured_average", "missing_sens"]

# To be raised with every change of what the same data and options give.
_VERSION = 1
_DIGEST_BYTES = hashlib.sha256().digest_size


def cached_sens(
    kspace: Complex[np.ndarray, "t n h w"],
    mask: Float[np.ndarray, "t h w"],
    *,
    acs: int | None = None,
    method: str = "espirit",
    cache_dir: str | Path | None = None,
    **options: float,
) -> Complex64[np.ndarray, "n h w"]:
    """What `estimate_sens` returns, from the disk if it is there.

    Works on the CPU, so that loaders stay off the accelerators. A damaged file is made anew, and
    a folder that cannot be written costs no more than the time; both with a `DataWarning`. Threads
    and processes may share a folder.

    Args:
        kspace: measured k-space of a cine.
        mask: 1 where measured.
        acs: calibrate on at most this many lines, if given.
        method: ``"espirit"`` or ``"adaptive"``.
        cache_dir: the folder, made if need be; ``None`` keeps nothing.
        options: of the method.

    Raises:
        ValueError: as ``estimate_sens`` does.
    """
    known = sens_options(method, options)
    _, _, h, w = kspace.shape
    with jax.default_device(jax.local_devices(backend="cpu")[0]):
        measured = jnp.asarray(np.asarray(kspace, np.complex64))
        block = calibration_block(measured, jnp.asarray(np.asarray(mask, np.float32)), acs)
        origin = _origin(np.asarray(block), (h, w), method, known)
        name = f"{hashlib.sha256(origin.encode()).hexdigest()}.npy"
        path = None if cache_dir is None else Path(cache_dir) / name
        sens = None if path is None else _read(path)
        if sens is not None:
            return sens
        sens = np.asarray(sens_from_block(block, (h, w), method, **known))
    if path is not None:
        _write(path, sens, origin)
    return sens


def central_sens(
    average: Complex[np.ndarray, "n h w"],
    *,
    acs: int,
    method: str = "espirit",
    cache_dir: str | Path | None = None,
) -> Complex64[np.ndarray, "n h w"]:
    """`cached_sens` of a fully sampled cine, from its central lines.

    Args:
        average: its k-space, averaged over time.
        acs: how many lines.
        method, cache_dir: see `cached_sens`.

    Raises:
        ValueError: as there.
    """
    everything = np.ones((1, *average.shape[-2:]), np.float32)
    return cached_sens(average[None], everything, acs=acs, method=method, cache_dir=cache_dir)


def measured_average(
    kspace: Complex64[np.ndarray, "t n h w"], mask: Float32[np.ndarray, "t h w"]
) -> tuple[Complex64[np.ndarray, "n h w"], Float32[np.ndarray, "h w"]]:
    """The mean of each sample over the frames that measured it, and 1 where any did.

    As a cine of one frame it gives `cached_sens` the maps of all frames, in a frame's memory.

    Args:
        kspace: measured k-space of a cine, zero elsewhere.
        mask: 1 where measured.
    """
    counts = mask.sum(axis=0)
    return kspace.sum(axis=0) / np.maximum(counts, 1), np.asarray(counts > 0, np.float32)


def missing_sens(case: CineCase, method: str) -> Complex64[np.ndarray, "*t n h w"] | None:
    """Coil maps of an undersampled slice: its own, else from all that its frames measured.

    Args:
        case: undersampled k-space.
        method: see `cached_sens`.

    Returns:
        The maps; ``None`` for a single coil.

    Raises:
        DataError: if too few lines around the centre were measured.
    """
    if case.sens is not None or case.n_coils == 1:
        return case.sens
    with maps_of(f"{case.meta.source} [{case.meta.name}]"):
        return cached_sens(case.kspace, case.mask, method=method)


@contextmanager
def maps_of(where: str) -> Iterator[None]:
    """Names what it is whose maps cannot be estimated.

    Args:
        where: file and slice.

    Raises:
        DataError: in the place of a ``ValueError`` of `cached_sens`.
    """
    try:
        yield
    except ValueError as error:
        raise DataError(where, "coil maps, or lines to estimate them from", str(error)) from error


def _origin(
    block: Complex64[np.ndarray, "n y x"],
    shape: tuple[int, int],
    method: str,
    options: dict[str, Any],
) -> str:
    """JSON of all that decides what the maps are."""
    data = {"sha256": hashlib.sha256(block.tobytes()).hexdigest(), "shape": block.shape}
    origin = {"method": method, "options": options, "calibration": data, "shape": shape}
    return json.dumps(origin | {"version": _VERSION}, indent=2, sort_keys=True, default=float)


def _read(path: Path) -> Complex64[np.ndarray, "n h w"] | None:
    """Maps from the disk; ``None``, with a warning unless there is no file, if they are no good."""
    try:
        data = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        _warn(f"{path}: expected a readable file of coil maps, got {error}; estimated them again")
        return None
    array, digest = data[:-_DIGEST_BYTES], data[-_DIGEST_BYTES:]
    if hashlib.sha256(array).digest() != digest:
        got = f"{len(data)} bytes whose checksum differs"
        _warn(f"{path}: expected whole coil maps, got {got}; estimated them again")
        return None
    return np.load(io.BytesIO(array), allow_pickle=False)


def _write(path: Path, sens: Complex64[np.ndarray, "n h w"], origin: str) -> None:
    buffer = io.BytesIO()
    np.save(buffer, sens)
    array = buffer.getvalue()
    data = array + hashlib.sha256(array).digest()
    try:
        write_atomically(path.with_suffix(".json"), lambda file: file.write_text(origin + "\n"))
        write_atomically(path, lambda file: file.write_bytes(data))
    except OSError as error:
        _warn(f"{path.parent}: expected a folder to keep coil maps in, got {error}; kept none")


def _warn(message: str) -> None:
    warnings.warn(message, DataWarning, stacklevel=4)
