"""To which split a subject goes."""

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np

from kgmgt_jax.data.prepared.options import SPLITS

__all__ = ["assign_splits"]


def assign_splits(subjects: Iterable[str], fractions: Sequence[float], seed: int) -> dict[str, str]:
    """Split of each subject, from a hash of the seed and its name.

    Subjects in the order of their hashes are cut at the fractions, rounded to whole subjects; a
    split that rounding leaves without anyone takes one from that which exceeds its share the
    most. It depends on nothing but names, fractions and seed. When subjects come or go, others may
    change their split.

    Args:
        subjects: Names; repetitions count once.
        fractions: For train, validation, test; they sum to 1.
        seed: Any integer.

    Raises:
        ValueError: If there are more splits than subjects.
    """
    ranked = sorted(set(subjects), key=lambda subject: (_digest(f"{seed}/{subject}"), subject))
    wanted = [i for i, part in enumerate(fractions) if part > 0]
    if len(ranked) < len(wanted):
        got = f"{len(ranked)}: {', '.join(map(repr, sorted(ranked)))}"
        fix = "--split 1 makes one split, --subject says how subjects are told apart"
        raise ValueError(f"expected at least {len(wanted)} subjects to split, got {got}; {fix}")
    shares = np.multiply(fractions, len(ranked))
    counts = np.diff(np.rint(np.cumsum(shares)).astype(int), prepend=0)
    for i in wanted:
        if not counts[i]:
            counts[np.where(counts > 1, counts - shares, -np.inf).argmax()] -= 1
            counts[i] = 1
    return dict(zip(ranked, np.repeat(SPLITS[: len(counts)], counts).tolist(), strict=True))


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()
