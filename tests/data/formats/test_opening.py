"""Finding what to open below a directory, and opening a path by what is in it."""

import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from kgmgt_jax.data.__main__ import main
from kgmgt_jax.data.case import DataError
from kgmgt_jax.data.formats import (
    DataWarning,
    ReadOptions,
    find_files,
    find_full,
    find_measured,
    find_units,
    open_files,
    read_file,
    roles,
)
from kgmgt_jax.data.formats.roles import role_of
from kgmgt_jax.data.matfile import write_mat
from tests.data.formats import writers
from tests.data.formats.refusals import refused

KINDS = {
    "cmrxrecon": writers.write_cmrxrecon,
    "fastmri": writers.write_fastmri,
    "bart": writers.write_bart,
    "npy": writers.write_npy,
    "images": writers.write_stacks,
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_format_is_told_by_content_whatever_its_name(tmp_path, kind):
    path = KINDS[kind](tmp_path)
    (unit,) = find_units(tmp_path)
    assert (unit.path, unit.format, unit.error) == (path, kind, None)
    if kind in ("fastmri", "images"):
        renamed = tmp_path / "scan.dat"
        shutil.copy(path, renamed)
        assert [f.slice_shape for f in open_files(renamed)] == [
            f.slice_shape for f in open_files(path)
        ]


def test_a_tree_opens_to_the_files_of_all_formats(tmp_path):
    for kind, write in KINDS.items():
        write(tmp_path / kind)
    formats = [file.format for file in open_files(tmp_path)]
    assert formats == ["bart", "cmrxrecon2023", "fastmri", "images", "images", "npy"]


def test_a_file_prints_in_one_line_what_it_holds(tmp_path):
    path = writers.write_cmrxrecon(tmp_path / "P001")
    told = repr(read_file(path))
    assert str(path) in told and "x (t, n, h, w) (" in told and "cmrxrecon2023" in told


def test_hidden_files_and_folders_are_passed_over(tmp_path):
    path = writers.write_cmrxrecon(tmp_path / "P001")
    for hidden in (tmp_path / "P001" / f"._{path.name}", tmp_path / ".Trash" / path.name):
        hidden.parent.mkdir(exist_ok=True)
        shutil.copy(path, hidden)
    assert [unit.path for unit in find_units(tmp_path)] == [path]


def test_npy_files_in_capitals_belong_together(tmp_path):
    expected = read_file(writers.write_npy(tmp_path))[0]
    for path in sorted(tmp_path.iterdir()):
        path.rename(path.with_name(path.name.upper()))
    (unit,) = find_units(tmp_path)
    assert unit.path.name == "P1_KSPACE.NPY" and unit.error is None
    case = read_file(unit.path)[0]
    assert case.meta.mask_source.endswith("P1_MASK.NPY")
    np.testing.assert_array_equal(case.mask, expected.mask)
    np.testing.assert_array_equal(case.sens, expected.sens)


def test_kspace_called_like_a_result_is_kspace(tmp_path):
    path = write_mat(tmp_path / "P001_recon.mat", "kspace_single_full", writers.kspace()[:, :, 0])
    (unit,) = find_units(tmp_path)
    assert (unit.path, unit.format) == (path, "cmrxrecon")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("mask_kspace_1", ("kspace", "1")),
        ("kspace_mask_1", ("mask", "1")),
        ("P1_k-space", ("kspace", "p1")),
        ("pattern_a", ("", "pattern_a")),
        ("a_pattern", ("mask", "a")),
    ],
)
def test_of_several_words_in_a_name_the_last_tells_its_role(name, expected):
    assert role_of(name) == expected


def test_names_of_a_folder_are_looked_at_once_however_many_scans_it_holds(tmp_path, monkeypatch):
    for i in range(9):
        np.save(tmp_path / f"new{i}_kspace.npy", writers.kspace((1, 1, 9, 8)))
    looked, split = [], re.split
    monkeypatch.setattr(roles.re, "split", lambda *a: looked.append(a) or split(*a))
    assert len(open_files(tmp_path)) == 9 and len(looked) == 9


def test_files_that_hold_no_cine_are_left_out_with_a_warning(tmp_path):
    full = write_mat(tmp_path / "P001/cine_sax.mat", "kspace_full", writers.kspace())
    write_mat(tmp_path / "P001/T1map.mat", "kspace_full", writers.kspace())
    np.save(tmp_path / "P001/notes.npy", np.ones(3))
    with pytest.warns(DataWarning, match="left out 2 files that hold no cine"):
        assert find_files(tmp_path) == [full]


@pytest.mark.parametrize(
    "name", ["patient1", "subject2", "DATASET1", "workflow", "bright12", "T1/cine"]
)
def test_names_that_only_resemble_other_scans_are_kept(tmp_path, name):
    path = write_mat(tmp_path / f"{name}.mat", "kspace_full", writers.kspace())
    assert find_files(tmp_path) == [path]


@pytest.mark.parametrize(
    "name",
    [
        "T1map",
        "sub01_t2w",
        "preT1map",
        "4Dflow",
        "aorta_sag",
        "P1-tagging",
        "restPerfusion",
        "psirLGE",
    ],
)
def test_other_scans_are_told_by_their_names(tmp_path, name):
    write_mat(tmp_path / f"{name}.mat", "kspace_full", writers.kspace())
    (unit,) = find_units(tmp_path)
    assert unit.format == "no cine"


def test_a_damaged_file_in_a_tree_is_refused_by_name(tmp_path):
    write_mat(tmp_path / "P001/cine_sax.mat", "kspace_full", writers.kspace())
    (tmp_path / "P001/cine_lax.mat").write_bytes(b"nothing")
    with refused("cine_lax.mat: expected a complete HDF5 file"):
        find_files(tmp_path)


def test_a_folder_that_cannot_be_listed_is_refused_by_name(tmp_path, monkeypatch):
    for name in ("a", "b", ".hidden", "lost+found"):
        writers.write_npy(tmp_path / name)
    closed, list_folder = ["b", ".hidden", "lost+found"], os.scandir

    def scandir(path):
        if os.path.basename(path) in closed:
            raise PermissionError(13, "Permission denied", str(path))
        return list_folder(path)

    monkeypatch.setattr(os, "scandir", scandir)
    assert [unit.path.name for unit in find_units(tmp_path)] == ["P1_kspace.npy", "b"]
    with refused("b: expected a folder whose files can be listed, got Permission denied"):
        find_files(tmp_path)
    closed[:] = [tmp_path.name]
    with refused(f"{tmp_path.name}: expected a folder whose files can be listed"):
        open_files(tmp_path)


def test_a_file_in_a_folder_that_cannot_be_entered_is_named_and_the_rest_is_read(
    tmp_path, monkeypatch
):
    for name in ("a", "b"):
        writers.write_npy(tmp_path / name)
    (tmp_path / "b" / "deeper").mkdir()

    def denied(look):
        def wrapped(path, *arguments, **options):
            if (tmp_path / "b") in Path(path).parents:
                raise PermissionError(13, "Permission denied", str(path))
            return look(path, *arguments, **options)

        return wrapped

    for name in ("stat", "lstat", "scandir"):
        monkeypatch.setattr(os, name, denied(getattr(os, name)))
    units = {
        unit.path.relative_to(tmp_path).as_posix(): unit.error for unit in find_units(tmp_path)
    }
    assert units["a/P1_kspace.npy"] is None
    assert "expected a readable file, got" in str(units["b/P1_kspace.npy"])
    assert "a folder whose files can be listed, got Permission" in str(units["b/deeper"])


def test_a_name_that_is_no_text_is_refused_and_the_rest_is_read(tmp_path, capsys):
    try:
        paths = [writers.write_image_npy(tmp_path / name) for name in ("M\udcfcller", "Müller")]
    except OSError:
        pytest.skip("a file system with names in UTF-8 alone")
    with refused(r"M\\xfcller/cine.npy: expected a path whose names are UTF-8 .*, got other bytes"):
        read_file(paths[0])
    found = {unit.path.parent.name: unit.error for unit in find_units(tmp_path)}
    assert found["Müller"] is None and isinstance(found[r"M\xfcller"], DataError)
    assert main(["inspect", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "2 files, 1 cases" in printed and printed.encode()


def test_control_characters_of_a_name_reach_no_terminal(tmp_path, capsys):
    path = writers.write_image_npy(tmp_path / "red\x1b[31m\nand\x9b2J")
    with refused(
        r"red \[31m and 2J/cine.npy: expected a path whose names are UTF-8 without control"
    ):
        read_file(path)
    assert main(["inspect", str(tmp_path)]) == 1
    printed = capsys.readouterr().out
    assert all(line.isprintable() for line in printed.splitlines()) and "red [31m and 2J" in printed


def test_a_mask_goes_with_no_images_whose_axes_are_named(tmp_path):
    path = writers.write_image_npy(tmp_path)
    with refused("images together with mask='m.npy'; leave out --mask"):
        read_file(path, mask="m.npy", axes="t,y,x")


def test_a_mask_goes_with_no_ismrmrd_file(tmp_path):
    pytest.importorskip("ismrmrd")
    path = writers.write_ismrmrd(tmp_path)
    with refused("readouts together with mask='m.npy'; leave out --mask"):
        read_file(path, mask="m.npy")


def test_find_files_lists_cines_and_no_masks(data_dir):
    files = find_files(data_dir / "cmrxrecon/2023")
    assert [path.name for path in files] == ["cine_sax.mat"] * 8


def test_find_full_opens_the_fully_sampled_ones(data_dir):
    files = find_full(data_dir / "cmrxrecon/2023")
    assert len(files) == 2 and all(file.fully_sampled for file in files)


def test_find_measured_opens_the_undersampled_ones_where_there_are_any(data_dir):
    with pytest.warns(DataWarning, match="left out 2 fully sampled files, since others are"):
        files = find_measured(data_dir / "cmrxrecon/2023")
    assert len(files) == 6 and not any(file.fully_sampled for file in files)


def test_find_measured_opens_fully_sampled_ones_by_themselves(data_dir):
    files = find_measured(data_dir / "cmrxrecon/2023/MultiCoil/Cine/TrainingSet/FullSample")
    assert [file.fully_sampled for file in files] == [True]


@pytest.mark.parametrize("opened", [find_files, open_files])
def test_an_empty_directory_is_refused(tmp_path, opened):
    with refused("expected cines in files of a known format, got none"):
        opened(tmp_path)


def test_an_empty_path_is_neither_the_current_folder_nor_no_mask(tmp_path, monkeypatch):
    path = writers.write_bart(tmp_path)
    monkeypatch.chdir(tmp_path)
    with refused("file: expected a path, got an empty one"):
        read_file("")
    with refused("mask: expected a path, got an empty one"):
        read_file(path, mask="")


def test_a_missing_directory_is_refused(tmp_path):
    with refused("expected a file or a directory, got nothing at that path"):
        find_files(tmp_path / "nowhere")


def test_a_directory_without_the_wanted_kind_is_refused(tmp_path):
    writers.write_cmrxrecon(tmp_path)
    with refused("expected fully sampled cines, got none of that kind"):
        find_full(tmp_path)


def test_a_file_is_found_as_itself(tmp_path):
    path = write_mat(tmp_path / "any_name.mat", "kspace_full", writers.kspace())
    assert find_files(path) == [path]


def _write_bart(path, sizes):
    """A pair of BART's of random numbers; sizes as in `writers.write_bart`."""
    path.with_suffix(".hdr").write_text(f"# Dimensions\n{' '.join(map(str, sizes))} \n")
    writers.kspace(tuple(sizes), path.stem).tofile(path.with_suffix(".cfl"))


@pytest.mark.parametrize("name", ["sens", "coil_maps", "mask", "pat", "reco", "ksp_pattern"])
def test_what_lies_beside_the_kspace_of_bart_is_no_kspace(tmp_path, name):
    path = writers.write_bart(tmp_path)
    _write_bart(tmp_path / f"{name}.cfl", [8, 9, 1, 4] + [1] * 12)
    assert find_files(tmp_path) == [path]
    with refused("expected k-space, got .*, by its name; rename it"):
        read_file(tmp_path / f"{name}.cfl")


def test_a_complex_npy_file_of_a_tree_counts_as_kspace_if_its_name_says_so(tmp_path):
    path = writers.write_npy(tmp_path)
    other = tmp_path / "us.npy"
    shutil.copy(path, other)
    with pytest.warns(DataWarning, match=r"left out 1 files that hold no cine, such as .*us\.npy"):
        assert find_files(tmp_path) == [path]
    assert find_files(other) == [other] and read_file(other)[0].shape == (3, 4, 9, 8)
    path.unlink()
    with refused("us.npy: expected k-space, got .*; rename it, e.g. to us_kspace.npy"):
        find_files(tmp_path)
    (named,) = open_files(tmp_path, ReadOptions(axes="t,coil,ky,kx"))
    assert named.path == other


@pytest.mark.parametrize("name", ["kspace_sens", "sens_maps", "kspace_img"])
def test_the_last_word_of_a_name_says_what_it_is(tmp_path, name):
    np.save(tmp_path / f"{name}.npy", writers.kspace((3, 4, 9, 8)))
    with refused("got (coil maps|images), by its name"):
        read_file(tmp_path / f"{name}.npy")
    assert read_file(tmp_path / f"{name}.npy", axes="t,coil,ky,kx")[0].shape == (3, 4, 9, 8)


def test_a_tree_is_searched_through_links_to_folders(tmp_path):
    path = write_mat(tmp_path / "disk/P001/cine_sax.mat", "kspace_full", writers.kspace())
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "P001").symlink_to(path.parent)
    assert find_files(tree) == [tree / "P001/cine_sax.mat"]


def test_single_frames_and_segmentations_beside_nifti_cines_are_no_cines(tmp_path):
    """As the sets of ACDC and M&Ms have them."""
    nibabel = pytest.importorskip("nibabel")
    cine = writers.write_nifti(tmp_path)
    cine = cine.rename(tmp_path / f"seg_24_segments_{cine.name}")
    for name, axes in {"cine_frame01": 3, "cine_GT": 4, "cine_frame01_gt": 3}.items():
        images = np.ones((8, 9, 2, 3)[:axes], np.uint8)
        for kind, suffix in ((nibabel.Nifti1Image, ".nii.gz"), (nibabel.Nifti2Image, ".nii")):
            kind(images, np.eye(4)).to_filename(tmp_path / f"{name}{suffix}")
    with pytest.warns(DataWarning, match="left out 6 files that hold no cine"):
        assert find_files(tmp_path) == [cine]
    (tmp_path / "P1").mkdir()
    header = nibabel.Nifti1Header(endianness=">")
    single = nibabel.Nifti1Image(np.ones((8, 9, 2), np.uint8), np.eye(4), header)
    single.to_filename(tmp_path / "P1" / "single.nii")
    with refused(r"four axes \(x, y, z, t\), got shape \(8, 9, 2\); .* --axes x,y,t"):
        find_files(tmp_path / "P1")
