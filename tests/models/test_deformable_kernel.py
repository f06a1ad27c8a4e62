"""The Pallas kernel against the plain path: interpreted, lowered for CUDA, and run where a GPU is.

JAX_PLATFORMS=cuda pytest -m gpu
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kgmgt_jax.models.deformable import deformable_conv
from kgmgt_jax.models.deformable_kernel import kernel_fits
from tests.models.fixtures import relative_error
from tests.models.kernels import PALLAS, lowered_for_cuda


def _inputs(shape, c, groups, o, dtype=jnp.float32, reach=4.0):
    b, h, w = shape
    keys = jax.random.split(jax.random.key(h * w), 5)
    return (
        jax.random.normal(keys[0], (b, h, w, c), dtype),
        reach * jax.random.normal(keys[1], (b, h, w, groups, 9, 2)),
        jax.random.uniform(keys[2], (b, h, w, groups, 9)),
        jax.random.normal(keys[3], (3, 3, c, o)) / c**0.5,
        jax.random.normal(keys[4], (o,)),
    )


@pytest.mark.parametrize(
    ("shape", "c", "groups", "o"),
    [((2, 9, 13), 64, 4, 64), ((1, 16, 8), 32, 1, 16), ((1, 3, 3), 32, 2, 128)],
)
def test_kernel_equals_plain_path(shape, c, groups, o, interpreted):
    inputs = _inputs(shape, c, groups, o)
    got, want = deformable_conv(*inputs, pallas=True), deformable_conv(*inputs)
    assert len(interpreted) == 1
    assert relative_error(got, want) < 5e-6


@pytest.mark.parametrize("reach", [0.0, 1e3, 1e12])
def test_kernel_samples_zero_outside(reach, interpreted):
    inputs = _inputs((1, 6, 7), 16, 1, 16, reach=reach)
    got, want = deformable_conv(*inputs, pallas=True), deformable_conv(*inputs)
    assert relative_error(got, want) < 5e-6


def test_kernel_sums_half_precision_in_full(interpreted):
    half = _inputs((1, 8, 8), 64, 4, 64, jnp.bfloat16)
    want = deformable_conv(half[0].astype(jnp.float32), *half[1:])
    got = deformable_conv(*half, pallas=True)
    plain = deformable_conv(*half)
    assert got.dtype == jnp.bfloat16
    assert relative_error(got, want) < 5e-3
    assert relative_error(got, want) <= relative_error(plain, want)


def test_gradient_is_that_of_the_plain_path(interpreted):
    inputs = _inputs((1, 6, 5), 32, 2, 16)

    def gradients(pallas):
        loss = lambda *a: jnp.sum(jnp.sin(deformable_conv(*a, pallas=pallas)))  # noqa: E731
        return jax.grad(loss, argnums=(0, 1, 2, 3, 4))(*inputs)

    for got, want in zip(gradients(True), gradients(False), strict=True):
        assert relative_error(got, want) < 5e-5
    assert interpreted


@pytest.mark.parametrize(
    ("sizes", "fits"),
    [
        ((64, 4, 64), True),
        ((256, 4, 256), True),
        ((128, 1, 128), True),
        ((48, 1, 64), False),
        ((32, 4, 64), False),
        ((256, 2, 256), False),  # 426 KB of shared memory, of 232 that an H200 has
        ((16, 1, 512), False),
    ],
)
def test_channels_that_triton_can_hold(sizes, fits):
    assert kernel_fits(*sizes) == fits
    with jax.enable_x64(True):
        assert not kernel_fits(*sizes)


def _program_for_cuda(c, pallas, o=64, dtype=jnp.float32):
    convolve = functools.partial(deformable_conv, pallas=pallas)
    return lowered_for_cuda(convolve, *_inputs((2, 8, 8), c, 4, o, dtype))


def test_kernel_lowers_for_nvidia_gpus_where_asked_and_where_it_fits():
    assert PALLAS in _program_for_cuda(64, pallas=True)
    assert PALLAS not in _program_for_cuda(64, pallas=False)
    assert PALLAS not in _program_for_cuda(32, pallas=True)  # groups of 8 channels


@pytest.mark.parametrize(
    ("c", "dtype", "stages"),
    [(128, jnp.float32, 2), (256, jnp.float32, 1), (256, jnp.bfloat16, 2)],
)
def test_small_shared_memory_holds_what_is_fetched_ahead(c, dtype, stages):
    program = _program_for_cuda(c, pallas=True, o=c, dtype=dtype)
    assert f"num_stages = {stages}" in program


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize(("size", "c"), [(256, 64), (128, 128), (64, 256), (45, 64)])
def test_kernel_on_a_gpu(size, c, dtype):
    if jax.default_backend() != "gpu":
        pytest.skip("no GPU")
    inputs = _inputs((2, size, size), c, 4, c, dtype)
    want = jax.jit(deformable_conv)(inputs[0].astype(jnp.float32), *inputs[1:])
    got = jax.jit(functools.partial(deformable_conv, pallas=True))(*inputs)
    error = np.linalg.norm(np.asarray(got, np.float32) - want) / np.linalg.norm(want)
    assert error < (2e-3 if dtype == jnp.float32 else 1e-2)  # TensorFloat-32; bfloat16
