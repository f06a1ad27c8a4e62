"""Shape buckets: few shapes for many slices, so that few programs are compiled.

Every slice is padded to the shape of its bucket. Buckets begin as the shapes there are; the two
whose union costs the fewest padded samples are merged until there are few enough.
"""

import itertools
from collections import Counter
from collections.abc import Sequence

__all__ = ["choose_buckets"]

Shape = tuple[int, int, int]


def choose_buckets(
    shapes: Sequence[Shape], n_buckets: int, *, same_rows: bool = False
) -> list[Shape]:
    """The bucket of every slice.

    Args:
        shapes: Coils, rows and columns of each slice.
        n_buckets: Most buckets wanted, at least 1.
        same_rows: Whether no rows may be added; each number of rows has a bucket of its own then.

    Returns:
        For each slice a shape that holds it, at most ``n_buckets`` different ones if rows may be
        added.

    Raises:
        ValueError: If ``n_buckets`` is below 1.
    """
    if n_buckets < 1:
        raise ValueError(f"expected n_buckets >= 1, got {n_buckets=}")
    members = {shape: {shape} for shape in shapes}  # bucket: the shapes in it
    counts = Counter(shapes)
    while len(members) > n_buckets:
        pairs = list(itertools.combinations(sorted(members), 2))
        if same_rows:
            pairs = [(a, b) for a, b in pairs if a[1] == b[1]]
        if not pairs:
            break
        pair = min(pairs, key=lambda pair: _cost(*pair, members, counts))
        merged = members.pop(pair[0]) | members.pop(pair[1])
        bucket = _union(*pair)
        members[bucket] = merged | members.get(bucket, set())
    bucket_of = {shape: bucket for bucket, inside in members.items() for shape in inside}
    return [bucket_of[shape] for shape in shapes]


def _union(a: Shape, b: Shape) -> Shape:
    n, h, w = (max(sizes) for sizes in zip(a, b, strict=True))
    return n, h, w


def _samples(shape: Shape) -> int:
    return shape[0] * shape[1] * shape[2]


def _cost(a: Shape, b: Shape, members: dict[Shape, set[Shape]], counts: Counter) -> int:
    """Samples that merging two buckets adds to all slices together."""
    union = _samples(_union(a, b))
    return sum(
        (union - _samples(bucket)) * counts[shape] for bucket in (a, b) for shape in members[bucket]
    )
