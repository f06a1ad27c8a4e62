"""The compared sides of a benchmark, each in a process of its own, with its time and its memory."""

import contextlib
import ctypes
import gc
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["ROOT", "Side", "in_process", "measure", "peak_mib", "processor", "spread"]

ROOT = Path(__file__).resolve().parents[1]
WARM_UP = 2

# What is called, its peak memory (MiB), and the name of the device.
Side = tuple[Callable[[], Any], Callable[[], float], str]


def in_process(side: str, *arguments: str) -> dict[str, Any]:
    """What the running script prints last, as JSON, when started again with ``--side``."""
    command = [sys.executable, sys.argv[0], *sys.argv[1:], "--side", side, *arguments]
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    child = subprocess.run(
        command, env=os.environ | {"PYTHONPATH": path}, stdout=subprocess.PIPE, check=True
    )
    return json.loads(child.stdout.splitlines()[-1])


def measure(make: Callable[[], Side], n_calls: int) -> dict[str, Any]:
    """Times of calls; memory while preparing, between preparing and calling, and while calling.

    Args:
        make: prepares a side.
        n_calls: timed calls, after two that are not.
    """
    start = time.perf_counter()
    call, memory, device = make()
    before = {"start": time.perf_counter() - start, "start_mib": peak_mib(), "device": device}
    gc.collect()
    if sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)
        with contextlib.suppress(OSError):  # not in every container
            Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    before["idle_mib"] = peak_mib()
    for _ in range(WARM_UP):
        call()
    seconds = []
    for _ in range(n_calls):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return before | {"seconds": seconds, "mib": memory()}


def peak_mib() -> float:
    """Largest resident set so far."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def processor() -> str:
    """Name of the processor."""
    info = Path("/proc/cpuinfo")
    names = [x for x in info.read_text().splitlines() if "model name" in x] if info.exists() else []
    return names[0].split(":")[1].strip() if names else platform.processor()


def spread(runs: list[dict[str, Any]]) -> tuple[float, float, float]:
    """Median and fastest time (s) and largest memory (MiB) of a side's runs."""
    seconds = [t for run in runs for t in run["seconds"]]
    return statistics.median(seconds), min(seconds), max(run["mib"] for run in runs)
