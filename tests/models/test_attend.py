"""Attention in windows: its value and its own gradient against plain automatic differentiation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kgmgt_jax.models import attend as module
from kgmgt_jax.models.attend import attend
from tests.models.fixtures import relative_error

B, N, HEADS, T, S, D = 2, 6, 2, 5, 7, 3


def _plain(q, k, v, bias, mask):
    logits = jnp.einsum("bnhtd,bnhsd->bnhts", q, k)
    if bias is not None:
        logits += bias[None, None]
    if mask is not None:
        logits += mask[None, :, None]
    return jnp.einsum("bnhts,bnhsd->bnhtd", jax.nn.softmax(logits, axis=-1), v)


def _inputs(bias, mask):
    draw = np.random.default_rng(0).standard_normal
    q, k, v = (jnp.asarray(3 * draw((B, N, HEADS, n, D)), jnp.float32) for n in (T, S, S))
    mask = None if mask is None else jnp.where(draw((N, mask, S)) < 0, -100.0, 0.0)
    return q, k, v, jnp.asarray(draw((HEADS, T, S)), jnp.float32) if bias else None, mask


@pytest.mark.parametrize("block", [1, 2**19])
@pytest.mark.parametrize(("bias", "mask"), [(True, T), (True, 1), (True, None), (False, None)])
def test_value_and_gradients_are_those_of_the_plain_formula(monkeypatch, block, bias, mask):
    monkeypatch.setattr(module, "_BLOCK", block)
    *arguments, mask = _inputs(bias, mask)
    direction = jnp.cos(jnp.arange(B * N * HEADS * T * D, dtype=jnp.float32))
    direction = direction.reshape(B, N, HEADS, T, D)
    found, expected = (
        jax.jit(lambda *a, f=f: (lambda y, pull: (y, pull(direction)))(*jax.vjp(f, *a)))(*arguments)
        for f in (lambda *a: attend(*a, mask), lambda *a: _plain(*a, mask))
    )
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert relative_error(a, b) < 1e-5


def test_logits_far_apart_neither_overflow_nor_vanish():
    q, k, v, bias, _ = _inputs(True, None)
    value, grad = jax.value_and_grad(lambda q: jnp.sum(attend(q, 100 * k, v, bias)))(100 * q)
    assert bool(jnp.isfinite(value)) and bool(jnp.all(jnp.isfinite(grad)))


def test_a_bias_is_added_in_single_precision():
    """With one of 8, as where rectangular windows start: bfloat16 has steps of 1/16 there."""
    q, k, v, bias, _ = _inputs(True, None)
    half = [a.astype(jnp.bfloat16) for a in (0.1 * q, k, v)]
    found = attend(*half, 8 + bias)
    expected = _plain(*(a.astype(jnp.float32) for a in half), 8 + bias, None)
    assert found.dtype == jnp.bfloat16
    assert relative_error(found.astype(jnp.float32), expected) < 0.006


@pytest.mark.skipif(
    jax.__version_info__ < (0, 10, 2), reason="XLA writes the weights of the forward pass to memory"
)
def test_no_weights_are_kept_for_the_backward_pass():
    """Temporary memory of a gradient stays far below one array of weights."""
    q = jnp.ones((1, 512, 4, 64, 2))
    bias = jnp.zeros((4, 64, 64))
    grad = jax.jit(jax.grad(lambda q: jnp.sum(attend(q, q, q, bias) ** 2)))
    temporary = grad.lower(q).compile().memory_analysis().temp_size_in_bytes
    assert temporary < 4 * 512 * 4 * 64 * 64 / 2
