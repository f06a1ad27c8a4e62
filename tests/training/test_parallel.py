"""Devices: one or several make no difference, and what they tell each other is gradients."""

import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from kgmgt_jax.training import parallel
from kgmgt_jax.training.optimizer import make_optimizers
from kgmgt_jax.training.state import create_state
from kgmgt_jax.training.update import make_joint, make_steps
from tests.training.small import random_batch
from tests.training.toy import (
    TOY,
    OneStage,
    Score,
    check_alike,
    small_kgmgt,
    three_steps,
    toy_config,
)

ROOT = Path(__file__).parents[2]
LOOK_AT_SPLIT_ARRAYS = """
import numpy as np
from kgmgt_jax.training import parallel
from kgmgt_jax.training.comparison import not_finite
from kgmgt_jax.training.state import NetworkState, TrainState
arrays = {str(i): np.zeros((128, 128), np.float32) for i in range(60)}
network = NetworkState(arrays, {}, arrays)
state = TrainState(np.zeros(()), network, network, arrays, np.zeros(2, np.uint32))
print(repr(not_finite(parallel.replicate(state, parallel.make_mesh(4, n_model=2)))))
"""
COLLECTIVES = r"\b(all-gather|all-reduce|all-to-all|collective-permute|reduce-scatter)(?:-start)?\("
NETWORKS = ("generator", "critic")
STEPS = (*NETWORKS, "joint")


@pytest.mark.parametrize("named", [None, "", "cpu", "cuda,cpu"])
def test_a_cpu_serves_unless_others_are_named(monkeypatch, named):
    monkeypatch.delenv("JAX_PLATFORMS")
    if named is not None:
        monkeypatch.setenv("JAX_PLATFORMS", named)
    assert parallel.make_mesh(1).size == 1


def _lowered(networks, config, n_devices, name):
    """A step lowered for a mesh, from shapes alone."""
    optimizers = make_optimizers(config)
    state = create_state(*networks, *optimizers, seed=0)
    steps = *make_steps(config, *networks, optimizers), make_joint(config, *networks, optimizers)
    step = steps[STEPS.index(name)]
    arguments = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), (state, random_batch(8))
    )
    return parallel.jit_step(step, parallel.make_mesh(n_devices), state), arguments


def _collectives(networks, config, name):
    """What the devices of a mesh of four exchange in a step."""
    step, arguments = _lowered(networks, config, 4, name)
    quick = {"xla_backend_optimization_level": 0}  # of LLVM, after the partitioner
    return set(re.findall(COLLECTIVES, step.lower(*arguments).compile(quick).as_text()))


def test_devices_exchange_sums_and_nothing_else():
    assert _collectives((OneStage(), Score()), toy_config(), "joint") == {"all-reduce"}


@pytest.mark.slow
@pytest.mark.parametrize("step", STEPS)
def test_devices_exchange_sums_and_nothing_else_in_the_whole_network(step):
    assert _collectives(*small_kgmgt(), step) == {"all-reduce"}


@pytest.mark.parametrize("network", NETWORKS)
def test_parts_of_a_batch_stay_on_their_devices(network):
    assert _collectives(TOY, toy_config(accumulation=2), network) == {"all-reduce"}


@pytest.mark.skipif(jax.__version_info__ >= (0, 12), reason="JAX 0.12 leaves the batch divided")
def test_fourier_transforms_left_to_the_partitioner_collect_the_batch(monkeypatch):
    """Why ``_by_device`` is there; it can go with the last JAX that runs this."""
    monkeypatch.setattr(parallel, "_by_device", lambda mesh, transform, x: transform(x))
    assert "all-gather" in _collectives(TOY, toy_config(), "generator")


@pytest.fixture(scope="module")
def one_device():
    return three_steps(TOY, toy_config(), parallel.make_mesh(1), random_batch(4))


def test_a_mesh_has_as_many_devices_as_are_asked_for():
    assert [parallel.make_mesh(n).size for n in (1, 2, None)] == [1, 2, 4]


def test_four_devices_take_the_steps_of_one(one_device):
    four = three_steps(TOY, toy_config(), parallel.make_mesh(4), random_batch(4))
    check_alike(four, one_device)


def test_devices_that_share_a_network_take_the_steps_of_one(one_device, monkeypatch):
    monkeypatch.setattr(parallel, "_SMALLEST_SPLIT", 1)
    mesh = parallel.make_mesh(4, n_model=2)
    kernel = parallel.replicate({"kernel": np.ones((3, 3, 4, 2))}, mesh)["kernel"]
    assert kernel.addressable_shards[0].data.shape == (3, 3, 4, 1)
    check_alike(three_steps(TOY, toy_config(), mesh, random_batch(4)), one_device)


def test_devices_that_share_a_network_look_at_it_together():
    patience = "--xla_cpu_collective_call_terminate_timeout_seconds=10"  # XLA ends the process
    environment = os.environ | {"XLA_FLAGS": f"{os.environ['XLA_FLAGS']} {patience}"}
    command = [sys.executable, "-c", LOOK_AT_SPLIT_ARRAYS]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "''\n"), done.stderr[-2000:]


@pytest.mark.parametrize("name", STEPS)
def test_steps_lower_for_gpus_and_tpus(name):
    step, arguments = _lowered((OneStage(), Score()), toy_config(), 1, name)
    exported = jax.export.export(step, platforms=("cuda", "tpu"))(*arguments)
    assert exported.platforms == ("cuda", "tpu")


def test_batch_must_divide_among_devices_and_parts():
    mesh = parallel.make_mesh(4)
    parallel.check_batch_size(8, mesh, 2)
    with pytest.raises(ValueError, match=r"batch_size=6 n_devices=4; change.*CUDA_VISIBLE"):
        parallel.check_batch_size(6, mesh)
    with pytest.raises(ValueError, match="batch_size=4 n_devices=4 accumulation=2"):
        parallel.check_batch_size(4, mesh, 2)


@pytest.mark.parametrize("n_model", [3, 0])
def test_network_must_divide_among_devices(n_model):
    with pytest.raises(ValueError, match=f"got {n_model} for 4"):
        parallel.make_mesh(4, n_model=n_model)


def test_missing_platform_is_refused():
    parallel.check_platform("")
    parallel.check_platform("cpu")
    with pytest.raises(ValueError, match="expected a gpu to compute on, got cpu"):
        parallel.check_platform("gpu")


def test_an_accelerator_that_is_named_and_missing_is_refused(monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    with pytest.raises(ValueError, match="expected a device of JAX_PLATFORMS=cuda, got a cpu"):
        parallel.make_mesh()


def test_no_device_at_all_is_refused(monkeypatch):
    def devices():
        raise RuntimeError("Unable to initialize backend 'cuda'")

    monkeypatch.setattr(jax, "devices", devices)
    with pytest.raises(ValueError, match="initialize backend 'cuda'"):
        parallel.make_mesh()
