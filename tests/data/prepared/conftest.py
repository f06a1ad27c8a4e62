"""A small source of every kind of slice, and the set that is prepared from it."""

from pathlib import Path

import numpy as np
import pytest

from kgmgt_jax.data.phantom import write_cmrxrecon2023
from kgmgt_jax.data.prepared import PrepareOptions
from kgmgt_jax.data.prepared.preparing import prepare
from tests.data.formats.writers import kspace, maps

OPTIONS = PrepareOptions(readout=10, split=(0.5, 0.3, 0.2))


@pytest.fixture(scope="session")
def source(tmp_path_factory) -> Path:
    """Four phantoms of one coil, 2 slices each, also undersampled; a cine of 3 coils with maps."""
    root = tmp_path_factory.mktemp("source")
    size = {"shape": (18, 16), "n_frames": 3, "accelerations": (2,), "acs": 4}
    write_cmrxrecon2023(root, range(4), n_slices=2, **size)
    folder = root / "patient7"
    folder.mkdir()
    np.save(folder / "cine_kspace.npy", kspace((4, 3, 9, 14)))
    np.save(folder / "cine_sens.npy", maps((3, 9, 14)))
    return root


@pytest.fixture(scope="session")
def prepared(source, tmp_path_factory) -> Path:
    """The set made from it; tests that change a file of it take a copy."""
    out = tmp_path_factory.mktemp("prepared") / "set"
    prepare(source, out, OPTIONS)
    return out
