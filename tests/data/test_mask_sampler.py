"""Random masks: what every kind contains, and what is refused before any is drawn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kgmgt_jax.data.mask_sampler import FIXED_KINDS, MASK_KINDS, MaskSampler
from kgmgt_jax.mri.sampling import MASKS, SamplingMask, true_acceleration

KINDS = (
    "uniform",
    "kt_uniform",
    "kt_gaussian",
    "variable_density",
    "variable_density_fixed",
    "kt_radial",
)


def _rng() -> np.random.Generator:
    return np.random.default_rng(5)


@pytest.mark.parametrize("kind", KINDS)
def test_every_mask_measures_the_centre_in_every_frame(kind):
    mask = MaskSampler((kind,), (4.0,), 4).draw(_rng(), (3, 24, 16))
    assert mask.shape == (3, 24, 16) and mask.dtype == np.float32
    assert mask[:, 10:14, 6:10].all() and not mask.all()


@pytest.mark.parametrize("kind", MASK_KINDS)
def test_fixed_kinds_measure_the_same_lines_in_all_frames(kind):
    mask = MaskSampler((kind,), (4.0,), 4).draw(_rng(), (3, 24, 16))
    assert (kind in FIXED_KINDS) == bool((mask == mask[0]).all())


def test_the_generator_decides_the_mask():
    sampler = MaskSampler(KINDS, (2.0, 4.0), 4)
    np.testing.assert_array_equal(
        sampler.draw(_rng(), (3, 16, 12)), sampler.draw(_rng(), (3, 16, 12))
    )


def test_an_aligned_comb_begins_at_the_first_line():
    mask = MaskSampler(("uniform_aligned",), (4.0,), 0).draw(_rng(), (3, 22, 2))
    np.testing.assert_array_equal(np.flatnonzero(mask[0, :, 0]), range(0, 22, 4))


def test_masks_hardly_ever_repeat():
    sampler, rng = MaskSampler(("variable_density",), (4.0,), 4), _rng()
    masks = {sampler.draw(rng, (3, 24, 16)).tobytes() for _ in range(64)}
    assert len(masks) == 64


def test_kinds_and_accelerations_are_mixed():
    sampler = MaskSampler(("variable_density", "variable_density_fixed"), (2.0, 4.0), 2)
    rng = _rng()
    masks = [sampler.draw(rng, (3, 16, 4)) for _ in range(24)]
    seen = {(round(mask.size / mask.sum()), bool((mask == mask[0]).all())) for mask in masks}
    assert seen == {(2, True), (2, False), (4, True), (4, False)}


@pytest.mark.parametrize(
    ("sampler", "message"),
    [
        (MaskSampler(("spiral",), (4.0,), 4), "'variable_density_fixed'.*got kind='spiral'"),
        (MaskSampler((), (4.0,), 4), "at least one mask kind"),
        (MaskSampler(("uniform",), (), 4), "at least one mask kind"),
        (MaskSampler(("uniform",), (2.5,), 4), "whole number"),
        (MaskSampler(("variable_density",), (4.0, 8.0), 4), "lower acs or the acceleration"),
    ],
)
def test_impossible_masks_are_refused_before_any_is_drawn(sampler, message):
    with pytest.raises(ValueError, match=message):
        sampler.check((3, 24, 16))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "preference", [lambda: jax.default_prng_impl("rbg"), lambda: jax.threefry_partitionable(False)]
)
def test_masks_do_not_depend_on_the_generator_that_jax_prefers(kind, preference):
    sampler = MaskSampler((kind,), (4.0,), 4)
    expected = sampler.draw(_rng(), (3, 20, 16))
    jax.clear_caches()
    with preference():
        np.testing.assert_array_equal(sampler.draw(_rng(), (3, 20, 16)), expected)


def test_a_kind_that_is_defined_again_is_drawn_anew(monkeypatch):
    def line(place):
        def pattern(key, shape, acceleration, *, acs):
            mask = jnp.zeros(shape, jnp.float32).at[:, place].set(1.0)
            return SamplingMask(mask, acceleration, true_acceleration(mask))

        return pattern

    monkeypatch.setitem(MASK_KINDS, "line", ("line", {}))
    for place in (1, 3):
        monkeypatch.setitem(MASKS, "line", line(place))
        mask = MaskSampler(("line",), (4.0,), 0).draw(_rng(), (2, 8, 4))
        assert np.flatnonzero(mask[0, :, 0]) == place
