"""The page: whole, self-contained, nothing unescaped, and every number with its conditions."""

import dataclasses
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from kgmgt_jax.data.simulation import Simulation
from kgmgt_jax.evaluation.report import CineExample, write_report
from kgmgt_jax.evaluation.report.markup import simulation_note
from kgmgt_jax.evaluation.report.page import json_block
from kgmgt_jax.evaluation.report.players import example_payload
from kgmgt_jax.evaluation.sampling import Sampling
from kgmgt_jax.evaluation.statistics import compare
from tests.evaluation.cines import beating_disc
from tests.evaluation.report.example import CASES, small_report

VOID = {"meta", "link", "input", "br", "line", "rect", "circle"}


class Page(HTMLParser):
    """Elements that are opened and closed in order, tables as text, and what is fetched."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open, self.tables, self.captions, self.fetched, self.words = [], [], [], [], []
        self.rows: list[list[str]] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        for name, value in attrs:
            if name in ("src", "href", "action") and not value.startswith(("#", "data:")):
                self.fetched.append(value)
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        if tag == "caption":
            self.captions.append("")
        if tag == "tr":
            self.tables[-1].append([])
        if tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("script", "style"):
            self.words.append(data)
        if any(tag in self.open for tag in ("td", "th")):
            self.tables[-1][-1][-1] += data
        if "caption" in self.open:
            self.captions[-1] += data


@pytest.fixture(scope="module")
def data():
    return small_report(presets=("frame", "cmrxrecon2023"), nominal=(4.0,))


@pytest.fixture(scope="module")
def text(data, tmp_path_factory):
    path = write_report(tmp_path_factory.mktemp("report") / "new" / "report.html", data)
    return path.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(text):
    return Page(text)


def test_elements_are_closed_and_nothing_is_fetched(page, text):
    assert page.open == [] and page.fetched == []
    assert not re.search(r"url\(|@import|https?://", text)
    assert "default-src 'none'" in text


def test_names_from_outside_cannot_become_markup(page, text):
    assert "KGMgT &amp; &lt;others&gt;" in text
    assert "P002/<i>lax" not in text and "NaN <in> frames" not in text
    assert "P002/<i>lax" in "".join(page.words)


def test_json_cannot_close_its_element():
    block = json_block("x", {"name": "</script><script>alert(1)//"})
    assert block.count("</script>") == 1
    inside = re.fullmatch(r"<script[^>]*>(.*)</script>", block)[1]
    assert json.loads(inside) == {"name": "</script><script>alert(1)//"}


def test_table_has_the_numbers_of_the_comparison(page, data):
    head, *rows = page.tables[0][1:]
    assert head == ["Method", *("PSNR (dB)", "SSIM", "NMSE") * 2, "x-t SSIM"]
    expected = {
        region: compare(cases, "kgmgt") for region, cases in data.score_sets[0].scores.items()
    }
    for row, method in zip(rows, data.methods, strict=True):
        whole = expected["whole frame"][method]["psnr"]
        assert row[1].startswith(f"{whole.mean:.2f} ± {whole.std:.2f}")
        heart = expected["heart region"][method]["xt_ssim"]
        assert row[7].startswith(f"{heart.mean:.4f} ± {heart.std:.4f}")
        assert ("p = 0.250" in row[1]) == (method != "kgmgt")  # 2 / 2^3, three clear cases


def test_columns_of_the_cases_name_their_region(page):
    heads = [table[0] for table in page.tables if table[0][0] == "Case"]
    assert len(heads) == 2 and heads[0][4:6] == ["NMSE", "PSNR (dB), heart region"]
    assert all(len(set(head)) == len(head) == 9 for head in heads)


def test_best_method_is_marked(text):
    rows = re.findall(r"<tr( class=\"main\")?>(.*?)</tr>", text)
    best = [bool(main) for main, row in rows if 'class="best"' in row]
    assert best and all(best)


def test_columns_are_sorted_with_the_best_first(text):
    heads = re.findall(r'data-order="(\w+)"[^>]*><button type="button">([^<]+)<', text)
    orders = {heading: order for order, heading in heads}
    assert orders["Method"] == "text" and orders["NMSE"] == orders["Parameters"] == "min"
    assert orders["PSNR (dB)"] == orders["SSIM"] == orders["x-t SSIM"] == "max"


def test_every_table_states_preset_family_and_true_acceleration(page):
    scores = [c for c in page.captions if "Arithmetic" not in c]
    assert len(scores) == 4
    for caption, preset in zip(scores, ["frame", "cmrxrecon2023"] * 2, strict=True):
        assert f"uniform, true 3.00× (nominal 4×), 8 central lines, preset {preset}" in caption  # noqa: RUF001
    assert "2 of 3 cases simulated from magnitude images" in page.captions[0]
    assert "cannot fall below 0.25" in page.captions[0]


@pytest.mark.parametrize(("preset", "what"), [("frame", "frames"), ("fastmri", "volumes")])
def test_captions_say_what_the_means_are_over(tmp_path, preset, what):
    data = small_report(presets=(preset,), nominal=(4.0,))
    data = dataclasses.replace(data, examples=(), efficiency={})
    text = write_report(tmp_path / "r.html", data).read_text(encoding="utf-8")
    scores, cases = Page(text).captions
    assert f"Mean ± standard deviation over {what}." in scores
    assert f"means over the {what} of each case" in cases


@pytest.mark.parametrize("kind", ["magnitude images", "complex images"])
def test_captions_say_what_kind_of_images_cases_were_simulated_from(data, kind):
    told = Simulation().told(complex_images=kind == "complex images")
    simulated = dataclasses.replace(data, simulation=dict.fromkeys(CASES, told))
    assert simulation_note(simulated, CASES) == f"simulated from {kind}"


def test_costs_are_told_and_unknown_ones_left_blank(page):
    table = page.tables[-1]
    assert table[0] == [
        "Method",
        "Parameters",
        "GFLOPs / frame",
        "Latency (ms / frame)",
        "Peak memory (MiB)",
        "Measured on",
    ]
    assert table[1] == ["zero-filled", "–", "–", "0.41", "–", "2 CPU cores"]  # noqa: RUF001
    size = "12 x 8 x 256 x 96"
    assert table[3] == ["KGMgT", "11,349,000", "562", "2,140", "1,830", size + ", 2 CPU cores"]


def test_failed_and_unscored_cases_are_named(page):
    words = " ".join("".join(page.words).split())
    assert "1 case failed and 1 case without a score" in words
    assert "got NaN <in> frames [1]" in words and "no reference" in words


def test_there_is_a_box_plot_of_every_metric(text):
    views = text.split('class="plots"')[1:]
    assert [view.count('class="boxplot"') for view in views] == [7, 7]


def test_players_have_scores_of_the_frame_and_the_line_through_the_heart(data):
    payload = example_payload(data, data.examples[0])
    name = data.examples[0].name
    scores = data.score_sets[1].scores["whole frame"][name]["modl"]
    assert payload["scores"]["1"][1]["psnr"] == [f"{v:.2f}" for v in scores["psnr"]]
    assert payload["line"]["column"] == CASES[name][1]
    y0, y1, x0, x1 = payload["box"]
    assert y0 < 26 - 9 and y1 > 26 + 9 and x0 < 16 - 9 and x1 > 16 + 9 and (y1, x1) != (48, 40)
    assert payload["simulation"] == "simulated from magnitude images"
    assert [m["main"] for m in payload["methods"]] == [False, False, True]


def test_example_of_another_sampling_has_no_scores(data):
    other = dataclasses.replace(data.examples[0], sampling=Sampling("uniform", 6.0, 8.0, 8))
    assert example_payload(data, other)["scores"] == {}


def test_a_method_that_was_not_scored_keeps_its_place_among_the_players(data):
    name, (view, *_) = data.examples[0].name, data.score_sets
    of_case = {m: scores for m, scores in view.scores["whole frame"][name].items() if m != "modl"}
    whole = view.scores["whole frame"] | {name: of_case}
    view = dataclasses.replace(view, scores=view.scores | {"whole frame": whole})
    told = dataclasses.replace(data, score_sets=[view])
    scores = example_payload(told, data.examples[0])["scores"]["0"]
    assert [bool(each) for each in scores] == [method != "modl" for method in told.methods]


def test_report_without_references_shows_cines_only(tmp_path):
    images = {"kgmgt": beating_disc(t=1)}
    example = CineExample("P1", Sampling("file", 2.5), images)
    data = dataclasses.replace(small_report(), score_sets=(), examples=[example], simulation={})
    text = write_report(tmp_path / "r.html", data).read_text(encoding="utf-8")
    assert "nothing is scored" in text and '"reference":null' in text
    assert Page(text).open == []


def test_report_without_cines_shows_tables_only(tmp_path, data):
    bare = dataclasses.replace(data, examples=(), efficiency={}, failed={}, unscored={})
    text = write_report(tmp_path / "r.html", bare).read_text(encoding="utf-8")
    assert (
        "Not measured" in text and 'id="example-0"' not in text and 'class="warning">1' not in text
    )


def test_scores_that_are_infinite_are_shown_and_sorted(tmp_path, data):
    scores = {"whole frame": {"P1": {"kgmgt": {"psnr": np.array([np.inf, np.inf])}}}}
    view = dataclasses.replace(data.score_sets[0], scores=scores)
    bare = dataclasses.replace(data, score_sets=[view], examples=())
    text = write_report(tmp_path / "r.html", bare).read_text(encoding="utf-8")
    assert 'data-value="Infinity"><span class="mean">∞</span></td>' in text
    assert "No test with a single subject" in text


def test_page_is_written_whole_or_not_at_all(tmp_path, data):
    broken = dataclasses.replace(
        data.score_sets[0], scores={"whole frame": {"P1": {"kgmgt": {"psnr": np.array([np.nan])}}}}
    )
    with pytest.raises(ValueError, match="NaN"):
        write_report(tmp_path / "r.html", dataclasses.replace(data, score_sets=[broken]))
    assert not list(tmp_path.iterdir())
