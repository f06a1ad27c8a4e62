"""Filling the gaps of undersampled k-space from other frames, before the network sees it.

A frame's unmeasured samples are zero, or taken from where the cine measured them at another time:

====================  =============================================================================
``input_fill``        an unmeasured sample is
====================  =============================================================================
``zero``              0
``neighbours``        that of the frame nearest in time that measured it; the mean of two that are
                      equally near
``average``           the mean of all frames that measured it
``sparse``            that of a cine with few temporal frequencies; see `sparse_in_time`
``low_rank``          that of a cine L+S, of low rank plus sparse in temporal frequency; see
                      `filling.low_rank`
``blended``           between that and a cine of `little_variation` in time, the nearer to the
                      latter the more frames measured the sample
``locally_low_rank``  that of this cine after some steps towards low rank in small blocks; see
                      `towards_local_low_rank`
====================  =============================================================================

Where no frame measured, it stays 0, except that the last four guess there too (``sparse`` only if
frames measured different samples). The last three also use the sensitivities: an unmeasured sample
is what its coil would have seen. Where all frames measured the same, each of them is ``low_rank``.

The heart moves between frames, so filled samples are a guess: they are the network's input, never
what data consistency holds the result to.

`fill_gaps` works on the host, in the loaders of training; `fill_on_device` where the network runs.
"""

from kgmgt_jax.data.filling.on_device import fill_on_device
from kgmgt_jax.data.filling.ways import (
    INPUT_FILLS,
    are_lines,
    check_fill,
    fill_gaps,
    fill_measured,
    same_in_all_frames,
)

__all__ = [
    "INPUT_FILLS",
    "are_lines",
    "check_fill",
    "fill_gaps",
    "fill_measured",
    "fill_on_device",
    "same_in_all_frames",
]
