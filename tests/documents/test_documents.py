"""The pages of docs/: commands and code run at a tiny size, links lead somewhere, formulas to what computes them."""

import importlib
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from PIL import Image

from dop_lightning.cli.main import VERBS
from dop_lightning.images.presets import PRESETS
from tests.documents.harness import (
    DOCS,
    LANGUAGES,
    PAGES,
    ROOT,
    RUNNABLE,
    Reader,
    blocks,
    check_dop,
    check_script,
    commands,
    prepare,
    words_of,
)

HERE = Path(__file__).parent

MEASURED = [
    "damage.md",
    "performance.md",
    "refinement.md",
    "reliability.md",
    "results.md",
    "scaling.md",
    "speed.md",
    "theory.md",
]
"""Pages of numbers, whose commands take minutes to days: they are parsed, and their scripts tested elsewhere."""

HOW_TO = [
    "alpha.md",
    "arrays.md",
    "command_line.md",
    "configs.md",
    "files.md",
    "gpu.md",
    "logging.md",
    "masks.md",
    "metrics.md",
    "notebooks.md",
    "report.md",
    "resume.md",
    "rivals.md",
    "scientific.md",
    "status.md",
    "stopping.md",
    "video.md",
]
"""Pages that are read from top to bottom; scripts in them are parsed."""

GET_STARTED = ["photograph.md", "matrix.md", "experiments.md"]
"""Pages for newcomers, each of which is read from top to bottom."""

ELSEWHERE = {
    "checkpoints.md": "test_lightning.py",
    "cluster.md": "test_cluster.py",
    "deepinv.md": "../integrations/deepinv/test_document.py",
    "extending.md": "../contributing/test_extending.py",
    "lightning.md": "test_lightning.py",
    "operators.md": "test_operators.py",
    "own_signal.md": "test_own_signal.py",
    "tuning.md": "test_tuning.py",
}
"""Pages whose blocks have separate tests, and the files of these tests."""

README, CONTRIBUTING = ROOT / "README.md", ROOT / "CONTRIBUTING.md"

WHOLE = [*PAGES, README, CONTRIBUTING, ROOT / "CHANGELOG.md"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Working directory of a reader: the repository's folders, and custom files that the pages mention."""
    prepare(tmp_path)
    random = np.random.default_rng(0)
    for name in ("photo.png", "observed.png", "small.png", "blurred.png", "scans/a.tif", "scans/b.tif", "more/c.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(random.integers(1, 256, (20, 24), dtype=np.uint8)).save(tmp_path / name)
    Image.fromarray(np.full((3, 3), 255, dtype=np.uint8)).save(tmp_path / "kernel.png")
    frame = random.normal(200, 17, (30, 34)).astype(np.float32)
    fits.PrimaryHDU(frame).writeto(tmp_path / "frame.fits")
    images = [fits.ImageHDU(frame, name="SCI", ver=version) for version in (1, 2)]
    fits.HDUList([fits.PrimaryHDU(), *images]).writeto(tmp_path / "stack.fits")
    np.save(tmp_path / "temperature.npy", random.uniform(250, 320, (20, 24)).astype(np.float32))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("page", HOW_TO)
def test_a_how_to_runs_from_top_to_bottom(page: str, folder: Path) -> None:
    Reader(DOCS / page, skip=["OMP_NUM_THREADS=1 python scripts/"]).read()


@pytest.mark.parametrize("page", GET_STARTED)
def test_a_page_for_newcomers_runs_from_top_to_bottom(page: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PRESETS, "quick", replace(PRESETS["quick"], iterations=2, width=4))
    Reader(DOCS / page).read()
    written = {"photograph.md": "restored/report.html", "matrix.md": "separated/measurements/recovered.csv"}
    assert (folder / written.get(page, "runs/mine/results.csv")).is_file()
    if page == "experiments.md":
        assert len((folder / "runs" / "mine" / "results.csv").read_text().splitlines()) == 3


@pytest.mark.parametrize("page", [*MEASURED, *HOW_TO, "operators.md"])
def test_commands_of_measurements_are_accepted(page: str, folder: Path) -> None:
    for words in map(words_of, commands(DOCS / page)):
        if words[0] == "dop" and page in MEASURED:
            check_dop(words[1:])
        elif words[0] == "python" and words[1].endswith(".py"):
            check_script(ROOT / words[1], words[2:])


def test_each_page_with_blocks_is_tested() -> None:
    assert {page.name for page in PAGES if blocks(page, *RUNNABLE)} <= {*MEASURED, *HOW_TO, *ELSEWHERE, *GET_STARTED}
    for page, file in ELSEWHERE.items():
        assert page in (HERE / file).read_text(encoding="utf-8")


@pytest.mark.parametrize("page", [*MEASURED, *HOW_TO, *GET_STARTED, *ELSEWHERE])
def test_a_tested_page_has_blocks(page: str) -> None:
    """Where a page changes the language of its blocks, the tests above would pass without running any."""
    assert blocks(DOCS / page, *RUNNABLE)


@pytest.mark.parametrize("page", [*PAGES, README, CONTRIBUTING], ids=lambda page: page.name)
def test_blocks_have_a_language(page: Path) -> None:
    """Commands that are not run are marked as such, so that nothing escapes the tests above by mistake."""
    for block in blocks(page):
        assert block.kind in LANGUAGES, f"{page.name}:{block.line}"
        if block.kind == "":
            assert not re.search(r"^(\$|dop |python |make |pip )", block.code, re.M), f"{page.name}:{block.line}"
        if block.kind == "console":
            assert block.code.startswith("$ "), f"{page.name}:{block.line}"


def link_targets(page: Path) -> list[str]:
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    return re.findall(r"\[[^\]]*\]\((?!https?:)([^)\s]+)\)", text)


@pytest.mark.parametrize("page", WHOLE, ids=lambda page: page.name)
def test_links_are_valid(page: Path) -> None:
    for target in link_targets(page):
        path, _, name = target.partition("#")
        assert (page.parent / path).exists() or not path, f"{page.name}: {target}"
        if path.endswith(".py") and name:
            assert is_defined((page.parent / path).resolve(), name), f"{page.name}: {target}"


def is_defined(path: Path, name: str) -> bool:
    """Whether a module has a class, a function or a method of that name."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    found = importlib.import_module(".".join(part for part in parts if part != "__init__"))
    for part in name.split("."):
        if not hasattr(found, part):
            return False
        found = getattr(found, part)
    return True


def test_each_equation_of_the_paper_links_to_code() -> None:
    text = (DOCS / "mathematics.md").read_text(encoding="utf-8")
    sections = dict(re.findall(r"^### (Eqs?\. [^:\n]+):[^\n]*\n(.*?)(?=^##|\Z)", text, re.M | re.S))
    assert [f"Eq. {number}" for number in range(1, 16)] == [title for title in sections if title.startswith("Eq. ")]
    assert len(sections) == 15 + 7
    for title, section in sections.items():
        assert section.count("$$") == 2, title
        assert re.search(r"\]\(\.\./dop_lightning/[\w/]+\.py#\w+", section), title


def test_verbs_are_listed() -> None:
    text = (DOCS / "command_line.md").read_text(encoding="utf-8")
    assert [verb for verb in VERBS if f"`dop {verb}" not in text] == []
