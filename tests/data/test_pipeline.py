"""The Grain pipeline: what a batch holds, that it repeats bit for bit, and that it resumes."""

import itertools
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path
from subprocess import PIPE
from types import SimpleNamespace

import numpy as np
import pytest

from kgmgt_jax.data import pipeline
from kgmgt_jax.data.augmentation import Augmentation
from kgmgt_jax.data.file_slices import FileSlices
from kgmgt_jax.data.mask_sampler import MaskSampler
from kgmgt_jax.data.pipeline import FrameSource, TripletOptions, make_training_loader
from kgmgt_jax.data.transforms import coil_combine, fft2c, ifft2c
from tests.data.small_files import same, take, write_file

ROOT = Path(__file__).resolve().parents[2]


def _options(
    kinds=("variable_density", "kt_uniform"),
    accelerations=(2.0, 3.0),
    acs=4,
    crop=(12, 10),
    augmentation=None,
    **more,
) -> TripletOptions:
    augmentation = augmentation or Augmentation(crop=crop)
    return TripletOptions(MaskSampler(kinds, accelerations, acs), augmentation, **more)


def _loader(files, options: TripletOptions | None = None, **settings):
    source = FileSlices(files, acs=4)
    return make_training_loader(
        source, options or _options(), **{"batch_size": 3, "seed": 7} | settings
    )


# Frames


def test_the_source_has_every_frame_of_every_slice_once(files):
    frames = FrameSource(FileSlices(files, acs=4), _options())
    found = [frames[i] for i in range(len(frames))]
    assert [frame.index for frame in found] == list(range(16))
    assert [frame.frames[frame.places[1]] for frame in found] == [0, 1, 2, 3] * 4


def test_an_example_reads_its_three_frames(files):
    source = FileSlices(files, acs=4)
    frame = FrameSource(source, _options())[4]
    assert [frame.frames[place] for place in frame.places] == [3, 0, 1]
    np.testing.assert_array_equal(frame.images, source.images(1, [0, 1, 3]))


def test_a_real_time_cine_does_not_wrap_around(files):
    frame = FrameSource(FileSlices(files, acs=4), _options(circular=False))[4]
    assert [frame.frames[place] for place in frame.places] == [0, 0, 1]


def test_maps_of_each_frame_come_with_their_frames(files):
    source = FileSlices(files, acs=4)
    maps = np.random.default_rng(0).normal(size=(4, 1, 16, 12)).astype(np.complex64)
    source.sens = lambda number: maps
    frame = FrameSource(source, _options())[4]
    assert frame.frames == (0, 1, 3)
    np.testing.assert_array_equal(frame.sens, maps[[0, 1, 3]])


def test_filling_reads_the_whole_slice(files):
    frame = FrameSource(FileSlices(files, acs=4), _options(input_fill="average"))[5]
    assert frame.frames == (0, 1, 2, 3) and frame.places == (0, 1, 2)


def test_some_slices_keep_their_running_numbers(files):
    frames = FrameSource(FileSlices(files, acs=4), _options(), numbers=[1, 3])
    assert [frames[i].index for i in range(len(frames))] == [4, 5, 6, 7, 12, 13, 14, 15]


# Batches


def test_shapes_and_dtypes_of_a_single_coil_batch(files):
    found = {name: (array.shape, array.dtype.name) for name, array in next(_loader(files)).items()}
    images = ("target", "preceding", "succeeding", "reference")
    assert found == dict.fromkeys(images, ((3, 12, 10), "complex64")) | {
        "kspace": ((3, 1, 12, 10), "complex64"),
        "mask": ((3, 12, 10), "float32"),
        "scale": ((3,), "float32"),
        "id": ((3,), "int32"),
    }


def test_a_multi_coil_batch_has_sensitivities_of_unit_norm(tmp_path):
    path = write_file(tmp_path, "P001", (4, 1, 3, 16, 12))
    sens = next(_loader([path]))["sens"]
    assert sens.shape == (3, 3, 12, 10) and sens.dtype == np.complex64
    np.testing.assert_allclose(np.sum(np.abs(sens) ** 2, axis=1), 1, atol=1e-5)


def test_the_target_is_the_combined_measurement(tmp_path):
    path = write_file(tmp_path, "P001", (4, 1, 3, 16, 12))
    batch = next(_loader([path]))
    expected = coil_combine(ifft2c(batch["kspace"]), batch["sens"])
    np.testing.assert_allclose(batch["target"], expected, atol=1e-5)


def test_kspace_is_measured_where_the_mask_is_one_and_nowhere_else(files):
    batch = next(_loader(files))
    np.testing.assert_array_equal(batch["kspace"][:, 0] != 0, batch["mask"] == 1)


@pytest.mark.parametrize("input_fill", ["zero", "neighbours", "average"])
def test_measured_kspace_is_that_of_the_reference(files, input_fill):
    batch = next(_loader(files, _options(input_fill=input_fill)))
    expected = fft2c(batch["reference"]) * batch["mask"]
    np.testing.assert_allclose(batch["kspace"][:, 0], expected, atol=1e-5)


def test_filling_changes_the_inputs_and_not_the_masks(files):
    plain, filled = (next(_loader(files, _options(input_fill=f))) for f in ("zero", "neighbours"))
    np.testing.assert_array_equal(plain["mask"], filled["mask"])
    gaps = [np.abs(fft2c(batch["target"]))[batch["mask"] == 0] for batch in (plain, filled)]
    assert gaps[0].max() < 1e-5 and gaps[1].max() > 0.1


def test_filling_does_not_wrap_around_a_real_time_cine(files):
    """The first and the last frame are nearest to each other over the wrap alone."""
    targets = []
    for circular in (True, False):
        options = _options(input_fill="neighbours", circular=circular)
        batches = _loader(files, options, batch_size=1, num_epochs=1)
        targets.append({int(b["id"][0]): b["target"][0] * b["scale"][0] for b in batches})
    changed = {i for i in range(16) if not np.allclose(targets[0][i], targets[1][i], atol=1e-4)}
    assert {i % 4 for i in changed} == {0, 3}


def test_examples_of_a_batch_have_masks_of_their_own(files):
    mask = next(_loader(files))["mask"]
    assert not (mask == mask[:1]).all()


def test_intensity_is_drawn_for_each_example(files):
    crops = [Augmentation(crop=(12, 10), intensity=intensity) for intensity in (0.0, 1.0)]
    plain, varied = (next(_loader(files, _options(augmentation=each))) for each in crops)
    factors = plain["scale"] / varied["scale"]
    np.testing.assert_allclose(
        varied["target"], plain["target"] * factors[:, None, None], rtol=1e-4, atol=1e-5
    )
    assert len(set(np.round(factors, 2))) == 3 and (factors >= 0.5).all() and (factors <= 2).all()


# Repetition


def test_one_seed_gives_the_same_batches(files):
    assert all(map(same, *[take(_loader(files), 8) for _ in range(2)]))


def test_another_seed_gives_others(files):
    assert not same(next(_loader(files)), next(_loader(files, seed=8)))


def test_a_restored_iterator_goes_on_with_the_same_batches(files):
    iterator = _loader(files)
    take(iterator, 4)
    state = pickle.loads(pickle.dumps(iterator.get_state()))
    expected = take(iterator, 5)
    resumed = _loader(files)
    resumed.set_state(state)
    assert all(map(same, expected, take(resumed, 5)))


def _mixed_files(root: Path) -> list[Path]:
    shapes = [(4, 2, 16, 12), (3, 1, 3, 15, 20), (5, 1, 18, 14)]
    return [write_file(root, f"P00{i}", shape) for i, shape in enumerate(shapes, 1)]


@pytest.mark.slow  # each process starts its own JAX
def test_a_hundred_batches_whatever_the_workers_and_interruptions(tmp_path):
    """Two shapes, 0, 1 and 2 workers, each also stopped at batch 37 and resumed."""
    files, options = _mixed_files(tmp_path), _options(crop=(None, None))
    settings = {"n_buckets": 2, "batch_size": 2}
    expected = take(_loader(files, options, **settings), 100)
    for worker_count in (0, 1, 2):
        whole = _loader(files, options, worker_count=worker_count, **settings)
        first = take(whole, 37)
        state = pickle.loads(pickle.dumps(whole.get_state()))
        rest = take(whole, 63)
        whole.close()
        assert all(map(same, expected, first + rest))
        resumed = _loader(files, options, worker_count=worker_count, **settings)
        resumed.set_state(state)
        assert all(map(same, rest, take(resumed, 63)))
        resumed.close()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_workers_leave_signals_to_the_run(tmp_path, number):
    """They are sent to all processes; the run then ends between two steps, by itself."""
    files = _mixed_files(tmp_path)
    expected = take(_loader(files, batch_size=2), 30)
    loader = _loader(files, batch_size=2, worker_count=2)
    first = take(loader, 2)
    workers = multiprocessing.active_children()
    assert len(workers) == 2
    for worker in workers:
        os.kill(worker.pid, number)
    assert all(map(same, expected, first + take(loader, 28)))
    loader.close()
    assert not any(worker.is_alive() for worker in workers)


RUN = """
import sys
from tests.data.test_pipeline import _loader
loader = _loader([sys.argv[1]], batch_size=2, worker_count=2)
next(loader)
print("at work", flush=True)
sys.stdin.read()
"""


@pytest.mark.slow
def test_workers_end_with_a_run_that_was_killed(tmp_path):
    command = [sys.executable, "-c", RUN, str(_mixed_files(tmp_path)[0])]
    with subprocess.Popen(command, stdin=PIPE, stdout=PIPE, text=True, cwd=ROOT) as run:
        assert run.stdout is not None and run.stdout.readline() == "at work\n"
        run.kill()
        run.communicate(timeout=60)  # until the last process that could write has ended


def test_processes_share_the_batches_of_one(tmp_path):
    files, options = _mixed_files(tmp_path), _options(crop=(None, None))
    alone = _loader(files, options, batch_size=4, n_buckets=2)
    parts = [_loader(files, options, batch_size=4, n_buckets=2, process=(i, 2)) for i in range(2)]
    for whole, one, other in itertools.islice(zip(alone, *parts, strict=True), 8):
        assert same(whole, {k: np.concatenate([one[k], other[k]]) for k in whole})


# Epochs


def test_an_epoch_shows_every_frame_once_and_the_next_draws_anew(files):
    whole = _options(crop=(None, None))
    first, second = _loader(files, whole, batch_size=16, seed=0, num_epochs=2)
    for batch in (first, second):
        assert sorted(batch["id"]) == list(range(16))
    assert not np.array_equal(first["id"], second["id"])
    assert not np.array_equal(first["mask"], second["mask"])


def test_epochs_end(files):
    assert len(list(_loader(files, num_epochs=1))) == 16 // 3
    assert len(list(_loader(files, num_epochs=1, batch_size=16))) == 1


# Shapes


@pytest.mark.parametrize("shape", [(1, 1, 9, 7), (2, 1, 5, 3), (1, 1, 1, 1)])
def test_odd_and_tiny_cines_and_single_frames_work(tmp_path, shape):
    path = write_file(tmp_path, "P001", shape)
    options = _options(("variable_density",), (1.0,), acs=1, crop=(None, None))
    assert next(_loader([path], options, batch_size=1))["target"].shape == (1, *shape[2:])


def test_a_single_frame_is_its_own_reference(tmp_path):
    path = write_file(tmp_path, "P001", (1, 1, 16, 12))
    batch = next(_loader([path]))
    np.testing.assert_array_equal(batch["preceding"], batch["target"])
    np.testing.assert_array_equal(batch["succeeding"], batch["target"])


def test_crops_make_files_of_different_sizes_share_a_batch(tmp_path):
    paths = [write_file(tmp_path, "P001"), write_file(tmp_path, "P002", (3, 1, 15, 20))]
    batches = take(_loader(paths), 12)
    assert {batch["mask"].shape for batch in batches} == {(3, 12, 10)}


@pytest.mark.parametrize("n_buckets", [1, 2, 3])
def test_batches_come_in_at_most_as_many_shapes_as_buckets(tmp_path, n_buckets):
    loader = _loader(_mixed_files(tmp_path), _options(crop=(None, None)), n_buckets=n_buckets)
    batches = take(loader, 20)
    assert len({batch["kspace"].shape for batch in batches}) == n_buckets
    seen = np.concatenate([batch["id"] for batch in batches])
    assert set(seen) == set(range(16))  # every frame of every shape has its turn


def test_buckets_take_turns_in_proportion_to_their_frames(tmp_path):
    shapes = [(9, 1, 16, 12), (3, 1, 15, 20)]
    paths = [write_file(tmp_path, f"P00{i}", shape) for i, shape in enumerate(shapes)]
    batches = take(_loader(paths, _options(crop=(None, None)), batch_size=1, n_buckets=2), 48)
    assert sum(batch["mask"].shape == (1, 16, 12) for batch in batches) == 36


@pytest.mark.parametrize("n_coils", [1, 2])
def test_coils_that_receive_nothing_do_not_change_how_gaps_are_filled(tmp_path, n_coils):
    source = FileSlices([write_file(tmp_path, "P001", (4, 1, n_coils, 16, 12))], acs=4)
    options = _options(("variable_density",), (2.0,), input_fill="blended")
    frame = FrameSource(source, options)[1]
    alone, padded = (
        pipeline._RandomTriplet(options, (n, 12, 10)).random_map(frame, np.random.default_rng(0))
        for n in (n_coils, 3)
    )
    np.testing.assert_array_equal(padded["target"], alone["target"])
    np.testing.assert_array_equal(padded["kspace"][:n_coils], alone["kspace"])
    assert padded["kspace"].shape == padded["sens"].shape == (3, 12, 10)


def test_an_example_in_a_larger_bucket_is_measured_as_consistently(tmp_path):
    loader = _loader(_mixed_files(tmp_path), _options(crop=(None, None)), n_buckets=1)
    for batch in take(loader, 4):
        coil_images = batch["sens"] * batch["reference"][:, None]
        assert batch["kspace"].shape == (3, 3, 18, 20)
        combined = coil_combine(ifft2c(batch["kspace"]), batch["sens"])
        np.testing.assert_allclose(combined, batch["target"], atol=1e-5)
        single = np.flatnonzero((batch["sens"][:, 1:] == 0).all(axis=(1, 2, 3)))
        modelled = fft2c(coil_images) * batch["mask"][:, None]
        np.testing.assert_allclose(modelled[single], batch["kspace"][single], atol=1e-5)


# What is refused


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 0}, "batch_size=0"),
        ({"worker_count": -1}, "worker_count=-1"),
        ({"batch_size": 3, "process": (0, 2)}, "batch_size=3 n_processes=2"),
        ({"batch_size": 4, "process": (2, 2)}, "process of 0 to 1, got 2"),
        ({"n_buckets": 0}, "n_buckets=0"),
        ({"batch_size": 17, "num_epochs": 1}, "no full batch: batch_size=17 with 16 frames"),
    ],
)
def test_impossible_settings_are_refused_at_once(files, settings, message):
    with pytest.raises(ValueError, match=message):
        _loader(files, **settings)


def test_a_source_without_slices_is_refused():
    options = TripletOptions(MaskSampler(("uniform",), (4.0,), 4))
    with pytest.raises(ValueError, match="got a source without any"):
        make_training_loader(SimpleNamespace(slices=()), options, batch_size=1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kinds": ("spiral",)}, "kind='spiral'"),
        ({"accelerations": (6.0,)}, "lower acs or the acceleration"),
        ({"input_fill": "guess"}, "input_fill must be one of"),
    ],
)
def test_impossible_examples_are_refused_at_once(files, options, message):
    with pytest.raises(ValueError, match=message):
        _loader(files, _options(**options))


def test_shapes_draw_masks_of_their_own(tmp_path):
    shapes = [(4, 1, 1, 16, width) for width in (12, 10)]
    files = [write_file(tmp_path, f"P{i}", shape) for i, shape in enumerate(shapes)]
    options = _options(("variable_density",), (4.0,), acs=0, crop=(None, None))
    lines: dict[int, set[bytes]] = {12: set(), 10: set()}
    for batch in _loader(files, options, batch_size=1, num_epochs=1):
        lines[batch["mask"].shape[2]].add(batch["mask"][0, :, 0].tobytes())
    assert lines[12] != lines[10] and all(lines.values())
