"""Arithmetic counted by hand: products, loops, loops in loops."""

import jax
import jax.numpy as jnp
import pytest

from kgmgt_jax.evaluation.flops import count_flops

A = jax.ShapeDtypeStruct((8, 8), jnp.float32)
PRODUCT = 2 * 8**3


def _power(x, n_rounds):
    return jax.lax.scan(lambda c, _: (c @ x, None), x, length=n_rounds)[0]


def test_product_of_matrices():
    x, y = jax.ShapeDtypeStruct((3, 5), jnp.float32), jax.ShapeDtypeStruct((5, 7), jnp.float32)
    assert count_flops(jnp.matmul, x, y) == 2 * 3 * 5 * 7


def test_accelerators_count_nothing_so_a_cpu_does(monkeypatch):
    def is_accelerator(backend):  # as JAX's default backend is where there is one
        return jax.config.jax_default_device is None

    monkeypatch.setattr("jax._src.xla_bridge.using_pjrt_c_api", is_accelerator)
    assert jax.jit(jnp.matmul).lower(A, A).cost_analysis() is None
    assert count_flops(jnp.matmul, A, A) == PRODUCT


def test_each_round_of_a_loop_counts():
    found = count_flops(lambda x: _power(x, 7), A)
    assert found == pytest.approx(7 * PRODUCT, rel=0.01)


def test_what_is_alike_is_lowered_once(monkeypatch):
    real, lowered = jax.jit, []
    monkeypatch.setattr(jax, "jit", lambda function: lowered.append(function) or real(function))
    x = jax.ShapeDtypeStruct((9, 9), jnp.float32)
    found = [count_flops(lambda x: _power(_power(x, 7), 5), x) for _ in range(2)]
    assert found == pytest.approx([12 * 2 * 9**3] * 2, rel=0.01)
    assert len(lowered) == 2  # the whole, and one round


def test_loops_in_loops_and_in_compiled_functions_multiply():
    @jax.jit
    def function(x):
        return jax.lax.fori_loop(0, 5, lambda _, c: _power(c, 3), x)

    assert count_flops(function, A) == pytest.approx(15 * PRODUCT, rel=0.01)


def test_loops_of_what_is_computed_again_count():
    found = count_flops(jax.checkpoint(lambda x: _power(x, 7)), A)
    assert found == pytest.approx(7 * PRODUCT, rel=0.01)


def test_dearest_branch_counts():
    def function(x):
        branches = [lambda y: y, lambda y: _power(y, 3), lambda y: _power(y, 4)]
        return jax.lax.switch(x[0, 0].astype(int), branches, x)

    assert count_flops(function, A) == pytest.approx(4 * PRODUCT, rel=0.02)


def test_what_only_other_devices_run_does_not_count():
    def function(x):
        endless = lambda y: jax.lax.while_loop(lambda c: c.sum() < 9, jnp.exp, y)  # noqa: E731
        return jax.lax.platform_dependent(x, cuda=endless, default=lambda y: _power(y, 4))

    assert count_flops(function, A) == pytest.approx(4 * PRODUCT, rel=0.01)


def test_loop_until_something_holds_has_no_count():
    assert count_flops(lambda x: jax.lax.while_loop(lambda c: c.sum() < 9, jnp.exp, x), A) is None
