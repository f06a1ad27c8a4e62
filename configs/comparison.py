"""Another network in KGMgT's place: the same data, masks, steps and optimiser."""

from typing import Any

from ml_collections import ConfigDict

from configs import kgmgt


def with_network(variant: str, base: dict, tiny: dict) -> ConfigDict:
    """KGMgT's configuration with another ``model`` section and an L1 loss alone.

    Where the network has a choice of data consistency, that of the tiny variant is KGMgT's.

    Args:
        variant: ``base`` or ``tiny``.
        base: fields of the network at the size of its paper.
        tiny: those that differ in the tiny variant.
    """
    if variant not in ("", "base", "tiny"):
        raise ValueError(f"variants are base and tiny, got {variant!r}")
    config: Any = kgmgt.get_config(variant).unlock()
    if variant == "tiny":
        same = {name: config.model[name] for name in ("consistency", "solver") if name in base}
        base = {**base, **same, **tiny}
    config.model = ConfigDict(base)
    config.loss.update(perceptual=0.0, adversarial=0.0, mentor=0.0)
    return config.lock()
