"""How long does a frame take, against PyTorch; and a cine at once, against frame by frame?

    python benchmarks/inference.py

1. A frame of the released network with the same random weights, float32: this package, and the
   independent PyTorch twin (tests/oracles), in turn, each in a process of its own. Also the largest
   difference of their outputs; and the twin's time in units of one 3 x 3 convolution of 64 channels
   in PyTorch at the same size, by which a twin that is written too slowly would show.
2. Cines of several lengths by ``reconstruct_cine`` and frame by frame, also in turn.

Times are medians; memory is the peak resident set while reconstructing.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from processes import Side, in_process, measure, peak_mib, processor, spread
from released_network import jax_variables, random_frames, torch_networks


def main() -> None:
    """Runs the sides in turn and prints both tables; or, with ``--side``, is one of them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=256, help="height and width of the frame")
    parser.add_argument("--calls", type=int, default=5, help="timed calls a process")
    parser.add_argument("--rounds", type=int, default=2, help="processes of each side")
    parser.add_argument("--variant", default="base", help="of configs/kgmgt.py, for the cines")
    parser.add_argument("--cine_size", type=int, default=128, help="height and width there")
    parser.add_argument("--lengths", default="4,12", help="frames of the cines")
    parser.add_argument("--part", choices=("frame", "cine"), help="only this table")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--exchange", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--length", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        print(json.dumps(SIDES[options.side](options)))
        return
    if options.part != "cine":
        _frame_table(options)
    if options.part != "frame":
        _cine_table(options)


def _frame_table(options: argparse.Namespace) -> None:
    results: dict[str, list[dict[str, Any]]] = {"torch": [], "jax": []}  # torch draws the weights
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(options.rounds):
            for side, runs in results.items():
                runs.append(in_process(side, "--exchange", folder))
                print(f"{side}: {[round(t, 2) for t in runs[-1]['seconds']]} s", file=sys.stderr)
        images = [np.load(Path(folder) / f"{side}.npy") for side in results]
    print(f":released, {options.size} x {options.size}, float32; {results['jax'][0]['device']}")
    print("          frame (median)    fastest    peak memory    before the first frame")
    rows = {side: spread(runs) for side, runs in results.items()}
    for side, (median, fastest, mib) in rows.items():
        start = results[side][0]["start"]
        print(f"{side:8}  {median:12.2f} s {fastest:9.2f} s {mib:10.0f} MiB    {start:.0f} s")
    ratios = [a / b for a, b in zip(rows["torch"], rows["jax"], strict=True)]
    print(f"torch / jax {ratios[0]:10.2f}   {ratios[1]:9.2f} {ratios[2]:14.2f}")
    difference = np.max(np.abs(images[0] - images[1])) / np.max(np.abs(images[0]))
    print(f"largest difference over largest value: {difference:.1e}")
    yardsticks = [run["convolutions"] for run in results["torch"]]
    print(f"the twin takes {np.median(yardsticks):.0f} convolutions 64 -> 64 (the authors': 290)")


def _cine_table(options: argparse.Namespace) -> None:
    lengths = [int(n) for n in options.lengths.split(",")]
    results: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for _ in range(options.rounds):
        for n in lengths:
            for side in ("frames", "cine"):
                run = in_process(side, "--length", str(n))
                print(f"{side}: {[round(t / n, 3) for t in run['seconds']]} s", file=sys.stderr)
                results.setdefault((side, n), []).append(run)
    size = options.cine_size
    print(f":{options.variant}, {size} x {size}, float32; {os.cpu_count()} cores, {processor()}")
    print("frames   how                 a frame (median)    fastest    peak memory")
    for n in lengths:
        rows = [spread(results[side, n]) for side in ("frames", "cine")]
        names = ("frame by frame", "whole cine")
        for name, (median, fastest, mib) in zip(names, rows, strict=True):
            times = f"{median / n:14.3f} s {fastest / n:9.3f} s"
            print(f"{n:6}   {name:18} {times} {mib:10.0f} MiB")
        print(f"{'':6}   frame by frame / cine {rows[0][0] / rows[1][0]:10.2f}")


def _torch_side(options: argparse.Namespace) -> dict[str, Any]:
    import torch

    from tests.oracles import torch_kgmgt as twin

    nets = torch_networks(options.exchange)
    frames = [torch.from_numpy(frame) for frame in random_frames(1, options.size)]

    def call() -> np.ndarray:
        with torch.inference_mode():
            return twin.two_pass(*nets, *frames)[1].numpy()

    name = f"{torch.get_num_threads()} threads, {processor()}"
    result = measure(lambda: (call, peak_mib, name), options.calls)
    np.save(options.exchange / "torch.npy", call())
    conv, x = torch.nn.Conv2d(64, 64, 3, padding=1), torch.randn(1, 64, options.size, options.size)
    with torch.inference_mode():
        seconds = []
        for _ in range(20):
            start = time.perf_counter()
            conv(x)
            seconds.append(time.perf_counter() - start)
    return result | {"convolutions": np.median(result["seconds"]) / np.median(seconds)}


def _jax_side(options: argparse.Namespace) -> dict[str, Any]:
    import jax

    from configs.kgmgt import get_config
    from kgmgt_jax.models.registry import build_model

    config: Any = get_config("released")
    model = build_model(config.model.to_dict() | {"dtype": "float32"})

    def make() -> Side:
        variables = jax_variables(options.exchange)
        frames = [jax.device_put(x[:, 0] + 1j * x[:, 1]) for x in random_frames(1, options.size)]
        compiled = jax.jit(lambda *args: model.apply(*args).image)
        compiled = compiled.lower(variables, *frames).compile()
        call = lambda: np.asarray(compiled(variables, *frames))  # noqa: E731
        image = call()[0]
        np.save(options.exchange / "jax.npy", np.stack([image.real, image.imag])[None])
        return call, peak_mib, f"{os.cpu_count()} cores, {processor()}"

    return measure(make, options.calls)


def _cine_side(options: argparse.Namespace) -> dict[str, Any]:
    import jax

    from configs.kgmgt import get_config
    from kgmgt_jax.evaluation.cine import CineInput
    from kgmgt_jax.evaluation.sequence import reconstruct_cine
    from kgmgt_jax.models.initialisation import initialise
    from kgmgt_jax.models.registry import build_model
    from kgmgt_jax.types import Measurement
    from tests.training.small import random_batch

    n = options.length
    batch = random_batch(n, options.cine_size)
    cine = CineInput(batch["target"], batch["kspace"], batch["mask"]).on_device()
    config: Any = get_config(options.variant)
    model = build_model(config.model.to_dict() | {"dtype": "float32"})

    def arguments(t: int) -> tuple[Any, ...]:
        frames = (cine.images[i % n][None] for i in (t, t - 1, t + 1))
        return *frames, Measurement(cine.kspace[t][None], cine.mask[t][None])

    variables = jax.device_put(initialise(model, 0, *arguments(0)))
    one_frame = jax.jit(lambda *args: model.apply(*args).image)

    def frame_by_frame() -> np.ndarray:
        images = [np.asarray(one_frame(variables, *arguments(t))) for t in range(n)]
        return np.concatenate(images)

    def whole_cine() -> np.ndarray:
        return np.asarray(reconstruct_cine(model, variables, cine))

    call = whole_cine if options.side == "cine" else frame_by_frame
    return measure(lambda: (call, peak_mib, processor()), options.calls)


SIDES = {"torch": _torch_side, "jax": _jax_side, "frames": _cine_side, "cine": _cine_side}


if __name__ == "__main__":
    main()
