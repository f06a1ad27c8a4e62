"""Trains a network: python train.py --config=configs/kgmgt.py[:variant] --workdir=DIR.

With --replay[=FILE], looks at the batch that ended such a run with a loss that was not finite.
"""

from pathlib import Path

from absl import flags

from kgmgt_jax import cli
from kgmgt_jax.training.loop import train
from kgmgt_jax.training.parallel import initialise_distributed
from kgmgt_jax.training.replay import replay
from kgmgt_jax.training.workdir import COMPILED

_CONFIG = cli.define_config("configs/kgmgt.py")
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder for checkpoints and logs.", required=True)


class _OptionalFile(flags.Flag):
    """A flag that may stand without a value, which it then takes to be ``newest``."""

    def __init__(self, *arguments):
        super().__init__(flags.ArgumentParser(), flags.ArgumentSerializer(), *arguments)
        self.boolean = True  # to absl: needs no value

    def parse(self, argument):
        super().parse({"true": "newest", "false": ""}.get(argument, argument))


_REPLAY = flags.DEFINE_flag(
    _OptionalFile(
        "replay",
        None,
        "Recompute the loss terms of a batch that ended a run; without =FILE the newest one's.",
    )
)


def main(argv: list[str]) -> None:
    """Trains, or resumes what the working directory holds; or replays a batch."""
    initialise_distributed()
    if not _REPLAY.value:
        train(_CONFIG.value, _WORKDIR.value)
    else:
        file = None if _REPLAY.value == "newest" else _REPLAY.value
        print(replay(_CONFIG.value, _WORKDIR.value, file))


if __name__ == "__main__":
    cli.run(
        main,
        cache=lambda: Path(_WORKDIR.value) / COMPILED,
        less_memory="config.data.batch_size can be smaller, or config.train.accumulation greater",
    )
