"""Devices and processes: the mesh, where arrays live on it, the compiled steps.

No other file knows devices. The mesh has an axis ``data``, along which batches are split, and an
axis ``model``, along which the output channels of large kernels are split (of length 1 unless a
wide network asks for more). XLA's partitioner does the rest; only the Fourier transforms are kept
from it, because it would collect the whole batch on every device for them.
"""

import functools
import os
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array

from kgmgt_jax.mri.fourier import applying_transforms_by

__all__ = [
    "PLATFORMS",
    "check_batch_size",
    "check_platform",
    "data_share",
    "initialise_distributed",
    "jit_step",
    "make_mesh",
    "process_share",
    "put_batch",
    "replicate",
]

PLATFORMS = ("cpu", "gpu", "tpu")
_DATA, _MODEL = "data", "model"
_SMALLEST_SPLIT = 2**14  # kernels with fewer entries are whole on every device
# Address and port of process 0, how many processes, and which this is: what torchrun sets.
_LAUNCHER = ("MASTER_ADDR", "MASTER_PORT", "WORLD_SIZE", "RANK")


def initialise_distributed(environment: Mapping[str, str] = os.environ) -> None:
    """Joins the processes of one run; does nothing for a process by itself.

    To be called before anything is computed. Known are ``MASTER_ADDR``, ``MASTER_PORT``,
    ``WORLD_SIZE`` and ``RANK``, set by ``torchrun`` or by hand; ``srun`` of SLURM; Open MPI; and
    pods of TPUs on GKE. ``KGMGT_DISTRIBUTED=1`` tries whatever else ``jax.distributed`` can detect.

    Raises:
        ValueError: if some of the four variables are missing or no numbers, or the processes do
            not meet.
    """
    if "WORLD_SIZE" in environment or "RANK" in environment:
        options = _launched(environment)
        if options["num_processes"] == 1:
            return
    elif _in_cluster(environment):
        options = {}
    else:
        return
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    try:
        jax.distributed.initialize(**options)
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"the processes of this run cannot be joined: {error}") from error


def _launched(environment: Mapping[str, str]) -> dict[str, Any]:
    """What ``jax.distributed.initialize`` takes, from the launcher's variables."""
    missing = [name for name in _LAUNCHER if not environment.get(name)]
    if missing:
        raise ValueError(f"a run of several processes needs {_LAUNCHER}, got no {missing}")
    # torchrun itself listens at MASTER_PORT
    port = _number(environment, "MASTER_PORT") + ("TORCHELASTIC_RUN_ID" in environment)
    options: dict[str, Any] = {
        "coordinator_address": f"{environment['MASTER_ADDR']}:{port}",
        "num_processes": _number(environment, "WORLD_SIZE"),
        "process_id": _number(environment, "RANK"),
    }
    several = "LOCAL_WORLD_SIZE" in environment and _number(environment, "LOCAL_WORLD_SIZE") > 1
    if several:  # one accelerator for each
        options["local_device_ids"] = [_number(environment, "LOCAL_RANK")]
    return options


def _number(environment: Mapping[str, str], name: str) -> int:
    value = environment.get(name)
    if value is None or not value.isdecimal():
        got = "nothing" if value is None else repr(value)
        raise ValueError(f"expected a whole number in {name}, got {got}")
    return int(value)


def _in_cluster(environment: Mapping[str, str]) -> bool:
    """Whether a scheduler that ``jax.distributed`` knows started several processes."""
    step = "SLURM_STEP_NODELIST" in environment and environment.get("SLURM_NTASKS", "1") != "1"
    mpi = environment.get("OMPI_COMM_WORLD_SIZE", "1") != "1"
    workers = environment.get("TPU_PROCESS_ADDRESSES") or environment.get("TPU_WORKER_HOSTNAMES")
    return step or mpi or "," in (workers or "") or environment.get("KGMGT_DISTRIBUTED") == "1"


def process_share() -> tuple[int, int]:
    """Which of how many processes this is: ``(index, count)``; 0 writes what a person reads."""
    return jax.process_index(), jax.process_count()


def check_platform(platform: str) -> None:
    """Raises ``ValueError`` unless JAX computes on ``platform``; ``""`` takes what there is.

    That must be among what ``JAX_PLATFORMS`` names, of which JAX passes over a GPU that is missing.
    """
    got = _devices()[0].platform
    if platform and platform != got:
        raise ValueError(
            f"expected a {platform} to compute on, got {got} only; install JAX for it (README), "
            "or change config.train.platform"
        )


def _devices() -> list[jax.Device]:
    named = os.environ.get("JAX_PLATFORMS", "")
    try:
        devices = jax.devices()
    except RuntimeError as error:  # JAX_PLATFORMS names something that is not there
        raise ValueError(f"expected a device that JAX can use, got {error}") from error
    if named and devices[0].platform == "cpu" and "cpu" not in named.split(","):
        raise ValueError(
            f"expected a device of JAX_PLATFORMS={named}, got a cpu only; install JAX for it "
            "(README), or change JAX_PLATFORMS"
        )
    return devices


def make_mesh(n_devices: int | None = None, *, n_model: int = 1) -> Mesh:
    """A mesh of all (or the first ``n_devices``) devices of all processes.

    Args:
        n_devices: how many.
        n_model: how many of them share one copy of the network.

    Raises:
        ValueError: if there is no device, or ``n_model`` does not divide their number.
    """
    devices = _devices()[:n_devices]
    if n_model < 1 or len(devices) % n_model:
        raise ValueError(
            f"model_parallel must divide the number of devices, got {n_model} for {len(devices)}"
        )
    shape, auto = (len(devices) // n_model, n_model), (AxisType.Auto, AxisType.Auto)
    return jax.make_mesh(shape, (_DATA, _MODEL), auto, devices=devices)


def check_batch_size(batch_size: int, mesh: Mesh, n_parts: int = 1) -> None:
    """Raises ``ValueError`` unless each part of a batch divides evenly among the devices.

    Args:
        batch_size: examples in a batch, of all processes together.
        mesh: the devices.
        n_parts: parts of a batch whose gradients are accumulated.
    """
    n_devices = mesh.shape[_DATA]
    if batch_size % (n_devices * n_parts):
        parts = f" accumulation={n_parts}" if n_parts > 1 else ""
        raise ValueError(
            f"the batch must divide among the devices: got {batch_size=} {n_devices=}{parts}; "
            "change config.data.batch_size, or hide devices (CUDA_VISIBLE_DEVICES=0 leaves one GPU)"
        )


def data_share(mesh: Mesh) -> tuple[int, int]:
    """Which part of each batch this process loads, and of how many: ``(index, count)``.

    Processes whose devices share a copy of the network load the same part.

    Args:
        mesh: the devices.

    Raises:
        ValueError: if processes share only some of the copies that each has devices of.
    """
    rows: dict[int, set[int]] = {}  # along ``data``, by process
    for row, devices in enumerate(mesh.devices):
        for device in devices:
            rows.setdefault(device.process_index, set()).add(row)
    parts = sorted({tuple(sorted(own)) for own in rows.values()})
    if len({row for part in parts for row in part}) < sum(map(len, parts)):
        got = f"{mesh.shape[_MODEL]} for {len(rows)} processes of {mesh.size} devices"
        raise ValueError(
            "model_parallel must divide the devices of a process, or the devices of some processes "
            f"together must divide it, got {got}"
        )
    return parts.index(tuple(sorted(rows[jax.process_index()]))), len(parts)


def _state_sharding(state: Any, mesh: Mesh) -> Any:
    """Whole on every device, but large kernels split by output channel among ``model``.

    A rule of shapes alone, so parameters, their mean and their moments lie alike.
    """
    n_model = mesh.shape[_MODEL]

    def place(leaf: Any) -> NamedSharding:
        splits = n_model > 1 and leaf.ndim > 1 and leaf.size >= _SMALLEST_SPLIT
        if not splits or leaf.shape[-1] % n_model:
            return NamedSharding(mesh, PartitionSpec())
        return NamedSharding(mesh, PartitionSpec(*[None] * (leaf.ndim - 1), _MODEL))

    return jax.tree.map(place, state)


def replicate(state: Any, mesh: Mesh) -> Any:
    """A copy of a tree of arrays on the devices, the same in every process."""

    def put(leaf: Any, sharding: NamedSharding) -> Array:
        host = np.asarray(leaf)
        return jax.make_array_from_callback(host.shape, sharding, lambda index: host[index])

    return jax.tree.map(put, state, _state_sharding(state, mesh))


def put_batch(batch: Mapping[str, np.ndarray], mesh: Mesh) -> dict[str, Array]:
    """Splits each array of a batch along its first axis over the devices.

    Args:
        batch: this process's share of the examples.
        mesh: the devices.
    """
    split = NamedSharding(mesh, PartitionSpec(_DATA))
    return {
        name: jax.make_array_from_process_local_data(split, array) for name, array in batch.items()
    }


def jit_step(step: Callable, mesh: Mesh, state: Any, *constants: Any) -> Callable:
    """Compiles a step: batch split, state donated, gradients summed over devices.

    Args:
        step: of state, batch, and the constants.
        mesh: the devices.
        state: a state, or its shapes, by which its arrays are placed as ``replicate`` does.
        *constants: further trees of arrays, or their shapes, placed likewise.
    """
    split = NamedSharding(mesh, PartitionSpec(_DATA))
    everywhere = NamedSharding(mesh, PartitionSpec())
    placed = _state_sharding(state, mesh)

    @functools.wraps(step)
    def on_mesh(
        state: Any, batch: Mapping[str, Array], *constants: Any
    ) -> tuple[Any, dict[str, Array]]:
        with applying_transforms_by(functools.partial(_by_device, mesh)):
            return step(state, batch, *constants)

    return jax.jit(
        on_mesh,
        in_shardings=(placed, split, *(_state_sharding(each, mesh) for each in constants)),
        out_shardings=(placed, everywhere),
        donate_argnums=0,
    )


def _by_device(mesh: Mesh, transform: Callable[[Array], Array], x: Array) -> Array:
    """Each device transforms the samples it holds; before JAX 0.12 the partitioner would not."""
    if x.ndim < 3 or x.shape[0] % mesh.shape[_DATA]:
        return transform(x)
    split = PartitionSpec(_DATA)
    return jax.shard_map(transform, mesh=mesh, in_specs=split, out_specs=split)(x)
