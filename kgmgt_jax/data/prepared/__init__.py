"""Slices prepared once, as a TFDS dataset that training reads at random.

``python -m kgmgt_jax.data prepare PATH --out DIR`` makes such a set; neither making nor reading it
needs TensorFlow. What is in ``DIR``::

    cine_frames/1.0.0/      a dataset of TFDS, one example a frame
        cine_frames-train.array_record-00003-of-00042     one slice a file, its frames in order
        dataset_info.json  features.json  metadata.json
    cine_slices/1.0.0/      a dataset of TFDS, one example a slice, in the same order
        cine_slices-train.array_record-00000-of-00001
        dataset_info.json  features.json  metadata.json
    skipped.json            what was left out of the set, and why
    checksums.txt           SHA-256 of every file above, as ``sha256sum`` has it, and of itself

==========  =======  ==============================================================================
frame       kind     content
==========  =======  ==============================================================================
images      bytes    coil images (n, h, w), complex64, little endian, C order
shape       3 ints   n, h, w
slice       text     identifier of the slice, as in ``cine_slices``
t           int      number of the frame
==========  =======  ==============================================================================

==========  =======  ==============================================================================
slice       kind     content
==========  =======  ==============================================================================
id          text     16 hexadecimal digits, from the slice's place in the source
name        text     as in ``CaseMeta.name``
subject     text     who was scanned
view        text     cardiac view, empty where unknown
shape       4 ints   t, n, h, w of its images
scale       float    what its images were divided by
sens        bytes    sensitivities, complex64, little endian, C order
sens_shape  4 ints   1, n, h, w; t, n, h, w if they change over time; zeros for a single coil
meta        text     JSON: the fields of ``CaseMeta``, where the sensitivities come from, and which
                     samples were acquired
==========  =======  ==============================================================================

Images are the centred orthonormal inverse Fourier transform of the k-space, cropped along the
readout if so asked, and divided by the 99th percentile of the magnitude of the coil-combined slice.
``metadata.json`` (equal in both) has all settings, the subjects of each split, and the list of
slices. Splits are ``train``, ``validation`` and ``test``; a subject is in one of them only.

``tfds.builder_from_directory(DIR / "cine_frames/1.0.0").as_data_source("train")`` reads a set too.
While a set is being made, ``DIR`` holds ``.preparing`` with the slices that are finished, and
``checksums.txt`` comes last: without it the set is not finished.

===========  ================================================================================
module       content
===========  ================================================================================
options      what is done to the slices
layout       names of the files and datasets
checksums    digests that catch any flipped bit
records      files of examples
features     what the examples consist of
splits       which subject goes to which split
scan         what there is to prepare below a path
acquired     which samples a scanner took
processing   from a case to the images and sensitivities that are kept
staging      finished slices, kept until all are
builder      the two datasets of TFDS
preparing    all of it in order
memory       keeping freed memory while reading
reader       random access to a finished set
command      the command lines ``prepare`` and ``verify``
===========  ================================================================================

A module imports only from those named before it.
"""

from kgmgt_jax.data.prepared.checksums import verify_checksums
from kgmgt_jax.data.prepared.layout import is_prepared
from kgmgt_jax.data.prepared.options import PrepareOptions
from kgmgt_jax.data.prepared.reader import PreparedSet

__all__ = ["PrepareOptions", "PreparedSet", "is_prepared", "verify_checksums"]
