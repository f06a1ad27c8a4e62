"""Signals that end a run: in one process, and in two that have to stop at the same step."""

import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kgmgt_jax.training.stopping import stop_signals

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_stops_after_the_step_and_not_within(number):
    before = signal.getsignal(number)
    with stop_signals() as stopped:
        assert not stopped(1)
        signal.raise_signal(number)
        assert stopped(2) and stopped(3)
    assert signal.getsignal(number) is before


def test_the_first_signal_is_answered_at_once(capfd):
    with stop_signals():
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        assert capfd.readouterr().err.count("stopping, what is done is kept") == 1


def test_a_second_interruption_does_not_wait():
    with stop_signals() as stopped:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)  # of a scheduler, which may say it often
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        assert stopped(1)


PROCESS = """
import sys, time, jax
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_cpu_collectives_implementation", "gloo")
number = int(sys.argv[2])
jax.distributed.initialize(f"localhost:{sys.argv[1]}", num_processes=2, process_id=number)
from jax.experimental import multihost_utils
from kgmgt_jax.training.stopping import stop_signals
with stop_signals() as stopped:
    for step in range(1, 3000):
        time.sleep(0.01 + 0.003 * number)  # one is ahead of the other
        print("step", step, flush=True)
        if stopped(step):
            print("stopped", step, flush=True)
            break
multihost_utils.sync_global_devices("end")
"""


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_two_processes_stop_at_the_same_step(tmp_path, number):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    logs = [tmp_path / f"{i}.log" for i in range(2)]
    processes = []
    for i, log in enumerate(logs):
        command = [sys.executable, "-c", PROCESS, str(port), str(i)]
        with log.open("w") as file:
            processes.append(subprocess.Popen(command, stdout=file, stderr=file, cwd=ROOT))
    try:
        end = time.monotonic() + 120
        while not all("step 5\n" in log.read_text() for log in logs):
            assert time.monotonic() < end, [log.read_text() for log in logs]
            time.sleep(0.05)
        processes[1].send_signal(number)  # only one is told
        assert [process.wait(120) for process in processes] == [0, 0]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    steps = [re.findall(r"stopped (\d+)", log.read_text()) for log in logs]
    assert steps[0] == steps[1] != []
