"""How Sphinx makes the pages of `make docs`: the project's texts, and every module's docstrings."""

import re
from pathlib import Path

from kgmgt_jax import __version__

ROOT = Path(__file__).resolve().parents[1]

project = "kgmgt-jax"
release = __version__
extensions = [
    "myst_parser",
    "sphinx.ext.apidoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
]
# The source folder is the root, so that links between the texts hold on these pages as well.
root_doc = "docs/index"
include_patterns = ["*.md", "docs/**", "benchmarks/*.md"]
exclude_patterns = [".*", "docs/api/modules.rst", "runs", "site"]
html_theme = "furo"
html_title = f"{project} {release}"
html_show_copyright = False
maximum_signature_line_length = 88
default_role = "any"  # of names in single backticks
myst_heading_anchors = 3

apidoc_modules = [
    {
        "path": ROOT / "kgmgt_jax",
        "destination": "docs/api",
        "separate_modules": True,
        "module_first": True,
        "automodule_options": {"members"},
    }
]
# Each name once: in its module, not in a package that hands it on.
autodoc_default_options = {
    "ignore-module-all": True,
    "no-value": True,
    "special-members": "__call__",
}
autodoc_inherit_docstrings = False
autodoc_member_order = "bysource"
napoleon_attr_annotations = False

# What Flax adds to the fields of every module.
_FLAX = re.compile(r", parent: .*_Sentinel.*, name: str \| None = None")


def setup(app):
    """Leaves out what a reader has no use for."""
    app.connect("autodoc-skip-member", _skip)
    app.connect("autodoc-process-signature", _shorten)


def _skip(app, what, name, obj, skip, options):
    """Fields of a named tuple once more, where its docstring has told them."""
    return True if (obj.__doc__ or "").startswith("Alias for field number") else None


def _shorten(app, what, name, obj, options, signature, returned):
    """Arrays by their names alone, and a module's own fields alone."""
    signature = signature and _FLAX.sub("", signature)
    return tuple(text and text.replace("jaxlib._jax.", "") for text in (signature, returned))
