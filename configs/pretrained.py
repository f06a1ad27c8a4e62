"""The network whose weights ship with the package; see docs/MODEL_CARD.md.

    JAX_PLATFORMS=cpu python train.py --config=configs/pretrained.py --workdir=runs/pretrained \
        --config.data.train=train.h5

`train.h5` holds magnitude cines (t, y, x), one a dataset; k-space of one coil is simulated of them.
One CPU core: about 3 minutes to compile, then 2 seconds a step, half an hour for all. A step sees
one frame of 224 x 32 pixels: many small updates, whose cost is in proportion to their pixels.
"""

from typing import Any

from ml_collections import ConfigDict

from configs import kgmgt


def get_config() -> ConfigDict:
    """The configuration; every field can be overridden on the command line."""
    config: Any = kgmgt.get_config("tiny").unlock()
    config.model.update(
        channels=(8, 16, 32),
        width=8,
        window=8,
        rect_window=((32, 4), (32, 4), (32, 4)),
        denoiser_channels=16,
        consistency="hard",
        solver="gradient",
    )
    config.loss.update(mentor=0.3)
    config.data.update(
        batch_size=1,
        crop=(224, 32),
        mask_kinds=("variable_density", "variable_density_fixed"),
        accelerations=(6.0, 4.0, 8.0, 10.0, 12.0),
        input_fill="sparse",
        n_buckets=1,
        validation_frames=4,
        validation_batches=3,
    )
    config.data.simulation.update(n_coils=(1, 1), noise=0.0)
    config.optimizer.update(learning_rate=2e-3, warmup=30)
    config.train.update(
        n_steps=880, log_every=20, checkpoint_every=50, eval_every=880, ema_decay=0.99
    )
    return config.lock()
