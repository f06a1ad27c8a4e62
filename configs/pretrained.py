"""The networks whose weights ship with the package; see docs/MODEL_CARD.md.

    JAX_PLATFORMS=cpu python train.py --config=configs/pretrained.py:kt --workdir=runs/kt \
        --config.data.train=train.h5

Variants: `kt` (default) for masks that change from frame to frame, `fixed` for those that do not;
`modl_kt` and `modl_fixed` train MoDL on the same examples, to compare with.

`train.h5` holds magnitude cines (t, y, x), one a dataset; k-space of one coil is simulated of them.
One CPU core: about 3 minutes to compile, then 1.5 seconds a step. A step sees one frame of 224 x 64
pixels: many small updates, whose cost is in proportion to their pixels.
"""

from typing import Any

from ml_collections import ConfigDict

from configs import kgmgt, modl

_MASKS = {"kt": "variable_density", "fixed": "variable_density_fixed"}


def get_config(variant: str = "kt") -> ConfigDict:
    """The configuration of a variant; every field can be overridden on the command line."""
    network, _, kind = variant.rpartition("_")
    if kind not in _MASKS or network not in ("", "modl"):
        raise ValueError(f"variants are kt, fixed, modl_kt and modl_fixed, got {variant!r}")
    config: Any = (modl if network else kgmgt).get_config("tiny").unlock()
    if not network:
        config.model.update(
            channels=(8, 16, 32),
            width=8,
            window=8,
            rect_window=((32, 4), (32, 4), (32, 4)),
            solver="gradient",  # the same for one coil; for several see benchmarks/pretraining.md
        )
        config.loss.update(mentor=0.3)
    config.data.update(
        batch_size=1,
        crop=(224, 64),
        mask_kinds=(_MASKS[kind],),
        accelerations=(6.0, 4.0, 8.0, 10.0, 12.0),
        input_fill="low_rank",
        n_buckets=1,
        validation_frames=4,
        validation_batches=3,
    )
    config.data.simulation.update(n_coils=(1, 1), noise=0.0)
    config.optimizer.update(learning_rate=2e-3, warmup=100)
    config.train.update(
        n_steps=3250, log_every=50, checkpoint_every=100, eval_every=3250, ema_decay=0.995
    )
    return config.lock()
