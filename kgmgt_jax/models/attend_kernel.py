"""Softmax attention in small windows, and its gradient, in one pass each, for NVIDIA GPUs (Pallas).

XLA writes the logits of all windows to memory, several times the size of queries, keys and values,
and several arrays of that size in the backward pass. Here a program holds those of one window and
head in registers: q, k, v, bias, mask and the results alone touch memory. ``models.attend`` is the
reference, and what runs on every other device. At inference ``models.block_kernel`` goes further.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas
from jax.experimental.pallas import triton
from jaxtyping import Array, Float

from kgmgt_jax.models.triton_arrays import SMALLEST_SIDE, arange, product, triton_holds

__all__ = [
    "MOST_LOGITS",
    "attend_in_registers",
    "attention_gradient_in_registers",
    "for_each_window",
    "registers_hold",
    "softmax_mean",
    "windows_at_once",
]

MOST_LOGITS = 2**12  # of a window and head, in registers
_BYTES_PER_WARP = 2**11  # of logits, if they had the type of q; with more, registers overflow
_LEAST_PROGRAMS = 1024  # that fill a GPU
_AT_ONCE = (8, 4, 2, 1)  # windows of a program, which reads the bias once for all

Tokens = Float[Array, "b windows heads _ d"]  # as many as there are queries, or keys


def registers_hold(queries: tuple[int, ...], keys: tuple[int, ...]) -> bool:
    """Whether programs can hold a window each of arrays of these shapes."""
    (*many, t, d), s = queries, keys[-2]
    fit = d <= SMALLEST_SIDE <= min(t, s) and t * s <= MOST_LOGITS
    some = 0 < math.prod(many) * t * s < 2**31  # no empty grid, and addresses of 32 bits
    return fit and some and triton_holds(t, s)


def attend_in_registers(
    q: Tokens,
    k: Tokens,
    v: Tokens,
    bias: Float[Array, "heads q k"],
    mask: Float[Array, "windows #q k"] | None,
    *,
    interpret: bool = False,
) -> Tokens:
    """What ``models.attend.attend`` gives, with logits and sums in float32.

    XLA does not divide the kernel among devices: of a batch that is, each would do all.

    Args:
        q: queries, already scaled.
        k, v: keys and values, such that `registers_hold` a window.
        bias: added to the logits of every window.
        mask: added to the logits of every head.
        interpret: run the kernel as ordinary JAX, on any device and slowly; for tests.
    """
    tokens = [_by_window(a) for a in (q, k, v)]
    out = jax.ShapeDtypeStruct(tokens[0].shape, v.dtype)
    return _run(_attend, (*tokens, bias, mask), out, interpret).reshape(q.shape)


def attention_gradient_in_registers(
    q: Tokens,
    k: Tokens,
    v: Tokens,
    bias: Float[Array, "heads q k"],
    mask: Float[Array, "windows #q k"] | None,
    grad: Tokens,
    *,
    interpret: bool = False,
) -> tuple[Tokens, Tokens, Tokens, Float[Array, "heads q k"]]:
    """The gradients of q, k, v and bias.

    Args:
        q, k, v, bias, mask, interpret: as of `attend_in_registers`.
        grad: the gradient of what it gives.
    """
    tokens = [_by_window(a) for a in (q, k, v)]
    windows, heads, _, _ = tokens[0].shape
    n_programs = windows // windows_at_once(windows, heads)
    outs = [jax.ShapeDtypeStruct(a.shape, a.dtype) for a in tokens]
    outs.append(jax.ShapeDtypeStruct((n_programs, *bias.shape), jnp.float32))
    *grads, g_bias = _run(_differentiate, (*tokens, bias, mask, _by_window(grad)), outs, interpret)
    g_q, g_k, g_v = (g.reshape(a.shape) for g, a in zip(grads, (q, k, v), strict=True))
    return g_q, g_k, g_v, jnp.sum(g_bias, axis=0).astype(bias.dtype)


def softmax_mean(
    logits: Float[Array, "t s"], v: Float[Array, "s d"], dtype: Any
) -> Float[Array, "t d"]:
    """``softmax(logits) v`` inside a kernel; factors of the product rounded to ``dtype``."""
    weights = jnp.exp(logits - jnp.max(logits, axis=1, keepdims=True))
    return product(weights, v, dtype) / jnp.sum(weights, axis=1, keepdims=True)


def windows_at_once(windows: int, heads: int) -> int:
    """Windows that a program takes: as many as leave enough programs."""
    return next(
        k
        for k in _AT_ONCE
        if k == 1 or (windows % k == 0 and windows * heads >= k * _LEAST_PROGRAMS)
    )


def for_each_window(at_once: int, one: Callable[[Array, Any], Any], start: Any) -> Any:
    """Inside a kernel, ``one`` of each of the program's windows and of what it gave before."""
    first = pallas.program_id(0) * at_once
    turn = lambda j, carry: one(first + j, carry)  # noqa: E731
    return jax.lax.fori_loop(jnp.int32(0), jnp.int32(at_once), turn, start)


def _by_window(x: Tokens) -> Float[Array, "all heads _ d"]:
    return x.reshape(-1, *x.shape[2:])


def _run(program: Callable[..., None], inputs: tuple[Any, ...], outs: Any, interpret: bool) -> Any:
    """What a program gives that takes some windows of one head; q comes first, the bias fourth."""
    (windows, heads, t, _), s = inputs[0].shape, inputs[3].shape[-1]
    at_once = windows_at_once(windows, heads)
    n_warps = max(1, t * s * inputs[0].dtype.itemsize // _BYTES_PER_WARP)
    call = pallas.pallas_call(
        functools.partial(program, at_once=at_once),
        out_shape=outs,
        grid=(windows // at_once, heads),
        compiler_params=triton.CompilerParams(num_warps=n_warps, num_stages=1),
        interpret=interpret,
        name=program.__name__.strip("_"),
    )
    return call(*inputs)


def _attend(q, k, v, bias, mask, out, *, at_once: int) -> None:
    """Some windows of one head: q (windows heads t d), k, v, bias and mask to ``out``."""
    head = pallas.program_id(1)
    logits_of = _logits(q, k, bias, mask, head)

    def attend_one(window: Array, _: None) -> None:
        mean = softmax_mean(logits_of(window), _load(v, window, head), v.dtype)
        _store(out, window, head, mean)

    for_each_window(at_once, attend_one, None)


def _differentiate(q, k, v, bias, mask, grad, g_q, g_k, g_v, g_bias, *, at_once: int) -> None:
    """As ``_attend``, to the gradients; that of the bias is summed over these windows."""
    head = pallas.program_id(1)
    logits_of = _logits(q, k, bias, mask, head)

    def differentiate_one(window: Array, total: Float[Array, "t s"]) -> Float[Array, "t s"]:
        weights = jax.nn.softmax(logits_of(window), axis=1)
        g_out = _load(grad, window, head)
        g_weights = product(g_out, _load(v, window, head), v.dtype, over=(1, 1))
        mean = jnp.sum(weights * g_weights, axis=1, keepdims=True)
        g_logits = weights * (g_weights - mean)
        _store(g_q, window, head, product(g_logits, _load(k, window, head), q.dtype))
        g_keys = product(_load(q, window, head), g_logits, q.dtype, over=(0, 0))
        _store(g_k, window, head, g_keys.T)
        _store(g_v, window, head, product(g_out, weights, v.dtype, over=(0, 0)).T)
        return total + g_logits

    zeros = jnp.zeros(bias.shape[1:], jnp.float32)
    g_bias[pallas.program_id(0), head] = for_each_window(at_once, differentiate_one, zeros)


def _logits(q, k, bias, mask, head: Array) -> Callable[[Array], Float[Array, "t s"]]:
    """Logits by window of a head, whose bias is read once."""
    start = bias[head].astype(jnp.float32)

    def of(window: Array) -> Float[Array, "t s"]:
        queries, keys = (_load(a, window, head) for a in (q, k))
        logits = product(queries, keys, q.dtype, over=(1, 1)) + start
        if mask is None:
            return logits
        return logits + mask[jax.lax.rem(window, jnp.int32(mask.shape[0]))].astype(jnp.float32)

    return of


def _load(x: Any, window: Array, head: Array) -> Float[Array, "t 16"]:
    """A head's tokens, with zeros where a matrix unit wants more channels."""
    at, known = _place(x, window, head)
    return triton.load(x.at[at], mask=known, other=0.0)


def _store(out: Any, window: Array, head: Array, value: Float[Array, "t 16"]) -> None:
    at, known = _place(out, window, head)
    triton.store(out.at[at], value.astype(out.dtype), mask=known)


def _place(x: Any, window: Array, head: Array) -> tuple[tuple[Array, ...], Array]:
    """Where a head's tokens are, and which channels there are."""
    _, _, t, d = x.shape
    channel = jnp.broadcast_to(arange(SMALLEST_SIDE)[None], (t, SMALLEST_SIDE))
    return (window, head, arange(t)[:, None], channel), channel < d
