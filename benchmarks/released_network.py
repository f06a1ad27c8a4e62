"""The released network with random weights on both sides: this package and the PyTorch twin."""

from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["as_jax", "jax_variables", "random_frames", "torch_networks"]


def as_jax(torch: Any) -> None:
    """Lets PyTorch do on a GPU what JAX does: TensorFloat-32, and the fastest convolution."""
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.benchmark = True


def random_frames(n: int, size: int) -> np.ndarray:
    """Target, preceding and succeeding frames of a batch, real and imaginary: (3 n 2 h w)."""
    return np.random.default_rng(0).standard_normal((3, n, 2, size, size), np.float32)


def torch_networks(folder: Path) -> list[Any]:
    """Generator, extractor and reference features of the twin, on the CPU, for inference."""
    import torch

    nets, weights = _twin(), _weights(folder)
    for net in nets:
        own = {k: torch.from_numpy(weights[k]) for k in net.state_dict() if k in weights}
        net.load_state_dict(own, strict=False)
        net.eval()
    return nets


def jax_variables(folder: Path) -> Any:
    """The same weights as variables of ``configs/kgmgt.py:released``, on the device."""
    import jax

    from kgmgt_jax.interop.torch_names import extractor_entries, from_state_dict, generator_entries

    entries = [*generator_entries(), *extractor_entries()]
    return jax.device_put(from_state_dict(entries, _weights(folder)))


def _twin() -> list[Any]:
    from tests.oracles import torch_kgmgt as twin

    return [twin.ReleasedGenerator(), twin.Extractor(), twin.ReferenceVGG()]


def _weights(folder: Path) -> dict[str, np.ndarray]:
    """Drawn by PyTorch once, then read from the folder."""
    path = folder / "weights.npz"
    if not path.exists():
        import torch

        from tests.oracles.torch_kgmgt import to_numpy_state_dict

        torch.manual_seed(0)
        np.savez(path, **{k: v for net in _twin() for k, v in to_numpy_state_dict(net).items()})
    with np.load(path) as file:
        return dict(file)
