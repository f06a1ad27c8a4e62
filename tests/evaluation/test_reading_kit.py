"""Readers see cines without names; their files and the key give the table back."""

import json
import re

import numpy as np
import pytest

from kgmgt_jax.evaluation.reading_kit import agreement, format_readings, main, pool_readings
from kgmgt_jax.evaluation.reading_page import CRITERIA, SCALE, write_reading_kit
from kgmgt_jax.evaluation.report.players import pictures_of
from tests.evaluation.cines import METHODS, beating_disc, reconstructions

CINES = {f"P00{i}": reconstructions(beating_disc(), seed=i) for i in range(3)}
CASES = {case: pictures_of(cines) for case, cines in CINES.items()}


@pytest.fixture
def kit(tmp_path):
    """Page and key of three cases by three methods."""
    paths = tmp_path / "page.html", tmp_path / "key.json"
    return write_reading_kit(*paths, CASES, main="kgmgt", note="Simulated <from> images.", seed=0)


def _items(key):
    return json.loads(key.read_text())["items"]


def _write(path, key, reader, choose, **change):
    """A reader's file with ``choose(case, method)`` for every criterion, ``None`` for none."""
    scores = {}
    for name, item in _items(key).items():
        value = choose(item["case"], item["method"])
        if value is not None:
            scores[name] = dict.fromkeys(CRITERIA, value) | {"seconds": 3.5}
    record = {
        "format": "cine reading scores",
        "kit": json.loads(key.read_text())["kit"],
        "reader": reader,
        "scores": scores,
    }
    path.write_text(json.dumps(record | change))
    return path


def _honest(case, method):
    return {"zero_filled": 1, "modl": 3, "kgmgt": 5 if case != "P000" else 4}[method]


def test_cines_of_a_case_are_drawn_as_high_as_its_pixels(tmp_path):
    paths, options = (tmp_path / "page.html", tmp_path / "key.json"), {"main": "kgmgt", "seed": 0}
    page, key = write_reading_kit(*paths, CASES, aspects={"P001": 1.5}, **options)
    found = re.findall(r'"item":"(\w+)".*?"aspect":([\d.]+)', page.read_text(encoding="utf-8"))
    cases = {name: item["case"] for name, item in _items(key).items()}
    assert {(cases[name], float(aspect)) for name, aspect in found} == {
        ("P000", 1.0),
        ("P001", 1.5),
        ("P002", 1.0),
    }


def test_page_tells_neither_methods_nor_cases(kit):
    text = kit[0].read_text(encoding="utf-8")
    for name in (*METHODS, *CASES):
        assert name not in re.sub(r"base64,[\w+/=]+", "", text)
    assert "Simulated &lt;from&gt; images." in text
    assert not re.search(r"https?://|url\(", text) and "default-src 'none'" in text


def test_every_cine_is_on_the_page_once_in_mixed_order(kit):
    text = kit[0].read_text(encoding="utf-8")
    found = re.findall(r'id="item-(\d+)">\{"item":"(\w+)"', text)
    assert [int(number) for number, _ in found] == list(range(9))
    items = _items(kit[1])
    order = [(items[name]["case"], items[name]["method"]) for _, name in found]
    assert sorted(order) == sorted((c, m) for c in CASES for m in METHODS)
    assert order != [(c, m) for c in CASES for m in METHODS]


def test_pictures_belong_to_their_names(kit):
    from kgmgt_jax.evaluation.report.sprites import sprite
    from kgmgt_jax.figures import grey_window

    text = kit[0].read_text(encoding="utf-8")
    window = 1.25 * grey_window(np.concatenate(list(CINES["P001"].values())))
    wanted = {"case": "P001", "subject": "P001", "method": "modl"}
    name = next(n for n, i in _items(kit[1]).items() if i == wanted)
    stored = re.search(rf'"item":"{name}","cine":(\{{.*?\}})', text)[1]
    assert json.loads(stored) == sprite(CINES["P001"]["modl"], window)


def test_order_and_names_are_drawn_anew_without_a_seed(tmp_path):
    kits = []
    for number in range(2):
        paths = tmp_path / f"{number}.html", tmp_path / f"{number}.json"
        kits.append(set(_items(write_reading_kit(*paths, CASES, main="kgmgt")[1])))
    assert not kits[0] & kits[1]


def test_scores_of_all_readers_are_pooled(kit, tmp_path):
    files = [
        _write(tmp_path / "a.json", kit[1], "A", _honest),
        _write(tmp_path / "b.json", kit[1], "B", lambda c, m: max(1, _honest(c, m) - 1)),
    ]
    readings, subjects, notes = pool_readings(files, kit[1])
    assert notes == [] and len(readings) == 6
    assert subjects["B / P000"] == "P000"
    assert readings["B / P000"]["kgmgt"]["sharpness"] == [3.0]
    lines = format_readings(readings, "kgmgt").splitlines()
    assert lines[0].startswith("6 readings")
    assert "two-sided, uncorrected, at least 0.0312" in lines[0]
    row = next(line for line in lines if line.startswith("* kgmgt"))
    assert row.split()[2:5] == ["4.17", "±", "0.69"]  # of 4 5 5 3 4 4
    assert "p 0.031" in next(line for line in lines if "modl" in line)
    paired = format_readings(readings, "kgmgt", subjects)
    assert "6 readings (reader and case) of 3 subjects" in paired and "at least 0.25" in paired


def test_agreement_of_readers_is_that_of_the_cines_both_scored(kit, tmp_path):
    def unlike(case, method):
        return None if case == "P002" else {"zero_filled": 2, "modl": 3, "kgmgt": 4}[method]

    pooled = [
        pool_readings([_write(tmp_path / f"{i}.json", kit[1], f"R / {i}", choose)], kit[1])[0]
        for i, choose in enumerate([_honest, _honest, unlike])
    ]
    assert agreement(pooled[0]) == {}
    assert agreement(pooled[0] | pooled[1]) == dict.fromkeys(CRITERIA, 1.0)
    kappa = 1 - (3 / 6) / (102 / 36)  # of 1 3 4 1 3 5 and 2 3 4 2 3 4; by chance, all 36 pairs
    assert agreement(pooled[0] | pooled[2]) == pytest.approx(dict.fromkeys(CRITERIA, kappa))
    readings = pooled[0] | pooled[1] | pooled[2]
    mean = (1 + 2 * kappa) / 3
    assert agreement(readings) == pytest.approx(dict.fromkeys(CRITERIA, mean))
    last = format_readings(readings, "kgmgt").splitlines()[-1]
    assert last.startswith("agreement of readers") and f"Sharpness {mean:.2f}" in last


def test_readers_who_give_one_score_to_all_have_no_agreement_to_tell(kit, tmp_path):
    files = [_write(tmp_path / f"{i}.json", kit[1], f"{i}", lambda c, m: 3) for i in range(2)]
    readings, _, _ = pool_readings(files, kit[1])
    assert agreement(readings) == {}
    assert "agreement" not in format_readings(readings, "kgmgt")


def test_cases_with_gaps_are_left_out_and_named(kit, tmp_path):
    def choose(case, method):
        return None if (case, method) == ("P001", "modl") or case == "P002" else 3

    path = _write(tmp_path / "a.json", kit[1], "A", choose)
    readings, _, notes = pool_readings([path], kit[1])
    assert list(readings) == ["A / P000"]
    assert notes == ["A / P001: 2 of 3 methods scored", "A / P002: not scored"]


def test_half_scored_cine_counts_as_not_scored(kit, tmp_path):
    path = _write(tmp_path / "a.json", kit[1], "A", _honest)
    record = json.loads(path.read_text())
    name = next(n for n, i in _items(kit[1]).items() if i["case"] == "P000")
    del record["scores"][name]["artifacts"]
    path.write_text(json.dumps(record))
    assert "A / P000" not in pool_readings([path], kit[1])[0]


def test_command_prints_the_table_and_writes_csv(kit, tmp_path, capsys):
    path = _write(tmp_path / "a.json", kit[1], "A", _honest)
    arguments = [str(path), "--key", str(kit[1]), "--csv", str(tmp_path / "t.csv")]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert "General quality" in printed and "* kgmgt" in printed
    assert "\nSimulated <from> images.\n" in printed
    assert (tmp_path / "t.csv").read_text().startswith("method,metric,mean,std,p,")
    assert main([*arguments, "--main", "modl"]) == 0
    assert "* modl" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kit": "0"}, "of kit"),
        ({"format": "x"}, "'x'"),
        ({"scores": {"0": {"quality": 3}}}, "cines of the key"),
        ({"scores": {}}, "all methods scored"),
        ({"scores": []}, "scores by cine and criterion"),
        ({"scores": {"0": None}}, "scores by cine and criterion"),
    ],
)
def test_unfit_files_end_with_one_line(kit, tmp_path, capsys, change, message):
    path = _write(tmp_path / "a.json", kit[1], "A", _honest, **change)
    assert main([str(path), "--key", str(kit[1])]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error and error.count("\n") == 1


@pytest.mark.parametrize("value", [0, 6, "5", 2.5, True])
def test_scores_outside_the_scale_are_refused(kit, tmp_path, value):
    path = _write(tmp_path / "a.json", kit[1], "A", lambda c, m: value)
    with pytest.raises(ValueError, match="scores from 1 to 5"):
        pool_readings([path], kit[1])


def test_a_reader_counts_once(kit, tmp_path):
    files = [_write(tmp_path / f"{i}.json", kit[1], "A", _honest) for i in range(2)]
    with pytest.raises(ValueError, match="one file a reader"):
        pool_readings(files, kit[1])


def test_damaged_files_are_refused(kit, tmp_path):
    for text in ("{", "[" * 100_000 + "]" * 100_000, "1" * 5000):
        (tmp_path / "a.json").write_text(text)
        with pytest.raises(ValueError, match=r"a.json: expected JSON, .*copy it again"):
            pool_readings([tmp_path / "a.json"], kit[1])
    with pytest.raises(ValueError, match=r"b.json: expected a file of .*, got no such file"):
        pool_readings([tmp_path / "b.json"], kit[1])
    with pytest.raises(ValueError, match=r"expected a file of .*, got a folder"):
        pool_readings([tmp_path / "a.json"], tmp_path)


@pytest.mark.parametrize(
    "edit",
    [
        lambda record: record.pop("main"),
        lambda record: record.update(main=["kgmgt"]),
        lambda record: record.update(items=[]),
        lambda record: record["items"].update(x=None),
        lambda record: next(iter(record["items"].values())).pop("case"),
        lambda record: next(iter(record["items"].values())).update(method={}),
        lambda record: [item.update(subject=["A"]) for item in record["items"].values()],
    ],
)
def test_an_edited_key_ends_with_one_line(kit, tmp_path, capsys, edit):
    path = _write(tmp_path / "a.json", kit[1], "A", _honest)
    record = json.loads(kit[1].read_text())
    edit(record)
    kit[1].write_text(json.dumps(record))
    assert main([str(path), "--key", str(kit[1])]) == 2
    error = capsys.readouterr().err
    assert "key.json: expected names: main, and a case, subject and method a cine" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("name", ["kit", "items", "scores"])
def test_an_entry_that_is_missing_is_named(kit, tmp_path, name):
    path = _write(tmp_path / "a.json", kit[1], "A", _honest)
    edited = kit[1] if name == "items" else path
    record = json.loads(edited.read_text())
    del record[name]
    edited.write_text(json.dumps(record))
    told = rf"{edited.name}: expected the entries .*, got no \['{name}'\]"
    with pytest.raises(ValueError, match=told):
        pool_readings([path], kit[1])


@pytest.mark.parametrize(
    ("cases", "main_method", "message"),
    [
        ({}, "kgmgt", "one case or more"),
        (CASES | {"P9": pictures_of({"kgmgt": beating_disc()})}, "kgmgt", "same methods"),
        (CASES, "best", "kgmgt, modl, zero_filled"),
    ],
)
def test_unfair_kits_are_refused(tmp_path, cases, main_method, message):
    with pytest.raises(ValueError, match=message):
        write_reading_kit(tmp_path / "p.html", tmp_path / "k.json", cases, main=main_method)
    with pytest.raises(ValueError, match="different files"):
        write_reading_kit(tmp_path / "p", tmp_path / "p", CASES, main="kgmgt")
    assert not list(tmp_path.iterdir())


def test_criteria_are_on_the_page(kit):
    text = kit[0].read_text(encoding="utf-8")
    for name in CRITERIA:
        assert text.count(f'<input type="radio" name="{name}"') == len(SCALE) == 5
