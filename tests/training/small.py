"""A network and a batch small enough to train in a test."""

import numpy as np

from configs.kgmgt import get_config


def small_config(**model):
    """The tiny configuration, smaller still; ``model`` overrides fields of the network."""
    config = get_config("tiny")
    config.unlock()
    config.model.update(
        channels=(4, 4, 4),
        width=4,
        n_heads=2,
        denoiser_channels=4,
        n_iterations=1,
        consistency="hard",
        solver="gradient",
        rect_window=None,
        alignment=False,
        drop_path=0.0,
    )
    config.model.update(**model)
    config.critic.update(width=2, hidden=4)
    return config


def random_batch(n: int, size: int = 32, seed: int = 0) -> dict[str, np.ndarray]:
    """Random frames with consistent single-coil k-space."""
    rng = np.random.default_rng(seed)

    def image():
        return (rng.standard_normal((n, size, size, 2)) @ [1, 1j]).astype(np.complex64)

    batch = {name: image() for name in ("target", "preceding", "succeeding", "reference")}
    mask = (rng.random((n, size, size)) < 0.3).astype(np.float32)
    axes = (-2, -1)
    kspace = np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(batch["reference"], axes)), axes) / size
    kspace = (kspace * mask).astype(np.complex64)
    return batch | {"kspace": kspace[:, None], "mask": mask}
