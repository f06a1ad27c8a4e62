"""How long does a training step take, and in how much memory, against PyTorch?

    python benchmarks/train_step.py [--adversarial] [--pallas] [--unroll]

Generator steps (forward, backward, Adam; L1 alone) on random frames, with ``--adversarial`` a step
of the released critic before each: this package, then the independent PyTorch twin of the released
network (tests/oracles), each in a process of its own and in turn, on the same cores or the same
GPU, where ``--pallas`` and ``--unroll`` say how this package computes. Prints the median time of a
step, the peak memory while stepping (resident set; on a GPU what the framework allocated), and once
what compiling takes.
"""

import argparse
import json
import os
import subprocess
import sys
from typing import Any

from processes import Side, in_process, measure, peak_mib, processor, spread
from released_network import as_jax


def main() -> None:
    """Runs the sides in turn and prints the table; or, with ``--side``, is one of them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--variant", default="released", help="of configs/kgmgt.py")
    parser.add_argument("--size", type=int, default=128, help="height and width of the frames")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--steps", type=int, default=5, help="timed steps a process")
    parser.add_argument("--rounds", type=int, default=1, help="processes of each side")
    parser.add_argument("--adversarial", action="store_true", help="train a critic, too")
    parser.add_argument("--pallas", action="store_true", help="this package's kernels, on a GPU")
    parser.add_argument("--unroll", action="store_true", help="compile each block by itself")
    parser.add_argument("--side", choices=("jax", "torch"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        make = _jax_side if options.side == "jax" else _torch_side
        print(json.dumps(measure(lambda: make(options), options.steps)))
        return
    results = {"jax": [], "torch": []}
    for _ in range(options.rounds):
        for side, runs in results.items():
            try:
                runs.append(in_process(side))
            except subprocess.CalledProcessError as error:
                print(f"{side}: failed, exit code {error.returncode}", file=sys.stderr)
                continue
            told = f"{[round(t, 3) for t in runs[-1]['seconds']]} s, {runs[-1]['device']}"
            print(f"{side}: {told}", file=sys.stderr)
    _print_table(options, {side: runs for side, runs in results.items() if runs})


def _print_table(options: argparse.Namespace, results: dict[str, list[dict[str, Any]]]) -> None:
    devices = [runs[0]["device"] for runs in results.values()]
    print(
        f":{options.variant}, {options.size} x {options.size}, batch {options.batch}, "
        f"{options.dtype}, L1 {'and critic' if options.adversarial else 'alone'}; "
        f"{' and '.join(dict.fromkeys(devices))}"
    )
    print("          step (median)    fastest    peak memory    before the first step")
    rows = {}
    for side, runs in results.items():
        median, fastest, mib = spread(runs)
        rows[side] = (median, mib)
        start = f"{runs[0]['start']:.0f} s, {runs[0]['start_mib']:.0f} MiB"
        print(f"{side:8}  {median:11.3f} s {fastest:9.3f} s {mib:10.0f} MiB    {start}")
    if len({device.split(", ")[-1] for device in devices}) == 1 < len(rows):
        ratios = [a / b for a, b in zip(rows["jax"], rows["torch"], strict=True)]
        print(f"jax / torch {ratios[0]:9.2f}   {'':9} {ratios[1]:13.2f}")


def _jax_side(options: argparse.Namespace) -> Side:
    import jax

    from configs.kgmgt import get_config
    from kgmgt_jax.models.critic import Critic
    from kgmgt_jax.models.registry import build_model
    from kgmgt_jax.training import parallel
    from kgmgt_jax.training.optimizer import make_optimizers
    from kgmgt_jax.training.state import create_state
    from kgmgt_jax.training.update import make_update
    from tests.training.small import random_batch

    config: Any = get_config(options.variant)
    config.model.update(dtype=options.dtype, pallas=options.pallas, unroll=options.unroll)
    config.loss.update(perceptual=0.0, mentor=0.0)
    model, optimizers = build_model(config.model.to_dict()), make_optimizers(config)
    critic = Critic(norm="batch", sigmoid=True) if options.adversarial else None
    mesh = parallel.make_mesh(1)
    state = parallel.replicate(create_state(model, critic, *optimizers, seed=0), mesh)
    batch = parallel.put_batch(random_batch(options.batch, options.size), mesh)
    update = make_update(config, model, critic, optimizers, state, mesh)
    held = [state]  # donated to each step

    def step() -> None:
        held[0], metrics = update(held[0], batch)
        jax.block_until_ready((held[0], metrics))

    step()  # compiles
    device: Any = mesh.devices.item()
    if device.platform == "cpu":
        return step, peak_mib, f"{os.cpu_count()} cores, {processor()}"
    return step, lambda: device.memory_stats()["peak_bytes_in_use"] / 2**20, device.device_kind


def _torch_side(options: argparse.Namespace) -> Side:
    import torch

    from tests.oracles import torch_kgmgt as twin

    as_jax(torch)
    gpu = torch.cuda.is_available()
    device = torch.device("cuda" if gpu else "cpu")
    nets = [twin.ReleasedGenerator(), twin.Extractor(), twin.ReferenceVGG()]
    for net in nets:
        net.to(device).train()
    optimizer = torch.optim.Adam(nets[0].parameters(), 1e-3)
    critic = twin.Critic().to(device).train()
    critic_optimizer = torch.optim.Adam(critic.parameters(), 1e-4)
    frames = torch.randn(4, options.batch, 2, options.size, options.size, device=device)
    real = frames[3]

    def reconstruct() -> torch.Tensor:
        with torch.autocast(device.type, torch.bfloat16, options.dtype == "bfloat16"):
            _, image, _ = twin.two_pass(*nets, *frames[:3])
        return image.float()

    def criticise(fake: torch.Tensor) -> None:
        critic_optimizer.zero_grad()
        alpha = torch.rand(options.batch, 1, 1, 1, device=device)
        penalty = twin.gradient_penalty(critic, real, fake, alpha)
        (critic(fake).mean() - critic(real).mean() + penalty).backward()
        critic_optimizer.step()

    compiled = torch.compile(reconstruct) if gpu else reconstruct

    def step() -> None:
        optimizer.zero_grad()
        image = compiled()
        loss = (image - real).abs().mean()
        if options.adversarial:
            criticise(image.detach())
            loss -= 1e-6 * critic(image).mean()
        loss.backward()
        optimizer.step()
        if gpu:
            torch.cuda.synchronize()

    if gpu:
        step()  # compiles, and tries convolutions
        torch.cuda.reset_peak_memory_stats()
        name = torch.cuda.get_device_name()
        return step, lambda: torch.cuda.max_memory_allocated() / 2**20, name
    return step, peak_mib, f"{torch.get_num_threads()} threads, {processor()}"


if __name__ == "__main__":
    main()
