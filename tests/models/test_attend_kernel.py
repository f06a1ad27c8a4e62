"""The Pallas kernel of attention against the plain path: interpreted, lowered, and on a GPU.

JAX_PLATFORMS=cuda pytest -m gpu
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kgmgt_jax.models.attend import attend
from kgmgt_jax.models.attend_kernel import registers_hold
from kgmgt_jax.models.attention import AnchoredAttention
from kgmgt_jax.models.initialisation import initialise
from kgmgt_jax.models.layers import Layers
from tests.models.fixtures import relative_error
from tests.models.kernels import PALLAS, lowered_for_cuda


def _inputs(b, n, heads, t, s, d, added="both", dtype=jnp.float32):
    keys = jax.random.split(jax.random.key(n * t * s), 5)
    q, k, v = (
        jax.random.normal(key, (b, n, heads, length, d), dtype)
        for key, length in zip(keys, (t, s, s), strict=False)
    )
    bias = 3 * jax.random.normal(keys[3], (heads, t, s)) if added != "mask" else None
    rows = {"both": t, "row": 1, "mask": t}.get(added)
    mask = rows and -100.0 * jax.random.bernoulli(keys[4], 0.3, (n, rows, s)).at[0].set(False)
    return q, k, v, bias, mask


@pytest.mark.parametrize("added", ["both", "bias", "mask", "row"])
@pytest.mark.parametrize("sizes", [(2, 3, 4, 16, 64, 2), (1, 8, 2, 64, 16, 4), (1, 5, 1, 2, 4, 1)])
def test_kernel_equals_plain_path(sizes, added, interpreted):
    inputs = _inputs(*sizes, added)
    got, want = attend(*inputs, pallas=True), attend(*inputs)
    assert len(interpreted) == 1
    assert relative_error(got, want) < 2e-6


def test_windows_that_share_a_program_get_their_own_masks(interpreted):
    inputs = _inputs(2, 1024, 1, 4, 4, 2)  # two windows a program, masks of the same of the batch
    assert relative_error(attend(*inputs, pallas=True), attend(*inputs)) < 2e-6
    assert interpreted


def test_kernel_sums_half_precision_in_full(interpreted):
    half = _inputs(1, 4, 2, 16, 64, 4, dtype=jnp.bfloat16)
    want = attend(*(a.astype(jnp.float32) for a in half))
    got, plain = attend(*half, pallas=True), attend(*half)
    assert got.dtype == jnp.bfloat16
    assert relative_error(got, want) < 4e-3
    assert relative_error(got, want) <= relative_error(plain, want)
    assert interpreted


def test_gradient_is_that_of_the_plain_path(interpreted):
    q, k, v, bias, mask = _inputs(1, 4, 2, 16, 8, 2)

    def gradients(pallas):
        loss = lambda *a: jnp.sum(jnp.sin(attend(*a, mask, pallas=pallas)))  # noqa: E731
        return jax.grad(loss, argnums=(0, 1, 2, 3))(q, k, v, bias)

    for got, want in zip(gradients(True), gradients(False), strict=True):
        assert relative_error(got, want) < 5e-6
    assert interpreted


def test_mixed_attention_is_that_of_the_plain_path(interpreted):
    x = jax.random.normal(jax.random.key(0), (1, 20, 16, 16))  # windows reach over the edge
    modules = [AnchoredAttention(16, 4, (8, 4), Layers(pallas=pallas)) for pallas in (True, False)]
    variables = initialise(modules[0], 0, x)
    got, want = (module.apply(variables, x) for module in modules)
    assert relative_error(got, want) < 2e-6
    assert len(interpreted) == 4  # two steps, initialised and applied


@pytest.mark.parametrize(
    ("sizes", "fits"),
    [((64, 64, 4), True), ((16, 64, 2), True), ((160, 40, 4), False), ((128, 64, 4), False)],
)
def test_windows_that_registers_can_hold(sizes, fits):
    assert registers_hold(*sizes) == fits
    with jax.enable_x64(True):
        assert not registers_hold(*sizes)


def test_kernel_lowers_for_nvidia_gpus_where_asked_and_where_it_fits():
    small, large = _inputs(1, 4, 4, 64, 64, 4), _inputs(1, 4, 4, 160, 40, 4)
    asked = functools.partial(attend, pallas=True)
    assert PALLAS in lowered_for_cuda(asked, *small)
    assert PALLAS not in lowered_for_cuda(attend, *small)
    assert PALLAS not in lowered_for_cuda(asked, *large)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("sizes", [(64, 64, 4), (16, 64, 2), (64, 16, 2)])
@pytest.mark.parametrize("n", [1024, 63])
def test_kernel_on_a_gpu(n, sizes, dtype):
    if jax.default_backend() != "gpu":
        pytest.skip("no GPU")
    inputs = _inputs(2, n, 4, *sizes, dtype=dtype)
    with jax.default_matmul_precision("highest"):
        want = jax.jit(attend)(*(a.astype(jnp.float32) for a in inputs))
    got = jax.jit(functools.partial(attend, pallas=True))(*inputs)
    error = np.linalg.norm(np.asarray(got, np.float32) - want) / np.linalg.norm(want)
    assert error < (1e-5 if dtype == jnp.float32 else 1e-2)
