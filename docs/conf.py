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
    'myst_nb',
    'sphinx.ext.autodoc',
    'sphinx.ext.napoleon',
    'sphinx.ext.viewcode',
    'sphinx_copybutton',
    'sphinx_design',
    'mathml',
    'measured_pages',
]
html_math_renderer = 'mathml'
exclude_patterns = ['_build', '_ext', '_static']
html_theme = 'furo'
html_static_path = ['_static']
html_css_files = ['mmscale.css']

myst_enable_extensions = ['colon_fence', 'dollarmath']
myst_heading_anchors = 4
nb_execution_mode = 'off'  # the notebook is stored with its outputs
# Prompts and comments behind commands are not copied.
copybutton_exclude = '.linenos, .gp, .go'

autodoc_member_order = 'bysource'
autodoc_typehints = 'none'  # docstrings say the types, with shapes and units
autodoc_preserve_defaults = True
autodoc_inherit_docstrings = False
napoleon_use_rtype = False
