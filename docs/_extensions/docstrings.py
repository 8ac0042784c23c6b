"""Escape |s| in docstrings, which means an absolute value but is a substitution in reStructuredText."""

import re
from typing import Any

from sphinx.application import Sphinx

LITERAL = re.compile(r"(``.*?``|`.*?`)")
BARS = re.compile(r"\|(?=\S)([^|`]*[^\s|`])\|")


def escape(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Escape bars outside of literals."""
    for i, line in enumerate(lines):
        parts = LITERAL.split(line)
        parts[::2] = [BARS.sub(r"\\|\1\\|", part) for part in parts[::2]]
        lines[i] = "".join(parts)


def setup(app: Sphinx) -> dict[str, Any]:
    """Process each docstring before napoleon does."""
    app.connect("autodoc-process-docstring", escape, priority=400)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
