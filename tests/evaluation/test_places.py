"""Places of images below a folder: no two cines share one."""

from pathlib import Path

import pytest

from kgmgt_jax.evaluation.places import path_below, places_of


@pytest.mark.parametrize(
    ("cines", "places"),
    [
        ([("P1/cine.mat", "P1/cine")], ["P1/cine"]),
        ([("P1/cine.mat", "P1/cine"), ("P1/cine.h5", "cine")], ["P1/cine.mat", "P1/cine.h5"]),
        ([("a.h5", "a/series0"), ("a.h5", "a/series1")], ["a/series0", "a/series1"]),
        ([("P1.v2/cine.mat", "P1.v2/cine")], ["P1.v2/cine"]),
    ],
    ids=["path without suffix", "two suffixes", "two cines in a file", "a point in a folder"],
)
def test_places_are_paths_below_the_root(tmp_path, cines, places):
    own = [(str(tmp_path / path), name) for path, name in cines]
    found = places_of(tmp_path, dict.fromkeys(own, ""))
    assert list(found.values()) == [Path(place) for place in places]


@pytest.mark.parametrize("name", ["../../../evil", "/evil", "a/../../../evil", "..", "/"])
def test_no_place_is_outside_of_the_folder(tmp_path, name):
    file = str(tmp_path / "a.h5")
    below = {(file, f"a/{name}"): "", (file, "a/one"): ""}
    elsewhere = {("/elsewhere/P1.mat", name): "P1"}
    upwards = {(f"{tmp_path}/../../{name}", "x"): ""}
    for cines in (below, elsewhere, upwards):
        for place in places_of(tmp_path, cines).values():
            assert not place.is_absolute() and ".." not in place.parts


def test_cines_of_a_prepared_set_lie_below_their_subjects(tmp_path):
    cine = ("/elsewhere/P1/cine.mat", "P1/cine")
    who = {cine: "Center 1/P1"}
    assert places_of(tmp_path, who) == {cine: Path("Center_1/P1/P1/cine")}
    assert path_below(tmp_path, Path(cine[0])) is None


def test_cines_of_one_file_go_by_their_names(tmp_path):
    file = tmp_path / "cine.mat"
    file.touch()
    assert places_of(file, {(str(file), "P1/cine"): "P1"}) == {
        (str(file), "P1/cine"): Path("P1/cine")
    }
    assert path_below(file, file) is None
