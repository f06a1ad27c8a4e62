"""The networks whose weights ship with the package; see docs/MODEL_CARD.md.

    JAX_PLATFORMS=cpu python train.py --config=configs/pretrained.py:kt_first --workdir=runs/first \
        --config.data.train=train.h5
    JAX_PLATFORMS=cpu python train.py --config=configs/pretrained.py:kt --workdir=runs/kt \
        --config.data.train=train.h5 --config.train.start_from=runs/first

Variants: `kt` (default) for masks that change from frame to frame, `fixed` for those that do not;
`kt_first` and `fixed_first`, with half the denoiser's iterations, come before them; `kt_modl`,
`fixed_modl`, `kt_varnet` and `fixed_varnet` train another network on the same examples, to compare
with.

`train.h5` holds magnitude cines (t, y, x), one a dataset; k-space of one coil is simulated of them.
One CPU core: about 2 minutes to compile, then 1.5 seconds a step of the first, 2.1 of the second
(of `kt` 3.1, on two). A step sees one frame of 224 x 64 pixels: many small updates, whose cost is
in proportion to their pixels.
"""

from typing import Any

from ml_collections import ConfigDict

from configs import kgmgt, modl, varnet

_MASKS = {"kt": "variable_density", "fixed": "variable_density_fixed"}
_STEPS = {"first": 3250, "": 4600, "modl": 7850, "varnet": 5250}
_OTHERS = {"modl": modl, "varnet": varnet}


def get_config(variant: str = "kt") -> ConfigDict:
    """The configuration of a variant; every field can be overridden on the command line."""
    kind, _, part = (variant or "kt").partition("_")
    if kind not in _MASKS or part not in _STEPS:
        parts = ", ".join(f"_{name}" for name in _STEPS if name)
        raise ValueError(f"variants are kt and fixed, or either with one of {parts}: {variant!r}")
    config: Any = _OTHERS.get(part, kgmgt).get_config("tiny").unlock()
    if part not in _OTHERS:
        config.model.update(
            channels=(8, 16, 32),
            width=8,
            window=8,
            rect_window=((32, 4), (32, 4), (32, 4)),
            denoiser_channels=64,
            n_iterations=5 if part == "first" else 10,
            solver="gradient",  # of several coils; conjugate gradients trust poor maps too much
        )
        config.loss.update(mentor=0.3)
    config.data.update(
        batch_size=1,
        crop=(224, 64),
        mask_kinds=(_MASKS[kind],),
        accelerations=(6.0, 4.0, 8.0, 10.0, 12.0),
        input_fill="locally_low_rank",
        n_buckets=1,
        validation_frames=4,
        validation_slices=3,
    )
    config.data.simulation.update(n_coils=(1, 1), noise=0.0)
    config.optimizer.update(learning_rate=2e-3 if part else 1.5e-3, warmup=100)
    n_steps = _STEPS[part]
    config.train.update(
        n_steps=n_steps, log_every=50, checkpoint_every=100, eval_every=n_steps, ema_decay=0.995
    )
    return config.lock()
