"""Many coils as few virtual ones: what is kept, what of the file stays as it was."""

import dataclasses
import pickle

import numpy as np
import pytest

from kgmgt_jax.data.case import CaseMeta, CineCase
from kgmgt_jax.data.formats import ReadOptions, find_full, read_file
from kgmgt_jax.data.formats.compressed import compress_case, compression_matrix
from kgmgt_jax.data.phantom import make_cine, write_cmrxrecon2023
from kgmgt_jax.data.transforms import coil_combine, ifft2c, of_frames, rss

SIZES = {"shape": (24, 20), "n_frames": 3, "n_coils": 6}


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """Two slices of six coils, fully sampled and undersampled."""
    root = tmp_path_factory.mktemp("tree")
    write_cmrxrecon2023(root, [0], accelerations=(3,), n_slices=2, acs=8, **SIZES)
    return root


def _case():
    """A slice whose six coils see combinations of three, and their maps."""
    cine = make_cine(0, **SIZES | {"n_coils": 3}, noise=0.0)
    rng = np.random.default_rng(0)
    mixed = np.linalg.qr(rng.normal(size=(6, 3)) + 1j * rng.normal(size=(6, 3)))[0]

    def six(coils):
        return np.einsum("mn,...nhw->...mhw", mixed, coils).astype(np.complex64)

    meta = CaseMeta("made up", "made up", "", 0, 1, "made up", fully_sampled=True)
    changing = np.broadcast_to(cine.sens, cine.kspace.shape)
    return CineCase(six(cine.kspace), np.ones((3, 24, 20), np.float32), meta, six(changing))


def test_the_matrix_is_that_of_the_singular_value_decomposition():
    rng = np.random.default_rng(1)
    kspace = rng.normal(size=(2, 5, 6, 4)) + 1j * rng.normal(size=(2, 5, 6, 4))
    kspace = (kspace * np.arange(1, 6)[:, None, None]).astype(np.complex64)
    matrix, kept = compression_matrix(kspace, 3)
    columns = np.moveaxis(kspace, 1, 0).reshape(5, -1)
    left, values, _ = np.linalg.svd(columns)
    np.testing.assert_allclose(matrix @ np.conj(matrix.T), np.eye(3), atol=1e-12)
    projections = np.conj(matrix.T) @ matrix, left[:, :3] @ np.conj(left[:, :3].T)
    np.testing.assert_allclose(*projections, atol=1e-5)
    assert kept == pytest.approx((values[:3] ** 2).sum() / (values**2).sum(), rel=1e-6)
    energies = np.linalg.norm(matrix @ columns, axis=1)
    np.testing.assert_allclose(energies, values[:3], rtol=1e-5)
    assert compression_matrix(kspace, 5)[1] == pytest.approx(1)


@pytest.mark.parametrize("changing_maps", [False, True])
def test_coils_that_see_no_more_than_few_lose_nothing(changing_maps):
    case = _case()
    if not changing_maps:
        case = dataclasses.replace(case, sens=case.sens[0])
    few = compress_case(case, 3)
    assert few.n_coils == 3 and few.sens.shape[:-3] == case.sens.shape[:-3]
    images, virtual = (ifft2c(each.kspace) for each in (case, few))
    np.testing.assert_allclose(rss(virtual), rss(images), atol=1e-5 * rss(images).max())
    combined, other = (
        np.stack([coil_combine(x, of_frames(each.sens, t)) for t, x in enumerate(coils)])
        for each, coils in ((case, images), (few, virtual))
    )
    np.testing.assert_allclose(other, combined, atol=1e-5 * np.abs(combined).max())
    np.testing.assert_allclose(np.linalg.norm(few.sens, axis=-3), 1, atol=1e-3)
    assert few.meta.notes == (
        "6 coils compressed to 3 virtual ones, which hold 100.00 % of the energy",
    )


def test_maps_of_coils_that_are_partly_lost_have_unit_sum_again():
    case = _case()
    few = compress_case(case, 2)
    np.testing.assert_allclose(np.linalg.norm(few.sens, axis=-3), 1, atol=1e-3)
    root = np.linalg.norm(few.kspace) / np.linalg.norm(case.kspace)
    share = float(few.meta.notes[-1].split("hold ")[1].split(" %")[0])
    assert 50 < share < 100 and share == pytest.approx(100 * root**2, abs=0.01)


@pytest.mark.parametrize("n_virtual", [6, 9])
def test_no_more_coils_than_that_are_left_as_they_are(n_virtual):
    case = _case()
    assert compress_case(case, n_virtual) is case


def test_all_else_of_a_file_stays_as_it_was(tree):
    (full,) = find_full(tree)
    (few,) = find_full(tree, ReadOptions(virtual_coils=4))
    assert (full.slice_shape[1], few.slice_shape[1]) == (6, 4)
    assert (len(few), few.slice_shape[2:]) == (len(full), full.slice_shape[2:])
    for name in ("path", "format", "key", "name", "fully_sampled", "pixel_mm", "frame_seconds"):
        assert getattr(few, name) == getattr(full, name)
    for z in range(2):
        case, before = few[z], full[z]
        np.testing.assert_array_equal(case.mask, before.mask)
        assert case.kspace.shape == few.slice_shape and case.kspace.dtype == np.complex64
        assert dataclasses.replace(case.meta, notes=()) == before.meta
    again = pickle.loads(pickle.dumps(few))
    np.testing.assert_array_equal(again[1].kspace, few[1].kspace)


def test_undersampled_files_keep_their_mask(tree):
    path = next(path for path in tree.rglob("cine_sax.mat") if "AccFactor03" in path.parts)
    case = read_file(path, virtual_coils=2)[0]
    assert not case.mask.all() and case.n_coils == 2
    assert not case.kspace[np.broadcast_to(case.mask[:, None] == 0, case.shape)].any()


def test_one_file_is_read_with_few_coils_and_its_own_if_it_has_fewer(tree):
    path = next(path for path in tree.rglob("cine_sax.mat") if "FullSample" in path.parts)
    assert read_file(path, virtual_coils=3)[0].n_coils == 3
    assert read_file(path, virtual_coils=8)[0].n_coils == 6


@pytest.mark.parametrize("n_virtual", [1, -2])
def test_impossible_numbers_are_refused(n_virtual):
    with pytest.raises(ValueError, match=f"2 or more, or 0 to leave all coils, got {n_virtual}"):
        ReadOptions(virtual_coils=n_virtual)
