"""Arrays that are no cine are refused."""

import numpy as np
import pytest

from kgmgt_jax.mri.cine import check_cine
from tests.classical.reference import problem

REFUSED = {
    "three axes": (lambda k, m, s: (k[0], m, s), r"\(t, n, h, w\), got kspace\.shape="),
    "no frames": (lambda k, m, s: (k[:0], m[:0], s), "without empty axes"),
    "real k-space": (lambda k, m, s: (k.real, m, s), "expected complex kspace"),
    "mask of a frame": (lambda k, m, s: (k, m[0], s), "repeat a mask that frames share"),
    "other byte order": (lambda k, m, s: (np.asarray(k, ">c8"), m, s), r"\.astype\('complex64'\)"),
    "mask in such": (lambda k, m, s: (k, np.asarray(m, ">f4"), s), "mask in the byte order of"),
    "maps in such": (lambda k, m, s: (k, m, np.asarray(s, ">c8")), "sens in the byte order of"),
    "complex mask": (lambda k, m, s: (k, m + 0j, s), r"expected a real mask .*complex64"),
    "mask of bytes": (lambda k, m, s: (k, np.asarray(m) * 255, s), "zeros and ones.* 0 to 255;"),
    "coils without maps": (lambda k, m, s: (k, m, None), "expected n = 1 coils without sens"),
    "maps of fewer coils": (lambda k, m, s: (k, m, s[:1]), r"got sens\.shape=\(1, 6, 5\)"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_a_cine_is_refused_in_one_line(name):
    change, message = REFUSED[name]
    with pytest.raises(ValueError, match=message) as caught:
        check_cine(*change(*problem(3)))
    assert "\n" not in str(caught.value)
