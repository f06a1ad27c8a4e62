"""The pages in a real browser, from the disk: they load in silence, play, sort, and save scores."""

import json
import shutil
import time

import numpy as np
import pytest

from kgmgt_jax.evaluation.reading_kit import pool_readings
from kgmgt_jax.evaluation.reading_page import CRITERIA, write_reading_kit
from kgmgt_jax.evaluation.report import write_report
from kgmgt_jax.evaluation.report.players import pictures_of
from kgmgt_jax.figures import grey_window
from tests.evaluation.cines import beating_disc, reconstructions
from tests.evaluation.report.example import small_report

pytestmark = pytest.mark.slow

PIXELS = """
const canvas = document.querySelectorAll('.card')[arguments[0]].querySelector(arguments[1]);
const copy = document.createElement('canvas');
[copy.width, copy.height] = [canvas.width, canvas.height];
const context = copy.getContext('2d', {willReadFrequently: true});
context.drawImage(canvas, 0, 0);
const data = context.getImageData(0, 0, copy.width, copy.height).data;
return Array.from(data).filter((_, i) => i % 4 < 3);
"""
COLUMN = """
const table = document.querySelector('.view:not([hidden]) table');
return Array.from(table.tBodies[0].rows).map((row) => row.children[arguments[0]].dataset.value);
"""
SET = """
const input = document.getElementById(arguments[0]);
input.value = arguments[1];
input.dispatchEvent(new Event(arguments[2], {bubbles: true}));
"""


@pytest.fixture(scope="module")
def downloads(tmp_path_factory):
    return tmp_path_factory.mktemp("downloads")


@pytest.fixture(scope="module")
def browser(downloads):
    """Chromium without a window, still until it is told to play."""
    selenium = pytest.importorskip("selenium", reason="needs the package selenium")
    del selenium
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    names = ("chromium", "chromium-browser", "google-chrome")
    binary = next((path for path in map(shutil.which, names) if path), None)
    driver = shutil.which("chromedriver")
    if binary is None or driver is None:
        pytest.skip("needs chromium and chromedriver (Debian: chromium, chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for switch in ("headless=new", "no-sandbox", "disable-dev-shm-usage", "window-size=1400,1000"):
        options.add_argument(f"--{switch}")
    options.add_argument("--force-prefers-reduced-motion")
    options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    made = webdriver.Chrome(options=options, service=Service(driver))
    yield made
    made.quit()


@pytest.fixture(scope="module")
def data():
    return small_report(presets=("frame", "cmrxrecon2023"))


@pytest.fixture(scope="module")
def report(data, tmp_path_factory):
    return write_report(tmp_path_factory.mktemp("report") / "report.html", data)


@pytest.fixture
def page(browser, report):
    """The report, loaded afresh, players ready; no message in the console at the end."""
    browser.get_log("browser")
    browser.get(report.as_uri())
    _until(lambda: _attribute(browser, "player", "data-frame") == "0")
    yield browser
    assert browser.get_log("browser") == []


def _until(condition, seconds: float = 20.0):
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)
    return value


def _attribute(browser, name, attribute):
    return browser.find_element("id", name).get_attribute(attribute)


def _frame(browser) -> int:
    return int(_attribute(browser, "player", "data-frame"))


def _press(browser, *keys):
    from selenium.webdriver.common.action_chains import ActionChains

    for key in keys:
        ActionChains(browser).send_keys(key).perform()


def _levels(cine: np.ndarray, white: float) -> np.ndarray:
    """Grey on the screen: levels up to 1.25 of white in the picture, white at 1 on the screen."""
    stored = np.round(255 * np.clip(cine / (1.25 * white), 0, 1))
    return np.minimum(255, np.round(stored * 1.25))


def test_page_fetches_nothing(page):
    fetched = page.execute_script(
        "return performance.getEntriesByType('resource').map((e) => e.name)"
    )
    assert [name for name in fetched if not name.startswith("data:")] == []


def test_canvases_show_the_pixels_of_the_cine(page, data):
    example = data.examples[0]
    page.execute_script(SET, "line", "0", "input")  # out of the way
    page.execute_script(SET, "frame", "4", "input")
    white = grey_window(example.reference)
    shown = np.array(page.execute_script(PIXELS, 3, "canvas.image")).reshape(48, 40, 3)
    expected = _levels(example.images["kgmgt"][4], white)
    assert np.abs(shown[:, 1:, 0] - expected[:, 1:]).max() <= 1
    assert (shown[:, 1:, 0] == shown[:, 1:, 2]).all()


def test_error_maps_are_ordered_as_the_methods(page, data):
    sums = [sum(page.execute_script(PIXELS, card, "canvas.error")) for card in (1, 2, 3)]
    assert sums[0] > sums[1] > sums[2] > 0
    page.execute_script(SET, "gain", "20", "input")
    assert sum(page.execute_script(PIXELS, 3, "canvas.error")) > 1.5 * sums[2]
    assert page.find_element("id", "bar-text").text == "0 to 5 % of white"


def test_play_pause_and_slider_move_all_cines_together(page):
    first = [page.execute_script(PIXELS, card, "canvas.image") for card in range(4)]
    page.find_element("id", "play").click()
    seen = set()
    _until(lambda: seen.add(_frame(page)) or len(seen) >= 4)
    page.find_element("id", "play").click()
    stopped = _frame(page)
    time.sleep(0.3)
    assert _frame(page) == stopped
    page.execute_script(SET, "frame", "3", "input")
    assert page.find_element("id", "frame-text").text == "frame 4 of 6"
    later = [page.execute_script(PIXELS, card, "canvas.image") for card in range(4)]
    assert all(a != b for a, b in zip(first, later, strict=True))
    score = page.find_elements("css selector", ".card.main .score")[0].text
    page.execute_script(SET, "frame", "0", "input")
    assert page.find_elements("css selector", ".card.main .score")[0].text != score


def test_keyboard_plays_and_steps(page):
    from selenium.webdriver.common.keys import Keys

    _press(page, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    assert _frame(page) == 2
    _press(page, Keys.ARROW_LEFT, Keys.ARROW_LEFT, Keys.ARROW_LEFT)
    assert _frame(page) == 5  # round the beat
    _press(page, Keys.SPACE)
    _until(lambda: _frame(page) == 2)
    _press(page, Keys.SPACE)
    assert _attribute(page, "play", "aria-pressed") == "false"


def test_tables_sort_best_first_and_back(page):
    heads = page.find_elements("css selector", ".view:not([hidden]) th[aria-sort] button")
    for column, best_is_high in ((1, True), (3, False), (7, True)):
        for direction in (best_is_high, not best_is_high):
            heads[column].click()
            values = [float(v) for v in page.execute_script(COLUMN, column)]
            assert values == sorted(values, reverse=direction)
            pressed = heads[column].find_element("xpath", "..").get_attribute("aria-sort")
            assert pressed == ("descending" if direction else "ascending")
    heads[0].click()
    assert page.execute_script(COLUMN, 0) == ["KGMgT", "MoDL", "zero-filled"]


def test_unknown_costs_are_sorted_last_both_ways(page):
    head = page.find_elements("css selector", "#efficiency th[aria-sort] button")[1]
    rows = (
        "return Array.from(document.querySelectorAll('#efficiency tbody tr'))"
        ".map((row) => row.children[1].dataset.value)"
    )
    head.click()
    assert page.execute_script(rows) == ["113666", "11349000", ""]
    head.click()
    assert page.execute_script(rows) == ["11349000", "113666", ""]


def test_choice_of_scores_shows_their_tables_only(page):
    page.execute_script(SET, "view", "3", "change")
    captions = page.find_elements("css selector", ".view:not([hidden]) caption")
    shown = [caption.get_attribute("textContent") for caption in captions]
    assert shown and all("nominal 8" in text and "cmrxrecon2023" in text for text in shown)


def test_another_case_is_loaded_and_says_whether_it_is_simulated(page, data):
    assert page.find_element("id", "simulated").text == "simulated from magnitude images"
    page.execute_script(SET, "example", "1", "change")
    _until(lambda: _attribute(page, "player", "data-example") == data.examples[1].name)
    assert page.find_element("id", "simulated").text == ""
    assert len(page.find_elements("css selector", ".card")) == 4


def test_click_moves_the_line_and_its_profile(page):
    from selenium.webdriver.common.action_chains import ActionChains

    before = page.execute_script(PIXELS, 2, "canvas.profile")
    image = page.find_elements("css selector", ".card canvas.image")[0]
    page.execute_script("arguments[0].scrollIntoView({block: 'center'})", image)
    ActionChains(page).move_to_element_with_offset(
        image, image.size["width"] // 3, 0
    ).click().perform()
    assert int(_attribute(page, "line", "value")) == pytest.approx(40 * 5 / 6, abs=1)
    assert page.execute_script(PIXELS, 2, "canvas.profile") != before


def test_heart_fills_the_image_when_asked(page):
    page.execute_script(SET, "zoom", "heart", "input")
    image = page.find_elements("css selector", ".card canvas.image")[1]
    assert int(image.get_attribute("height")) < 48 and int(image.get_attribute("width")) < 40


def test_theme_can_be_switched(page):
    colour = "return getComputedStyle(document.body).backgroundColor"
    before = page.execute_script(colour)
    page.find_element("id", "theme").click()
    assert page.execute_script(colour) != before


def test_report_can_be_read_on_a_phone(page):
    page.set_window_size(500, 900)
    try:
        widths = "return [document.documentElement.scrollWidth, innerWidth]"
        needed, given = page.execute_script(widths)
        assert needed <= given
    finally:
        page.set_window_size(1400, 1000)


def test_reading_kit_collects_scores_into_a_file(browser, downloads, tmp_path):
    """Three digits and Enter score a cine; then one score is changed with the mouse."""
    from selenium.webdriver.common.keys import Keys

    cases = {f"P{i}": pictures_of(reconstructions(beating_disc(), seed=i)) for i in range(2)}
    page, key = write_reading_kit(tmp_path / "p.html", tmp_path / "k.json", cases, main="kgmgt")
    items = json.loads(key.read_text())["items"]
    browser.get_log("browser")
    browser.get(page.as_uri())
    browser.find_element("id", "reader").send_keys("Dr A/B", Keys.ENTER)
    chosen = {}
    for number in range(6):
        _until(lambda n=number: _attribute(browser, "desk", "data-number") == str(n))
        name = _attribute(browser, "desk", "data-item")
        scores = [1 + (number + k) % 5 for k in range(3)]
        chosen[name] = dict(zip(CRITERIA, scores, strict=True))
        _press(browser, *map(str, scores), Keys.ENTER)
    assert browser.find_element("id", "done-text").text == "6 of 6 scored"
    browser.find_element("css selector", 'input[name="sharpness"][value="5"]').click()
    chosen[name]["sharpness"] = 5
    browser.find_element("id", "save").click()
    assert browser.find_element("id", "save-text").text == "Saved. Thank you."
    path = downloads / "reading-Dr_A_B.json"
    _until(path.is_file)
    record = json.loads(path.read_text())
    found = {n: {c: s[c] for c in CRITERIA} for n, s in record["scores"].items()}
    assert found == chosen and all(s["seconds"] > 0 for s in record["scores"].values())
    readings, _, notes = pool_readings([path], key)
    assert notes == [] and readings["Dr A/B / P0"].keys() == {i["method"] for i in items.values()}
    assert browser.get_log("browser") == []


def test_every_reader_has_an_order_of_their_own_on_every_visit(browser, tmp_path):
    from selenium.webdriver.common.keys import Keys

    cases = {f"P{i}": pictures_of(reconstructions(beating_disc(), seed=i)) for i in range(4)}
    page, key = write_reading_kit(
        tmp_path / "p.html", tmp_path / "k.json", cases, main="kgmgt", seed=0
    )
    orders = []
    for reader in ("A", "B", "A"):
        browser.get(page.as_uri())
        browser.find_element("id", "reader").send_keys(reader, Keys.ENTER)
        orders.append([])
        for number in range(12):
            _until(lambda n=number: _attribute(browser, "desk", "data-number") == str(n))
            orders[-1].append(_attribute(browser, "desk", "data-item"))
            _press(browser, Keys.PAGE_DOWN)
    assert orders[0] == orders[2] != orders[1]
    items = json.loads(key.read_text())["items"]
    assert sorted(orders[0]) == sorted(orders[1]) == sorted(items)


def test_reading_kit_plays_and_keeps_scores_of_a_closed_page(browser, tmp_path):
    from selenium.webdriver.common.keys import Keys

    cases = {"P0": pictures_of(reconstructions(beating_disc()))}
    page, _ = write_reading_kit(tmp_path / "p.html", tmp_path / "k.json", cases, main="kgmgt")
    for visit in range(2):
        browser.get(page.as_uri())
        browser.find_element("id", "reader").send_keys("C", Keys.ENTER)
        _until(lambda: _attribute(browser, "desk", "data-number") == "0")
        expected = "1 of 3 scored" if visit else "0 of 3 scored"
        assert browser.find_element("id", "done-text").text == expected
        if not visit:
            _press(browser, "2", "3", "4")
            browser.find_element("id", "save").click()  # or leaving asks
    browser.find_element("id", "play").click()
    frame = browser.find_element("id", "frame-text").text
    _until(lambda: browser.find_element("id", "frame-text").text != frame)
    assert browser.get_log("browser") == []
