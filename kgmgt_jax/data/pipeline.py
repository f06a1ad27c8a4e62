"""Grain pipeline: fully sampled slices in, batches of retrospectively undersampled triplets out.

To train without a reference, a part of what was measured is held out of the triplets, and slices
may be undersampled as they are (see `draw_held_out`).

The chain of each shape bucket is source -> shuffle -> random geometry, mask, padding -> repeat ->
batch; batches of the buckets take turns in proportion to their frames. Grain hands each example a
random generator that depends on the seed and the example's running number (its epoch and its place
in it), and on nothing else. So a run gives the same batches bit for bit, whatever the number of
workers, and an iterator resumes from its ``get_state()``, a small dictionary. Of several processes
each makes its own part of the very batches that one process would make.
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import grain
import jax
import numpy as np
from absl import flags
from jaxtyping import Complex64, Float32

from kgmgt_jax.data.augmentation import Augmentation, Moves, pad_case
from kgmgt_jax.data.buckets import Shape, choose_buckets
from kgmgt_jax.data.filling import check_fill
from kgmgt_jax.data.held_out import check_undersampled, draw_held_out, moved_mask
from kgmgt_jax.data.mask_sampler import MaskSampler
from kgmgt_jax.data.slices import SliceSource
from kgmgt_jax.data.transforms import neighbours, triplet_of_images

__all__ = ["CineFrame", "FrameSource", "TripletOptions", "make_training_loader"]

_READ_OPTIONS = grain.ReadOptions(num_threads=2, prefetch_buffer_size=4)  # counted in batches


class CineFrame(NamedTuple):
    """One frame to be reconstructed, with the frames of its slice that are needed for it.

    Attributes:
        images: Coil images of some frames, ``(f, n, h, w)``.
        sens: Sensitivities ``(n, h, w)``, or of each of ``images``; ``None`` for a single coil.
        frames: Which frames of the slice these are.
        places: Where among them the preceding, the target and the succeeding frame lie.
        n_frames: Frames of the slice.
        index: Running number of the target among all frames of the set.
        acquired: Mask of all frames of an undersampled slice; ``None`` of a fully sampled one.
        source: File and name of the slice, for messages.
    """

    images: Complex64[np.ndarray, "f n h w"]
    sens: Complex64[np.ndarray, "*f n h w"] | None
    frames: tuple[int, ...]
    places: tuple[int, int, int]
    n_frames: int
    index: int
    acquired: Float32[np.ndarray, "t h w"] | None = None
    source: str = ""


@dataclass(frozen=True)
class TripletOptions:
    """How a training example is made of a frame.

    Attributes:
        masks: Kinds of sampling and accelerations.
        augmentation: What else is random.
        input_fill: What the inputs have in the place of unmeasured samples; see `fill_gaps`. Any
            but ``"zero"`` reads all frames of a slice for each example.
        circular: Whether the last frame precedes the first (retrospective gating); ``False`` is
            for real-time cines.
        held_out: How much of what is measured the network is not given, in (0, 1); see
            `draw_held_out`. 0 trains on the reference instead.

    Raises:
        ValueError: If ``input_fill`` is unknown, or ``held_out`` out of range.
    """

    masks: MaskSampler
    augmentation: Augmentation = field(default_factory=Augmentation)
    input_fill: str = "zero"
    circular: bool = True
    held_out: float = 0.0

    def __post_init__(self) -> None:
        check_fill(self.input_fill)
        if not 0 <= self.held_out < 1:
            raise ValueError(f"expected held_out from 0 to below 1, got {self.held_out=}")


class FrameSource:
    """Random access to every frame of some slices, in order: frames within slices.

    Args:
        source: Where the slices come from.
        options: How examples are made, which decides what frames they need.
        numbers: Which slices; all if left out.
    """

    def __init__(
        self, source: SliceSource, options: TripletOptions, numbers: Sequence[int] | None = None
    ) -> None:
        self._source, self._options = source, options
        first, self._index = 0, []
        chosen = set(range(len(source.slices)) if numbers is None else numbers)
        for number, info in enumerate(source.slices):
            n_frames = info.shape[0]
            if number in chosen:
                self._index += [(number, t, first + t) for t in range(n_frames)]
            first += n_frames

    def __len__(self) -> int:
        return len(self._index)

    def __getitem__(self, index: int) -> CineFrame:
        number, t, running = self._index[index]
        info = self._source.slices[number]
        n_frames, where = info.shape[0], f"{info.source} [{info.name}]"
        before, after = neighbours(t, n_frames, circular=self._options.circular)
        whole = self._options.input_fill != "zero"
        frames = tuple(range(n_frames)) if whole else tuple(sorted({before, t, after}))
        before, t, after = (frames.index(frame) for frame in (before, t, after))
        sens = self._source.sens(number)
        if sens is not None and sens.ndim == 4:
            sens = sens[list(frames)]
        images = self._source.images(number, frames)
        acquired = self._source.acquired(number) if info.undersampled else None
        places = before, t, after
        return CineFrame(images, sens, frames, places, n_frames, running, acquired, where)


@dataclass(frozen=True)
class _RandomTriplet(grain.transforms.RandomMap):
    """Makes the example of a frame, at the shape of its bucket, with or without a reference."""

    options: TripletOptions
    bucket: Shape
    referenced: bool = True

    def random_map(self, element: CineFrame, rng: np.random.Generator) -> dict[str, np.ndarray]:
        options = self.options
        h, w = element.images.shape[-2:]
        moves = options.augmentation.draw((h, w), rng)
        images, sens = moves.of_case(element.images, element.sens)
        images, sens = pad_case(images, sens, (images.shape[1], *self.bucket[1:]))
        try:
            mask, held = self._masks(element, moves, rng)
        except ValueError as error:
            raise ValueError(f"{element.source}: {error}") from error
        example = triplet_of_images(
            images,
            mask,
            sens,
            element.places,
            held=held,
            circular=options.circular,
            input_fill=options.input_fill,
            intensity=options.augmentation.draw_intensity(rng),
        )
        # Coils that receive nothing come last: filling gaps would take its time for them, too.
        kspace, sens = pad_case(example["kspace"][None], example.get("sens"), self.bucket)
        if sens is not None:
            example["sens"] = sens
        if held is not None:
            example["held_kspace"] = pad_case(example["held_kspace"][None], None, self.bucket)[0][0]
        if not self.referenced:
            del example["reference"]
        return example | {"kspace": kspace[0], "id": np.asarray(element.index, np.int32)}

    def _masks(
        self, element: CineFrame, moves: Moves, rng: np.random.Generator
    ) -> tuple[Float32[np.ndarray, "f h w"], Float32[np.ndarray, "f h w"] | None]:
        """What the network is given of these frames, and what is held out of it, if anything is."""
        options = self.options
        if element.acquired is None:
            mask = options.masks.draw(rng, (element.n_frames, *self.bucket[1:]))
        else:
            mask = moved_mask(element.acquired, moves, self.bucket[2])
        mask = mask[list(element.frames)]
        if not options.held_out:
            return mask, None
        held = draw_held_out(mask, options.held_out, options.masks.acs, rng)
        return mask - held, held


def make_training_loader(
    source: SliceSource,
    options: TripletOptions,
    *,
    batch_size: int,
    n_buckets: int = 4,
    seed: int = 0,
    num_epochs: int | None = None,
    worker_count: int = 0,
    process: tuple[int, int] = (0, 1),
) -> grain.DatasetIterator[dict[str, np.ndarray]]:
    """Iterator over random training batches.

    Every frame is a target once an epoch. Geometry, phase, mask kind, acceleration and mask are
    drawn anew for every example. A batch is what `transforms.triplets` describes, and ``id``,
    int32 (b,): the running number of each target. With ``options.held_out`` it has ``held_mask``
    and ``held_kspace``, too, of what `draw_held_out` drew of each target, and no
    ``reference`` if any slice is undersampled.

    Args:
        source: The slices, fully sampled unless ``options.held_out``.
        options: How examples are made.
        batch_size: Examples in a batch of all processes together; an incomplete last batch of an
            epoch is filled from the next, and dropped at the very end.
        n_buckets: Most shapes that batches come in; slices are padded to one of them after the
            crop. If any slice is undersampled, none gets more rows, and there may be more shapes.
        seed: Seed of everything random, in [0, 2^32).
        num_epochs: Passes over the data; ``None`` goes on forever.
        worker_count: Worker processes; 0 works in two threads of this process.
        process: Index of this process and their number; it gets its part of each batch.

    Returns:
        A Grain iterator. ``get_state()`` and ``set_state()`` save and restore its position, with
        the same ``worker_count`` on both sides; ``close()`` ends its workers.

    Raises:
        ValueError: If there are no slices, a size, a process, a mask kind or an acceleration is
            impossible, or undersampled slices would be trained on as references, be cut along the
            phase encoding, or turned.
    """
    index, n_processes = process
    _check_sizes(batch_size, worker_count, index, n_processes)
    if not source.slices:
        raise ValueError("expected slices to make examples of, got a source without any")
    undersampled = any(info.undersampled for info in source.slices)
    if undersampled:
        check_undersampled(source.slices, options.augmentation, options.held_out)
    slice_shapes = [info.shape for info in source.slices]
    shapes = [(n, *options.augmentation.cropped((h, w))) for _, n, h, w in slice_shapes]
    buckets = choose_buckets(shapes, n_buckets, same_rows=undersampled)
    datasets, sizes = [], []
    for place, bucket in enumerate(sorted(set(buckets))):
        numbers = [number for number, own in enumerate(buckets) if own == bucket]
        drawn = [number for number in numbers if not source.slices[number].undersampled]
        for t in {source.slices[number].shape[0] for number in drawn}:
            options.masks.check((t, *bucket[1:]))
        frames = FrameSource(source, options, numbers)
        if num_epochs is not None and num_epochs * len(frames) < batch_size:
            got = f"{batch_size=} with {len(frames)} frames of shape {bucket}, {num_epochs=}"
            raise ValueError(f"no full batch: {got}")
        own_seed = int(np.random.SeedSequence([seed, place]).generate_state(1)[0])
        dataset = grain.MapDataset.source(frames).seed(own_seed).shuffle()
        make = _RandomTriplet(options, bucket, referenced=not undersampled)
        dataset = dataset.random_map(make).repeat(num_epochs)
        datasets.append(dataset.batch(batch_size // n_processes, drop_remainder=True))
        sizes.append(len(frames))
    parts = [dataset[index::n_processes] for dataset in datasets]
    mixed = parts[0] if len(parts) == 1 else grain.MapDataset.mix(parts, sizes)
    batches = mixed.to_iter_dataset(_READ_OPTIONS)
    if worker_count:
        if not flags.FLAGS.is_parsed():  # outside absl.app; Grain's workers read their flags
            flags.FLAGS.mark_as_parsed()
        workers = grain.MultiprocessingOptions(num_workers=worker_count, per_worker_buffer_size=2)
        batches = batches.mp_prefetch(workers, worker_init_fn=_begin_worker)
    return iter(batches)


def _check_sizes(batch_size: int, worker_count: int, index: int, n_processes: int) -> None:
    if batch_size < 1 or worker_count < 0:
        raise ValueError(f"sizes out of range: got {batch_size=} (>= 1), {worker_count=} (>= 0)")
    if not 0 <= index < n_processes:
        raise ValueError(f"expected a process of 0 to {n_processes - 1}, got {index}")
    if batch_size % n_processes:
        raise ValueError(
            f"the batch must divide among the processes: got {batch_size=} {n_processes=}"
        )


def _begin_worker(worker_index: int, worker_count: int) -> None:
    """Keeps a loader's worker process off the accelerators, and the run's signals from it.

    A terminal sends a Ctrl-C, a scheduler its SIGTERM, to all processes; without its workers a run
    would end with an error, before the step in progress is done and saved. The run ends them; if
    it was killed, they end by themselves.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with_the_run, daemon=True).start()
    jax.config.update("jax_platforms", "cpu")


def _end_with_the_run() -> None:
    if (run := multiprocessing.parent_process()) is not None:
        run.join()
        os._exit(1)
