"""The paper's ablations of KGMgT, one row a variant: `full`, or the part that is missing.

    python train.py --config=configs/ablations.py:no_knowledge --workdir=runs/no_knowledge \
        --config.data.train=DIR --config.data.validation=DIR

Rows: full, no_knowledge, no_square, no_rect, global, no_consistency, no_alignment; each is
`:base` of configs/kgmgt.py but for what it is named after, or what stands behind it: with `:tiny`
(`no_rect:tiny`) its tiny variant, with `:kt_first` or `:fixed_first` that of configs/pretrained.py.
`python benchmarks/ablations.py` trains all of them on phantoms.
"""

from typing import Any

from ml_collections import ConfigDict

from configs import kgmgt, pretrained

ROWS: dict[str, dict[str, Any]] = {
    "full": {},
    "no_knowledge": {"knowledge": False},
    "no_square": {"square_window": False},
    "no_rect": {"rect_window": None},
    "global": {"attention": "global"},
    "no_consistency": {"consistency": "none", "solver": "gradient"},
    "no_alignment": {"alignment": False},
}
_PRETRAINED = ("kt_first", "fixed_first")


def get_config(variant: str = "full") -> ConfigDict:
    """The configuration of a row; every field can be overridden on the command line."""
    row, _, size = (variant or "full").partition(":")
    if row not in ROWS or size not in ("", "base", "tiny", *_PRETRAINED):
        expected = f"{', '.join(ROWS)}, or one with :base, :tiny, :{' or :'.join(_PRETRAINED)}"
        raise ValueError(f"variants are {expected}, got {variant!r}")
    parent = pretrained if size in _PRETRAINED else kgmgt
    config: Any = parent.get_config(size)
    config.model.update(ROWS[row])
    return config
