"""Two processes of two devices each take the steps of one device."""

from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest

from kgmgt_jax.training import parallel
from tests.training.processes import run_processes
from tests.training.small import random_batch
from tests.training.toy import TOY, check_alike, small_kgmgt, three_steps, toy_config


def _two_processes(network, folder, n_model=1):
    """What each of two processes of two devices saw of the three steps."""
    arguments = [network, str(folder / "{}.npz"), str(n_model)]
    run_processes("tests.training.worker", arguments, n_devices=2)
    results = [dict(np.load(folder / f"{rank}.npz")) for rank in range(2)]
    assert [int(r.pop("n_processes")) for r in results] == [2, 2]
    return results


@pytest.mark.parametrize("n_model", [1, 4])  # a copy of the network on each device, or on all
def test_two_processes_take_the_steps_of_one_device(tmp_path, n_model):
    want = three_steps(TOY, toy_config(), parallel.make_mesh(1), random_batch(4))
    for got in _two_processes("toy", tmp_path, n_model):
        check_alike(got, want)


@pytest.mark.parametrize(
    ("processes", "shares"),
    [
        ([[0], [0], [1], [1]], [(0, 2), (1, 2)]),
        ([[0, 0], [1, 1]], [(0, 2), (1, 2)]),
        ([[0, 1]], [(0, 1), (0, 1)]),
        ([[0, 0, 1, 1], [2, 2, 3, 3]], [(0, 2), (0, 2), (1, 2), (1, 2)]),
    ],
)
def test_processes_that_share_a_network_load_the_same_examples(monkeypatch, processes, shares):
    mesh = _mesh(processes)
    for index, share in enumerate(shares):
        monkeypatch.setattr(jax, "process_index", lambda index=index: index)
        assert parallel.data_share(mesh) == share


def test_processes_cannot_share_networks_in_part():
    with pytest.raises(
        ValueError, match=r"model_parallel must .* got 3 for 3 processes of 6 devices"
    ):
        parallel.data_share(_mesh([[0, 0, 1], [1, 2, 2]]))


def _mesh(processes) -> Any:
    """What ``data_share`` looks at, of devices of these processes."""
    devices = [[SimpleNamespace(process_index=index) for index in row] for row in processes]
    array = np.array(devices, dtype=object)
    return SimpleNamespace(devices=array, size=array.size, shape={"model": array.shape[1]})


@pytest.mark.slow
def test_whole_network_takes_the_same_steps_on_any_devices(tmp_path):
    networks, config = small_kgmgt()
    one, four = (
        three_steps(networks, config, parallel.make_mesh(n), random_batch(4)) for n in (1, 4)
    )
    check_alike(four, one)
    for got in _two_processes("kgmgt", tmp_path):
        check_alike(got, one)


LAUNCHED = {"MASTER_ADDR": "host", "MASTER_PORT": "1000", "WORLD_SIZE": "4", "RANK": "3"}


@pytest.fixture
def joined(monkeypatch):
    """What ``jax.distributed.initialize`` was called with."""
    calls = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda **options: calls.append(options))
    return calls


@pytest.mark.parametrize(
    "environment",
    [
        {},
        LAUNCHED | {"WORLD_SIZE": "1", "RANK": "0"},
        {"SLURM_STEP_NODELIST": "a", "SLURM_NTASKS": "1"},
        {"SLURM_NTASKS": "4"},  # a batch script outside srun
        {"TPU_WORKER_HOSTNAMES": "localhost"},
    ],
)
def test_a_process_by_itself_joins_nobody(joined, environment):
    parallel.initialise_distributed(environment)
    assert joined == []


@pytest.mark.parametrize(
    "environment",
    [
        {"SLURM_STEP_NODELIST": "a,b", "SLURM_NTASKS": "2"},
        {"OMPI_COMM_WORLD_SIZE": "2"},
        {"TPU_WORKER_HOSTNAMES": "a,b"},
        {"KGMGT_DISTRIBUTED": "1"},
    ],
)
def test_schedulers_are_left_to_jax(joined, environment):
    parallel.initialise_distributed(environment)
    assert joined == [{}]


def test_launcher_s_variables_are_understood(joined):
    torchrun = {"TORCHELASTIC_RUN_ID": "x", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}
    parallel.initialise_distributed(LAUNCHED)
    parallel.initialise_distributed(LAUNCHED | torchrun)
    plain = {"coordinator_address": "host:1000", "num_processes": 4, "process_id": 3}
    elastic = plain | {"coordinator_address": "host:1001", "local_device_ids": [1]}
    assert joined == [plain, elastic]


def test_missing_launcher_variables_are_named():
    with pytest.raises(ValueError, match=r"got no \['MASTER_PORT'\]"):
        parallel.initialise_distributed({k: v for k, v in LAUNCHED.items() if k != "MASTER_PORT"})


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"MASTER_PORT": "http"}, "whole number in MASTER_PORT, got 'http'"),
        ({"LOCAL_WORLD_SIZE": "2"}, "whole number in LOCAL_RANK, got nothing"),
    ],
)
def test_launcher_variables_that_are_no_numbers_are_named(joined, variables, expected):
    with pytest.raises(ValueError, match=expected):
        parallel.initialise_distributed(LAUNCHED | variables)
