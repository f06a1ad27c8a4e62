"""To which split a subject goes."""

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np

from kgmgt_jax.data.prepared.options import SPLITS

__all__ = ["assign_splits"]


def assign_splits(subjects: Iterable[str], fractions: Sequence[float], seed: int) -> dict[str, str]:
    """Split of each subject, from a hash of the seed and its name.

    The hash gives a number in [0, 1), and the range it falls into gives the split, so a subject
    stays where it is when others come or go. In small sets a split may so be left without
    anyone; it then takes the subject whose number is nearest to its range.

    Args:
        subjects: Names; repetitions count once.
        fractions: For train, validation, test; they sum to 1.
        seed: Any integer.

    Raises:
        ValueError: If there are more splits than subjects.
    """
    numbers = {subject: _uniform(f"{seed}/{subject}") for subject in sorted(set(subjects))}
    edges = np.concatenate([[0.0], np.cumsum(fractions)])
    edges[-1] = 1.0
    wanted = [i for i, part in enumerate(fractions) if part > 0]
    if len(numbers) < len(wanted):
        got = f"{len(numbers)}: {', '.join(map(repr, numbers))}"
        fix = "--split 1 makes one split, --subject says how subjects are told apart"
        raise ValueError(f"expected at least {len(wanted)} subjects to split, got {got}; {fix}")
    chosen = {
        subject: max(i for i in wanted if edges[i] <= number or i == wanted[0])
        for subject, number in numbers.items()
    }
    for i in wanted:
        counts = [list(chosen.values()).count(j) for j in range(len(fractions))]
        if counts[i]:
            continue
        spare = [subject for subject, j in chosen.items() if counts[j] > 1]
        low, high = edges[i], edges[i + 1]
        nearest = min(spare, key=lambda s: (max(low - numbers[s], numbers[s] - high), s))
        chosen[nearest] = i
    return {subject: SPLITS[i] for subject, i in chosen.items()}


def _uniform(text: str) -> float:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") / 2**64
