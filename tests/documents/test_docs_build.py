"""The site of docs/ is built without a warning, and its API reference has every public module."""

import importlib
import pkgutil
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import dop_lightning
from tests.documents.search import unanswered

ROOT = Path(__file__).parents[2]

INTERNAL = {
    *("foundation.bundled", "foundation.folder_lock", "foundation.lazy", "foundation.moved", "foundation.parsing"),
    *("foundation.plotting", "foundation.quiet", "foundation.readers", "foundation.spread", "foundation.thread_count"),
    *("foundation.user_paths", "foundation.yaml_size", "foundation.checksums", "foundation.saved_state"),
    "foundation.collection",
    *("foundation.interrupts", "foundation.tracebacks", "problems.deferred"),
    *(
        "foundation.launched",
        "foundation.process_group",
        "foundation.terminal",
        "foundation.order_statistics",
        "foundation.renamed",
    ),
    *("foundation.names_of_0_2", "foundation.terminal"),
    *("images.chunked", "images.containers", "images.layout", "images.restoration", "images.settings"),
    *("images.stack_recovery", "images.stacks", "images.live_pictures", "images.live_widget"),
    *("images.history", "images.image_objects", "images.interrupt", "images.measured", "images.preview"),
    *("foundation.native", "foundation.idle", "foundation.waiting", "images.progress", "images.verdict"),
    *("lightning.checkpoint_file", "lightning.checkpoint_io", "lightning.clock", "lightning.state_dict"),
    "lightning.saved_batches",
    "integrations.napari",
    *(
        "runs.checkpoints",
        "runs.copies",
        "runs.damage",
        "runs.verification",
        "runs.histograms",
        "runs.locks",
        "runs.mosaics",
        "runs.ray_tasks",
        "runs.report",
    ),
}
"""Helpers. The command line has separate pages, and exports of the root are described there."""


BUILD = """
import gc, sys
from sphinx.cmd.build import main
gc.disable()  # a quarter of the time
sys.exit(main(sys.argv[1:]))
"""


def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    options = ["-b", "html", "-n", "-W", "--keep-going", "-q", "-t", "without_code", "docs", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-c", BUILD, *options], cwd=ROOT, capture_output=True, text=True, timeout=280
    )
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "mathematics.html").read_text(encoding="utf-8")
    assert 'href="api/engine.html#dop_lightning.engine.descent.BatchState.advance"' in page
    assert "<math" in page
    for name in ("index.html", "photograph.html", "results.html", "api/signals.html"):
        text = (tmp_path / name).read_text(encoding="utf-8")
        assert not re.search(r"<(?:script|link|img)[^>]*(?:src|href)=\"https?:", text), f"{name} needs the internet"
    check_redirects(tmp_path)
    if shutil.which("node"):  # which runs the script of the search
        assert unanswered(tmp_path) == []


def check_redirects(site: Path) -> None:
    """Each old page leads to a page that exists, each old anchor is on its page, and each target exists."""
    table = tomllib.loads((ROOT / "docs" / "_extensions" / "redirects.toml").read_text(encoding="utf-8"))
    anchors = {
        page.relative_to(site).with_suffix("").as_posix(): set(
            re.findall(r'\bid="([^"]+)"', page.read_text(encoding="utf-8"))
        )
        for page in site.rglob("*.html")
    }
    for old, new in table["pages"].items():
        assert f'"{new}.html"' in (site / f"{old}.html").read_text(encoding="utf-8")
        assert new in anchors
    for old, new in table["anchors"].items():
        (page, _, anchor), (target, _, heading) = old.partition("#"), new.partition("#")
        assert heading in anchors[target], new
        if page in table["pages"]:
            assert f'"{anchor}": "{target}.html#{heading}"' in (site / f"{page}.html").read_text(encoding="utf-8")
        else:
            assert page == target, old
            assert anchor in anchors[page], old


def test_the_reference_has_every_public_module() -> None:
    text = "\n".join(page.read_text(encoding="utf-8") for page in (ROOT / "docs" / "api").glob("*.md"))
    documented = set(re.findall(r"automodule:: dop_lightning\.(\S+)", text))
    documented |= {place.removeprefix("dop_lightning.") for place in dop_lightning.PUBLIC.values()}
    rooms = {module.name for module in pkgutil.iter_modules(dop_lightning.__path__) if module.name[0] != "_"} - {"cli"}
    public = {
        f"{room}.{module.name}"
        for room in rooms
        for module in pkgutil.iter_modules([str(ROOT / "dop_lightning" / room)])
        if not any(f"{name}.".startswith(f"{room}.{module.name}.") for name in documented)
    }
    assert public == INTERNAL
    for name in documented:
        assert importlib.import_module(f"dop_lightning.{name}").__doc__
