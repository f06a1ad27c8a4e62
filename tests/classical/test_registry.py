"""The registry is complete, and tuning finds the best weights."""

import inspect

import jax.numpy as jnp
import numpy as np
import pytest

from kgmgt_jax.classical import METHODS, tune
from kgmgt_jax.classical.registry import Algorithm
from tests.classical.reference import problem


@pytest.mark.parametrize("name", METHODS)
def test_weights_are_the_defaults_and_in_the_grid(name):
    method = METHODS[name]
    parameters = inspect.signature(method.reconstruct).parameters
    assert list(parameters)[:3] == ["kspace", "mask", "sens"]
    assert set(method.grid) == set(method.weights)
    for weight, value in method.weights.items():
        assert parameters[weight].default == value
        assert value in method.grid[weight]


@pytest.mark.parametrize("name", METHODS)
def test_cyclic_methods_can_be_told_that_cines_have_ends(name):
    method = METHODS[name]
    assert method.cyclic == ("circular" in inspect.signature(method.reconstruct).parameters)
    kspace, mask, _ = problem()
    around, with_ends = (
        method.with_weights(method.weights, circular=circular)(kspace, mask)
        for circular in (True, False)
    )
    assert method.cyclic != np.array_equal(around, with_ends)


@pytest.fixture
def scaling(monkeypatch):
    """A method whose image is its weights' product times the first coil's k-space."""

    def reconstruct(kspace, mask, sens=None, *, a=1.0, b=1.0):
        return a * b * kspace[:, 0]

    method = Algorithm(reconstruct, {"a": 1.0, "b": 1.0}, {"a": (1.0, 2.0), "b": (1.0, 5.0)})
    monkeypatch.setitem(METHODS, "scaling", method)


def _score(reference, prediction):
    return -float(np.abs(np.asarray(reference) - np.asarray(prediction)).mean())


def test_tuning_picks_the_best_combination(scaling):
    kspace, mask, _ = problem()
    cases = [(10 * np.abs(kspace[:, 0]), kspace, mask, None), (0 * mask, 0 * kspace, mask, None)]
    result = tune("scaling", iter(cases), _score)
    assert result.weights == {"a": 2.0, "b": 5.0}
    assert len(result.tried) == 4 and abs(result.score) < 1e-5


@pytest.mark.parametrize("circular", [True, False])
def test_tuning_knows_whether_cines_have_ends(monkeypatch, circular):
    told = []

    def reconstruct(kspace, mask, sens=None, *, a=1.0, circular=None):
        told.append(circular)
        return kspace[:, 0]

    method = Algorithm(reconstruct, {"a": 1.0}, {"a": (1.0,)}, cyclic=True)
    monkeypatch.setitem(METHODS, "told", method)
    kspace, mask, _ = problem()
    tune("told", [(mask, kspace, mask, None)], _score, circular=circular)
    assert told == [circular]


def test_tuning_takes_another_grid_and_keeps_other_weights(scaling):
    kspace, mask, _ = problem()
    cases = [(3 * np.abs(kspace[:, 0]), kspace, mask, None)]
    assert tune("scaling", cases, _score, {"b": (4.0, 3.0)}).weights == {"a": 1.0, "b": 3.0}


def test_tuning_a_method_without_weights_scores_it():
    kspace, mask, _ = problem()
    result = tune("zero_filled", [(mask, kspace, mask, None)], _score)
    assert result.weights == {} and len(result.tried) == 1


REFUSED = {
    "method": (("nothing", 1, None), "expected method to be one of zero_filled"),
    "weight": (("temporal_tv", 1, {"width": (1.0,)}), r"got unknown=\['width'\]"),
    "values": (("temporal_tv", 1, {"weight": ()}), "expected cases and values"),
    "cases": (("temporal_tv", 0, None), "got 0 cases"),
    "scores": (("zero_filled", 1, None), "expected a finite score"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_bad_requests_are_refused(name):
    (method, n_cases, grid), message = REFUSED[name]
    case = (jnp.ones((1, 8, 8)), jnp.ones((1, 1, 8, 8), complex), jnp.ones((1, 8, 8)), None)
    with pytest.raises(ValueError, match=message):
        tune(method, [case] * n_cases, lambda *_: float("nan"), grid)
