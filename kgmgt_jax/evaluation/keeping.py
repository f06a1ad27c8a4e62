"""Images of an evaluation on disk: of cases without a score, for the ranking, for readers."""

from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Complex64, Float32

from kgmgt_jax.data.case import pixel_aspect
from kgmgt_jax.evaluation.cases import EvaluationCase
from kgmgt_jax.evaluation.collecting import Images
from kgmgt_jax.evaluation.outputs import ImageVolume, consistent_images, write_outputs
from kgmgt_jax.evaluation.ranking import N_FRAMES, write_ranking
from kgmgt_jax.evaluation.reading_page import write_reading_kit
from kgmgt_jax.evaluation.report.players import Pictures, pictures_of

__all__ = ["REFERENCE", "RankingWriter", "ReadingCases", "write_scored", "write_unscored"]

REFERENCE = "reference"  # what the reference is called among the methods


def write_unscored(folder: Path, case: EvaluationCase, images: Images) -> list[Path]:
    """Writes the images of a case by every method, as ``reconstruct.py`` does, one slice a file.

    They lie at ``METHOD/PLACE_sliceZ_recon.mat`` and ``..._magnitude.mat``; see `EvaluationCase`.
    """
    written: list[Path] = []
    for method, image in images.items():
        kept, magnitude = consistent_images(image, case.kspace, case.mask, case.sens)
        written += _write_slice(folder / method, case, method, kept, magnitude)
    return written


def write_scored(folder: Path, case: EvaluationCase, images: Images) -> list[Path]:
    """Writes the images of a case as they were scored, and its reference, one slice a file.

    They lie at ``METHOD/MASK_RATEx/PLACE_sliceZ_recon.mat`` and ``..._magnitude.mat``, see
    `EvaluationCase`; the reference at ``reference/...``.
    """
    written: list[Path] = []
    shown = images if case.reference is None else {REFERENCE: case.reference, **images}
    for method, image in shown.items():
        place = folder / method / _condition_folder(case)
        magnitude = np.abs(image).astype(np.float32)
        written += _write_slice(place, case, method, np.asarray(image, np.complex64), magnitude)
    return written


def _write_slice(
    folder: Path,
    case: EvaluationCase,
    method: str,
    image: Complex64[np.ndarray, "t h w"],
    magnitude: Float32[np.ndarray, "t h w"],
) -> list[Path]:
    """Writes a slice at its place, one a file."""
    name, about = f"{case.place.name}_slice{case.slice_index}", {"simulation": case.simulation}
    title = f"{method}, {case.name}"
    volume = ImageVolume(image[:, None], magnitude[:, None], title, attributes=about)
    return write_outputs(folder / case.place.parent, name, volume, ["mat"])


def _condition_folder(case: EvaluationCase) -> str:
    """``MASK_RATEx`` of a case that was undersampled here, else empty."""
    condition = case.condition
    return f"{condition.mask_kind}_{condition.acceleration:g}x" if condition else ""


class RankingWriter:
    """Writes `write_ranking` files, each as soon as all slices of a file are there.

    A file lies at ``METHOD/PLACE.mat``, see `EvaluationCase`; one that was undersampled here at
    ``METHOD/MASK_RATEx/PLACE.mat``.

    Args:
        root: folder of the ranking.

    Attributes:
        written: the files.
    """

    def __init__(self, root: str | Path) -> None:
        self._root = Path(root)
        # by method, folder of the condition, and place
        self._slices: dict[tuple[str, str, Path], list[Float32[np.ndarray, "t h w"]]] = {}
        self.written: list[Path] = []

    def add(self, case: EvaluationCase, images: Images) -> None:
        """Takes the images of the next slice; slices of a file come in order.

        Raises:
            ValueError: if there are fewer than three frames.
        """
        if len(case.kspace) < N_FRAMES:  # before any slice waits for others in vain
            raise ValueError(f"expected {N_FRAMES} frames or more to rank, got {len(case.kspace)}")
        folder = _condition_folder(case)
        for method, image in images.items():
            file = (method, folder, case.place)
            slices = self._slices.setdefault(file, [])
            slices.append(np.abs(image[:N_FRAMES]))
            if len(slices) == case.n_slices:
                del self._slices[file]
                path = self._root / method / folder / f"{case.place}.mat"
                self.written.append(write_ranking(path, np.stack(slices, axis=1)))

    @property
    def incomplete(self) -> dict[str, str]:
        """``{file and method: why}`` of those whose slices did not all come."""
        return {
            f"ranking of {place}, {method} {folder}".strip(): "a slice of it is missing"
            for method, folder, place in self._slices
        }


class ReadingCases:
    """Cines for the blinded reading: those of the first condition, with their reference.

    Args:
        names: of the slices to be read.
    """

    def __init__(self, names: Collection[str]) -> None:
        self._names = set(names)
        self._cases: dict[str, Pictures] = {}  # not the images: there may be thousands
        self._subjects: dict[str, str] = {}
        self._aspects: dict[str, float] = {}
        self._condition = None
        self._simulated: set[str] = set()

    def add(self, case: EvaluationCase, images: Images) -> None:
        """Takes the images of a case, if it is one to be read.

        Raises:
            ValueError: if they are too large.
        """
        self._condition = self._condition or case.condition
        wanted = case.name in self._names and case.condition == self._condition
        if case.reference is None or not wanted:
            return
        cines = {name: np.abs(image) for name, image in images.items()}
        self._cases[case.name] = pictures_of({REFERENCE: case.reference, **cines})
        self._subjects[case.name] = case.subject
        self._aspects[case.name] = pixel_aspect(case.pixel_mm)
        self._simulated |= {case.simulation} - {""}

    def write(self, folder: Path, methods: Sequence[str], main: str) -> list[Path]:
        """Writes ``reading/reading.html`` for the readers and ``reading_key.json`` apart from it.

        Args:
            folder: where they go.
            methods: the methods that every case must have to be read.
            main: the one that the others are compared with.

        Raises:
            ValueError: if no case has them all.
        """
        wanted = {REFERENCE, *methods}
        cases = {name: cines for name, cines in self._cases.items() if cines.keys() == wanted}
        if not cases:
            raise ValueError("expected a case with images by every method to be read, got none")
        kinds = ", ".join(sorted(self._simulated))
        page, key = folder / "reading" / "reading.html", folder / "reading_key.json"
        note = f"Not measured by a scanner: {kinds}." if kinds else ""
        told = {"note": note, "subjects": self._subjects, "aspects": self._aspects}
        return list(write_reading_kit(page, key, cases, main=main, **told))
