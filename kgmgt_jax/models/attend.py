"""Softmax attention in many small windows, with a gradient of its own.

Heads have as few as two channels, so nearly all numbers are weights: as many as there are pairs of
tokens. Automatic differentiation would keep them for the backward pass and contract them over
strided axes. Here nothing but q, k and v is kept, and one loop over blocks of windows makes the
weights again, keys before queries: sums over keys then run along the slow axis, as processors like
them, and all six products have both factors in the order in which they are read.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float

from kgmgt_jax.models.attend_kernel import (
    attend_in_registers,
    attention_gradient_in_registers,
    registers_hold,
)
from kgmgt_jax.models.chunks import chunk_limit, items_at_once

__all__ = ["ATTENDED", "attend"]

ATTENDED = "attended"  # for ``jax.checkpoint_policies.save_only_these_names``

# Pairs of tokens at once: on a CPU what its cache holds, elsewhere what fills the device.
_BLOCK, _DEVICE_BLOCK = 2**19, 2**24


def attend(
    q: Float[Array, "b windows heads q d"],
    k: Float[Array, "b windows heads k d"],
    v: Float[Array, "b windows heads k d"],
    bias: Float[Array, "heads q k"] | None = None,
    mask: Float[Array, "windows #q k"] | None = None,
    *,
    pallas: bool = False,
) -> Float[Array, "b windows heads q d"]:
    """``softmax(q k^T + bias + mask) v`` in each window; all but the products in float32.

    It can be differentiated backwards once; the mask is a constant. The result is named, so that
    what is recomputed in a backward pass can leave it out: it is small, and its gradient needs q, k
    and v alone.

    Args:
        q: queries, already scaled.
        k, v: keys and values.
        bias: added to the logits of every window.
        mask: added to the logits of every head.
        pallas: on an NVIDIA GPU, use the kernels of ``models.attend_kernel`` where they fit and
            there is a bias. XLA does not divide them: over several devices, each would do the whole
            batch.
    """
    kernels = pallas and bias is not None and registers_hold(q.shape, k.shape)
    return checkpoint_name(_attend(q, k, v, bias, mask, kernels), ATTENDED)


@functools.partial(jax.custom_vjp, nondiff_argnums=(5,))
def _attend(q, k, v, bias, mask, kernels):
    return _by_device(kernels, attend_in_registers, _in_memory, q, k, v, bias, mask)


def _by_device(kernels, kernel, plain, *args):
    """What ``plain`` gives, or on an NVIDIA GPU, if there shall be kernels, ``kernel``."""
    if not kernels:
        return plain(*args)
    return jax.lax.platform_dependent(*args, cuda=kernel, default=plain)


def _in_memory(q, k, v, bias, mask):
    logits = (q @ _transpose(k)).astype(_full(q))
    if bias is not None:
        logits += bias[None, None].astype(logits.dtype)
    if mask is not None:
        logits += mask[None, :, None].astype(logits.dtype)
    weights = jnp.exp(logits - jnp.max(logits, axis=-1, keepdims=True))
    total = jnp.sum(weights, axis=-1, keepdims=True)
    return (weights.astype(v.dtype) @ v) / total.astype(v.dtype)  # the product is smaller


def _forward(*args):
    return _attend(*args), args[:-1]


def _backward(kernels, args, grad):
    choice = kernels, attention_gradient_in_registers, _gradient_in_memory
    return *_by_device(*choice, *args, grad), None


def _gradient_in_memory(q, k, v, bias, mask, grad):
    """Blocks of windows; barriers keep what is small from being computed anew for every pair."""
    keep = jax.lax.optimization_barrier
    b, n, heads, t, _ = q.shape
    s, full = k.shape[-2], _full(q)
    size = items_at_once(n, b * heads * t * s, chunk_limit(_BLOCK, _DEVICE_BLOCK))
    by_key = None if bias is None else _transpose(bias.astype(full))

    def block(g_bias, args):
        q, k, v, grad, mask = keep(jax.tree.map(merge, args))
        logits = keep(k @ keep(_transpose(q))).astype(full)
        g_weights = keep(v @ keep(_transpose(grad))).astype(full)
        if by_key is not None:
            logits += by_key[None]
        if mask is not None:
            logits += mask
        largest = keep(jnp.max(logits, axis=-2, keepdims=True))
        weights = keep(jnp.exp(logits - largest))
        scale = keep(1 / jnp.sum(weights, axis=-2, keepdims=True))
        mean = jnp.sum(weights * g_weights, axis=-2, keepdims=True) * scale
        weights, g_logits = keep((weights * scale, weights * scale * (g_weights - mean)))
        if g_bias is not None:
            g_bias = g_bias + jnp.sum(g_logits.reshape(b, size, heads, s, t), axis=1)
        weights, g_logits = weights.astype(v.dtype), g_logits.astype(q.dtype)
        parts = (keep(_transpose(k)) @ g_logits, g_logits @ q, weights @ grad)
        return g_bias, jax.tree.map(lambda a: a.reshape(b, size, *a.shape[1:]), parts)

    def cut(a):
        return jnp.moveaxis(a.reshape(a.shape[0], n // size, size, *a.shape[2:]), 1, 0)

    def merge(a):
        return a.reshape(-1, *a.shape[2:])

    def join(a):
        return jnp.moveaxis(a, 0, 1).reshape(b, n, *a.shape[3:])

    by_window = mask
    if mask is not None:
        by_window = _transpose(mask.astype(full))[None, :, None]
        by_window = jnp.broadcast_to(by_window, (b, *by_window.shape[1:]))
    start = None if bias is None else jnp.zeros((b, heads, s, t), full)
    g_bias: Any
    blocks = jax.tree.map(cut, (q, k, v, grad, by_window))
    g_bias, (g_q, g_k, g_v) = jax.lax.scan(block, start, blocks)
    if bias is not None:
        g_bias = _transpose(jnp.sum(g_bias, axis=0)).astype(bias.dtype)
    return _transpose(join(g_q)), join(g_k), join(g_v), g_bias


_attend.defvjp(_forward, _backward)


def _transpose(x):
    return jnp.swapaxes(x, -1, -2)


def _full(x):
    return jnp.promote_types(x.dtype, jnp.float32)
