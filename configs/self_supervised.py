"""KGMgT trained without references: on scans that are undersampled as they are.

    python train.py --config=configs/self_supervised.py:tiny --workdir=runs/self \
        --config.data.train=DIR

A part of the lines that each frame measured is held out; the network is given the others and
trained to predict those (SSDU: Yaman et al., Magnetic Resonance in Medicine, 2020). `DIR` holds
undersampled files, which keep their masks, or is a set that `prepare --undersampled` made of them;
fully sampled files and sets are undersampled by `data.mask_kinds` and `data.accelerations`.
`data.validation` likewise: undersampled files are scored by what is held out of them.

Variants: `base` (default), `released` and `tiny` of configs/kgmgt.py; `pretrained` goes on from the
weights in the package on scans of one's own.
"""

from typing import Any

from ml_collections import ConfigDict

from configs import kgmgt, pretrained


def get_config(variant: str = "base") -> ConfigDict:
    """The configuration of a variant; every field can be overridden on the command line."""
    if variant not in ("", "base", "released", "tiny", "pretrained"):
        raise ValueError(f"variants are base, released, tiny and pretrained, got {variant!r}")
    config: Any = pretrained.get_config() if variant == "pretrained" else kgmgt.get_config(variant)
    config.unlock()
    config.loss.update(perceptual=0.0, adversarial=0.0)
    config.loss.image.update(l1=0.0)
    config.loss.kspace.update(l1=0.5, l2=0.5)
    config.data.update(held_out=0.4, crop=(None, config.data.crop[1]))  # rows cannot be cut
    if variant == "pretrained":
        config.optimizer.update(learning_rate=2e-4, warmup=20)
        config.train.update(start_from="pretrained", n_steps=200, log_every=10, checkpoint_every=50)
    return config.lock()
