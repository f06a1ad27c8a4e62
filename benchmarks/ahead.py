"""What would a GPU or a TPU be given to do for a frame, or a training step? Compiled without one.

    pip install 'jax-cuda12-plugin[with-cuda]==JAX_VERSION' 'libtpu==VERSION_OF_jax[tpu]'
    python benchmarks/ahead.py --device h200
    python benchmarks/ahead.py --device v5e
    python benchmarks/ahead.py --step --size 128 --batches 4       (L1 alone, examples at once)

XLA's compilers for NVIDIA GPUs and TPUs need no device, only what is known of it. The program says
whether the network compiles there, how much memory it takes, and, for a GPU, how many kernels it
starts (turns of loops counted) and how many bytes these read and write. From both an estimate:

    kernels x 2 us + bytes / (0.75 x memory bandwidth)

That is no measurement: it knows nothing of arithmetic, of caches, nor of how well a kernel does,
and takes a slice that a loop's turn reads or writes for the whole array. It tells which of two
programs has less to do.
"""

import argparse
import contextlib
import itertools
import math
import os
import re
import time
from collections.abc import Callable, Iterator
from typing import Any

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v5litepod-4")
# Choosing among algorithms means to run them.
os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_gpu_autotune_level=0"

import jax
from gpu import OURS
from jax.experimental import topologies
from jax.sharding import SingleDeviceSharding

from configs.kgmgt import get_config
from kgmgt_jax.models.chunks import chunks_for
from kgmgt_jax.models.registry import build_model
from kgmgt_jax.training.optimizer import make_optimizers
from kgmgt_jax.training.state import create_state
from kgmgt_jax.training.update import make_steps
from kgmgt_jax.types import Measurement
from tests.models.kernels import absent_gpu
from tests.training.small import random_batch

H200 = """
gpu_device_info {
  cuda_compute_capability { major: 9 }
  core_count: 132  fpus_per_core: 128  clock_rate_ghz: 1.98
  threads_per_warp: 32  threads_per_block_limit: 1024  threads_per_core_limit: 2048
  registers_per_block_limit: 65536  registers_per_core_limit: 65536
  shared_memory_per_block: 49152  shared_memory_per_block_optin: 232448
  shared_memory_per_core: 233472
  block_dim_limit_x: 2147483647  block_dim_limit_y: 65535  block_dim_limit_z: 65535
  l2_cache_size: 52428800  memory_bandwidth: 4800000000000  device_memory_size: 151397597184
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 10 }
device_description_str: "NVIDIA H200"
"""
BANDWIDTH, SHARE, LAUNCH = 4.8e12, 0.75, 2e-6  # B/s, of it reached, s a kernel
FREE = {"bitcast", "constant", "get-tuple-element", "parameter", "tuple"}  # no kernels
SIZES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "f32": 4, "s32": 4, "u32": 4, "c64": 8}


def main() -> None:
    """Compiles and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=("h200", "v5e"), default="h200")
    parser.add_argument("--variants", default="base", help="of configs/kgmgt.py")
    parser.add_argument("--dtypes", default="bfloat16")
    parser.add_argument("--step", action="store_true", help="of training, in place of frames")
    parser.add_argument("--batches", default="1,8", help="frames at once, or examples")
    parser.add_argument("--sides", default=",".join(OURS), help=f"of {', '.join(OURS)}")
    parser.add_argument("--size", type=int, default=256, help="height and width")
    options = parser.parse_args()
    gpu = options.device == "h200"
    if gpu:
        known = {"topology": "1x1x1", "target_config": H200}
        topology = topologies.get_topology_desc("", "cuda", **known)
    else:
        topology = topologies.get_topology_desc("v5e:2x2", "tpu", chips_per_host_bounds=(2, 2, 1))
    device = topology.devices[0]
    print(f"{options.size} x {options.size}, jax {jax.__version__}, {device.device_kind}")
    counted = f"{'kernels':>10}{'GB':>8}{'ms each, estimated':>23}" if gpu else ""
    print(f"{'variant':10}{'type':9}{'at once':>8}{'side':>10}{'compiling':>11}{'MiB':>7}{counted}")
    sides = options.sides if gpu else "jax"
    choices = (options.variants, options.dtypes, options.batches, sides)
    for variant, dtype, frames, side in itertools.product(*(c.split(",") for c in choices)):
        start = time.perf_counter()
        fields = {"dtype": dtype} | OURS[side]
        work = _step if options.step else _frames
        program = _compiled(work, variant, fields, (int(frames), options.size), device)
        seconds = time.perf_counter() - start
        mib = program.memory_analysis().temp_size_in_bytes / 2**20
        row = f"{variant:10}{dtype:9}{frames:>8}{side:>10}{seconds:9.0f} s{mib:7.0f}"
        print(row + (_counted(program.as_text(), int(frames)) if gpu else ""), flush=True)


def _compiled(
    work: Callable[..., Any],
    variant: str,
    fields: dict[str, Any],
    shape: tuple[int, int],
    there: Any,
) -> Any:
    """``work``, for a device that need not be here."""
    config: Any = get_config(variant)
    config.model.update(fields)
    on_device = SingleDeviceSharding(there)

    def absent(arrays: Any) -> Any:
        shaped = lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=on_device)  # noqa: E731
        return jax.tree.map(shaped, arrays)

    gpu = there.platform != "tpu"
    function, arguments = work(config, *shape)
    with chunks_for(cpu=False), absent_gpu() if gpu else contextlib.nullcontext():
        traced = function.trace(*absent(arguments))
        lowered = traced.lower(lowering_platforms=("cuda" if gpu else "tpu",))
    return lowered.compile()


def _frames(config: Any, n: int, size: int) -> tuple[Any, tuple[Any, ...]]:
    """The network on ``n`` frames of one coil."""
    model, batch = build_model(config.model.to_dict()), random_batch(n, size)
    frames = (batch[name] for name in ("target", "preceding", "succeeding"))
    arguments = (*frames, Measurement(batch["kspace"], batch["mask"]))
    variables = jax.eval_shape(lambda *a: model.init(jax.random.key(0), *a), *arguments)
    return jax.jit(lambda *a: model.apply(*a).image), (variables, *arguments)


def _step(config: Any, n: int, size: int) -> tuple[Any, tuple[Any, ...]]:
    """A step of the generator on ``n`` examples of one coil."""
    config.loss.update(perceptual=0.0, mentor=0.0)
    model, optimizers = build_model(config.model.to_dict()), make_optimizers(config)
    state = jax.eval_shape(lambda: create_state(model, None, *optimizers, seed=0))
    step, _ = make_steps(config, model, None, optimizers)
    return jax.jit(step, donate_argnums=0), (state, random_batch(n, size))


def _counted(program: str, n: int) -> str:
    """Kernels, bytes and estimate of a program for ``n`` frames or examples, as columns."""
    moved = list(_kernels(program))
    estimate = len(moved) * LAUNCH + sum(moved) / (SHARE * BANDWIDTH)
    return f"{len(moved):10}{sum(moved) / 1e9:8.2f}{1e3 * estimate / n:23.2f}"


def _kernels(program: str) -> Iterator[int]:
    """Bytes that each kernel of an HLO program reads and writes, in the order they are started."""
    program = re.sub(r"/\*index=\d+\*/", "", program)
    bodies: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in program.splitlines():
        begins = re.match(r"(?:ENTRY )?%?([\w.\-]+) \(.*\) -> .* \{$", line)
        if begins:
            lines = bodies.setdefault(begins[1], [])
        lines.append(line)
    entry = re.search(r"^ENTRY %?([\w.\-]+)", program, re.MULTILINE)
    assert entry, "no HLO program"
    yield from _of_body(bodies, entry[1])


def _of_body(bodies: dict[str, list[str]], name: str) -> Iterator[int]:
    shapes: dict[str, int] = {}
    for line in bodies[name]:
        found = re.match(r"\s+(?:ROOT )?%?([\w.\-]+) = (\([^=]*?\)|\S+) ([\w\-]+)\((.*)", line)
        if not found:
            continue
        result, shape, operation, rest = found.groups()
        shapes[result] = _bytes(shape)
        called = re.findall(r"(?:body|to_apply)=%?([\w.\-]+)", rest)
        if operation == "while":
            turns = re.search(r'known_trip_count":\{"n":"(\d+)"', rest)
            for _ in range(int(turns[1]) if turns else 1):
                yield from _of_body(bodies, called[0])
        elif operation == "call":
            yield from _of_body(bodies, called[0])
        elif operation not in FREE:
            operands = re.findall(r"%([\w.\-]+)", rest.split("), ")[0])
            yield shapes[result] + sum(shapes.get(operand, 0) for operand in operands)


def _bytes(shape: str) -> int:
    arrays = re.findall(r"\b([a-z]+\d*)\[([\d,]*)\]", shape)
    return sum(SIZES.get(t, 0) * math.prod(int(n) for n in s.split(",") if n) for t, s in arrays)


if __name__ == "__main__":
    main()
