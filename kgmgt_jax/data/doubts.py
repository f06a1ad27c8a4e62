"""What is legal in a case but looks wrong."""

import numpy as np

from kgmgt_jax.data.case import CineCase
from kgmgt_jax.mri.coils import MIN_CALIBRATION_LINES

__all__ = ["doubts"]

_BOX = 16  # this part of the matrix to either side counts as around a point
_MUCH = 5


def doubts(case: CineCase) -> list[str]:
    """One line each on zeros that count as measured, k-space that is not centred, and the like.

    Args:
        case: Any.
    """
    found = [_frames(case), _zeros(case), _off_centre(case), _columns(case), _few_lines(case)]
    where = f"{case.meta.source} [{case.meta.name}]"
    return [f"{where}: {doubt}" for doubt in found if doubt]


def _frames(case: CineCase) -> str:
    empty = np.flatnonzero(~(case.kspace != 0).any(axis=(1, 2, 3)))
    if not empty.size:
        return ""
    return (
        f"{empty.size} of {case.n_frames} frames have no signal at all, frame {empty[0]} the first "
        "of them; what their images show is not theirs"
    )


def _zeros(case: CineCase) -> str:
    lines = (case.kspace != 0).any(axis=(1, 3))
    measured = case.mask.any(axis=2) & lines.any(axis=1, keepdims=True)
    empty = int(np.count_nonzero((measured & ~lines).any(axis=0)))
    if not empty:
        return ""
    return f"{empty} of {lines.shape[1]} lines are zero though the mask says measured"


def _off_centre(case: CineCase) -> str:
    energy = (np.abs(case.kspace) ** 2).sum(axis=(0, 1))
    axes = {"ky": energy.sum(axis=1), "kx": energy.sum(axis=0)}
    found = " and ".join(name for name, profile in axes.items() if _is_at_the_ends(profile))
    if not found:
        return ""
    return f"the ends of {found} hold the energy of k-space; centre it (numpy.fft.fftshift)"


def _is_at_the_ends(profile: np.ndarray) -> bool:
    """Whether the energy along an axis is where it would be centred by a shift of half of it."""
    n = len(profile)
    box = slice(n // 2 - max(n // _BOX, 1), n // 2 + max(n // _BOX, 1) + 1)
    return bool(np.roll(profile, n // 2)[box].sum() > _MUCH * profile[box].sum())


def _columns(case: CineCase) -> str:
    mask = case.mask
    along_rows = (mask == mask[:, :1]).all() and not (mask == mask[..., :1]).all()
    if not along_rows or _is_partial_echo(case):
        return ""
    return "lines are left out along kx, where networks are trained on ky; exchange the axes"


def _is_partial_echo(case: CineCase) -> bool:
    columns = np.flatnonzero(case.mask.any(axis=(0, 1)))
    inner = case.mask[..., columns[0] : columns[-1] + 1]
    return bool(inner.all())


def _few_lines(case: CineCase) -> str:
    enough = case.calibration_lines >= MIN_CALIBRATION_LINES
    if case.n_coils == 1 or case.sens is not None or enough:
        return ""
    return f"only {case.calibration_lines} lines around the centre to estimate coil maps from"
