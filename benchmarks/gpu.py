"""Is the network faster on a GPU than PyTorch, and how much of the card does it use?

    python benchmarks/gpu.py
    python benchmarks/train_step.py --batch 4 --dtype bfloat16 --steps 20 [--pallas] [--unroll]

Frames of 256 x 256 alone, in batches, and as a cine of 12, in float32 and bfloat16, by

- jax: this package, `:released` and `:base`, as XLA compiles it;
- pallas: the same with `model.pallas=True`;
- unrolled: that with `model.unroll=True`, too;
- eager, compile: `:released` in the independent PyTorch twin (tests/oracles), as it is and under
  `torch.compile`, compiled for each number of frames.

Of `:released` all have the same random weights; the error column is the distance of the single
frame from that of the first float32 side. Both frameworks may multiply float32 in TensorFloat-32,
and try which convolution is fastest, as JAX does by default. TFLOP/s are XLA's count of the
network's arithmetic over the time, and `of card` compares them with a product of two large matrices
of the same type on the same device. Each side and type is a process of its own; times are medians,
memory is the most that the framework took (JAX: since the process began, trying included).

What is measured is told at once and kept in a folder (--rows), with JAX's compiled programs, and
the table printed from all that is there. So a long run can be cut into several: `--sides`,
`--variants` and `--dtypes` choose. What fails is told, and the rest goes on.
"""

import argparse
import itertools
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from processes import Side, in_process, measure, peak_mib, processor
from released_network import as_jax, jax_variables, random_frames, torch_networks

OURS = {"jax": {}, "pallas": {"pallas": True}, "unrolled": {"pallas": True, "unroll": True}}
SIDES = ("eager", *OURS, "compile")
Row = dict[str, Any]


def main() -> None:
    """Runs the chosen sides in turn and prints the table; or, with ``--side``, is one of them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sides", default=",".join(SIDES))
    parser.add_argument("--variants", default="released,base", help="of configs/kgmgt.py")
    parser.add_argument("--dtypes", default="float32,bfloat16")
    parser.add_argument("--batches", default="1,8", help="frames at once")
    parser.add_argument("--frames", type=int, default=12, help="of the cine; 0: none")
    parser.add_argument("--size", type=int, default=256, help="height and width")
    parser.add_argument("--matrix", type=int, default=8192, help="side of the matrices")
    parser.add_argument("--calls", type=int, default=20, help="timed calls of each row")
    parser.add_argument("--rows", type=Path, default=Path("runs/gpu"), help="folder for results")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--variant", help=argparse.SUPPRESS)
    parser.add_argument("--dtype", help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.rows.mkdir(parents=True, exist_ok=True)
    if options.side:
        print(json.dumps(_run(options)))
        return
    choices = (options.variants, options.dtypes, options.sides)
    for variant, dtype, side in itertools.product(*(c.split(",") for c in choices)):
        if variant == "released" or side in OURS:
            try:
                in_process(side, "--variant", variant, "--dtype", dtype)
            except subprocess.CalledProcessError as error:
                _tell(f"{variant}, {dtype}, {side}: failed, exit code {error.returncode}")
    _print_table(options)


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _print_table(options: argparse.Namespace) -> None:
    order = lambda path: [*path.stem.split("_")[:2], SIDES.index(path.stem.split("_")[2])]  # noqa: E731
    paths = sorted(options.rows.glob("*.json"), key=order)
    results = {tuple(path.stem.split("_")): json.loads(path.read_text()) for path in paths}
    print(f"{options.size} x {options.size}; {', '.join({r['device'] for r in results.values()})}")
    print(
        f"{'variant':10}{'type':10}{'frames':>9}{'side':>9}{'ms a frame':>12}{'fastest':>9}"
        f"{'TFLOP/s':>9}{'of card':>9}{'MiB':>7}{'error':>9}{'eager, compile / it':>21}"
    )
    for (variant, dtype, side), result in results.items():
        for load, row in result["loads"].items():
            rivals = (results.get((variant, dtype, rival), {}) for rival in ("eager", "compile"))
            same = (r if r.get("device") == result["device"] else {} for r in rivals)
            rows = (rival.get("loads", {}).get(load) for rival in same)
            ratios = [f"{rival['ms'] / row['ms']:.2f}" if rival else "-" for rival in rows]
            rate, card = _rates(results, variant, dtype, row["ms"])
            error = _error(options.rows, results, variant, dtype, side)
            print(
                f"{variant:10}{dtype:10}{load:>9}{side:>9}{row['ms']:12.2f}{row['fastest']:9.2f}"
                f"{rate:>9}{card:>9}{row['mib']:7.0f}{error:>9}{' '.join(ratios):>21}"
            )


def _rates(results: dict[tuple[str, ...], Row], variant: str, dtype: str, ms: float) -> list[str]:
    """Achieved TFLOP/s and its share of the card's rate, as far as the side jax was run."""
    known = [r for (v, _, _), r in results.items() if v == variant and "gflop" in r]
    rates = [r["tflops"] for (_, d, _), r in results.items() if d == dtype and "tflops" in r]
    if not known or not rates:
        return ["-", "-"]
    rate = known[0]["gflop"] / ms
    return [f"{rate:.1f}", f"{rate / max(rates):.1%}"]


def _error(
    folder: Path, results: dict[tuple[str, ...], Row], variant: str, dtype: str, side: str
) -> str:
    first = next((key for key in results if key[:2] == (variant, "float32")), None)
    if first is None:
        return "-"
    want, got = (
        np.load(folder / f"{'_'.join(key)}.npy") for key in (first, (variant, dtype, side))
    )
    return f"{np.linalg.norm(got - want) / np.linalg.norm(want):.1e}"


def _run(options: argparse.Namespace) -> Row:
    """All loads of one side: milliseconds a frame, memory; and what the device can do."""
    torch_side = options.side in ("eager", "compile")
    prepare, image, device, describe = (_torch_side if torch_side else _jax_side)(options)
    name = f"{options.variant}_{options.dtype}_{options.side}"
    np.save(options.rows / f"{name}.npy", image)
    loads = {f"{n}": (n, False) for n in map(int, options.batches.split(","))}
    if options.frames:
        loads[f"cine {options.frames}"] = (options.frames, True)
    result: Row = {"device": device, "loads": {}}

    def keep() -> None:
        (options.rows / f"{name}.json").write_text(json.dumps(result))

    for load, (n, cine) in loads.items():
        try:
            times = measure(lambda n=n, cine=cine: prepare(n, cine), options.calls)
        except Exception as error:  # too much for the memory, perhaps, which others are not
            _tell(f"{name}, {load}: {type(error).__name__}: {error}")
            continue
        ms = [1e3 * t / n for t in times["seconds"]]
        row = {"ms": float(np.median(ms)), "fastest": min(ms), "mib": times["mib"]}
        result["loads"][load] = row
        keep()
        _tell(f"{name}, {load}: {row['ms']:.2f} ms a frame, {row['mib']:.0f} MiB; {device}")
    result |= describe()
    keep()
    return result


# Makes a side of a number of frames (a cine?), an image of one, the device, and what it can do.
Prepared = tuple[Callable[[int, bool], Side], np.ndarray, str, Callable[[], Row]]


def _torch_side(options: argparse.Namespace) -> Prepared:
    import torch

    from tests.oracles import torch_kgmgt as twin

    as_jax(torch)
    gpu = torch.cuda.is_available()
    device = torch.device("cuda" if gpu else "cpu")
    nets = [net.to(device) for net in torch_networks(options.rows)]

    def reconstruct(*frames: torch.Tensor) -> torch.Tensor:
        return twin.two_pass(*nets, *frames)[1]

    compiled = reconstruct
    if options.side == "compile":
        compiled = torch.compile(reconstruct, dynamic=False)
    half = torch.autocast(device.type, torch.bfloat16, options.dtype == "bfloat16")

    def call(frames: list[torch.Tensor]) -> torch.Tensor:
        with torch.inference_mode(), half:
            image = compiled(*frames)
        if gpu:
            torch.cuda.synchronize()
        return image

    def memory() -> float:
        return torch.cuda.max_memory_allocated() / 2**20 if gpu else peak_mib()

    def prepare(n: int, cine: bool) -> Side:
        frames = list(torch.from_numpy(random_frames(n, options.size)).to(device))
        if cine:
            frames = [frames[0], frames[0].roll(1, 0), frames[0].roll(-1, 0)]
        call(frames)
        if gpu:
            torch.cuda.reset_peak_memory_stats()
        return lambda: call(frames), memory, ""

    image = call(list(torch.from_numpy(random_frames(1, options.size)).to(device)))
    name = torch.cuda.get_device_name() if gpu else processor()
    return prepare, image.float().cpu().numpy(), name, dict


def _jax_side(options: argparse.Namespace) -> Prepared:
    import jax

    from configs.kgmgt import get_config
    from kgmgt_jax.evaluation.cine import CineInput
    from kgmgt_jax.evaluation.flops import count_flops
    from kgmgt_jax.evaluation.sequence import reconstruct_cine
    from kgmgt_jax.models.initialisation import initialise
    from kgmgt_jax.models.registry import build_model
    from kgmgt_jax.types import Measurement

    jax.config.update("jax_compilation_cache_dir", str((options.rows / "compiled").absolute()))
    config: Any = get_config(options.variant)
    how = OURS[options.side]
    model = build_model(config.model.to_dict() | {"dtype": options.dtype} | how)

    def arguments(n: int) -> tuple[Any, ...]:
        channels = np.moveaxis(random_frames(n, options.size), 2, -1)
        frames = channels[..., 0] + 1j * channels[..., 1]
        mask = np.zeros((n, options.size, options.size), np.float32)
        mask[:, ::6] = 1
        kspace = np.fft.fft2(frames[0], norm="ortho")[:, None].astype(np.complex64)
        return jax.device_put((*frames, Measurement(kspace * mask[:, None], mask)))

    one = arguments(1)
    if options.variant == "released":
        variables = jax_variables(options.rows)
    else:
        variables = jax.device_put(initialise(model, 0, *one))
    apply = jax.jit(lambda variables, *args: model.apply(variables, *args).image)
    device = jax.devices()[0]

    def memory() -> float:
        used = device.memory_stats() if device.platform != "cpu" else None
        return used["peak_bytes_in_use"] / 2**20 if used else peak_mib()

    def prepare(n: int, cine: bool) -> Side:
        batch = arguments(n)
        whole = CineInput(batch[0], batch[3].kspace, batch[3].mask)

        def call() -> Any:
            if cine:
                images = reconstruct_cine(model, variables, whole, frames_at_once=n)
            else:
                images = apply(variables, *batch)
            return jax.block_until_ready(images)

        call()
        return call, memory, ""

    def describe() -> Row:
        if how:  # the same network, whose kernels XLA cannot count
            return {}
        flops = count_flops(lambda *args: model.apply(*args).image, variables, *one)
        work = {} if flops is None else {"gflop": flops / 1e9}
        return work | {"tflops": _matrix_rate(options)}

    image = np.asarray(apply(variables, *one))
    name = processor() if device.platform == "cpu" else device.device_kind
    return prepare, np.stack([image.real, image.imag], axis=1), name, describe


def _matrix_rate(options: argparse.Namespace) -> float:
    """TFLOP/s of a product of two square matrices of random numbers."""
    import jax

    keys = jax.random.split(jax.random.key(0))
    shape = (options.matrix, options.matrix)
    a, b = (jax.random.normal(key, shape, options.dtype) for key in keys)
    product = jax.jit(lambda a, b: a @ b)
    call = lambda: jax.block_until_ready(product(a, b))  # noqa: E731
    seconds = measure(lambda: (call, lambda: 0.0, ""), options.calls)["seconds"]
    return 2 * options.matrix**3 / float(np.median(seconds)) / 1e12


if __name__ == "__main__":
    main()
