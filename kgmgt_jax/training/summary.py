"""The parameter table a run begins with."""

from collections.abc import Mapping
from typing import Any

import jax
from flax import traverse_util

from kgmgt_jax.commands import aligned
from kgmgt_jax.training.state import TrainState

__all__ = ["parameter_list", "parameter_table"]


def parameter_table(state: TrainState) -> str:
    """Arrays, parameters and MiB of each module, two levels deep, with totals.

    Args:
        state: of a run; only shapes are looked at.

    Returns:
        Lines: a heading, the generator's modules with their parts, the total, and the critic.
    """
    rows = [("module", "arrays", "parameters", "MiB")]
    for name, module in state.generator.params.items():
        rows.append(_row(name, module))
        if not isinstance(module, Mapping):  # a parameter of the network itself
            continue
        parts = [part for part in module.items() if isinstance(part[1], Mapping)]
        rows += [_row(f"  {part}", tree) for part, tree in parts]
    rows.append(_row("generator", state.generator.params))
    if state.critic is not None:
        rows.append(_row("critic", state.critic.params))
    return "\n".join(aligned(rows))


def _row(name: str, tree: Any) -> tuple[str, str, str, str]:
    leaves = jax.tree.leaves(tree)
    mib = sum(leaf.size * leaf.dtype.itemsize for leaf in leaves) / 2**20
    return name, str(len(leaves)), f"{sum(leaf.size for leaf in leaves):,}", f"{mib:.2f}"


def parameter_list(state: TrainState) -> str:
    """Name, shape and type of every parameter, one a line."""
    networks = {"generator": state.generator.params}
    if state.critic is not None:
        networks["critic"] = state.critic.params
    flat: Any = traverse_util.flatten_dict(networks, sep="/")
    return "".join(f"{name} {tuple(x.shape)} {x.dtype}\n" for name, x in flat.items())
