"""How Sphinx makes the site of docs/: `make docs`. Neither the build nor the pages fetch anything."""

import importlib.metadata
import importlib.util
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_extensions"))

project = "dop_lightning"
release = importlib.metadata.version("dop_lightning")
project_copyright = "The dop_lightning developers"
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    *([] if tags.has("without_code") else ["sphinx.ext.viewcode"]),  # noqa: F821 (sphinx puts tags here)
    "sphinx_copybutton",
    "docstrings",
    "mathml",
    "redirects",
    "repository_links",
]
exclude_patterns = ["_build", "_extensions"]

# Blocks without a language are what was printed, or a list of files.
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
highlight_language = "none"

# A package's public names are those of its __all__, documented where users import them from.
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
autodoc_mock_imports = [name for name in ("deepinv",) if importlib.util.find_spec(name) is None]
autodoc_default_options = {"members": True, "show-inheritance": True}
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
python_maximum_signature_line_length = 88

# Names of other packages (torch, Lightning, Python) would need their inventories, which lie in the internet.
nitpicky = True
nitpick_ignore_regex = [("py:.*", r"(?!dop_lightning\.).*")]

html_theme = "furo"
html_title = f"dop_lightning {release}"
html_math_renderer = "mathml"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_search_scorer = str(Path(__file__).parent / "_static" / "scorer.js")
html_show_search_summary = False  # they are fetched, which browsers refuse for pages on a disk
