"""The released network against the oracle's generator and two-pass arrays (fixtures i and j).

Tolerances are those of the fixtures, relative to each array's maximum; flows are exact.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kgmgt_jax.models.denoiser import Denoiser
from kgmgt_jax.models.encoder import Features
from kgmgt_jax.models.matching import best_match, corner_flow, similarity_map
from tests.models.fixtures import Fixture, nchw, nhwc, relative_error
from tests.models.released import (
    AGGREGATED,
    SCALES,
    Compiled,
    Released,
    cast,
    from_image,
    recipe,
    to_image,
    variables,
)

TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def weights(fixtures_dir):
    return variables(fixtures_dir)


@pytest.fixture(scope="module")
def parts():
    return Compiled(train=False)


def _check_maps(fixture, group, suffix, names, maps):
    """Every 16th channel, where stored, and each channel's mean and standard deviation."""
    for name, x in zip(names, map(np.asarray, maps), strict=True):
        if f"out/{group}{suffix}/{name}" in fixture:
            stored = fixture[f"out/{group}{suffix}/{name}"]
            assert relative_error(nchw(x)[:, ::16], stored) < TOLERANCE, name
        for what in ("mean", "std"):
            stored = fixture[f"out/{group}stat{suffix}/{name}_{what}"]
            assert relative_error(getattr(x, what)((1, 2)), stored) < TOLERANCE, name


@pytest.fixture(scope="module")
def generator(fixtures_dir, weights, parts):
    """Image, d1..d5 and U-Net residual of fixture i; its two priors are a batch of two."""
    fixture = Fixture(fixtures_dir, "i_generator_64")
    z = recipe(fixtures_dir).inputs(fixture.meta["spec"], fixture.meta["seed_inputs"])
    z["fref"] += np.roll(z["fin"], (1, -2), (2, 3))
    twice = {k: np.repeat(nhwc(v), 2, axis=0) for k, v in z.items()}
    as_prior = (*SCALES, SCALES[1], SCALES[0])
    priors = tuple(
        np.concatenate([nhwc(z[f"kd_{a}"]), nhwc(z[f"kd_{b}"])])
        for a, b in zip(as_prior, AGGREGATED, strict=True)
    )
    values = tuple(twice[n] for n in SCALES)
    target = Features(twice["fin"], twice["fin"], values)
    reference = Features(twice["fref"], twice["fref"], values)
    image = to_image(np.repeat(z["base"], 2, axis=0))
    match = best_match(jnp.asarray(target.query), jnp.asarray(reference.key))
    flow = corner_flow(match.flow)[:1]
    np.testing.assert_array_equal(flow, fixture["in/pre_flow_relu3"])
    return fixture, jax.device_get(parts.one_pass(weights, image, target, reference, priors))


@pytest.mark.parametrize("kind", ["kd3", "kd5"])
def test_generator_equals_reference(generator, kind):
    fixture, ((image, aggregated), residual) = generator
    which = slice(0, 1) if kind == "kd3" else slice(1, 2)
    assert relative_error(nchw(residual[which]), fixture[f"out/{kind}/agg_out"]) < TOLERANCE
    assert relative_error(from_image(image[which]), fixture[f"out/{kind}/net_out"]) < TOLERANCE
    _check_maps(fixture, f"{kind}/kd", "", AGGREGATED, [d[which] for d in aggregated])


def test_one_denoiser_iteration_equals_reference(fixtures_dir, weights):
    fixture = Fixture(fixtures_dir, "i_generator_64")
    x = jnp.asarray(nhwc(fixture["in/base"]))
    part = {k: weights[k]["mentor_net"]["denoiser"]["denoiser"] for k in weights}
    y = jax.jit(lambda v, x: Denoiser(norm="batch").apply(v, x, train=False) + x)(part, x)
    assert relative_error(nchw(y), fixture["out/denoiser_1"]) < TOLERANCE


@pytest.fixture(scope="module")
def two_pass(fixtures_dir, weights, parts):
    fixture = Fixture(fixtures_dir, "j_two_pass_64")
    frames = [to_image(fixture[f"in/{n}"]) for n in ("lq", "ref1", "ref2")]
    network = Released(weights, parts)
    output = network(*frames)
    features = [
        (network.encode(target), network.encode(reference))
        for target, reference in ((frames[0], frames[1]), (output.mentor, frames[2]))
    ]
    return fixture, output, network.passes, features


def test_two_passes_equal_reference(two_pass):
    fixture, output, passes, _ = two_pass
    assert relative_error(from_image(output.mentor), fixture["out/out1"]) < TOLERANCE
    assert relative_error(from_image(output.image), fixture["out/out"]) < TOLERANCE
    for i, (_, aggregated, _) in enumerate(passes, start=1):
        _check_maps(fixture, "kd", f"_{i}", AGGREGATED, aggregated)


@pytest.mark.parametrize("number", [1, 2])
def test_features_and_matches_of_each_pass_equal_reference(two_pass, number):
    fixture, _, _, features = two_pass
    target, reference = features[number - 1]
    for i, dense in enumerate((target.query, reference.key), start=1):
        stored = fixture[f"out/dense{i}_{number}"]
        assert relative_error(nchw(dense)[:, ::32], stored) < TOLERANCE
    _check_maps(fixture, "vgg", f"_{number}", SCALES, reference.values)
    match = best_match(target.query, reference.key)
    np.testing.assert_array_equal(corner_flow(match.flow), fixture[f"out/flow_relu3_{number}"])
    similarity = nchw(similarity_map(match.similarity))
    assert relative_error(similarity, fixture[f"out/sim_relu3_{number}"]) < TOLERANCE


def test_two_passes_in_float64_equal_reference(fixtures_dir, weights, parts):
    fixture = Fixture(fixtures_dir, "j_two_pass_64")
    frames = [to_image(fixture[f"in/{n}"].astype(float)) for n in ("lq", "ref1", "ref2")]
    with jax.enable_x64(True):
        output = Released(cast(weights, np.float64), parts)(*frames)
    for got, name in ((output.mentor, "out1"), (output.image, "out")):
        assert got.dtype == np.complex128
        assert relative_error(from_image(got), fixture[f"out/{name}"]) < 2e-6, name
