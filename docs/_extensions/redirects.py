"""Keep old addresses of the site valid: renamed pages and headings, listed in redirects.toml.

A renamed page is replaced by a small HTML file that redirects to the new page, or to the page of a heading. A renamed
heading keeps its old anchor in addition to the new one.
"""

import json
import tomllib
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

TABLE: dict[str, dict[str, str]] = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))

PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>Moved</title>
<script>
const anchors = {anchors};
location.replace(anchors[location.hash.slice(1)] || "{target}.html");
</script>
<noscript><meta http-equiv="refresh" content="0; url={target}.html"></noscript>
</head>
<body><p>This page has moved: <a href="{target}.html">{target}.html</a></p></body>
</html>
"""


def address(target: str) -> str:
    """Return the address of ``page#anchor``."""
    page, _, anchor = target.partition("#")
    return f"{page}.html#{anchor}" if anchor else f"{page}.html"


def keep_anchors(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    """Add the old anchors of a page next to the new ones."""
    for old, new in TABLE["anchors"].items():
        (source, _, anchor), (target, _, heading) = old.partition("#"), new.partition("#")
        if source == target == page and "body" in context:
            for tag in (f'<section id="{heading}">', f'<span id="{heading}">'):  # headings of modules have two anchors
                context["body"] = context["body"].replace(tag, f'<span id="{anchor}"></span>{tag}')


def write_pages(app: Sphinx, error: Exception | None) -> None:
    """Write a redirecting page for each renamed page."""
    if error is not None or app.builder.format != "html":
        return
    for old, new in TABLE["pages"].items():
        moved = {
            name.partition("#")[2]: address(to) for name, to in TABLE["anchors"].items() if name.startswith(f"{old}#")
        }
        text = PAGE.format(anchors=json.dumps(moved), target=new)
        (Path(app.outdir) / f"{old}.html").write_text(text, encoding="utf-8")


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect the event handlers."""
    app.connect("html-page-context", keep_anchors)
    app.connect("build-finished", write_pages)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
