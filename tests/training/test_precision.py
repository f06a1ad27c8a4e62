"""In what precision a step computes, and what it keeps."""

import re

import jax
import numpy as np
import optax
import pytest

from kgmgt_jax.training.state import create_state
from kgmgt_jax.training.update import make_joint, make_steps
from tests.training.small import random_batch
from tests.training.toy import Convolution, OneStage, Score, ffts_of, sgd, toy_config

BATCH = random_batch(4)


def test_half_precision_reaches_neither_state_nor_fourier_transforms():
    model, adam = Convolution(dtype="bfloat16"), optax.adam(1e-3)
    state = create_state(model, Score(), adam, adam, seed=0)
    step, _ = make_steps(toy_config(), model, Score(), (adam, adam))
    jaxpr, (after, metrics) = jax.make_jaxpr(step, return_shape=True)(state, BATCH)
    assert "bf16" in str(jaxpr)
    dtypes = {str(leaf.dtype) for leaf in jax.tree.leaves((after, metrics))}
    assert dtypes == {"float32", "int32", "uint32"}
    ffts = list(ffts_of(jaxpr.jaxpr))
    assert len(ffts) == 4 and set(ffts) == {np.dtype(np.complex64)}


@pytest.mark.parametrize("joint", [False, True])
def test_single_precision_stays_single_where_jax_knows_double(joint):
    config, optimizers = toy_config(), (sgd(), sgd())
    state = create_state(OneStage(), Score(), *optimizers, seed=0)
    with jax.enable_x64(True):
        steps = (make_joint if joint else make_steps)(config, OneStage(), Score(), optimizers)
        for step in (steps,) if joint else steps:
            jaxpr, (after, metrics) = jax.make_jaxpr(step, return_shape=True)(state, BATCH)
            arrays = re.findall(r"(?:f64|c128)\[\d[^]]*]", str(jaxpr))
            assert not arrays
            dtypes = {str(leaf.dtype) for leaf in jax.tree.leaves((after, metrics))}
            assert dtypes == {"float32", "int32", "uint32"}
