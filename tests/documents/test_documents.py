"""The pages of docs/: commands and code run at a tiny size, links lead somewhere, formulas to what computes them."""

import argparse
import importlib.util
import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dop_lightning.cli.main import VERBS
from dop_lightning.images.presets import PRESETS
from tests.documents.harness import DOCS, PAGES, ROOT, Reader, blocks, commands, prepare, status, words_of

MEASURED = ["performance.md", "reliability.md", "results.md", "scaling.md", "speed.md", "theory.md"]
"""Pages of numbers, whose commands take minutes to days: they are parsed, and their scripts tested elsewhere."""

HOW_TO = [
    "alpha.md",
    "command_line.md",
    "files.md",
    "gpu.md",
    "masks.md",
    "operators.md",
    "report.md",
    "resume.md",
    "stopping.md",
    "video.md",
]
"""Pages that are read from top to bottom; scripts in them are parsed."""

FIRST_HOUR = "first_hour.md"

ELSEWHERE = {"cluster.md": "test_cluster_docs.py", "own_signal.md": "test_docs.py"}

LANGUAGES = {"sh", "python", "yaml", "console", ""}

WHOLE = [*PAGES, ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a reader works: the repository's folders, and files of one's own that the pages speak of."""
    prepare(tmp_path)
    random = np.random.default_rng(0)
    for name in ("photo.png", "observed.png", "small.png", "blurred.png", "scans/a.tif", "scans/b.tif", "more/c.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(random.integers(1, 256, (20, 24), dtype=np.uint8)).save(tmp_path / name)
    Image.fromarray(np.full((3, 3), 255, dtype=np.uint8)).save(tmp_path / "kernel.png")
    np.save(tmp_path / "temperature.npy", random.uniform(250, 320, (20, 24)).astype(np.float32))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("page", HOW_TO)
def test_a_how_to_runs_from_top_to_bottom(page: str, folder: Path) -> None:
    Reader(page, skip=["OMP_NUM_THREADS=1 python scripts/"]).read()


def test_the_first_hour_runs_from_top_to_bottom(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PRESETS, "quick", replace(PRESETS["quick"], iterations=2, width=4))
    Reader(FIRST_HOUR).read()
    assert (folder / "restored" / "report.html").is_file()
    assert len((folder / "runs" / "mine" / "results.csv").read_text().splitlines()) == 3


@pytest.mark.parametrize("page", [*MEASURED, *HOW_TO])
def test_commands_of_measurements_are_accepted(page: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for block in blocks(DOCS / page):
        for command in commands(block) if block.kind == "sh" else []:
            words = words_of(command)
            if words[0] == "dop" and page in MEASURED:
                assert is_accepted_by_dop(words[1:]), command
            elif words[:1] == ["python"] and words[1].endswith(".py"):
                assert is_accepted_by_script(ROOT / words[1], words[2:], monkeypatch), command


def is_accepted_by_dop(arguments: list[str]) -> bool:
    if arguments[0] == "fit":
        return status([*arguments, "--print_config"]) == 0
    parser = importlib.import_module(VERBS[arguments[0]][0]).parser()
    return bool(vars(parser.parse_args(arguments[1:])))


class Parsed(Exception):
    """Leaves a script once it has understood its arguments."""


def is_accepted_by_script(path: Path, arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether a script's parser takes them; nothing of it runs after that."""
    parse = argparse.ArgumentParser.parse_args

    def parse_and_leave(self, *args, **kwargs):
        parse(self, *args, **kwargs)
        raise Parsed

    with monkeypatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "parse_args", parse_and_leave)
        patch.setattr(sys, "argv", [str(path), *arguments])
        patch.syspath_prepend(str(path.parent))
        spec = importlib.util.spec_from_file_location(f"document_{path.stem}", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        with pytest.raises(Parsed):
            module.main()
    return True


def test_each_page_with_blocks_is_tested() -> None:
    tested = {*MEASURED, *HOW_TO, *ELSEWHERE, FIRST_HOUR}
    with_blocks = {p.name for p in PAGES if any(block.kind in ("sh", "python") for block in blocks(p))}
    assert with_blocks <= tested
    for name in ELSEWHERE.values():
        assert (ROOT / "tests" / name).is_file()


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CONTRIBUTING.md"], ids=lambda page: page.name)
def test_blocks_say_what_they_are(page: Path) -> None:
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
def test_links_lead_somewhere(page: Path) -> None:
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


def test_each_equation_of_the_paper_has_what_computes_it() -> None:
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
