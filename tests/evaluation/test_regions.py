"""Scores count where the heart moves, by the metrics' own definitions."""

import numpy as np
import pytest
from skimage.metrics import structural_similarity

from kgmgt_jax.evaluation.regions import HEART, WHOLE, region_scores, score_regions
from kgmgt_jax.heart import heart_region
from kgmgt_jax.metrics import PRESETS, evaluate
from tests.evaluation.cines import beating_disc, reconstructions

EVERYWHERE = np.ones((48, 40), bool)


@pytest.fixture(scope="module")
def pair():
    reference = beating_disc()
    return reference, reconstructions(reference)["modl"]


@pytest.mark.parametrize("preset", PRESETS)
def test_region_of_all_pixels_scores_as_the_whole_frame(pair, preset):
    expected = evaluate(*pair, preset)
    scores = region_scores(*pair, EVERYWHERE, preset)
    for name, values in expected.items():
        np.testing.assert_allclose(scores[name], values, rtol=2e-5)


def test_errors_outside_the_region_do_not_count(pair):
    reference, prediction = pair
    region = np.zeros((48, 40), bool)
    region[20:30, 10:20] = True
    spoiled = prediction.copy()
    spoiled[:, :16] = 0.9  # beyond the reach of the region's windows
    before, after = (region_scores(reference, p, region) for p in (prediction, spoiled))
    for name in before:
        np.testing.assert_allclose(after[name], before[name], rtol=1e-6)  # float32


def test_psnr_of_a_region_by_hand():
    reference = beating_disc()
    region = np.zeros((48, 40), bool)
    region[20:24, 10:20] = True
    prediction = reference.copy()
    prediction[:, 20, 10] += 0.5  # 1 of 40 pixels
    scores = region_scores(reference, prediction, region)
    peak = reference.max(axis=(1, 2))
    expected = 10 * np.log10(peak.astype(np.float64) ** 2 * 40 / 0.25)
    np.testing.assert_allclose(scores["psnr"], expected, rtol=1e-6)
    energy = np.sum(reference[:, region].astype(np.float64) ** 2, axis=1)
    np.testing.assert_allclose(scores["nmse"], 0.25 / energy, rtol=1e-6)


def test_ssim_is_scikit_images_map_inside_the_region(pair):
    reference, prediction = pair
    region = heart_region(reference)
    scores = region_scores(reference, prediction, region)
    _, full = structural_similarity(
        reference[2].astype(np.float64),
        prediction[2].astype(np.float64),
        data_range=float(reference[2].max()),
        full=True,
    )
    assert scores["ssim"][2] == pytest.approx(full[region].mean(), rel=1e-6)


def test_temporal_ssim_is_scikit_images_of_a_plane_over_time(pair):
    """One column, time continued by hand, all frames on one data range as the volume preset has."""
    reference, prediction = pair
    region = np.zeros((48, 40), bool)
    region[15:35, 17] = True
    score = region_scores(reference, prediction, region, "fastmri")["xt_ssim"]
    planes = [np.concatenate([x[-3:], x, x[:3]])[:, 12:38, 17] for x in (reference, prediction)]
    expected = structural_similarity(
        *(plane.astype(np.float64) for plane in planes), data_range=float(reference.max())
    )
    assert score == pytest.approx([expected], rel=1e-6)


def test_temporal_ssim_has_the_data_range_of_each_frame(pair):
    reference, prediction = (x * np.linspace(1, 2, len(x))[:, None, None] for x in pair)
    region = np.zeros((48, 40), bool)
    region[15:35, 17] = True
    scores = region_scores(reference, prediction, region)["xt_ssim"]
    planes = [np.concatenate([x[-3:], x, x[:3]])[:, 12:38, 17] for x in (reference, prediction)]
    for frame, score in enumerate(scores):
        window = [plane[frame : frame + 7].astype(np.float64) for plane in planes]
        expected = structural_similarity(*window, data_range=float(reference[frame].max()))
        assert score == pytest.approx(expected, rel=1e-5)


def test_temporal_ssim_sees_frozen_motion(pair):
    reference, _ = pair
    frozen = np.repeat(reference.mean(axis=0, keepdims=True), len(reference), axis=0)
    region = heart_region(reference)
    scores = region_scores(reference, frozen, region)
    assert scores["xt_ssim"].mean() < scores["ssim"].mean() - 0.1
    perfect = region_scores(reference, reference, region)
    assert perfect["xt_ssim"] == pytest.approx(1) and np.isinf(perfect["psnr"]).all()


def test_renormalising_preset_forgives_scale_in_the_region(pair):
    reference, prediction = pair
    region = heart_region(reference)
    one, two = (region_scores(reference, s * prediction, region, "cmrxrecon2023") for s in (1, 2))
    np.testing.assert_allclose(one["psnr"], two["psnr"], rtol=1e-6)
    scaled = region_scores(reference, 2 * prediction, region)
    assert scaled["psnr"].mean() < one["psnr"].mean() - 6


def test_every_method_is_scored_in_both_regions(pair):
    reference, _ = pair
    images = reconstructions(reference)
    scores = score_regions(reference, images)
    assert list(scores) == [WHOLE, HEART]
    assert list(scores[HEART]) == list(images)
    assert scores[WHOLE]["modl"].keys() == {"psnr", "ssim", "nmse"}
    assert {v.shape for m in scores[HEART].values() for v in m.values()} == {(6,)}


def test_both_regions_are_scored_by_the_preset(pair):
    reference, prediction = pair
    scores = score_regions(reference, {"modl": prediction}, "fastmri")
    region = heart_region(reference)
    for name, values in evaluate(*pair, "fastmri").items():
        np.testing.assert_array_equal(scores[WHOLE]["modl"][name], values)
    for name, values in region_scores(*pair, region, "fastmri").items():
        np.testing.assert_array_equal(scores[HEART]["modl"][name], values)


def test_cine_without_motion_is_scored_as_a_whole_only():
    reference = beating_disc(t=1)
    assert list(score_regions(reference, {"a": reference})) == [WHOLE]


@pytest.mark.parametrize("place", [(0, 0), (0, 12), (12, 0), (23, 12), (12, 23), (23, 23)])
def test_motion_at_the_border_has_no_scores_of_its_own(place):
    reference = np.full((6, 24, 24), 0.5, np.float32)
    reference[::2, *place] = 1
    assert heart_region(reference)[place]
    assert list(score_regions(reference, {"a": reference})) == [WHOLE]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"preset": "best"}, "cmrxrecon2023.*preset='best'"),
        ({"region": np.ones((40, 48), bool)}, r"region.shape=\(40, 48\)"),
        ({"region": np.zeros((48, 40), bool)}, "0 pixels"),
        ({"prediction": beating_disc(t=5)}, r"prediction.shape=\(5, 48, 40\)"),
        ({"reference": np.zeros((6, 48, 40), np.float32)}, r"frames \[0, 1, 2, 3, 4, 5\]"),
    ],
)
def test_what_has_no_score_is_refused(pair, change, message):
    given = {"reference": pair[0], "prediction": pair[1], "region": EVERYWHERE} | change
    with pytest.raises(ValueError, match=message):
        region_scores(**given)


def test_complex_images_are_refused():
    cine = np.ones((2, 9, 9), np.complex64)
    with pytest.raises(TypeError, match="pass their absolute values"):
        region_scores(cine, cine, np.ones((9, 9), bool))
