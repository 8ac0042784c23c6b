"""Resolve links to files of the repository and Python names to the API reference; broken links are errors of the build.

Pages are also read on a git host, so they link to files: ``../dop_lightning/engine/descent.py#BatchState``. On the
site, such a link leads to the entry of the object in the API reference, and a link to a module or folder leads to the
entry of the module. Other files (configs, scripts) are downloads, as usual with MyST.

A link whose text is the file name of the page, ``[files.md](files.md)``, shows the title of the page.

Names are documented in the module that users import them from, which may differ from the module that defines them:
``dop_lightning.model.signals.Factor`` is defined in ``dop_lightning.model.signals.factor``. Names without an entry lead
to their module. Names that do not exist stay unresolved, which is a warning.
"""

import importlib
import re
from pathlib import PurePosixPath
from typing import Any

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.transforms.post_transforms import SphinxPostTransform

PACKAGE = "dop_lightning"
PAGES = {"CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
NAMED = re.compile(r"\[(?P<name>\w+\.md)\]\((?P<target>/?(?i:(?P=name))(?:#[\w-]+)?)\)")
OUTWARD = re.compile(r"\]\((?:\.\./)+(?P<path>[^)#\s]+)(?:#(?P<name>[\w.]+))?\)")


def rewritten(link: re.Match[str]) -> str:
    """Convert a link out of docs/ to a link to a page or a Python name."""
    path = PurePosixPath(link["path"])
    if link["path"] in PAGES:
        return f"](/{PAGES[link['path']]})"
    if path.parts[0] != PACKAGE or path.suffix not in ("", ".py"):
        return link[0]
    return f"](#{'.'.join([*path.with_suffix('').parts, *filter(None, [link['name']])])})"


def rewrite(app: Sphinx, page: str, source: list[str]) -> None:
    """Rewrite the links of a page before it is parsed."""
    source[0] = NAMED.sub(r"[](\g<target>)", OUTWARD.sub(rewritten, source[0]))


class NamesOfPages(SphinxPostTransform):
    """Convert Markdown links to ``#dop_lightning.…`` to Python references, before MyST looks for headings."""

    default_priority = 8

    def run(self, **kwargs: Any) -> None:
        """Assign the references to the Python domain."""
        for node in self.document.findall(pending_xref):
            if node["reftype"] == "myst" and str(node["reftarget"]).startswith(f"{PACKAGE}."):
                node["refdomain"], node["reftype"], node["refspecific"] = "py", "obj", False


def exists(name: str) -> bool:
    """Return whether a name is a module or an attribute of one."""
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        try:
            found: Any = importlib.import_module(".".join(parts[:end]))
        except ModuleNotFoundError:
            continue
        for part in parts[end:]:
            if not hasattr(found, part) and part not in getattr(found, "__annotations__", {}):
                return False
            found = getattr(found, part, None)
        return True
    return False


def places(name: str) -> list[str]:
    """Return candidates for the entry of a name: itself, the name in enclosing packages, and these packages."""
    parts = name.split(".")
    split = next((i for i, part in enumerate(parts) if part[0].isupper() or part.startswith("_")), len(parts) - 1)
    module, rest = parts[:split], parts[split:]
    around = [module[:end] for end in range(len(module), 0, -1)]
    return [name, *(".".join([*m, *rest]) for m in around), *(".".join(m) for m in around)]


def resolve(app: Sphinx, env: BuildEnvironment, node: pending_xref, text: nodes.Element) -> nodes.Element | None:
    """Resolve a name that is documented in another module than the one that defines it."""
    target = str(node.get("reftarget", ""))
    if node.get("refdomain") != "py" or not target.startswith(f"{PACKAGE}.") or not exists(target):
        return None
    domain = env.domains["py"]
    for name in places(target):
        node["reftarget"] = name
        found = domain.resolve_xref(env, node["refdoc"], app.builder, "obj", name, node, text)
        if found is not None:
            return found
    return None


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect the event handlers and the transform."""
    app.connect("source-read", rewrite)
    app.connect("missing-reference", resolve)
    app.add_post_transform(NamesOfPages)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
