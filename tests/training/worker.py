"""One process of several: ``python -m tests.training.worker toy|kgmgt OUT.npz N_MODEL``."""

import sys

import numpy as np

from kgmgt_jax.training import parallel
from tests.training.small import random_batch
from tests.training.toy import TOY, small_kgmgt, three_steps, toy_config


def main(network: str, out: str, n_model: str) -> None:
    """Joins the others, takes three steps with them, and saves what it saw of them."""
    parallel.initialise_distributed()
    networks, config = small_kgmgt() if network == "kgmgt" else (TOY, toy_config())
    mesh = parallel.make_mesh(n_model=int(n_model))
    results = three_steps(networks, config, mesh, random_batch(4))
    index, count = parallel.process_share()
    np.savez(out.format(index), n_processes=count, **results)


if __name__ == "__main__":
    main(*sys.argv[1:])
