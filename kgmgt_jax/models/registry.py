"""Networks by the name that a configuration gives them."""

from flax import linen as nn

from kgmgt_jax.models.baselines.crnn import CRNN
from kgmgt_jax.models.baselines.kigan import KIGAN
from kgmgt_jax.models.baselines.modl import MoDL
from kgmgt_jax.models.baselines.swinir import SwinIR
from kgmgt_jax.models.kgmgt import KGMgT

__all__ = ["DEFAULT", "NETWORKS", "Network"]

# Called as KGMgT: (target, preceding, succeeding, measurement, *, train) -> Reconstruction.
Network = nn.Module
NETWORKS: dict[str, type[Network]] = {
    "kgmgt": KGMgT,
    "modl": MoDL,
    "crnn": CRNN,
    "swinir": SwinIR,
    "kigan": KIGAN,
}
DEFAULT = "kgmgt"  # what a configuration without a name means
