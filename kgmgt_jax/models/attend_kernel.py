"""Softmax attention in small windows in one pass, for NVIDIA GPUs (Pallas).

XLA writes the logits of all windows to memory, tens of times the size of queries, keys and values,
and reads them back for the softmax and its sums. Here a program holds those of one window and head
in registers: only q, k, v, the bias and the result touch memory. Heads have too few channels for a
matrix unit, so products of channels are added up one by one. ``models.attend`` is the reference,
what runs on every other device, and the gradient.
"""

import functools

import jax
import jax.numpy as jnp
from jax.experimental import pallas
from jax.experimental.pallas import triton
from jaxtyping import Array, Float

from kgmgt_jax.models.triton_arrays import triton_holds

__all__ = ["attend_in_registers", "registers_hold"]

_MOST_CHANNELS = 16  # of a head
_MOST_LOGITS = 2**12  # of a window and head
_LOGITS_PER_WARP = 2**10
_LEAST_PROGRAMS = 1024  # that fill a GPU
_WINDOWS = (8, 4, 2, 1)  # that share a program, and the bias it has read


def registers_hold(t: int, s: int, d: int) -> bool:
    """Whether a program can hold a window of t queries and s keys of d channels."""
    return t * s <= _MOST_LOGITS and d <= _MOST_CHANNELS and triton_holds(t, s, d)


def attend_in_registers(
    q: Float[Array, "b n heads t d"],
    k: Float[Array, "b n heads s d"],
    v: Float[Array, "b n heads s d"],
    bias: Float[Array, "heads t s"] | None,
    mask: Float[Array, "n #t s"] | None,
    *,
    interpret: bool = False,
) -> Float[Array, "b n heads t d"]:
    """``models.attend.attend`` with logits and sums in float32, whatever the inputs have.

    Args:
        q: queries, t a window, already scaled.
        k, v: keys and values, s a window.
        bias: added to the logits of every window.
        mask: added to the logits of every head.
        interpret: run the kernel as ordinary JAX, on any device and slowly; for tests.
    """
    b, n, heads, t, d = q.shape
    s, windows = k.shape[-2], b * n
    at_once = next(
        size
        for size in _WINDOWS
        if windows % size == 0 and (windows * heads >= size * _LEAST_PROGRAMS or size == 1)
    )
    program = pallas.pallas_call(
        functools.partial(_program, at_once, bias is not None, mask is not None),
        out_shape=jax.ShapeDtypeStruct((windows, heads, t, d), v.dtype),
        grid=(windows // at_once, heads),
        compiler_params=triton.CompilerParams(
            num_warps=max(1, t * s // _LOGITS_PER_WARP), num_stages=1
        ),
        interpret=interpret,
        name="attend",
    )
    by_window = (a.reshape(windows, *a.shape[2:]) for a in (q, k, v))
    added = [] if bias is None else [bias]
    if mask is not None:  # most windows have none, and need not read it
        added += [mask, jnp.any(mask != 0, axis=(1, 2)).astype(jnp.int32)]
    return program(*by_window, *added).reshape(q.shape)


def _program(at_once: int, has_bias: bool, has_mask: bool, q, k, v, *rest) -> None:
    """Some windows of one head: q (windows heads t d), k, v, bias, mask, where it is not zero."""
    *added, out = rest
    bias = added.pop(0) if has_bias else None
    (_, _, t, d), s = q.shape, k.shape[2]
    first, head = pallas.program_id(0) * at_once, pallas.program_id(1)
    full = jnp.float32
    start = jnp.zeros((t, s), full) if bias is None else bias[head].astype(full)

    def attend_one(j: Array, _: None) -> None:
        window = first + j
        logits = start
        for i in range(d):
            query, key = (a[window, head, :, i].astype(full) for a in (q, k))
            logits += query[:, None] * key[None, :]
        if has_mask:
            mask, masked = added
            place = jax.lax.rem(window, jnp.int32(mask.shape[0]))
            add = lambda logits: logits + mask[place].astype(full)  # noqa: E731
            logits = jax.lax.cond(masked[place] != 0, add, lambda logits: logits, logits)
        weights = jnp.exp(logits - jnp.max(logits, axis=1, keepdims=True))
        total = jnp.sum(weights, axis=1)
        for i in range(d):
            value = v[window, head, :, i].astype(full)
            mean = jnp.sum(weights * value[None, :], axis=1) / total
            out[window, head, :, i] = mean.astype(out.dtype)

    jax.lax.fori_loop(jnp.int32(0), jnp.int32(at_once), attend_one, None)
