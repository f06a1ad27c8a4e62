"""One process of a run of stubs: ``python -m tests.training.run_worker WORKDIR DATA OPTIONS``.

``OPTIONS``, in JSON: ``train``, fields of ``config.train``; ``signal_at``, a step in which the last
process sends itself SIGTERM; ``nan_at``, a step for which its last example is spoilt.
"""

import itertools
import json
import signal
import sys
import time
from typing import Any

import numpy as np

from kgmgt_jax.commands import guarded
from kgmgt_jax.training import loop, parallel
from kgmgt_jax.training.writer import Writer
from tests.training.stub import STUBS, loop_config

_NOTICED = 3.0  # seconds, in which JAX's preemption service tells all processes of a signal


def main(workdir: str, data: str, options: str) -> int:
    """Joins the others, if there are any, and trains with them to the end."""
    asked = {"train": {}, "signal_at": 0, "nan_at": 0} | json.loads(options)
    parallel.initialise_distributed()
    for name, value in STUBS.items():
        setattr(loop, name, value)
    index, count = parallel.process_share()
    if index == count - 1:
        _signal_at(asked["signal_at"])
        _spoil_at(asked["nan_at"])
    config = loop_config(data)
    config.train.update(**asked["train"])
    return guarded(lambda: loop.train(config, workdir) and None)


def _signal_at(step: int) -> None:
    calls, advance = itertools.count(1), Writer.advance

    def stopping(writer: Writer) -> None:
        if next(calls) == step:
            signal.raise_signal(signal.SIGTERM)
            time.sleep(_NOTICED)
        advance(writer)

    Writer.advance = stopping


def _spoil_at(step: int) -> None:
    calls, put = itertools.count(1), loop._put

    def spoilt(mesh: Any, batch: dict) -> Any:
        if next(calls) == step:
            batch["reference"] = np.array(batch["reference"])
            batch["reference"][-1, 5, 5:8] = np.nan
        return put(mesh, batch)

    loop._put = spoilt


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
