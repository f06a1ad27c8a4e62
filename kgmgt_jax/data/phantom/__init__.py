"""A beating-heart phantom: cine k-space with known images, coils and labels, from a seed.

`make_cine` returns one slice in memory; `write_cmrxrecon2023` writes a data set in the
layout of CMRxRecon 2023, so that everything that reads the real data can be tried without it::

    python -m kgmgt_jax.data.phantom --out DIR --n_subjects 4 --shape 128,128 --n_coils 8

==============================  ==============================================================
module                          content
==============================  ==============================================================
signal, field, coils            the scanner: bSSFP contrast, off-resonance, receive maps, noise
canvas, texture                 shapes with partial volume, and what makes them irregular
heart, motion                   the patient: how the heart beats, what moves with it
short_axis, long_axis, torso    the painters of both views
cine                            one slice, from the seed to the k-space
files                           a data set on disk
==============================  ==============================================================

A module imports only from those named before it. Host code in NumPy; lengths are in mm.
"""

from kgmgt_jax.data.phantom.cine import PhantomCine, make_cine
from kgmgt_jax.data.phantom.files import write_cmrxrecon2023

__all__ = ["PhantomCine", "make_cine", "write_cmrxrecon2023"]
