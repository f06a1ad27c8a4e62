"""The Pallas kernels of transformer blocks against the plain path: interpreted, lowered, on a GPU.

JAX_PLATFORMS=cuda pytest -m gpu
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kgmgt_jax.models import attend_kernel
from kgmgt_jax.models.block_kernel import block_fits
from kgmgt_jax.models.block_options import BlockOptions
from kgmgt_jax.models.initialisation import initialise
from kgmgt_jax.models.layers import Layers
from kgmgt_jax.models.transformer import TransformerBody
from tests.models.fixtures import relative_error
from tests.models.kernels import PALLAS, lowered_for_cuda


def _body(*, pallas, dtype=None, n_groups=1, unroll=False, **options):
    blocks = BlockOptions(**options, layers=Layers(dtype, pallas=pallas))
    return TransformerBody(blocks, n_groups, n_blocks=2, unroll=unroll)


def _variables(body, x):
    """Weights of a size that makes every part of a block matter."""
    leaves, tree = jax.tree.flatten(initialise(body, 0, x, train=False))
    keys = jax.random.split(jax.random.key(1), len(leaves))
    draws = (jax.random.normal(key, a.shape) for key, a in zip(keys, leaves, strict=True))
    return jax.tree.unflatten(tree, [a + 0.2 * d for a, d in zip(leaves, draws, strict=True)])


def _apply(body, variables, x):
    return body.apply(variables, x, train=False)


def _tokens(*shape):
    return jax.random.normal(jax.random.key(0), shape)


@pytest.mark.parametrize(
    ("shape", "options"),
    [
        ((2, 32, 64, 16), {"rect_window": (16, 4)}),
        ((1, 32, 32, 16), {"rect_window": (4, 16)}),
        ((1, 32, 32, 16), {"n_groups": 3}),
        ((1, 16, 48, 16), {"rect_window": (8, 8), "unroll": True}),
        ((1, 16, 16, 16), {"rect_window": (8, 8), "width": 16, "mlp_ratio": 4}),
        ((1, 16, 16, 32), {"rect_window": (16, 4), "width": 32}),
        ((1, 16, 16, 16), {"rect_window": (16, 4), "n_heads": 2, "window": 4}),
    ],
)
def test_kernels_equal_the_plain_path(shape, options, interpreted):
    x = _tokens(*shape)
    body, plain = (_body(pallas=pallas, **options) for pallas in (True, False))
    variables = _variables(plain, x)
    assert relative_error(_apply(body, variables, x), _apply(plain, variables, x)) < 2e-6
    assert len(interpreted) == 1


def test_where_no_gpu_is_nothing_changes():
    x = _tokens(3, 32, 32, 16)
    body, plain = (_body(pallas=pallas) for pallas in (True, False))
    variables = _variables(plain, x)
    outputs = (jax.jit(functools.partial(_apply, each))(variables, x) for each in (body, plain))
    np.testing.assert_array_equal(*outputs)


def test_images_may_be_mapped_over(interpreted):
    x = _tokens(2, 32, 32, 16)
    body, plain = (_body(pallas=pallas) for pallas in (True, False))
    variables = _variables(plain, x)
    got = jax.vmap(functools.partial(_apply, body, variables))(x[:, None])[:, 0]
    assert relative_error(got, _apply(plain, variables, x)) < 2e-6
    assert interpreted


def test_windows_that_share_a_program(monkeypatch, interpreted):
    monkeypatch.setattr(attend_kernel, "_LEAST_PROGRAMS", 16)
    x = _tokens(2, 32, 32, 16)
    body, plain = (_body(pallas=pallas) for pallas in (True, False))
    variables = _variables(plain, x)
    assert relative_error(_apply(body, variables, x), _apply(plain, variables, x)) < 2e-6
    assert interpreted


def test_kernels_sum_half_precision_in_full(interpreted):
    x = _tokens(1, 32, 32, 16)
    full = _body(pallas=False)
    half, kernels = (_body(pallas=pallas, dtype="bfloat16") for pallas in (False, True))
    variables = _variables(full, x)
    want, plain, got = (_apply(body, variables, x) for body in (full, half, kernels))
    assert got.dtype == jnp.float32
    assert relative_error(got, want) < 0.02
    assert relative_error(got, want) <= relative_error(plain, want)
    assert interpreted


def test_gradient_is_that_of_the_plain_path(interpreted):
    x = _tokens(1, 16, 16, 16)
    plain = _body(pallas=False)
    variables = _variables(plain, x)

    def gradients(pallas):
        loss = lambda *a: jnp.sum(jnp.sin(_apply(_body(pallas=pallas), *a)))  # noqa: E731
        return jax.tree.leaves(jax.jit(jax.grad(loss, argnums=(0, 1)))(variables, x))

    for got, want in zip(gradients(True), gradients(False), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5 * float(jnp.max(jnp.abs(want))))
    assert interpreted


def test_training_has_kernels_for_attention_alone(interpreted):
    x = _tokens(2, 16, 16, 16)
    body, plain = (_body(pallas=pallas) for pallas in (True, False))
    variables, rngs = _variables(plain, x), {"dropout": jax.random.key(2)}

    def gradients(body):
        loss = lambda *a: jnp.sum(jnp.sin(body.apply(*a, train=True, rngs=rngs)))  # noqa: E731
        return jax.tree.leaves(jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))(variables, x))

    for got, want in zip(gradients(body), gradients(plain), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5 * float(jnp.max(jnp.abs(want))))
    kernels = {"attend_in_registers", "attention_gradient_in_registers"}
    assert {kernel.__name__ for kernel in interpreted} == kernels


@pytest.mark.parametrize(
    ("change", "shape", "fits"),
    [
        ({}, (1, 32, 64, 16), True),
        ({}, (1, 24, 64, 16), False),  # rectangles of 16 rows
        ({}, (1, 32, 36, 16), False),  # squares of 8 columns
        ({"rect_window": (8, 8)}, (1, 16, 24, 16), False),  # anchors in programs of 64
        ({}, (2**20, 32, 64, 16), False),  # addresses of 64 bits
        ({}, (0, 32, 64, 16), False),  # no program
        ({"rect_window": (4, 4)}, (1, 32, 64, 16), False),  # 4 anchors
        ({"rect_window": (32, 16)}, (1, 32, 64, 16), False),  # logits
        ({"rect_window": (12, 4)}, (1, 48, 64, 16), False),  # no power of two
        ({"rect_window": None}, (1, 32, 64, 16), False),
        ({"square_window": False}, (1, 32, 64, 16), False),
        ({"attention": "global"}, (1, 32, 64, 16), False),
        ({"width": 8, "n_heads": 2}, (1, 32, 64, 8), False),
        ({"width": 32, "n_heads": 1}, (1, 32, 64, 32), False),  # heads of 32 channels
        ({"width": 32}, (1, 32, 64, 32), True),
        ({"width": 64}, (1, 32, 64, 64), False),  # hidden layers of 128 channels
    ],
)
def test_blocks_that_kernels_can_hold(change, shape, fits):
    options = dataclasses.replace(BlockOptions(), **change)
    assert block_fits(options, shape) == fits
    with jax.enable_x64(True):
        assert not block_fits(options, shape)


@pytest.mark.parametrize(("asked", "rows"), [(True, 32), (False, 32), (True, 24)])
@pytest.mark.parametrize("dtype", [None, "bfloat16"])
def test_kernels_lower_for_nvidia_gpus_where_asked_and_where_they_fit(asked, rows, dtype):
    body, x = _body(pallas=asked, dtype=dtype), _tokens(1, rows, 32, 16)
    variables = initialise(_body(pallas=False), 0, x, train=False)
    program = lowered_for_cuda(lambda *a: _apply(body, *a), variables, x)
    assert ('name = "make_anchors"' in program) == (asked and rows == 32)
    assert (PALLAS in program) == asked  # else attention by itself


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [None, "bfloat16"])
@pytest.mark.parametrize("rect_window", [(16, 4), (4, 16), (8, 8)])
@pytest.mark.parametrize("size", [64, 256])
def test_kernels_on_a_gpu(size, rect_window, dtype):
    if jax.default_backend() != "gpu":
        pytest.skip("no GPU")
    x = _tokens(2, size, size, 16)
    plain = _body(pallas=False, rect_window=rect_window)
    variables = _variables(plain, x)
    kernels = _body(pallas=True, dtype=dtype, rect_window=rect_window)
    with jax.default_matmul_precision("highest"):  # the convolution after the blocks, too
        want, got = (
            jax.jit(functools.partial(_apply, each))(variables, x) for each in (plain, kernels)
        )
    assert relative_error(got, want) < (1e-5 if dtype is None else 0.02)
