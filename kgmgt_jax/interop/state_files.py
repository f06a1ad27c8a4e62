"""State dicts on disk: named arrays in ``.npz``, ``.safetensors`` and PyTorch's ``.pth``.

No file is trusted: ``.npz`` and ``.safetensors`` are read as plain arrays, ``.pth`` with
``torch.load(weights_only=True)``, which refuses pickles with anything but arrays in them.
"""

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jax.numpy import bfloat16
from safetensors import numpy as safetensors

from kgmgt_jax.data.atomic import write_atomically
from kgmgt_jax.data.case import DataError
from kgmgt_jax.data.sizes import check_size

__all__ = ["StateFileError", "check_suffix", "read_state_dict", "write_state_dict"]

_TORCH_SUFFIXES = (".pth", ".pt", ".bin", ".ckpt")
_SUFFIXES = (*_TORCH_SUFFIXES, ".npz", ".safetensors")
_WRAPPERS = ("params_ema", "params", "state_dict", "model_state_dict")


class StateFileError(ValueError):
    """A file of weights is missing, damaged, of another kind, or needs a package not installed."""


def read_state_dict(path: str | Path) -> dict[str, np.ndarray]:
    """The arrays of a state dict by name, ``module.`` prefixes and wrappers removed.

    Those of bfloat16, which NumPy lacks, become float32.

    Args:
        path: ``.npz`` or ``.safetensors`` (read without PyTorch), or ``.pth``, ``.pt``, ``.bin``,
            ``.ckpt``; there, of ``{"params_ema": ..}``, ``{"params": ..}``, ``{"state_dict": ..}``
            and ``{"model_state_dict": ..}`` around the arrays the first present counts.

    Raises:
        StateFileError: if the file is missing, damaged, holds something else than named arrays, or
            needs a package that is not installed.
    """
    path = Path(path)
    check_suffix(path)
    if not path.is_file():
        raise StateFileError(f"{path}: expected a file of weights, got no such file")
    try:
        arrays = _read(path)
    except StateFileError:
        raise
    except DataError as error:  # of sizes
        raise StateFileError(str(error)) from error
    except Exception as error:  # each library raises many kinds for a damaged or hostile file
        reason = " ".join(str(error).split(". ")[0].split()) or type(error).__name__
        raise StateFileError(f"{path}: expected a file of arrays, got {reason[:300]}") from error
    if not arrays:
        raise StateFileError(f"{path}: expected named arrays, got none")
    return _without_prefix(path, arrays)


def check_suffix(path: str | Path) -> None:
    """Raises ``StateFileError`` unless the suffix is of a format of state dicts."""
    suffix = Path(path).suffix
    if suffix not in _SUFFIXES:
        raise StateFileError(f"{path}: expected one of {', '.join(_SUFFIXES)}, got {suffix!r}")


def _without_prefix(path: Path, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Removes the ``module.`` that ``DataParallel`` puts before names."""
    stripped = {key.removeprefix("module."): value for key, value in arrays.items()}
    if len(stripped) != len(arrays):
        raise StateFileError(f"{path}: expected unique names, got some with and without 'module.'")
    return stripped


def _read(path: Path) -> dict[str, np.ndarray]:
    if path.suffix == ".npz":
        return _read_npz(path)
    if path.suffix == ".safetensors":
        arrays = safetensors.load_file(path)
        return {k: v.astype(np.float32) if v.dtype == bfloat16 else v for k, v in arrays.items()}
    return _read_torch(path)


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    with path.open("rb") as stream:
        file = np.load(stream, allow_pickle=False)
        if isinstance(file, np.ndarray):
            raise StateFileError(f"{path}: expected an .npz archive, got a single array")
        members = file.zip.infolist()
        other = [each.filename for each in members if not each.filename.endswith(".npy")]
        if other:
            raise StateFileError(f"{path}: expected arrays alone, got {other[0]!r}")
        check_size(path, sum(each.file_size for each in members), path.stat().st_size)
        return {key: file[key] for key in file.files}


def _read_torch(path: Path) -> dict[str, np.ndarray]:
    torch = _torch(path)
    found = torch.load(path, map_location="cpu", weights_only=True)
    while isinstance(found, Mapping):
        inner = next((found[k] for k in _WRAPPERS if isinstance(found.get(k), Mapping)), None)
        if inner is None:
            break
        found = inner
    if not isinstance(found, Mapping):
        raise StateFileError(f"{path}: expected a state dict, got {type(found).__name__}")
    other = [str(k) for k, v in found.items() if not isinstance(v, torch.Tensor)]
    if other:
        raise StateFileError(f"{path}: expected tensors alone, got something else in {other[:5]}")
    return {str(k): _to_numpy(torch, v) for k, v in found.items()}


def _to_numpy(torch: Any, tensor: Any) -> np.ndarray:
    tensor = tensor.detach()
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()


def _torch(path: Path) -> Any:
    """PyTorch, or what to install."""
    try:
        return importlib.import_module("torch")
    except ImportError as error:
        raise StateFileError(
            f"{path}: {path.suffix} files need PyTorch, which is not installed: "
            "pip install 'kgmgt-jax[torch]'"
        ) from error


def write_state_dict(path: str | Path, arrays: Mapping[str, np.ndarray]) -> Path:
    """Writes named arrays in the format of the path's suffix, whole or not at all.

    Raises:
        StateFileError: for an unknown suffix or a missing package.
    """
    path = Path(path)
    check_suffix(path)
    copies = {key: np.array(value) for key, value in arrays.items()}  # contiguous, writable
    if path.suffix in _TORCH_SUFFIXES:
        torch = _torch(path)
        tensors = {key: torch.from_numpy(value) for key, value in copies.items()}
        return write_atomically(path, lambda p: torch.save(tensors, p))
    if path.suffix == ".safetensors":
        return write_atomically(path, lambda p: safetensors.save_file(copies, p))
    return write_atomically(path, lambda p: _write_npz(p, copies))


def _write_npz(path: Path, arrays: dict[str, Any]) -> None:
    with path.open("wb") as file:
        np.savez(file, **arrays)
