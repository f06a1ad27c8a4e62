"""Trains a network: python train.py --config=configs/kgmgt.py[:variant] --workdir=DIR."""

from absl import flags
from ml_collections import config_flags

from kgmgt_jax import cli
from kgmgt_jax.training.loop import train

_CONFIG = config_flags.DEFINE_config_file("config", "configs/kgmgt.py", "Configuration[:variant].")
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder for checkpoints and logs.", required=True)


def main(argv: list[str]) -> None:
    """Trains, or resumes what the working directory holds."""
    train(_CONFIG.value, _WORKDIR.value)


if __name__ == "__main__":
    cli.run(main)
