"""Classical methods by name, and their weights from words."""

import jax.numpy as jnp
import numpy as np
import pytest

from kgmgt_jax.classical import METHODS
from kgmgt_jax.evaluation.classical_methods import (
    ClassicalMethod,
    classical_methods,
    parse_weights,
)
from tests.training.small import random_batch


def test_all_are_all_but_zero_filling():
    assert [m.name for m in classical_methods(["all"])] == list(METHODS)[1:]


def test_given_weights_go_before_tuned_and_default_ones():
    given = {"low_rank_plus_sparse": {"sparse_weight": 0.5}}
    tuned = {"low_rank_plus_sparse": {"low_rank_weight": 0.2, "sparse_weight": 0.3}}
    (method,) = classical_methods(["low_rank_plus_sparse"], tuned, given)
    assert method.weights == {"low_rank_weight": 0.2, "sparse_weight": 0.5}
    assert method.source == "low_rank_weight 0.2, sparse_weight 0.5 (given weights)"


@pytest.mark.parametrize(
    ("low_rank", "sparse", "told"),
    [
        (0.01, 0.01, ""),
        (0.002, 0.01, ", at an end of the grid: low_rank_weight"),
        (0.02, 0.03, ", at an end of the grid: low_rank_weight, sparse_weight"),
    ],
)
def test_tuned_weights_at_an_end_of_their_grid_are_told(low_rank, sparse, told):
    tuned = {"low_rank_plus_sparse": {"low_rank_weight": low_rank, "sparse_weight": sparse}}
    (method,) = classical_methods(["low_rank_plus_sparse"], tuned)
    assert method.source.endswith(f"(tuned weights{told})")


@pytest.mark.parametrize(
    ("names", "given", "message"),
    [
        (["magic"], {}, "unknown=.'magic'"),
        (["wavelet"], {"wavelet": {"mass": 1.0}}, "mass"),
        (["wavelet"], {"kt_focuss": {"weight": 1.0}}, "kt_focuss"),
        (["wavelet"], {"wavelet": {"weight": -1.0}}, "0 or more"),
    ],
)
def test_unknown_names_are_refused(names, given, message):
    with pytest.raises(ValueError, match=message):
        classical_methods(names, None, given)


def test_weights_are_parsed():
    found = parse_weights(["a.x=1e-2", "a.y=3", "b.x=0"])
    assert found == {"a": {"x": 0.01, "y": 3.0}, "b": {"x": 0.0}}


@pytest.mark.parametrize("item", ["a", "a.x", "a=1", "a.x=fast"])
def test_other_forms_of_weights_are_refused(item):
    with pytest.raises(ValueError, match=r"METHOD\.WEIGHT=NUMBER"):
        parse_weights([item])


def test_classical_method_reports_its_frames_and_ignores_what_was_not_measured():
    kspace = np.ones((3, 1, 9, 8), np.complex64)
    mask = np.zeros((3, 9, 8), np.float32)
    mask[:, 4] = 1
    done = []
    method = ClassicalMethod("temporal_average")
    image = method.reconstruct(kspace, mask, None, done.append)
    np.testing.assert_allclose(image, method.reconstruct(kspace * mask[:, None], mask, None))
    assert image.shape == (3, 9, 8) and sum(done) == 3


@pytest.mark.parametrize("circular", [True, False])
def test_classical_methods_know_whether_cines_have_ends(circular):
    batch = random_batch(4, 16)
    arrays = jnp.asarray(batch["kspace"]), jnp.asarray(batch["mask"])
    expected = METHODS["temporal_tv"].reconstruct(*arrays, weight=0.1, circular=circular)
    method = ClassicalMethod("temporal_tv", {"weight": 0.1}, circular=circular)
    np.testing.assert_allclose(method.reconstruct(*arrays, None), expected, atol=1e-6)
