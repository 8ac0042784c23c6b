"""Render formulas as MathML, which browsers support natively: pages require no script, font or network."""

from typing import Any

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx
from sphinx.util import logging

logger = logging.getLogger(__name__)


def mathml(node: nodes.Element, block: bool) -> str:
    """Convert the LaTeX of a node to MathML; failures are warnings, which are errors of the build."""
    try:
        return str(tex2mathml(node.astext(), as_block=block))
    except Exception as error:  # docutils raises errors of several types
        logger.warning("cannot be translated to MathML: %s: %s", node.astext(), error, location=node)
        return ""


def inline(writer: Any, node: nodes.Element) -> None:
    """Render an inline formula."""
    writer.body.append(mathml(node, block=False))
    raise nodes.SkipNode


def block(writer: Any, node: nodes.Element) -> None:
    """Render a displayed formula, which scrolls on narrow pages."""
    writer.body.append(f'<div class="formula">{mathml(node, block=True)}</div>\n')
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the renderer ``mathml``."""
    app.add_html_math_renderer("mathml", (inline, None), (block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
