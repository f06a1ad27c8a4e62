"""Small fully sampled files of random images, for the tests of the data path."""

from pathlib import Path

import h5py
import numpy as np


def write_file(
    root: Path, subject: str, shape: tuple[int, ...] = (4, 2, 16, 12), kind: str = "full"
) -> Path:
    """A file of band-limited random images, (t, z, ky, kx) or (t, z, n, ky, kx)."""
    rng = np.random.default_rng(list(subject.encode()))
    decay = np.exp(-0.1 * np.abs(np.arange(shape[-2]) - shape[-2] // 2))[:, None]
    compound = np.empty(shape, [("real", "<f4"), ("imag", "<f4")])
    compound["real"], compound["imag"] = rng.normal(size=(2, *shape)) * decay
    path = root / subject / "cine_sax.mat"
    path.parent.mkdir(parents=True)
    single = "single_" if len(shape) == 4 else ""
    with h5py.File(path, "w") as file:
        file[f"kspace_{single}{kind}"] = compound
    return path


def same(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> bool:
    """Whether two batches are equal bit for bit."""
    return one.keys() == other.keys() and all(np.array_equal(one[k], other[k]) for k in one)


def take(iterator, n: int) -> list[dict[str, np.ndarray]]:
    """The next ``n`` batches."""
    return [next(iterator) for _ in range(n)]
