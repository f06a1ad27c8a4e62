"""Sampling patterns: line counts, centres, and what each kind promises over time."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kgmgt_jax.mri.sampling import (
    MASKS,
    centre_rank,
    kt_gaussian,
    kt_radial,
    kt_uniform,
    make_mask,
    true_acceleration,
    uniform,
    variable_density,
)

KEY = jax.random.key(0)
SHAPE = (3, 32, 20)  # of most tests, so that little is compiled anew
KINDS = sorted(MASKS)
LINE_KINDS = [kind for kind in KINDS if kind != "kt_radial"]


def _lines(sampling):
    """Measured lines, frame by line, at the left border (so without the radial square)."""
    return np.asarray(sampling.mask[:, :, 0])


@pytest.mark.parametrize(
    ("size", "n", "block"),
    [(8, 4, [2, 3, 4, 5]), (8, 3, [3, 4, 5]), (7, 4, [1, 2, 3, 4]), (7, 3, [2, 3, 4]), (9, 1, [4])],
)
def test_centre_rank_gives_the_central_block(size, n, block):
    assert np.flatnonzero(centre_rank(size) < n).tolist() == block


@pytest.mark.parametrize("kind", KINDS)
def test_central_lines_are_as_many_as_the_organisers_take(kind):
    """24 in 2023, of uniform masks; 16 since."""
    expected = {"uniform": 24, "variable_density": 8}.get(kind, 16)
    assert inspect.signature(MASKS[kind]).parameters["acs"].default == expected


@pytest.mark.parametrize("size", [1, 6, 7])
def test_centre_rank_is_a_permutation(size):
    assert sorted(centre_rank(size)) == list(range(size))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("ny", [32, 33])
def test_shape_dtype_and_values(kind, ny):
    mask = make_mask(kind, KEY, (3, ny, 20), 4, acs=4).mask
    assert mask.shape == (3, ny, 20) and mask.dtype == jnp.float32
    assert set(np.unique(mask)) == {0.0, 1.0}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("acs", [3, 4])
@pytest.mark.parametrize("ny", [32, 33])
def test_central_block_is_measured_in_every_frame(kind, acs, ny):
    mask = np.asarray(make_mask(kind, KEY, (3, ny, 20), 4, acs=acs).mask)
    first = ny // 2 - acs // 2
    columns = slice(10 - acs // 2, 10 - acs // 2 + acs) if kind == "kt_radial" else slice(None)
    assert mask[:, first : first + acs, columns].all()


@pytest.mark.parametrize("kind", KINDS)
def test_same_key_same_mask(kind):
    first, second = (make_mask(kind, KEY, SHAPE, 4, acs=4).mask for _ in range(2))
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("kind", KINDS)
def test_keys_give_different_masks(kind):
    masks = [make_mask(kind, jax.random.key(i), SHAPE, 4, acs=4).mask for i in range(8)]
    assert any((masks[0] != other).any() for other in masks[1:])


@pytest.mark.parametrize("kind", LINE_KINDS)
def test_lines_are_complete_along_the_readout(kind):
    mask = make_mask(kind, KEY, SHAPE, 4, acs=4).mask
    np.testing.assert_array_equal(mask, np.broadcast_to(mask[:, :, :1], mask.shape))


@pytest.mark.parametrize("kind", KINDS)
def test_reported_acceleration_is_that_of_the_mask(kind):
    sampling = make_mask(kind, KEY, SHAPE, 4, acs=4)
    measured = np.asarray(sampling.mask).sum()
    assert sampling.nominal_acceleration == 4.0
    np.testing.assert_allclose(sampling.true_acceleration, 3 * 32 * 20 / measured, rtol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_generators_run_under_jit(kind):
    drawn = jax.jit(lambda key: make_mask(kind, key, SHAPE, 4, acs=4))(KEY)
    np.testing.assert_array_equal(drawn.mask, make_mask(kind, KEY, SHAPE, 4, acs=4).mask)


def test_true_acceleration_of_a_quarter():
    assert true_acceleration(jnp.zeros((2, 8, 3)).at[:, ::4].set(1.0)) == 4.0


def test_uniform_lines_by_hand():
    lines = _lines(uniform(KEY, (2, 16, 4), 4, acs=4, offset=1))
    expected = [1, 5, 6, 7, 8, 9, 13]
    assert [np.flatnonzero(frame).tolist() for frame in lines] == [expected, expected]


def test_kt_uniform_moves_by_one_line_a_frame():
    lines = _lines(kt_uniform(KEY, (3, 12, 4), 4, acs=0, offset=2))
    assert [np.flatnonzero(frame).tolist() for frame in lines] == [
        [2, 6, 10],
        [3, 7, 11],
        [0, 4, 8],
    ]


def test_kt_uniform_covers_all_lines_in_r_frames():
    assert (_lines(kt_uniform(KEY, (5, 33, 4), 5, acs=0)).sum(axis=0) >= 1).all()


def test_kt_gaussian_draws_round_ny_over_r_distinct_lines():
    lines = _lines(kt_gaussian(KEY, (10, 62, 2), 4, acs=0))  # 15.5, rounded half up
    assert (lines.sum(axis=1) == 16).all()


def test_kt_gaussian_resolves_collisions_up_to_full_sampling():
    assert _lines(kt_gaussian(KEY, SHAPE, 1, acs=0)).all()


def _at_least_so_far(per_line):
    """Sums over the lines that lie 0, 1, 2, ... or more lines from the centre."""
    distance = np.abs(np.arange(per_line.size) - per_line.size // 2)
    return np.array([per_line[distance >= d].sum() for d in range(distance.max() + 1)])


def test_kt_gaussian_density_is_that_of_the_formula():
    """At one line a frame there are no collisions: 20000 frames are 20000 draws."""
    ny = 40
    frequency = _lines(kt_gaussian(KEY, (20000, ny, 1), ny, acs=0)).mean(axis=0)
    y = np.arange(ny) - ny // 2
    density = np.exp(-(y**2) / (2 * (ny / 5) ** 2)) + 0.1
    density /= density.sum()
    np.testing.assert_allclose(frequency, density, atol=0.007)  # 5 sigma
    far, wanted = _at_least_so_far(frequency), _at_least_so_far(density)
    np.testing.assert_allclose(far, wanted, atol=0.012)  # 4 sigma


def test_kt_gaussian_gives_way_to_both_sides_alike():
    """Half of all lines collide often, and yet their mean stays at the centre."""
    ny = 41
    lines = _lines(kt_gaussian(KEY, (16000, ny, 1), 2, acs=0))
    mean = (lines * (np.arange(ny) - ny // 2)).sum(axis=1).mean() / lines[0].sum()
    assert abs(mean) < 0.06  # 4 sigma; to one side only, it would be 0.15


def test_kt_gaussian_changes_over_time():
    lines = _lines(kt_gaussian(KEY, SHAPE, 4, acs=4))
    assert len(np.unique(lines, axis=0)) == 3


@pytest.mark.parametrize(("ny", "acceleration", "n"), [(63, 4, 16), (50, 4, 13)])
def test_variable_density_has_exactly_ny_over_r_lines(ny, acceleration, n):
    lines = _lines(variable_density(KEY, (7, ny, 2), acceleration, acs=8))
    assert (lines.sum(axis=1) == n).all()


def test_variable_density_draws_anew_in_each_frame():
    assert len(np.unique(_lines(variable_density(KEY, SHAPE, 4, acs=4)), axis=0)) == 3


def test_variable_density_fixed_keeps_the_lines():
    assert len(np.unique(_lines(variable_density(KEY, SHAPE, 4, acs=2, fixed=True)), axis=0)) == 1


def test_variable_density_single_draw_follows_the_polynomial():
    """20000 frames of one line each; the steep end of the polynomial tells its width."""
    ny = 40
    frequency = _lines(variable_density(KEY, (20000, ny, 1), ny, acs=0, power=3.0)).mean(axis=0)
    weight = (1 - np.abs(np.arange(ny) - ny // 2) / (ny // 2 + 1)) ** 3
    weight /= weight.sum()
    np.testing.assert_allclose(frequency, weight, atol=0.01)  # 5 sigma
    far, wanted = _at_least_so_far(frequency), _at_least_so_far(weight)
    np.testing.assert_allclose(far[8:], wanted[8:], atol=0.009)  # 4 sigma


def test_variable_density_refuses_acs_beyond_the_budget():
    with pytest.raises(ValueError, match=r"acs <= round\(ny / acceleration\) = 6.*acs=8"):
        variable_density(KEY, (2, 64, 4), 10, acs=8)


def test_kt_radial_spokes_run_through_the_centre():
    mask = np.asarray(kt_radial(KEY, (8, 31, 41), 31, acs=0).mask)  # one spoke a frame
    assert mask[:, 15, 20].all()


@pytest.mark.parametrize("shape", [(8, 31, 41), (8, 41, 31)])
def test_kt_radial_spoke_reaches_two_borders_without_a_gap(shape):
    for spoke in np.asarray(kt_radial(KEY, shape, shape[1], acs=0).mask):
        rows, columns = np.flatnonzero(spoke.any(axis=1)), np.flatnonzero(spoke.any(axis=0))
        assert rows.size == shape[1] or columns.size == shape[2]
        assert (np.diff(rows) == 1).all() and (np.diff(columns) == 1).all()


@pytest.mark.parametrize(("ny", "nx"), [(201, 201), (101, 201), (201, 101)])
def test_kt_radial_turns_by_the_golden_angle(ny, nx):
    """On a grid scaled to a square the end of each spoke gives its angle, to about a pixel."""
    frames = np.asarray(kt_radial(KEY, (6, ny, nx), ny, acs=0).mask)
    angles = []
    for spoke in frames:
        y, x = np.nonzero(spoke)
        y, x = (y - ny // 2) / (ny // 2), (x - nx // 2) / (nx // 2)
        end = np.argmax(np.hypot(y, x))
        angles.append(np.arctan2(y[end], x[end]))
    turn = np.mod(np.diff(angles), np.pi)
    np.testing.assert_allclose(turn, np.deg2rad(111.246), atol=1.5 / (min(ny, nx) // 2))


def test_kt_radial_begins_at_any_angle():
    masks = jax.vmap(lambda key: kt_radial(key, (1, 21, 21), 21, acs=0).mask)
    spokes = np.asarray(masks(jax.random.split(KEY, 200)))[:, 0]
    for corner in (spokes[:, :8, :10], spokes[:, :8, 11:]):  # half of them, steep or not
        assert 0.3 < corner.any(axis=(1, 2)).mean() < 0.6


def test_kt_radial_frame_has_ny_over_r_spokes():
    frame = np.asarray(kt_radial(KEY, (6, 201, 201), 40.2, acs=0).mask[3])
    border = np.concatenate([frame[0], frame[-1], frame[1:-1, 0], frame[1:-1, -1]])
    assert border.sum() == 2 * 5


def test_make_mask_lists_the_kinds():
    with pytest.raises(ValueError, match=r"uniform, kt_uniform, kt_gaussian, .*got kind='spiral'"):
        make_mask("spiral", KEY, (2, 8, 8), 2)


def test_make_mask_takes_accelerations_between_whole_numbers():
    sampling = make_mask("kt_gaussian", KEY, SHAPE, 2.5, acs=4)
    assert sampling.nominal_acceleration == 2.5


def test_make_mask_refuses_an_option_the_kind_lacks():
    with pytest.raises(TypeError, match="fixed"):
        make_mask("uniform", KEY, (2, 8, 8), 2, acs=2, fixed=True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (((2, 8), 2), "shape="),
        (((2, 0, 8), 2), "shape="),
        (((2, 8, 8), 0.5), "acceleration=0.5"),
        (((2, 8, 8), 9), "acceleration=9"),
        (((2, 8, 8), float("nan")), "acceleration=nan"),
    ],
)
def test_bad_shape_or_acceleration(arguments, message):
    with pytest.raises(ValueError, match=message):
        kt_gaussian(KEY, *arguments, acs=2)


@pytest.mark.parametrize("acs", [-1, 9, 2.5])
def test_bad_acs(acs):
    with pytest.raises(ValueError, match=f"acs={acs}"):
        kt_gaussian(KEY, (2, 8, 8), 2, acs=acs)


def test_radial_square_must_fit_the_readout():
    with pytest.raises(ValueError, match="acs=6"):
        kt_radial(KEY, (2, 8, 4), 2, acs=6)


def test_comb_needs_a_whole_spacing():
    with pytest.raises(ValueError, match=r"acceleration=2\.5"):
        uniform(KEY, (2, 8, 8), 2.5, acs=2)


@pytest.mark.parametrize("options", [{"offset": 1.5}, {"offset": 4}])
def test_comb_offset_is_a_line_within_the_spacing(options):
    with pytest.raises(ValueError, match=f"offset={options['offset']}"):
        uniform(KEY, (2, 8, 8), 4, acs=2, **options)


@pytest.mark.parametrize("power", [-1.0, float("nan")])
def test_power_is_not_negative(power):
    with pytest.raises(ValueError, match=f"power={power}"):
        variable_density(KEY, (2, 64, 8), 4, power=power)


@pytest.mark.parametrize("kind", KINDS)
def test_a_key_draws_the_same_mask_in_double_precision(kind):
    mask = make_mask(kind, KEY, SHAPE, 4, acs=4).mask
    with jax.enable_x64(True):
        double = make_mask(kind, KEY, SHAPE, 4, acs=4).mask
    assert double.dtype == jnp.float32
    np.testing.assert_array_equal(double, mask)


@pytest.mark.parametrize("kind", KINDS)
def test_who_hunts_nan_and_infinity_is_not_stopped_at_a_mask(kind):
    with jax.debug_nans(True), jax.debug_infs(True):
        assert make_mask(kind, KEY, SHAPE, 4, acs=4).mask.any()
