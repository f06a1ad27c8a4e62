"""Test settings: fake CPU devices, strict rank promotion, where fixtures and data live."""

import os
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # its threads spin while others want the cores
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=4"
)

import jax
import pytest
from jaxtyping import install_import_hook

# The networks' shapes are checked while testing, and only then. (Functions of mri, metrics and data
# refuse wrong shapes themselves, and tests look at their messages.)
install_import_hook(["kgmgt_jax.models", "kgmgt_jax.losses"], "beartype.beartype")

jax.config.update("jax_numpy_rank_promotion", "raise")

SHARED = Path(os.environ.get("KGMGT_SHARED", Path(__file__).resolve().parents[2] / "shared"))


def _existing(path: Path) -> Path:
    if not path.exists():
        pytest.skip(f"needs {path} (set KGMGT_SHARED to the folder that holds fixtures/ and data/)")
    return path


@pytest.fixture(scope="session")
def fixtures_dir() -> Path:
    """Folder with the reference network's stored inputs, weights and outputs."""
    return _existing(SHARED / "fixtures")


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Folder with real magnitude cines and files in the CMRxRecon layouts."""
    return _existing(SHARED / "data")
