"""Pictures show what they say: one grey window, one error scale, one line through the heart."""

import os

import imageio.v3 as iio
import numpy as np
import pytest

from kgmgt_jax import figures
from kgmgt_jax.figures import comparison_figure, grey_window
from kgmgt_jax.heart import heart_line
from tests.evaluation.cines import beating_disc

IMAGES = ["zero-filled", "reconstruction"]
TIMES = "\N{MULTIPLICATION SIGN}"


@pytest.fixture
def drawn(monkeypatch, tmp_path):
    """Calls comparison_figure and returns the figure it drew."""
    kept = []
    draw = figures._draw
    monkeypatch.setattr(figures, "_draw", lambda *args: kept.append(draw(*args)) or kept[-1])
    monkeypatch.setattr(figures, "DPI", 100)  # that of extents, too

    def call(*args, **options):
        comparison_figure(tmp_path / "figure.png", *args, **options)
        return kept[-1]

    return call


def _images(figure, heading: str) -> tuple[np.ndarray, np.ndarray]:
    """The image under a heading, and the profile below it."""
    axes = figure.axes
    index = next(i for i, ax in enumerate(axes) if ax.get_title() == heading)
    return tuple(np.asarray(axes[i].images[0].get_array()) for i in (index, index + 1))


def _headings(figure) -> list[str]:
    return [ax.get_title() for ax in figure.axes if ax.get_title()]


def test_white_is_the_percentile_and_never_zero():
    cine = np.zeros((1, 10, 100), np.float32)
    assert grey_window(cine) == 1.0
    cine[0, 0, 0] = 3.0
    assert grey_window(cine) == 3.0
    assert grey_window(np.arange(1001, dtype=np.float32).reshape(1, 11, 91)) == 995.0


def test_figure_has_five_panels_with_a_reference(drawn):
    cine = beating_disc()
    figure = drawn(cine * 1j, zero_filled=cine, reference=cine.astype(np.complex64))
    assert _headings(figure) == ["reference", *IMAGES, *(f"5 {TIMES} |error|, {x}" for x in IMAGES)]


def test_figure_has_two_panels_and_no_scores_without_a_reference(drawn):
    figure = drawn(beating_disc(), zero_filled=beating_disc())
    assert _headings(figure) == IMAGES
    assert not any(ax.get_xlabel() for ax in figure.axes)


def test_panels_share_one_window_set_by_the_reference(drawn):
    cine = beating_disc()
    figure = drawn(3 * cine, zero_filled=0.5 * cine, reference=cine)
    limits = {image.get_clim() for ax in figure.axes[:10] for image in ax.images}
    assert limits == {(0, grey_window(cine))}


def test_error_is_the_amplified_difference_of_magnitudes(drawn):
    cine = beating_disc()
    figure = drawn(1.1j * cine, zero_filled=0.8 * cine, reference=cine)
    shown, _ = _images(figure, f"5 {TIMES} |error|, reconstruction")
    np.testing.assert_allclose(shown, 0.5 * cine[2], rtol=1e-5)  # of 6 frames
    shown, _ = _images(figure, f"5 {TIMES} |error|, zero-filled")
    np.testing.assert_allclose(shown, cine[2], rtol=1e-5)


def test_colour_bar_ends_at_the_white_level_over_the_gain(drawn):
    cine = beating_disc()
    figure = drawn(cine, zero_filled=0.8 * cine, reference=cine)
    assert [label.get_text() for label in figure.axes[-1].get_yticklabels()][-1] == "20 %"


def test_profile_is_the_line_over_time(drawn):
    cine = beating_disc()
    column, start, stop = heart_line(cine)
    figure = drawn(cine + 1, zero_filled=cine, reference=cine)
    _, profile = _images(figure, "reconstruction")
    np.testing.assert_array_equal(profile, cine[:, start:stop, column].T + 1)


def test_scores_are_those_of_the_preset_it_names(drawn):
    cine = beating_disc()
    figure = drawn(cine + 0.12, zero_filled=cine + 1.2, reference=cine)
    labels = [ax.get_xlabel() for ax in figure.axes]
    peak = np.mean(20 * np.log10(cine.max(axis=(1, 2)) / 0.12))
    assert any(label.startswith(f"{peak:.2f} dB   SSIM") for label in labels)
    assert any(label.startswith(f"{peak - 20:.2f} dB   SSIM") for label in labels)
    assert "preset frame" in figure.texts[1].get_text()


def test_perfect_reconstruction_has_infinite_psnr(drawn):
    cine = beating_disc()
    figure = drawn(cine, zero_filled=cine + 1, reference=cine)
    assert "∞ dB   SSIM 1.0000" in [ax.get_xlabel() for ax in figure.axes]


def test_texts_do_not_overlap_under_a_long_title(drawn):
    figure = drawn(
        beating_disc(),
        zero_filled=beating_disc() + 1,
        reference=beating_disc(),
        title="long title " * 30,
    )
    title, note = (text.get_window_extent() for text in figure.texts)
    assert title.x1 < note.x0


@pytest.mark.parametrize(
    "shape", [(1, 40, 33), (3, 7, 7), (2, 7, 64), (2, 65, 7), (1, 1, 1)], ids=str
)
def test_every_size_is_drawn(drawn, tmp_path, shape):
    cine = np.random.default_rng(0).uniform(size=shape).astype(np.float32)
    drawn(cine, zero_filled=0.9 * cine)
    picture = iio.imread(tmp_path / "figure.png")
    assert picture[..., :3].std() > 10


def test_smallest_frame_is_scored(drawn):
    cine = np.random.default_rng(0).uniform(size=(1, 7, 7)).astype(np.float32)
    figure = drawn(0.9 * cine, zero_filled=0.9 * cine, reference=cine)
    assert [ax.get_xlabel() for ax in figure.axes].count("NMSE 0.01000") == 2
    assert "1 frame," in figure.texts[1].get_text()


@pytest.mark.parametrize(("h", "w", "aspect"), [(40, 32, 1.0), (20, 32, 1.5), (60, 20, 0.4)])
def test_pixels_have_the_aspect_asked_for(drawn, h, w, aspect):
    cine = beating_disc(h=h, w=w, centre=(h // 2, w // 2))
    axes = drawn(cine, zero_filled=cine, aspect=aspect).axes[0]
    box = axes.get_window_extent()
    pixel_h = box.height / abs(np.diff(axes.get_ylim())[0])
    assert pixel_h / (box.width / np.diff(axes.get_xlim())[0]) == pytest.approx(aspect)


def test_figure_is_dark_and_leaves_nothing_but_itself(tmp_path):
    path = comparison_figure(tmp_path / "new" / "f.png", beating_disc(), zero_filled=beating_disc())
    assert os.listdir(path.parent) == ["f.png"]
    assert iio.imread(path)[0, 0, :3].max() < 32


def test_names_with_dollar_signs_are_no_formulas(drawn):
    figure = drawn(beating_disc(), zero_filled=beating_disc(), title="P1 $^$, slice 0")
    assert figure.texts[0].get_text() == "P1 $^$, slice 0"


def test_pyplot_is_not_touched(tmp_path):
    from matplotlib import pyplot

    comparison_figure(tmp_path / "f.png", beating_disc(), zero_filled=beating_disc())
    assert pyplot.get_fignums() == []


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"zero_filled": beating_disc(t=5)}, r"one shape.*\(5, 48, 40\)"),
        ({"zero_filled": beating_disc() * np.nan}, "zero_filled"),
        ({"aspect": -1.0}, "aspect=-1.0"),
        ({"path": "figure.gif"}, r"\.png"),
    ],
)
def test_figure_refuses_what_it_cannot_draw(tmp_path, changed, message):
    options = {"path": "figure.png", "zero_filled": beating_disc()} | changed
    with pytest.raises(ValueError, match=message):
        comparison_figure(tmp_path / options.pop("path"), beating_disc(), **options)
    assert not list(tmp_path.iterdir())
