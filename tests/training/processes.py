"""Several processes of one run, started and waited for."""

import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.scripts_environment import scripts_environment

__all__ = ["run_processes"]

_ROOT = Path(__file__).resolve().parents[2]


def run_processes(
    module: str,
    arguments: Sequence[str],
    *,
    count: int = 2,
    n_devices: int = 1,
    code: int = 0,
    **more: str,
) -> list[str]:
    """Runs a module in processes that join each other, or in one; what each wrote on stderr.

    Args:
        module: what ``python -m`` takes.
        arguments: of each process.
        count: how many processes.
        n_devices: of each.
        code: with which each shall end.
        **more: environment variables.
    """
    environment = scripts_environment(n_devices=n_devices, **more)
    if count > 1:
        joined = {"MASTER_ADDR": "localhost", "MASTER_PORT": str(_free_port())}
        environment |= joined | {"WORLD_SIZE": str(count)}
    command = [sys.executable, "-m", module, *arguments]
    processes = []
    for rank in range(count):
        own = environment | ({"RANK": str(rank)} if count > 1 else {})
        process = subprocess.Popen(command, cwd=_ROOT, env=own, stderr=subprocess.PIPE, text=True)
        processes.append(process)
    try:
        errors = [process.communicate(timeout=900)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [code] * count, errors
    return errors


def _free_port() -> int:
    with socket.socket() as s:
        s.bind(("localhost", 0))
        return s.getsockname()[1]
