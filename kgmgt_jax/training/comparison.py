"""How a stored state differs from what a run expects, in words short enough for one line."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp

from kgmgt_jax.models.registry import DEFAULT
from kgmgt_jax.training.state import TrainState

__all__ = ["differing_arrays", "differing_fields", "not_finite"]

_EMPTY = "empty"
_FREE = {"dtype", "pallas", "remat", "unroll"}


def differing_fields(first: Mapping[str, Any], second: Mapping[str, Any]) -> str:
    """Fields of one section of two configurations that differ; empty if none does.

    Each is told as ``name=FIRST not SECOND``. How the network is computed (``_FREE``) may
    change when a run goes on.
    """
    networks = [fields.get("network", DEFAULT) for fields in (first, second)]
    if networks[0] != networks[1]:  # whose fields are others
        return f"network {networks[0]!r}, not {networks[1]!r}"
    names = sorted((set(first) | set(second)) - _FREE)
    differing = [n for n in names if first.get(n) != second.get(n)]
    return ", ".join(f"{n}={first.get(n)!r} not {second.get(n)!r}" for n in differing)


def differing_arrays(stored: Any, wanted: Any) -> str:
    """The first array of two trees whose name or shape differs, and how many more; else empty.

    Empty nodes count, too, but are named only where arrays are the same.

    Args:
        stored: tree of arrays or of Orbax's metadata of arrays.
        wanted: tree of arrays.
    """
    there, here = _shapes(stored), _shapes(wanted)
    differing = [name for name in {**there, **here} if there.get(name) != here.get(name)]
    if not differing:
        return ""
    name = min(differing, key=lambda name: _EMPTY in (there.get(name), here.get(name)))
    first = f"{name} of shape {there.get(name, 'none')} not {here.get(name, 'none')}"
    return first if len(differing) == 1 else f"{first}, and {len(differing) - 1} more"


def _shapes(tree: Any) -> dict[str, Any]:
    """Shapes of arrays by name, and what holds none, such as a part of an optimiser."""
    plain = ocp.tree.serialize_tree(tree, keep_empty_nodes=True)
    flat = ocp.tree.to_flat_dict(plain, keep_empty_nodes=True)
    return {
        ".".join(map(str, path)): tuple(leaf.shape) if hasattr(leaf, "shape") else _EMPTY
        for path, leaf in flat.items()
    }


def not_finite(state: TrainState) -> str:
    """Parts of a state that hold NaN or infinite values; empty if none does."""
    parts = {
        "generator": state.generator.variables,
        "generator's optimiser": state.generator.opt_state,
        "averaged parameters": state.ema_params,
        "critic": state.critic,
    }
    # Array by array: in one program, thousands of them take XLA minutes to compile.
    finite = {name: [_look_at(leaf) for leaf in jax.tree.leaves(x)] for name, x in parts.items()}
    return ", ".join(name for name, each in jax.device_get(finite).items() if not all(each))


def _look_at(array: jax.Array) -> jax.Array:
    """Whether an array is finite; one that is split among devices before any other is looked at.

    The devices meet for it. Simulated ones that were in different programs would wait for ever.
    """
    finite = _is_finite(array)
    return finite if array.is_fully_replicated else jax.block_until_ready(finite)


@jax.jit
def _is_finite(array: jax.Array) -> jax.Array:
    return jnp.isfinite(array).all()
