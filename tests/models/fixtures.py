"""Stored inputs, weights and outputs of the reference network, in this project's layouts."""

import json
from pathlib import Path
from typing import Any

import numpy as np


class Fixture:
    """One ``.npz`` of reference arrays: ``f["in/x"]``, ``f.weights()``, ``f.meta``."""

    def __init__(self, folder: Path, name: str):
        self._arrays = np.load(folder / f"{name}.npz")
        self.meta: dict[str, Any] = json.loads(str(self._arrays["meta"]))

    def __getitem__(self, key: str) -> np.ndarray:
        return self._arrays[key]

    def __contains__(self, key: str) -> bool:
        return key in self._arrays.files

    def weights(self, prefix: str = "w/") -> dict[str, np.ndarray]:
        """Arrays below ``prefix``, by the rest of their name."""
        names = [k for k in self._arrays.files if k.startswith(prefix)]
        return {k.removeprefix(prefix): self._arrays[k] for k in names}


def nhwc(x: np.ndarray) -> np.ndarray:
    """(b, c, h, w) to (b, h, w, c)."""
    return np.moveaxis(x, 1, -1)


def nchw(x) -> np.ndarray:
    """(b, h, w, c) to (b, c, h, w)."""
    return np.moveaxis(np.asarray(x), -1, 1)


def relative_error(got, want: np.ndarray) -> float:
    """Largest difference over the largest magnitude of the reference."""
    return float(np.max(np.abs(np.asarray(got) - want)) / np.max(np.abs(want)))
