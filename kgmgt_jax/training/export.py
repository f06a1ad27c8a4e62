"""Weights alone: ``python -m kgmgt_jax.training.export WORKDIR --out DIR [--dtype bfloat16]``.

The export holds the averaged parameters and the network's configuration, and ``--checkpoint`` of
``eval.py`` and ``reconstruct.py`` takes it; the smaller types are read back as float32. MiB on disk
for ``:base`` with a critic: 223 a checkpoint to resume from, 41 float32, 21 float16, 18 bfloat16.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from kgmgt_jax.commands import guarded
from kgmgt_jax.models.registry import freeze
from kgmgt_jax.training.comparison import differing_arrays, differing_fields
from kgmgt_jax.training.weights import (
    FIXED_WEIGHTS,
    CheckpointError,
    load_config,
    load_fixed_weights,
    load_item,
    load_weights,
    save_weights,
)

__all__ = ["export_weights", "main"]

_DTYPES = ("float32", "bfloat16", "float16")
_INPUTS = ("circular", "input_fill", "sens")  # of config.data, what makes a network's inputs
_NEEDED = (*_INPUTS, "virtual_coils")  # and what else a reconstruction needs


def export_weights(
    source: str | Path,
    out: str | Path,
    *,
    dtype: str = "float32",
    fixed: str | Path | None = None,
    average: str | Path | None = None,
) -> Path:
    """Writes a checkpoint of averaged parameters and configuration, without paths of data.

    Args:
        source: a training workdir (its best checkpoint is taken, else its last) or one checkpoint.
        out: the folder to be made.
        dtype: ``float32``, or for half the size ``bfloat16`` (3 digits) or ``float16`` (4 digits,
            up to 65,504).
        fixed: where the weights for masks that are the same in all frames come from, of the same
            network (see ``load_fixed_weights``); ``source`` has them if left out, or the export
            has one set for all masks.
        average: weights of the same network, of which and ``source`` the mean is exported: where
            one run went on from the other with other data, it often keeps what both are good at.
            Weights for fixed masks alone stay those of ``source`` or ``fixed``.

    Returns:
        ``out``.

    Raises:
        CheckpointError: if a checkpoint cannot be read, ``fixed`` or ``average`` is of another
            network or of one that had other inputs, or ``out`` is there or cannot be written.
        ValueError: for another type, or values that leave its range.

    Source: of the mean, Wortsman et al., CVPR 2022, arXiv:2109.01903.
    """
    if dtype not in _DTYPES:
        raise ValueError(f"expected dtype among {', '.join(_DTYPES)}, got {dtype=}")
    config, weights = load_weights(source)
    others = load_item(source, FIXED_WEIGHTS)
    if fixed is not None:
        others = load_fixed_weights(fixed)
        _check_network(fixed, others, source, config, weights)
    if average is not None:
        earlier = load_weights(average)[1]
        _check_network(average, earlier, source, config, weights)
        weights = jax.tree.map(_mean, weights, earlier)
    target = jnp.dtype(dtype)

    def cast(array) -> np.ndarray:
        array = np.asarray(array)
        if not jnp.issubdtype(array.dtype, jnp.floating):
            return array
        if np.abs(array, dtype=np.float32).max(initial=0.0) > float(jnp.finfo(target).max):
            raise ValueError(f"{source}: expected values within {dtype}, got larger; use bfloat16")
        return array.astype(target)

    kept = {"model": config.model.to_dict(), "data": _those_of(config.data, _NEEDED)}
    items = {} if others is None else {FIXED_WEIGHTS: jax.tree.map(cast, others)}
    return save_weights(out, kept, jax.tree.map(cast, weights), **items)


def _check_network(
    path: str | Path, arrays: Any, source: str | Path, config: Any, weights: Any
) -> None:
    different = differing_arrays(arrays, weights)
    if not different:
        pair = config, load_config(path)
        own, other = (freeze(each.model.to_dict()) | _those_of(each.data, _INPUTS) for each in pair)
        different = differing_fields(other, own)
    if different:
        raise CheckpointError(f"{path}: expected the network of {source}, got {different}")


def _those_of(data: Any, names: Sequence[str]) -> dict[str, Any]:
    return {name: data[name] for name in names if name in data}


def _mean(one: Any, other: Any) -> np.ndarray:
    """That of floating-point arrays; others, such as counts, stay as they are."""
    one = np.asarray(one)
    return (one + np.asarray(other)) / 2 if jnp.issubdtype(one.dtype, jnp.floating) else one


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; ends as ``commands.guarded`` says."""
    parser = argparse.ArgumentParser(
        prog="python -m kgmgt_jax.training.export", description="Weights of a checkpoint alone."
    )
    parser.add_argument("source", help="training workdir (best, else last) or one checkpoint")
    parser.add_argument("--out", required=True, help="folder to be made")
    parser.add_argument("--fixed", help="the same, for masks that are the same in all frames")
    parser.add_argument("--average", help="the same: the mean with these weights is exported")
    parser.add_argument("--dtype", choices=_DTYPES, default="float32", help="type of the weights")
    options = parser.parse_args(arguments)

    def work() -> None:
        path = export_weights(
            options.source,
            options.out,
            dtype=options.dtype,
            fixed=options.fixed,
            average=options.average,
        )
        size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
        print(f"{path}: {size / 2**20:.1f} MiB")

    return guarded(work)


if __name__ == "__main__":
    sys.exit(main())
