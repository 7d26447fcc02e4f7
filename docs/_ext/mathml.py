# Copyright (c) mmscale contributors.
"""Formulas as MathML, which browsers draw by themselves: no script, no font, no network."""

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.application import Sphinx


def setup(app: Sphinx) -> dict:
    app.add_html_math_renderer('mathml', (inline, None), (block, None))
    return dict(parallel_read_safe=True, parallel_write_safe=True)


def inline(writer, node: nodes.math) -> None:
    writer.body.append(convert(node.astext()))
    raise nodes.SkipNode


def block(writer, node: nodes.math_block) -> None:
    # Without an environment of its own a blank line would end the formula.
    formula = ' '.join(node.astext().split())
    writer.body.append(f'<div class="math">{convert(formula, display="block")}</div>')
    raise nodes.SkipNode
