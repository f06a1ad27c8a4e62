"""Several paths are one set; prepared sets stand alone."""

import pytest

from kgmgt_jax.data.case import DataError
from kgmgt_jax.data.matfile import write_mat
from kgmgt_jax.data.sources import open_slices
from tests.data.formats import writers


def test_images_and_kspace_are_taken_together_where_both_are_named(tmp_path):
    stacks = writers.write_stacks(tmp_path / "images")
    measured = write_mat(tmp_path / "P001/cine_sax.mat", "kspace_full", writers.kspace())
    source = open_slices(f"{stacks},{measured}", split="train", acs=4)
    assert [info.simulated for info in source.slices] == [True, True, False, False]
    assert len(open_slices(stacks, split="train", acs=4).slices) == 2


def test_a_comma_in_a_name_is_no_separator(tmp_path):
    stacks = writers.write_stacks(tmp_path / "a,b")
    assert len(open_slices(stacks, split="train", acs=4).slices) == 2


def test_a_missing_one_of_several_is_named(tmp_path):
    stacks = writers.write_stacks(tmp_path)
    with pytest.raises(DataError, match=r"other\.mat"):
        open_slices(f"{stacks},{tmp_path / 'other.mat'}", split="train", acs=4)


@pytest.mark.parametrize("around", ["{},", ",{}", "{},,{}", ""])
def test_an_empty_path_is_not_the_current_folder(tmp_path, around):
    stacks = writers.write_stacks(tmp_path)
    with pytest.raises(DataError, match="an empty path"):
        open_slices(around.format(stacks, stacks), split="train", acs=4)
