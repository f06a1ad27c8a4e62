"""Networks by the name that a configuration gives them."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from flax import linen as nn
from ml_collections import ConfigDict

from kgmgt_jax.models.baselines.crnn import CRNN
from kgmgt_jax.models.baselines.kigan import KIGAN
from kgmgt_jax.models.baselines.modl import MoDL
from kgmgt_jax.models.baselines.swinir import SwinIR
from kgmgt_jax.models.baselines.varnet import VarNet
from kgmgt_jax.models.kgmgt import KGMgT

__all__ = ["DEFAULT", "NETWORKS", "Network", "build_model", "freeze"]

# Called as KGMgT: (target, preceding, succeeding, measurement, *, train) -> Reconstruction.
Network = nn.Module
NETWORKS: dict[str, type[Network]] = {
    "kgmgt": KGMgT,
    "modl": MoDL,
    "crnn": CRNN,
    "swinir": SwinIR,
    "kigan": KIGAN,
    "varnet": VarNet,
}
"""By the name in ``config.model.network``; an entry of your own can be added."""
DEFAULT = "kgmgt"  # what a configuration without a name means


def freeze(value: Any) -> Any:
    """Lists to tuples, all the way down: what JSON loses of a configuration."""
    if isinstance(value, Mapping):
        return {k: freeze(v) for k, v in value.items()}
    return tuple(freeze(v) for v in value) if isinstance(value, list | tuple) else value


def build_model(config: Mapping[str, Any] | ConfigDict) -> Any:
    """The network of a configuration's ``model`` section.

    Args:
        config: fields of the network; ``network`` names it, and KGMgT is meant without.

    Raises:
        ValueError: for an unknown network, or a field the network does not have.
    """
    fields = freeze(dict(config))
    name = fields.pop("network", DEFAULT)
    if name not in NETWORKS:
        raise ValueError(f"config.model.network: expected one of {tuple(NETWORKS)}, got {name!r}")
    module = NETWORKS[name]
    known = {field.name for field in dataclasses.fields(module)} - {"parent", "name"}
    unknown = sorted(set(fields) - known)
    if unknown:
        raise ValueError(
            f"unknown fields in config.model: {unknown}; those of {name} are {sorted(known)}"
        )
    return module(**fields)
