# Copyright (c) mmscale contributors.
"""The documentation site: ``make docs``."""

import sys
from pathlib import Path

DOCS = Path(__file__).resolve().parent
sys.path.insert(0, str(DOCS / '_ext'))

import mmscale  # noqa: E402

project = 'mmscale'
copyright = 'mmscale contributors'
release = version = mmscale.__version__
html_title = f'mmscale {release}'

extensions = [
    'myst_parser',
    'sphinx.ext.autodoc',
    'sphinx.ext.napoleon',
    'sphinx.ext.viewcode',
    'sphinx_copybutton',
    'sphinx_design',
    'measured_pages',
]
exclude_patterns = ['_build', '_ext']
html_theme = 'furo'
html_static_path = []

myst_enable_extensions = ['colon_fence', 'dollarmath']
myst_heading_anchors = 4
# Prompts and comments behind commands are not copied.
copybutton_exclude = '.linenos, .gp, .go'

autodoc_member_order = 'bysource'
autodoc_typehints = 'none'  # docstrings say the types, with shapes and units
autodoc_preserve_defaults = True
autodoc_inherit_docstrings = False
napoleon_use_rtype = False
