"""A slice of a file, reconstructed: what its images are compared by."""

import numpy as np

from kgmgt_jax.data.formats import read_file
from kgmgt_jax.data.phantom import write_cmrxrecon2023
from kgmgt_jax.evaluation.files import reconstruct_case
from kgmgt_jax.evaluation.methods import Method


class _Nothing(Method):
    """A network whose images are zero."""

    def reconstruct(self, kspace, mask, sens, progress=None):
        return np.zeros(mask.shape, np.complex64)


def test_a_method_that_adds_nothing_scores_as_zero_filling(tmp_path):
    sizes = {"shape": (24, 20), "n_frames": 3, "n_slices": 1, "n_coils": 3, "acs": 8}
    paths = write_cmrxrecon2023(tmp_path, [0], accelerations=(3,), **sizes)
    path = next(path for path in paths if path.match("AccFactor03/*/cine_sax.mat"))
    done = reconstruct_case(read_file(path)[0], _Nothing("nothing", "", None, {}))
    np.testing.assert_allclose(done.zero_filled, done.magnitude, rtol=1e-5, atol=1e-9)
