"""What a method costs: numbers that are measured here, on this machine, and how."""

import os
import statistics
import time
from typing import Any

import jax

from kgmgt_jax.evaluation.flops import count_flops
from kgmgt_jax.evaluation.methods import Kspace, Mask, Reconstructor, Sens
from kgmgt_jax.evaluation.report import Efficiency

__all__ = ["device_name", "measure_efficiency"]

REPEATS, PATIENCE = 3, 20.0  # runs, and seconds after which no further one begins


def measure_efficiency(method: Reconstructor, kspace: Kspace, mask: Mask, sens: Sens) -> Efficiency:
    """Costs of a method on one cine.

    - ``gflops``: `flops.count_flops` of the method's program, a frame: XLA's cost analysis,
      loops taken as often as they run. Methods that iterate until an image settles have none, for
      the data decide how often. The filling of a network's inputs is not in it.
    - ``latency_ms``: the clock from k-space in the host's memory to images in the host's memory, a
      frame: median of up to three runs of the whole cine, after one that compiled. Transforms
      on the host and transfers are in it; other programs on the machine disturb it.
    - ``peak_mib``: what XLA reserves to run the compiled program: arguments, results and
      temporaries. A network's program is the frames that it takes together, with its weights;
      that of a classical method the whole cine. The host's own copies are not in it.

    Args:
        method: what is measured.
        kspace, mask, sens: a cine, see `Reconstructor`.
    """
    function, arguments, n_frames, n_times = method.program(kspace, mask, sens)
    flops = count_flops(function, *arguments)
    memory: Any = jax.jit(function).lower(*arguments).compile().memory_analysis()
    return Efficiency(
        parameters=method.n_parameters,
        gflops=None if flops is None else flops * n_times / n_frames / 1e9,
        latency_ms=1e3 * _seconds(method, kspace, mask, sens) / len(kspace),
        peak_mib=None if memory is None else _mebibytes(memory),
        device=device_name(),
        shape=kspace.shape,
    )


def device_name() -> str:
    """``2 CPU cores``, or the accelerator's name."""
    device = jax.devices()[0]
    if device.platform != "cpu":
        return device.device_kind
    n_cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{n_cores} CPU core{'s' if n_cores != 1 else ''}"


def _seconds(method: Reconstructor, kspace: Kspace, mask: Mask, sens: Sens) -> float:
    """Median time of the whole cine; the first run, which may compile, does not count."""
    seconds: list[float] = []
    started = time.perf_counter()
    for _ in range(REPEATS + 1):
        begin = time.perf_counter()
        method.reconstruct(kspace, mask, sens, lambda _: None)
        end = time.perf_counter()
        seconds.append(end - begin)
        if len(seconds) > 1 and end - started > PATIENCE:
            break
    return statistics.median(seconds[1:])


def _mebibytes(memory: Any) -> float:
    parts = ("argument_size_in_bytes", "output_size_in_bytes", "temp_size_in_bytes")
    return (sum(getattr(memory, part) for part in parts) - memory.alias_size_in_bytes) / 2**20
