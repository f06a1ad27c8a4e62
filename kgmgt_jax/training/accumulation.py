"""A batch in parts, one after the other: the memory of a part, the gradient of the whole."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

__all__ = ["gradient_by_parts", "map_by_parts"]

Batch = Mapping[str, Array]
Loss = Callable[[Any, Any, Array, Batch], tuple[Array, tuple[dict[str, Array], Any]]]


def _split(batch: Batch, n_parts: int) -> dict[str, Array]:
    """Every ``n_parts``-th example to the same part: b examples to (n_parts, b / n_parts).

    So split, parts of a batch that is spread over devices lie where they are needed already.
    """

    def split(x: Array) -> Array:
        if x.shape[0] % n_parts:
            raise ValueError(f"expected a batch that divides into {n_parts=}, got {x.shape=}")
        return jnp.moveaxis(x.reshape(x.shape[0] // n_parts, n_parts, *x.shape[1:]), 1, 0)

    return {name: split(array) for name, array in batch.items()}


def gradient_by_parts(loss: Loss, n_parts: int) -> Callable[..., tuple[Any, dict, Any]]:
    """The gradient of a loss over a batch, as the mean over equal parts of it.

    That is the gradient of the whole batch if the loss is a mean over examples, each by itself.
    Batch norm sees a part at a time, and every part draws its own random numbers.

    Args:
        loss: of ``(params, model_state, key, batch)``; gives the loss, and with it metrics (means
            over examples too) and the new model state.
        n_parts: number of parts; must divide the batch.

    Returns:
        A function of the same arguments, to gradient, metrics and new model state.
    """
    gradient = jax.grad(loss, has_aux=True)

    def whole(params: Any, model_state: Any, key: Array, batch: Batch) -> tuple[Any, dict, Any]:
        if n_parts == 1:
            grads, (metrics, model_state) = gradient(params, model_state, key, batch)
            return grads, metrics, model_state

        def add(carry: tuple[Any, Any], part: tuple[Array, Batch]) -> tuple[Any, dict]:
            total, model_state = carry
            index, batch = part
            part_key = jax.random.fold_in(key, index)
            grads, (metrics, model_state) = gradient(params, model_state, part_key, batch)
            return (jax.tree.map(jnp.add, total, grads), model_state), metrics

        parts = (jnp.arange(n_parts), _split(batch, n_parts))
        start = (jax.tree.map(jnp.zeros_like, params), model_state)
        (total, model_state), metrics = jax.lax.scan(add, start, parts)
        grads = jax.tree.map(lambda g: g / n_parts, total)
        return grads, jax.tree.map(lambda m: jnp.mean(m, 0), metrics), model_state

    return whole


def map_by_parts(
    function: Callable[[Array, Batch], Array], n_parts: int
) -> Callable[[Array, Batch], Array]:
    """A function of key and batch, whose result has an example for each of the batch's, by parts.

    Args:
        function: applied to a key of its own and each part.
        n_parts: number of parts; must divide the batch.
    """

    def whole(key: Array, batch: Batch) -> Array:
        if n_parts == 1:
            return function(key, batch)

        def one(part: tuple[Array, Batch]) -> Array:
            return function(jax.random.fold_in(key, part[0]), part[1])

        results = jax.lax.map(one, (jnp.arange(n_parts), _split(batch, n_parts)))
        return jnp.moveaxis(results, 0, 1).reshape(-1, *results.shape[2:])

    return whole
