"""Devices: the mesh, where arrays live on it, and the jitted steps. No other file knows devices."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from kgmgt_jax.training.steps import Step

__all__ = ["check_batch_size", "jit_step", "make_mesh", "put_batch", "replicate"]

_DATA = "data"


def make_mesh(n_devices: int | None = None) -> Mesh:
    """One axis over all (or the first ``n_devices``) devices, along which batches are split."""
    devices = jax.devices()[:n_devices]
    return jax.make_mesh((len(devices),), (_DATA,), (AxisType.Auto,), devices=devices)


def check_batch_size(batch_size: int, mesh: Mesh) -> None:
    """Raises ``ValueError`` unless the batch divides evenly among the devices."""
    if batch_size % mesh.size:
        raise ValueError(
            f"the batch must divide among the devices: got {batch_size=} n_devices={mesh.size}; "
            "change config.data.batch_size"
        )


def replicate(tree: Any, mesh: Mesh) -> Any:
    """Copies a tree of arrays to every device."""
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))


def put_batch(batch: Mapping[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """Splits each array of a batch along its first axis over the devices."""
    sharding = NamedSharding(mesh, PartitionSpec(_DATA))
    return {name: jax.device_put(array, sharding) for name, array in batch.items()}


def jit_step(step: Step, mesh: Mesh) -> Step:
    """Compiles a step: state replicated and donated, batch split, gradients summed over devices."""
    everywhere = NamedSharding(mesh, PartitionSpec())
    split = NamedSharding(mesh, PartitionSpec(_DATA))
    return jax.jit(
        step, in_shardings=(everywhere, split), out_shardings=everywhere, donate_argnums=0
    )
