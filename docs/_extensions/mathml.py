"""Formulas as MathML, which browsers draw by themselves: pages need no script, no font and no network."""

from typing import Any

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx
from sphinx.util import logging

logger = logging.getLogger(__name__)


def mathml(node: nodes.Element, block: bool) -> str:
    """The MathML of a node with LaTeX; what docutils cannot translate is a warning, hence an error of the build."""
    try:
        return str(tex2mathml(node.astext(), as_block=block))
    except Exception as error:  # docutils has several kinds, and passes on those of its parts
        logger.warning("cannot be translated to MathML: %s: %s", node.astext(), error, location=node)
        return ""


def inline(writer: Any, node: nodes.Element) -> None:
    """A formula in a line."""
    writer.body.append(mathml(node, block=False))
    raise nodes.SkipNode


def block(writer: Any, node: nodes.Element) -> None:
    """A displayed formula, which scrolls where the page is narrow."""
    writer.body.append(f'<div class="formula">{mathml(node, block=True)}</div>\n')
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, Any]:
    """Offer the renderer as ``mathml``."""
    app.add_html_math_renderer("mathml", (inline, None), (block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
