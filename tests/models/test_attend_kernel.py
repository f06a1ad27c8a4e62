"""The Pallas kernels of attention against the plain path: interpreted, lowered, and on a GPU.

JAX_PLATFORMS=cuda pytest -m gpu
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kgmgt_jax.models import attend_kernel
from kgmgt_jax.models.attend import attend
from kgmgt_jax.models.attend_kernel import registers_hold
from tests.models.fixtures import relative_error
from tests.models.kernels import PALLAS, lowered_for_cuda

SQUARE, GATHER, SPREAD = (64, 64, 4), (16, 64, 2), (64, 16, 2)  # queries, keys, channels


def _inputs(sides, masked, shape=(2, 3, 2), dtype=jnp.float32):
    """Queries, keys, values, bias, mask (of that many rows) and the gradient of the result."""
    (t, s, d), (_, n, heads) = sides, shape
    draw = np.random.default_rng(0).standard_normal
    q, k, v, grad = (jnp.asarray(draw((*shape, rows, d)), dtype) for rows in (t, s, s, t))
    mask = jnp.where(draw((n, masked, s)) < -1, -100.0, 0.0) if masked else None
    return 2 * q, k, v, jnp.asarray(draw((heads, t, s)), jnp.float32), mask, grad


def _value_and_gradients(q, k, v, bias, mask, grad, pallas=False):
    f = lambda *a: attend(*a, mask, pallas=pallas)  # noqa: E731
    value, pull_back = jax.vjp(f, q, k, v, bias)
    return value, *pull_back(grad)


@pytest.mark.parametrize(
    ("sides", "masked"), [(SQUARE, 64), (GATHER, 0), (SPREAD, 1), ((16, 32, 16), 16)]
)
def test_kernels_equal_the_plain_path(sides, masked, interpreted):
    inputs = _inputs(sides, masked)
    found = _value_and_gradients(*inputs, pallas=True)
    assert len(interpreted) == 2
    for got, want in zip(found, _value_and_gradients(*inputs), strict=True):
        assert relative_error(got, want) < 5e-6


@pytest.mark.parametrize(("least", "at_once"), [(4, 2), (2, 4), (1, 8), (2**10, 1)])
def test_windows_that_share_a_program(least, at_once, monkeypatch, interpreted):
    monkeypatch.setattr(attend_kernel, "_LEAST_PROGRAMS", least)
    inputs = _inputs(SPREAD, 64, shape=(2, 4, 1))
    assert attend_kernel.windows_at_once(8, 1) == at_once
    found = _value_and_gradients(*inputs, pallas=True)
    for got, want in zip(found, _value_and_gradients(*inputs), strict=True):
        assert relative_error(got, want) < 5e-6
    assert interpreted


def test_kernels_sum_half_precision_in_full(interpreted):
    half = _inputs(SQUARE, 64, dtype=jnp.bfloat16)
    full = (None if a is None else a.astype(jnp.float32) for a in half)
    wants = _value_and_gradients(*full)
    found, plain = (_value_and_gradients(*half, pallas=pallas) for pallas in (True, False))
    for got, other, want in zip(found, plain, wants, strict=True):
        assert got.dtype == other.dtype
        got, other = got.astype(jnp.float32), other.astype(jnp.float32)
        assert relative_error(got, want) < 0.01
        assert relative_error(got, want) < 1.1 * relative_error(other, want)
    assert interpreted


def test_logits_far_apart_neither_overflow_nor_vanish(interpreted):
    q, k, v, bias, mask, grad = _inputs(SQUARE, 64)
    for array in _value_and_gradients(100 * q, 100 * k, v, bias, mask, grad, pallas=True):
        assert bool(jnp.all(jnp.isfinite(array)))
    assert interpreted


def test_batches_may_be_mapped_over(interpreted):
    q, k, v, bias, mask, _ = _inputs(GATHER, 1)
    one = lambda *a: attend(*(x[None] for x in a), bias, mask, pallas=True)[0]  # noqa: E731
    assert relative_error(jax.vmap(one)(q, k, v), attend(q, k, v, bias, mask)) < 5e-6
    assert interpreted


@pytest.mark.parametrize(
    ("queries", "keys", "hold"),
    [
        ((2, 3, 4, 64, 4), 64, True),
        ((2, 3, 4, 16, 16), 256, True),
        ((2, 3, 4, 64, 32), 64, False),  # channels
        ((2, 3, 4, 8, 4), 64, False),
        ((2, 3, 4, 64, 4), 8, False),
        ((2, 3, 4, 64, 4), 128, False),  # logits
        ((2, 3, 4, 48, 4), 64, False),  # no power of two
        ((2**5, 2**12, 4, 64, 4), 64, False),  # addresses of 64 bits
        ((0, 3, 4, 64, 4), 64, False),  # no program
    ],
)
def test_windows_that_registers_can_hold(queries, keys, hold):
    shapes = queries, (*queries[:-2], keys, queries[-1])
    assert registers_hold(*shapes) == hold
    with jax.enable_x64(True):
        assert not registers_hold(*shapes)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_both_kernels_lower_for_nvidia_gpus_where_asked_and_where_they_fit(dtype):
    def kernels(pallas, sides=SQUARE, with_bias=True):
        *inputs, bias, mask, grad = _inputs(sides, 0, dtype=dtype)
        program = functools.partial(_value_and_gradients, pallas=pallas)
        if with_bias:
            return lowered_for_cuda(program, *inputs, bias, mask, grad).count(PALLAS)
        without = lambda *a: attend(*a, pallas=pallas)  # noqa: E731
        return lowered_for_cuda(without, *inputs).count(PALLAS)

    assert [kernels(True), kernels(False)] == [2, 0]
    assert kernels(True, sides=(8, 64, 4)) == 0
    assert kernels(True, with_bias=False) == 0


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize(("sides", "masked"), [(SQUARE, 64), (GATHER, 0), (SPREAD, 1)])
def test_kernels_on_a_gpu(sides, masked, dtype):
    if jax.default_backend() != "gpu":
        pytest.skip("no GPU")
    inputs = _inputs(sides, masked, shape=(2, 256, 4), dtype=dtype)
    full = (None if a is None else a.astype(jnp.float32) for a in inputs)
    with jax.default_matmul_precision("highest"):
        wants = jax.jit(_value_and_gradients)(*full)
        found = jax.jit(functools.partial(_value_and_gradients, pallas=True))(*inputs)
    for got, want in zip(found, wants, strict=True):
        error = relative_error(got.astype(jnp.float32), want)
        assert error < (1e-5 if dtype == jnp.float32 else 0.02)
