"""The examples run, and their parts are what they say."""

import importlib
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kgmgt_jax.data import mask_sampler
from kgmgt_jax.losses import IMAGE_LOSSES, l1_loss
from kgmgt_jax.models.registry import NETWORKS
from kgmgt_jax.mri.sampling import MASKS

TABLES = (NETWORKS, MASKS, mask_sampler.MASK_KINDS, IMAGE_LOSSES)


@pytest.fixture(scope="module")
def variant():
    """The example, whose entries leave the package's tables afterwards."""
    before = [dict(table) for table in TABLES]
    yield importlib.import_module("examples.variant")
    for table, entries in zip(TABLES, before, strict=True):
        table.clear()
        table.update(entries)


def test_jittered_masks_have_one_line_of_every_r_and_the_central_ones(variant):
    sampling = variant.jittered(jax.random.key(0), (6, 18, 3), 4, acs=0)
    lines = np.asarray(sampling.mask)[:, :, 0]
    blocks = lines[:, :16].reshape(6, 4, 4)
    assert (blocks.sum(axis=2) == 1).all() and blocks.any(axis=(0, 1)).all()
    assert (lines[:, 16:].sum(axis=1) <= 1).all()
    assert float(sampling.true_acceleration) == pytest.approx(lines.size / lines.sum())
    centre = variant.jittered(jax.random.key(0), (6, 18, 3), 4, acs=4).mask[:, 7:11]
    assert (np.asarray(centre) == 1).all()


def test_charbonnier_of_one_difference_is_its_size(variant):
    zero = jnp.zeros((1, 4, 4), jnp.complex64)
    assert float(variant.charbonnier_loss(zero + 3j, zero)) == pytest.approx(3, abs=1e-6)
    assert float(l1_loss(zero + 3j, zero)) == 1.5


def test_variant_is_trained_and_scored(variant, tmp_path, monkeypatch):
    small = {"n_coils": 2, "shape": (40, 32), "n_frames": 4}
    monkeypatch.setattr(variant, "PHANTOMS", variant.PHANTOMS | small)
    assert variant.main(["--out", str(tmp_path), "--subjects", "1", "--steps", "2"]) == 0
    scores = json.loads((tmp_path / "eval" / "metrics.json").read_text())
    assert list(scores["methods"]) == ["zero_filled", "cascade", "temporal_tv"]
    logged = (tmp_path / "train" / "metrics.jsonl").read_text().splitlines()
    assert "charbonnier" in json.loads(logged[0])
