"""Reconstructs a file: python reconstruct.py FILE.mat --checkpoint=WORKDIR --out=DIR."""

from absl import flags

from kgmgt_jax import cli
from kgmgt_jax.evaluation.files import reconstruct_file
from kgmgt_jax.evaluation.methods import Method
from kgmgt_jax.evaluation.outputs import FORMATS

_CHECKPOINT = flags.DEFINE_string(
    "checkpoint",
    None,
    "Training workdir (best, else last), one checkpoint, or pretrained.",
    required=True,
)
_OUT = flags.DEFINE_string("out", None, "Folder for the reconstruction.", required=True)
_MASK = flags.DEFINE_string("mask", None, "Mask file, where it does not lie beside FILE.")
_REFERENCE = flags.DEFINE_string("reference", None, "Fully sampled file, for metrics.")
_KEY = flags.DEFINE_string("key", None, "Dataset of the k-space, where no known format names it.")
_AXES = flags.DEFINE_string("axes", None, "Order of its axes as h5py sees them, as kx,ky,coil.")
_FORMATS = flags.DEFINE_list(
    "formats", ["mat"], f"What to write the images as, of {', '.join(FORMATS)}."
)
_TEMPLATE = flags.DEFINE_string(
    "template", None, "DICOM series or NIfTI file whose geometry the images take over."
)
_REVERSE = flags.DEFINE_boolean(
    "reverse_slices", False, "Slice 0 is the template's last along its normal, not the first."
)
_READOUT = flags.DEFINE_integer(
    "readout", None, "Central columns of the images to keep, of an oversampled readout."
)
_loading = cli.define_loading()


def main(argv: list[str]) -> None:
    """Reconstructs one file and prints what it wrote."""
    if len(argv) != 2 or not argv[1]:  # "" would be the current folder
        raise ValueError(f"expected one FILE.mat, got {argv[1:]}")
    method = Method.load("", _CHECKPOINT.value, **_loading())
    report = reconstruct_file(
        argv[1],
        method,
        _OUT.value,
        _MASK.value,
        _REFERENCE.value,
        key=_KEY.value,
        axes=_AXES.value,
        formats=_FORMATS.value,
        template=_TEMPLATE.value,
        reverse_slices=_REVERSE.value,
        readout=_READOUT.value,
    )
    print(report)


if __name__ == "__main__":
    cli.run(main, takes_arguments=True, less_memory=cli.LESS_MEMORY)
